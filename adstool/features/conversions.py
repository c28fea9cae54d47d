"""Conversions as labels of examples: credited to clicks and views by window, and known when reported."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from adstool.config import Action, ConversionSettings, Settings
from adstool.errors import DataError, UsageError
from adstool.features.cache import built_folder
from adstool.features.dataset import Dataset
from adstool.features.log import coded_entities
from adstool.features.mapping import mapped
from adstool.progress import log
from adstool.warehouse import load_sql
from adstool.workspace import Workspace, read_json, write_json

CLICK = "click"  # the action that conversions follow
NEVER = np.iinfo(np.int64).max
HOUR = 3_600_000_000  # microseconds
ATTRIBUTIONS = ("last_touch", "position", "linear")
VIA_CLICK, VIA_VIEW = 1, 2
VERSION = 1  # raised when the files below change their meaning
# One row a conversion and an example that has a part in it, by example: file -> column of the query, type.
CREDITS: dict[str, tuple[str, type[np.generic]]] = {
    "row": ("example", np.int64),
    "kind": ("kind", np.int64),
    "via": ("via", np.int8),
    "credit": ("credit", np.float64),
    "value": ("value", np.float64),
    "reported_ts": ("reported", np.int64),
    "conversion": ("conversion", np.int64),
}


@dataclass(frozen=True)
class Known:
    """What was known of n examples at a moment."""

    credit: np.ndarray  # float32 [n, K], credit of the conversions reported by then
    value: np.ndarray  # float32 [n, K], their money by credit
    elapsed: np.ndarray  # int64 [n], microseconds since the click; -1 where there was none by then


class ConversionLabels:
    """Conversions credited to a Dataset's N examples, by K kinds. Times are microseconds UTC.

    kinds [K]; click_ts int64 [N], the first click (NEVER without one); end_ts, the end of the log; horizon,
    from a click until all that counts of it was reported; counted, conversions that could have been credited.
    """

    click_ts: np.ndarray

    def __init__(self, directory: Path) -> None:
        about = read_json(directory / "about.json")
        self.fingerprint = directory.name
        self.kinds: tuple[str, ...] = tuple(about["kinds"])
        self.end_ts = int(about["end_ts"])
        self.horizon = int(about["horizon"])
        self.counted = int(about["counted"])
        self.click_ts = mapped(directory / "click_ts.npy")
        self._credits = {name: mapped(directory / f"credits_{name}.npy") for name in CREDITS}

    def __len__(self) -> int:
        return len(self.click_ts)

    @cached_property
    def attributed(self) -> int:
        """How many conversions were credited to any example."""
        return len(np.unique(self._credits["conversion"]))

    def _part(self, rows: slice | None, via: int = 0) -> tuple[dict[str, np.ndarray], int, int]:
        """The credits of a slice of examples, `row` counted from its start; and its bounds."""
        start, stop, _ = (rows or slice(None)).indices(len(self))
        first, last = np.searchsorted(self._credits["row"], [start, stop])
        part = {name: np.asarray(column[first:last]) for name, column in self._credits.items()}
        part["row"] = part["row"] - start
        if via:
            keep = part["via"] == via
            part = {name: column[keep] for name, column in part.items()}
        return part, start, stop

    def first_reports(self, rows: slice | None = None) -> np.ndarray:
        """int64 [n, K]: the earliest report of a conversion credited to the example's click, else NEVER."""
        part, start, stop = self._part(rows, VIA_CLICK)
        found = np.full((stop - start, len(self.kinds)), NEVER)
        np.minimum.at(found, (part["row"], part["kind"]), part["reported_ts"])
        return found

    def as_of(
        self,
        ts: int,
        rows: slice | None = None,
        *,
        clicks_only: bool = False,
        within: int | None = None,
    ) -> Known:
        """What the log had heard by `ts` of a slice of examples (None: all).

        clicks_only: without what is credited to views. within: only what is reported at most so many
        microseconds after the example's click, and so nothing of views. Labels for training are as of the
        training cut-off; final ones are as of `end_ts` within `horizon`, for examples that have matured.
        """
        part, start, stop = self._part(rows, VIA_CLICK if clicks_only or within is not None else 0)
        click = np.asarray(self.click_ts[start:stop])
        keep = part["reported_ts"] <= ts
        if within is not None:
            keep &= part["reported_ts"] - click[part["row"]] <= within
        shape = (stop - start, len(self.kinds))
        cell = part["row"][keep] * shape[1] + part["kind"][keep]
        credit, value = (
            np.bincount(cell, weights=part[name][keep], minlength=shape[0] * shape[1])
            .reshape(shape)
            .astype(np.float32)
            for name in ("credit", "value")
        )
        elapsed = np.where(click <= ts, ts - np.minimum(click, ts), -1)
        return Known(credit, value, elapsed)

    def matured(self, rows: slice, example_ts: np.ndarray, ts: int, window: int | None = None) -> np.ndarray:
        """bool [n]: whether `window` (None: the horizon) had passed by `ts` since the click, or since the
        impression where there is no click. example_ts: the dataset's `ts`, [N]."""
        click = np.asarray(self.click_ts[rows])
        since = np.where(click == NEVER, np.asarray(example_ts[rows]), click)
        return np.asarray(since <= ts - (self.horizon if window is None else window))


def build_conversions(
    con: duckdb.DuckDBPyConnection, ws: Workspace, settings: Settings, dataset: Dataset
) -> ConversionLabels:
    """The conversions of the warehouse as labels of the dataset's examples, from the cache when nothing they
    depend on has changed.

    Raises UsageError for settings that make no sense, DataError when the log holds no conversion that counts
    or the examples are not of ads.
    """
    chosen = settings.conversion
    click = _check(settings, dataset)
    kinds = _kinds(con, chosen)
    wanted = {
        "version": VERSION,
        "examples": dataset.fingerprint,
        "conversion": asdict(chosen),
        "kinds": list(kinds),
    }
    target = built_folder(
        ws.cache / "conversions", wanted, lambda partial: _write(con, chosen, click, kinds, dataset, partial)
    )
    return ConversionLabels(target)


def _check(settings: Settings, dataset: Dataset) -> Action:
    """The action of clicks; raises UsageError or DataError for what cannot be done."""
    chosen = settings.conversion
    if chosen.attribution not in ATTRIBUTIONS:
        raise UsageError(
            f"conversion.attribution = {chosen.attribution!r} is not known.",
            f"Use one of: {', '.join(ATTRIBUTIONS)}.",
        )
    for name, least in (("click_window_hours", 1e-9), ("view_window_hours", 0), ("report_window_hours", 0)):
        if not least <= getattr(chosen, name) < 1e6:
            raise UsageError(
                f"conversion.{name} = {getattr(chosen, name)} is no window.",
                "Give hours above 0 (a view or report window may be 0).",
            )
    if dataset.encoder.spec.corpus != "ad":
        raise DataError(
            "Conversions are credited to ads, but features.item_type makes the examples of pins.",
            'Ingest impressions of ads, and leave features.item_type at "auto".',
        )
    click = next((action for action in settings.actions if action.name == CLICK), None)
    if click is None:
        raise UsageError(
            f"No [[actions]] entry is named '{CLICK}', which conversions are credited to.",
            f'Add one: [[actions]] name = "{CLICK}".',
        )
    return click


def _kinds(con: duckdb.DuckDBPyConnection, chosen: ConversionSettings) -> tuple[str, ...]:
    """The kinds asked for, else those of the log; raises DataError when none of them is in the log."""
    found = con.execute(load_sql("conversions_kinds"), {"offline": chosen.offline}).fetchall()
    known = [str(kind) for kind, _ in found]
    kinds = tuple(dict.fromkeys(chosen.kinds)) or tuple(known)
    missing = [kind for kind in kinds if kind not in known]
    if len(missing) == len(kinds):
        raise DataError(
            f"The log has no conversion of kind {', '.join(missing)}."
            if missing
            else "The log has no conversions that count.",
            f"Kinds of the log: {', '.join(known)}." if known else "Ingest some: adstool ingest FILES",
        )
    for kind in missing:
        log.warning("conversion.kinds names '%s', of which the log has none; it is left out.", kind)
    return kinds


def _write(
    con: duckdb.DuckDBPyConnection,
    chosen: ConversionSettings,
    click: Action,
    kinds: tuple[str, ...],
    dataset: Dataset,
    directory: Path,
) -> None:
    """Every file of the labels into `directory`."""
    spec = dataset.encoder.spec
    with coded_entities(con, dataset.users, dataset.items, dataset.surfaces, spec.corpus):
        _number_examples(con, dataset)
        _make(con, "conversion_labels", "features_labels", actions=[CLICK], windows=[click.window_hours])
        _make(con, "conversion_clicks", "conversions_clicks")
        _make(
            con,
            "conversion_counted",
            "conversions_counted",
            kinds=list(kinds),
            offline=chosen.offline,
            default_value=chosen.default_value,
            max_value=chosen.max_value,
        )
        click_window, view_window = (
            round(hours * HOUR) for hours in (chosen.click_window_hours, chosen.view_window_hours)
        )
        credits = con.execute(
            load_sql("conversions_credits"),
            {"click_window": click_window, "view_window": view_window, "attribution": chosen.attribution},
        ).fetchnumpy()
        clicks = con.execute("select example, ts from conversion_clicks").fetchnumpy()
        counted = con.execute("select count(*) from conversion_counted").fetchall()[0][0]
        end_ts = con.execute(load_sql("conversions_end")).fetchall()[0][0]
    click_ts = np.full(len(dataset), NEVER)
    click_ts[clicks["example"]] = clicks["ts"]
    np.save(directory / "click_ts.npy", click_ts)
    for name, (column, dtype) in CREDITS.items():
        np.save(directory / f"credits_{name}.npy", np.asarray(credits[column]).astype(dtype))
    horizon = click_window + round(chosen.report_window_hours * HOUR)
    about = {
        "kinds": list(kinds),
        "end_ts": int(end_ts),
        "horizon": horizon,
        "counted": int(counted),
    }
    write_json(directory / "about.json", about)


def _make(con: duckdb.DuckDBPyConnection, table: str, query: str, **parameters: Any) -> None:
    con.execute(f"create or replace temp table {table} as {load_sql(query)}", parameters or None)


def _number_examples(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    """feature_examples as it was when the dataset was built, so that its numbers are the dataset's rows."""
    _make(con, "feature_examples", "features_examples")
    found = con.execute("select ts from feature_examples order by example").fetchnumpy()["ts"]
    if not np.array_equal(found, np.asarray(dataset.ts)):
        raise DataError(
            "The warehouse has changed since the examples were built.", "Run it again once nothing writes."
        )
