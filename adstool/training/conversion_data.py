"""Which clicks a conversion model is trained and judged on, and what was known of them at its cut-off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adstool.errors import DataError
from adstool.training.conversion_metrics import Outcome
from adstool.training.delay import DAY, Clicks, Stream, observe

if TYPE_CHECKING:
    from adstool.features.conversions import ConversionLabels
    from adstool.features.dataset import Dataset

LONGEST = 0.25  # of the log, that a horizon may be: twice it is trained on, once it is waited for
BUCKETS = 8  # of delays, between which the delay model tells apart
WAITED = 0.25  # of the horizon, that the wait may be
HOUR = DAY // 24


@dataclass(frozen=True)
class Windows:
    """The cut-off and the rows on its sides. Times are microseconds."""

    cut: int  # what is reported later is not known in training
    horizon: int  # from a click until a conversion counts no more
    wait: int  # after a click until es-dfm takes it in
    end: int  # of the log: all that is matured by then can be judged
    train: slice  # impressions before the cut, those held out for validation among them
    test: slice  # impressions after it, whose horizon has passed by the end

    @property
    def days(self) -> float:
        """The horizon in days."""
        return self.horizon / DAY

    def to_json(self) -> dict[str, int]:
        """The times, for the run's record."""
        return {name: getattr(self, name) for name in ("cut", "horizon", "wait", "end")}


def windows_of(dataset: Dataset, labels: ConversionLabels, test_share: float, wait_hours: float) -> Windows:
    """The last `test_share` of the impressions that have matured is the test, and its start the cut-off.

    The horizon is that of the labels, or a quarter of the log where that is shorter: a log that ends before
    its conversions are reported can neither be learned from nor judged. Raises DataError for an empty part.
    """
    ts = np.asarray(dataset.ts)
    span = labels.end_ts - int(ts[0])
    horizon = min(labels.horizon, int(span * LONGEST))
    wait = min(round(wait_hours * HOUR), int(horizon * WAITED))
    stop = int(np.searchsorted(ts, labels.end_ts - horizon, side="right"))
    start = int(stop * (1.0 - test_share))
    cut = int(ts[min(start, len(ts) - 1)])
    start = int(np.searchsorted(ts, cut))
    if not 0 < start < stop:
        raise DataError(
            f"The log of {span / DAY:.1f} days has no impressions on both sides of a cut-off.",
            "Ingest more events, or shorten conversion.click_window_hours.",
        )
    return Windows(cut, horizon, wait, labels.end_ts, slice(0, start), slice(start, stop))


def held_out(request: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """[n]: a random `share` of requests, always the same ones: validation sees the same days as training."""
    hashed = (request.astype(np.uint64) * np.uint64(2654435761)) % np.uint64(1 << 32)
    return np.asarray(hashed < np.uint64(int(share * (1 << 32))))


@dataclass(frozen=True)
class Observations:
    """What is trained on: impressions and, again, late conversions; R rows, K kinds, ordered by `row`."""

    row: NDArray[np.int64]  # [R], of the dataset
    clicked: NDArray[np.float32]  # [R], by the cut
    first: NDArray[np.float32]  # [R], 0 where a conversion is taken in again
    entered: NDArray[np.float32]  # [R], 0 for impressions too close to the cut to say anything of conversions
    label: NDArray[np.float32]  # [R, K], nan where unknown and without a click
    corrected: NDArray[np.float32]  # [R], 1 where the weights of the method apply
    repeat: NDArray[np.float32]  # [R], how many conversions one that is taken in again stands for
    days: NDArray[np.float32]  # [R, K], see delay.Stream
    value: NDArray[np.float32]  # [R, K], money of the conversions behind label 1, else nan
    age: NDArray[np.float32]  # [R], days since the click at the cut
    late: NDArray[np.float32]  # [R, K], whether a conversion came after the wait; see delay.Stream

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class ConversionData:
    """Everything that training and judging read beside the model's inputs."""

    windows: Windows
    kinds: tuple[str, ...]
    train: Observations
    valid: Observations
    valid_rows: NDArray[np.int64]  # held-out impressions of which all was known at the cut
    test_rows: NDArray[np.int64]  # impressions after it that have matured since
    splits: Mapping[str, slice]  # for the record: how many rows each part has
    fingerprint: str

    @property
    def base_rates(self) -> NDArray[np.float64]:
        """The share of impressions clicked, and of clicks converted by kind as far as known, [1 + K]."""
        seen = self.train
        clicks = float(seen.clicked[seen.first > 0].sum())
        converted = (seen.label == 1).sum(axis=0)
        whole = np.r_[float(seen.first.sum()), np.full(len(self.kinds), clicks)]
        return np.asarray((np.r_[clicks, converted] + 0.5) / (whole + 1.0)).clip(1e-6, 0.9)

    @property
    def delay_edges(self) -> NDArray[np.float32]:
        """The edges of BUCKETS parts of the horizon in days, [BUCKETS + 1]: narrow first, wide at the end."""
        return np.asarray(self.windows.days * np.linspace(0, 1, BUCKETS + 1) ** 2, dtype=np.float32)

    @property
    def delay_shares(self) -> NDArray[np.float64]:
        """The share of conversions of matured clicks between the edges, by kind, [BUCKETS, K]: a start."""
        seen = self.train
        known = (seen.label == 1) & np.isfinite(seen.days) & (seen.age >= self.windows.days)[:, None]
        bucket = np.searchsorted(self.delay_edges[1:-1], seen.days)
        counts = np.array([(known & (bucket == number)).sum(axis=0) for number in range(BUCKETS)]) + 1.0
        return np.asarray(counts / counts.sum(axis=0))

    @property
    def late_share(self) -> NDArray[np.float64]:
        """The share of conversions that come after the wait, by kind, [K]."""
        late, repeat = self.train.late, self.train.repeat[:, None]
        known = (~np.isnan(late) * repeat).sum(axis=0)
        return np.asarray((np.nansum(late * repeat, axis=0) + 0.5) / (known + 1.0)).clip(1e-3, 0.999)


def conversion_data(
    dataset: Dataset, labels: ConversionLabels, windows: Windows, delay: str, valid_share: float
) -> ConversionData:
    """What `delay` observes of the log at the cut-off; see delay.observe.

    Raises DataError when no click of training has converted by the cut.
    """
    held = held_out(np.asarray(dataset.request[windows.train]), valid_share)
    rows = np.arange(windows.train.start, windows.train.stop)
    train = observations(dataset, labels, windows, rows[~held], delay)
    if not (train.label == 1).any():
        raise DataError(
            f"None of {int(train.clicked.sum()):,} clicks before the cut-off has a conversion credited to it "
            "and reported by then.",
            "See `adstool status` for conversions of unknown users; or widen conversion.click_window_hours.",
        )
    old = labels.matured(windows.train, dataset.ts, windows.cut, windows.horizon)
    valid_rows, test_rows = rows[held & old], judged_rows(dataset, labels, windows)
    return ConversionData(
        windows=windows,
        kinds=labels.kinds,
        train=train,
        valid=observations(dataset, labels, windows, rows[held], delay),
        valid_rows=valid_rows,
        test_rows=test_rows,
        splits={
            "train": slice(0, int((~held).sum())),
            "valid": slice(0, len(valid_rows)),
            "test": slice(0, len(test_rows)),
        },
        fingerprint=data_fingerprint(dataset, labels),
    )


def judged_rows(dataset: Dataset, labels: ConversionLabels, windows: Windows) -> NDArray[np.int64]:
    """The impressions after the cut whose horizon has passed by the end of the log."""
    fresh = labels.matured(windows.test, dataset.ts, windows.end, windows.horizon)
    return np.asarray(np.flatnonzero(fresh) + windows.test.start, dtype=np.int64)


def data_fingerprint(dataset: Dataset, labels: ConversionLabels) -> str:
    """What a conversion model is trained on."""
    return f"{dataset.fingerprint}-{labels.fingerprint}"


def observations(
    dataset: Dataset,
    labels: ConversionLabels,
    windows: Windows,
    rows: NDArray[np.int64],
    delay: str,
) -> Observations:
    """What `delay` observes of impressions `rows` (increasing, before the cut) at the cut-off."""
    part = slice(windows.train.start, windows.train.stop)
    wait = windows.wait if delay == "es-dfm" else 0
    entered = np.asarray(dataset.ts[part])[rows] <= windows.cut - wait
    click_ts, reported = np.asarray(labels.click_ts[part])[rows], labels.first_reports(part)[rows]
    money = labels.as_of(windows.cut, part, within=windows.horizon).value[rows]
    is_click = click_ts <= windows.cut
    clicks = Clicks(np.flatnonzero(is_click), click_ts[is_click], reported[is_click])
    stream = observe(clicks, windows.cut, delay, windows.wait, windows.horizon)
    age = np.where(is_click, windows.cut - np.minimum(click_ts, windows.cut), 0) / DAY
    return _joined(rows, np.flatnonzero(~is_click), stream, money, entered, age)


def known_outcome(labels: ConversionLabels, rows: NDArray[np.int64], moment: int, horizon: int) -> Outcome:
    """What became of impressions `rows` (increasing) whose horizon has passed by `moment`."""
    part = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
    known = labels.as_of(moment, part, within=horizon)
    inside = rows - part.start
    clicked = np.asarray(labels.click_ts[part])[inside] <= moment
    return Outcome(clicked, known.credit[inside] > 0, known.value[inside])


def _joined(
    rows: NDArray[np.int64],
    unclicked: NDArray[np.int64],
    stream: Stream,
    money: NDArray[np.float32],
    entered: NDArray[np.bool_],
    age: NDArray[np.float64],
) -> Observations:
    """The stream of clicks beside the impressions without one, in the order of rows."""
    at = np.concatenate([unclicked, stream.row])
    order = np.argsort(at, kind="stable")
    at, none = at[order], len(unclicked)

    def column(fill: float, values: NDArray[np.generic]) -> NDArray[np.float32]:
        filled = np.full((none, *values.shape[1:]), fill, dtype=np.float32)
        return np.concatenate([filled, values.astype(np.float32)])[order]

    label = column(np.nan, stream.label)
    return Observations(
        row=rows[at],
        clicked=column(0.0, np.ones(len(stream.row))),
        first=column(1.0, stream.first),
        entered=entered[at].astype(np.float32),
        label=label,
        corrected=column(0.0, stream.corrected),
        repeat=column(1.0, stream.repeat),
        days=column(np.inf, stream.days),
        value=np.where(label == 1, money[at], np.nan).astype(np.float32),
        age=age[at].astype(np.float32),
        late=column(np.nan, stream.late),
    )
