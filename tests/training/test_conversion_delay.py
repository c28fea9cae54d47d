"""What each method observes at the cut-off, against simulated clicks of which the end is known."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adstool.errors import UsageError
from adstool.training.conversion_losses import es_dfm_weights, fnw_weights
from adstool.training.delay import DAY, Clicks, matured, observe

NEVER = np.iinfo(np.int64).max
RATE, MEAN_DAYS = 0.3, 3.0
WAIT, HORIZON, CUT = DAY, 14 * DAY, 60 * DAY


@pytest.fixture(scope="module")
def clicks() -> Clicks:
    """A steady log of 60 days: 30 % convert, delays exponential, 3 days on average, at most the horizon."""
    rng = np.random.default_rng(7)
    n = 120_000
    ts = np.sort(rng.integers(0, CUT, n))
    delay = np.minimum(rng.exponential(MEAN_DAYS * DAY, n), HORIZON).astype(np.int64)
    reported = np.where(rng.random(n) < RATE, ts + delay, NEVER)
    return Clicks(np.arange(n), ts, reported[:, None])


@pytest.fixture(scope="module")
def growing() -> Clicks:
    """28 days whose traffic grows to four times what it was at first, and has a rhythm of days."""
    rng = np.random.default_rng(8)
    n, days = 120_000, 28.0
    when = np.sqrt(rng.uniform(1 / 16, 1.0, n)) * days  # the density rises with the day
    when = when[rng.random(n) < 0.6 + 0.4 * np.sin(2 * np.pi * when)] / days
    ts = np.sort(CUT - ((1.0 - when) * days * DAY).astype(np.int64))
    delay = np.minimum(rng.exponential(MEAN_DAYS * DAY, len(ts)), HORIZON).astype(np.int64)
    reported = np.where(rng.random(len(ts)) < RATE, ts + delay, NEVER)
    return Clicks(np.arange(len(ts)), ts, reported[:, None])


def weighted_rate(clicks: Clicks, method: str, repeated: bool = True) -> float:
    """The rate that minimises the weighted cross entropy of the stream, with the true p of the weights."""
    stream = observe(clicks, CUT, method, WAIT, HORIZON)
    label = torch.from_numpy(stream.label)
    early = RATE * (1 - np.exp(-WAIT / DAY / MEAN_DAYS))
    if method == "fnw":
        weight, _ = fnw_weights(label, torch.tensor(RATE))
    elif method == "es-dfm":
        late, never = torch.tensor(RATE - early), torch.tensor((1 - RATE) / (1 - early))
        weight, _ = es_dfm_weights(label, late, never)
    else:
        weight = torch.ones_like(label)
    weight = torch.where(torch.from_numpy(stream.corrected)[:, None], weight, 1.0)
    if repeated:
        weight = weight * torch.from_numpy(stream.repeat)[:, None]
    known = ~torch.isnan(label)
    return float((weight * label)[known].sum() / weight[known].sum())


@pytest.mark.parametrize("method", ["fnw", "es-dfm", "oracle"])
def test_the_stream_weighted_gives_the_final_rate(clicks: Clicks, method: str) -> None:
    assert weighted_rate(clicks, method) == pytest.approx(RATE, rel=0.02)


@pytest.mark.parametrize("method", ["fnw", "es-dfm"])
def test_growing_traffic_is_allowed_for(growing: Clicks, method: str) -> None:
    assert weighted_rate(growing, method, repeated=False) < RATE * 0.97
    assert weighted_rate(growing, method) == pytest.approx(RATE, rel=0.02)


def test_labels_as_they_are_known_at_the_cut_are_too_low(clicks: Clicks) -> None:
    assert weighted_rate(clicks, "none") < RATE * 0.97


@pytest.mark.parametrize("method", ["none", "fnw", "es-dfm", "dfm"])
def test_nothing_reported_after_the_cut_is_seen(clicks: Clicks, method: str) -> None:
    late = clicks.reported > CUT
    assert (late & (clicks.reported != NEVER)).any()
    blind = Clicks(clicks.row, clicks.ts, np.where(late, NEVER, clicks.reported))
    full, cut = (observe(c, CUT, method, WAIT, HORIZON) for c in (clicks, blind))
    np.testing.assert_array_equal(full.row, cut.row)
    np.testing.assert_array_equal(full.label, cut.label)
    np.testing.assert_array_equal(full.days, cut.days)


def one(ts: int, reported: int) -> Clicks:
    return Clicks(np.array([5]), np.array([ts]), np.array([[reported]]))


def labels(clicks: Clicks, method: str) -> list[float]:
    label: NDArray[np.float32] = observe(clicks, CUT, method, WAIT, HORIZON).label
    return [float(value) for value in label[:, 0]]


def test_a_late_conversion_is_taken_in_again_as_a_positive() -> None:
    click = one(CUT - 5 * DAY, CUT - 2 * DAY)
    stream = observe(click, CUT, "es-dfm", WAIT, HORIZON)
    assert labels(click, "es-dfm") == [0.0, 1.0]
    assert stream.first.tolist() == [True, False]
    assert stream.row.tolist() == [5, 5]
    assert stream.corrected.all()


def test_a_conversion_within_the_wait_is_one_observation() -> None:
    assert labels(one(CUT - 5 * DAY, CUT - 5 * DAY + WAIT // 2), "es-dfm") == [1.0]
    assert labels(one(CUT - 5 * DAY, CUT - 5 * DAY + WAIT // 2), "fnw") == [0.0, 1.0]


def test_a_click_within_the_wait_of_the_cut_is_not_yet_taken_in() -> None:
    assert np.isnan(labels(one(CUT - WAIT // 2, NEVER), "es-dfm")).all()
    assert labels(one(CUT - WAIT // 2, NEVER), "fnw") == [0.0]


def test_days_are_to_the_report_or_since_the_click() -> None:
    def days(click: Clicks) -> float:
        return float(observe(click, CUT, "dfm", WAIT, HORIZON).days[0, 0])

    assert days(one(CUT - 5 * DAY, CUT - 2 * DAY)) == 3.0
    assert days(one(CUT - 5 * DAY, NEVER)) == 5.0
    assert days(one(CUT - 5 * DAY, CUT + DAY)) == 5.0
    assert days(one(CUT - 15 * DAY, NEVER)) == np.inf


def test_matured_clicks_are_those_of_which_all_is_known(clicks: Clicks) -> None:
    old = clicks.part(matured(clicks, CUT, WAIT, HORIZON))
    assert len(old.row) > 0
    assert (old.reported[old.converted(HORIZON)] <= CUT).all()


def test_an_unknown_method_is_a_usage_error(clicks: Clicks) -> None:
    with pytest.raises(UsageError, match="--delay guess") as caught:
        observe(clicks, CUT, "guess", WAIT, HORIZON)
    assert "es-dfm" in caught.value.hint
