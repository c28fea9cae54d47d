"""Writing the examples of a data set: streamed from DuckDB into .npy files, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adstool.config import Action, Settings
from adstool.content.text import normalise, tokens
from adstool.errors import AdstoolError
from adstool.features.counters import Raw, base_rates, count_examples, safe_half_lives
from adstool.features.encoder import HOURS, WEEKDAYS, FeatureEncoder, Vocabulary, item_values
from adstool.features.engagements import Engagements, content_summary
from adstool.features.finish import finish
from adstool.features.items import ItemTable
from adstool.features.log import CodedLog, coded_log
from adstool.features.mapping import read_scattered
from adstool.features.singles import hour_and_weekday, single_values
from adstool.features.spec import FeatureSpec
from adstool.progress import track
from adstool.warehouse import load_sql
from adstool.workspace import mapped_array, write_json

CHUNK = 65_536
# One row an example: name -> type of the .npy file.
EXAMPLE_ARRAYS: dict[str, type[np.generic]] = {
    "ts": np.int64,
    "user": np.int32,
    "item_row": np.int32,
    "surface": np.int16,
    "position": np.int16,
    "propensity": np.float32,
    "request": np.int64,
    "sample_weight": np.float32,
    "history_start": np.int64,
    "history_end": np.int64,
}


@dataclass
class _Build:
    """What the steps of one build share."""

    directory: Path
    log: CodedLog
    engagements: Engagements
    arrays: dict[str, np.ndarray]
    queries: list[str]
    query: np.ndarray  # int32 [N] into queries, -1 none
    train: int  # how many examples are trained on

    @property
    def rows(self) -> int:
        return len(self.query)

    def chunks(self, label: str) -> list[slice]:
        starts = range(0, self.rows, CHUNK)
        return list(track([slice(s, min(s + CHUNK, self.rows)) for s in starts], label, unit="chunk"))

    def create(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
        return mapped_array(self.directory / f"{name}.npy", dtype, shape)


def materialise(
    con: duckdb.DuckDBPyConnection, settings: Settings, spec: FeatureSpec, items: ItemTable, directory: Path
) -> None:
    """Write every file of a data set into `directory`.

    Raises AdstoolError when the log shows no ranked item of the catalogue, or at one single time only.
    """
    with coded_log(con, spec, items) as log:
        spec = safe_half_lives(spec, log.first_ts, log.last_ts)
        log = CodedLog(con, spec, items, log.users, log.surfaces, log.sizes, log.first_ts, log.last_ts)
        build = _write_examples(log, settings, directory)
        _write_labels(build, settings.actions)
        _write_content(build)
        encoder = _fit(build, settings)
        _write_categorical(build, encoder)
        _write_numeric(build, encoder)
        encoder.save(directory)
        log.users.save(directory)
        items.save(directory)
        build.engagements.save(directory)
        for array in build.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()


def _write_examples(log: CodedLog, settings: Settings, directory: Path) -> _Build:
    """The plain columns of every example, their splits and the ranges of their histories."""
    con = log.con
    con.execute(f"create or replace temp table feature_examples as {load_sql('features_examples')}")
    rows = int(con.execute("select count(*) from feature_examples").fetchall()[0][0])
    if not rows:
        raise AdstoolError(
            f"The log has no impression of a catalogue {log.spec.corpus}.",
            "Ingest events with action 'impression' and the catalogue they belong to.",
        )
    build = _Build(directory, log, log.engagements(), {}, [], np.full(rows, -1, dtype=np.int32), 0)
    arrays = {name: build.create(name, dtype, (rows,)) for name, dtype in EXAMPLE_ARRAYS.items()}
    build.arrays.update(arrays)
    numbers: dict[str | None, int] = {}
    reader = con.sql(load_sql("features_example_columns")).to_arrow_reader(CHUNK)
    at = 0
    for batch in reader:
        here = slice(at, at + batch.num_rows)
        at += batch.num_rows
        for name, source in (
            ("ts", "ts"),
            ("user", "user_no"),
            ("item_row", "item_no"),
            ("request", "request"),
        ):
            arrays[name][here] = batch.column(source).to_numpy()
        arrays["surface"][here] = batch.column("surface_no").fill_null(-1).to_numpy()
        logged = batch.column("position").fill_null(-1).to_numpy()
        arrays["position"][here] = np.minimum(logged + 1, np.iinfo(np.int16).max)
        arrays["propensity"][here] = batch.column("propensity").fill_null(float("nan")).to_numpy()
        build.query[here] = _query_numbers(batch.column("query"), numbers)
        start, end = build.engagements.before(arrays["user"][here], arrays["ts"][here])
        arrays["history_start"][here], arrays["history_end"][here] = start, end
    arrays["sample_weight"][:] = 1.0
    build.queries = [text for text in numbers if text is not None]
    splits = split_by_time(arrays["ts"], settings.features.valid_fraction, settings.features.test_fraction)
    build.train = splits["train"].stop
    write_json(directory / "splits.json", {name: [part.start, part.stop] for name, part in splits.items()})
    write_json(directory / "surfaces.json", log.surfaces)
    return build


def _query_numbers(column: pa.Array, numbers: dict[str | None, int]) -> np.ndarray:
    """The number of every query of a batch after normalising, -1 for none; new ones are added to
    `numbers`."""
    encoded = column.dictionary_encode()
    known: list[int] = []
    for text in encoded.dictionary.to_pylist():
        words = normalise(text)
        known.append(-1 if words is None else numbers.setdefault(words, len(numbers)))
    places = encoded.indices.fill_null(len(known)).to_numpy()
    return np.asarray(np.asarray([*known, -1], dtype=np.int32)[places])


def split_by_time(ts: np.ndarray, valid_fraction: float, test_fraction: float) -> dict[str, slice]:
    """Train, valid and test as slices of examples sorted by time; one instant is never on both sides of a
    boundary.

    Raises AdstoolError when nothing is left to train on.
    """
    rows = len(ts)
    wanted = [int(rows * (1.0 - valid_fraction - test_fraction)), int(rows * (1.0 - test_fraction))]
    first, second = (
        int(np.searchsorted(ts, ts[min(place, rows - 1)])) if place < rows else rows for place in wanted
    )
    if first <= 0:
        raise AdstoolError(
            f"{rows} impressions cannot be split by time: too many share their first instant.",
            "Ingest a longer log, or set features.valid_fraction and features.test_fraction lower.",
        )
    return {"train": slice(0, first), "valid": slice(first, second), "test": slice(second, rows)}


def _write_labels(build: _Build, actions: Sequence[Action]) -> None:
    """labels.npy [N, A]: see features_labels.sql for which impression an action belongs to."""
    labels = build.create("labels", np.float32, (build.rows, len(actions)))
    labels[:] = 0.0
    parameters: dict[str, Any] = {
        "actions": [action.name for action in actions],
        "windows": [float(action.window_hours) for action in actions],
    }
    for batch in build.log.con.sql(load_sql("features_labels"), params=parameters).to_arrow_reader(CHUNK):
        example, number = batch.column("example").to_numpy(), batch.column("action").to_numpy()
        events = batch.column("events").to_numpy()
        valued = batch.column("valued").to_numpy()
        amount = batch.column("amount").fill_null(0.0).to_numpy()
        for index, action in enumerate(actions):
            mine = number == index + 1
            value = {
                "binary": np.ones(len(amount)),
                "duration": np.where(valued > 0, amount, np.nan),
                "count": amount + (events - valued),  # an event without a value counts one
            }[action.kind]
            labels[example[mine], index] = value[mine]
    build.arrays["labels"] = labels


def _write_content(build: _Build) -> None:
    """content_summaries.npy [E + 1, D]: the user's summary after every engagement; row 0 is of users without
    any."""
    engagements, spec, content = build.engagements, build.log.spec, build.log.items.content
    table = build.create("content_summaries", np.float32, (len(engagements) + 1, content.shape[1]))
    table[0] = 0.0
    user = np.repeat(np.arange(len(engagements.offsets) - 1), np.diff(engagements.offsets))
    step = max(1, 8_000_000 // (spec.content_recent * content.shape[1]))
    for at in range(0, len(engagements), step):
        end = np.arange(at, min(at + step, len(engagements))) + 1
        places = engagements.recent(engagements.offsets[user[end - 1]], end, spec.content_recent)
        table[end] = content_summary(engagements, places, content, spec.content_decay)
    read_scattered(table)
    build.arrays["content_summaries"] = table


def _counts(values: pa.Array | pa.ChunkedArray, weights: np.ndarray) -> dict[str, int]:
    """The total weight of every distinct value that is not missing."""
    column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = column.dictionary_encode()
    indices = pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    totals = np.bincount(indices, weights=weights, minlength=len(encoded.dictionary) + 1)
    return {value: int(n) for value, n in zip(encoded.dictionary.to_pylist(), totals, strict=False) if value}


def _fit(build: _Build, settings: Settings) -> FeatureEncoder:
    """Vocabularies and priors from the training examples; the numbers' scale is filled in later."""
    items, users, spec, arrays = build.log.items, build.log.users, build.log.spec, build.arrays
    train = slice(0, build.train)
    until = int(arrays["ts"][build.train - 1]) + 1
    shown = np.bincount(arrays["item_row"][train], minlength=len(items))
    engaged = build.engagements.item[np.asarray(build.engagements.ts) < until]
    with_engaged = shown + np.bincount(
        engaged, minlength=len(items)
    )  # histories hold items that are not ranked
    by_user = np.bincount(arrays["user"][train], minlength=len(users))
    has, last = _last_items(build, train)
    last_count = np.bincount(last[has], minlength=len(items))
    hour, weekday = hour_and_weekday(arrays["ts"][train])
    surface, query = arrays["surface"][train], build.query[train]
    context = {
        "surface": (build.log.surfaces, surface[surface >= 0]),
        "hour": (HOURS, hour),
        "weekday": (WEEKDAYS, weekday),
        "query": (build.queries, query[query >= 0]),
    }
    counts: dict[str, Mapping[str, int]] = {}
    for column in spec.categoricals:
        if column.name == "last_category":
            counts[column.name] = _counts(items.column("category"), last_count)
        elif column.side == "user":
            counts[column.name] = _counts(users.column(column.name), by_user)
        elif column.side == "item":
            weights = with_engaged if column.name in ("item_id", "category") else shown
            counts[column.name] = _counts(item_values(items, column.name), weights)
        else:
            values, numbers = context[column.name]
            totals = np.bincount(numbers, minlength=len(values))
            counts[column.name] = {value: int(n) for value, n in zip(values, totals, strict=True)}
    limits = settings.features
    buckets = max(1, limits.unknown_buckets)
    vocabularies = {name: Vocabulary.of(count, limits.min_count, buckets) for name, count in counts.items()}
    width = len(spec.numeric_columns)
    priors = base_rates(build.log, until)
    return FeatureEncoder(spec, vocabularies, priors, np.zeros(width), np.ones(width), items.content.shape[1])


def _last_items(build: _Build, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Whether a history is there, and the item row of its newest engagement (0 without one)."""
    start, end = build.arrays["history_start"][rows], build.arrays["history_end"][rows]
    has = end > start
    if not len(build.engagements):
        return has, np.zeros(len(has), dtype=np.int32)
    return has, build.engagements.item[np.where(has, end - 1, 0)]


def _write_categorical(build: _Build, encoder: FeatureEncoder) -> None:
    """categorical.npy [N, F]: the codes of items and users, gathered, and of the request."""
    spec, arrays = build.log.spec, build.arrays
    item_codes, user_codes = encoder.item_codes(build.log.items), encoder.user_codes(build.log.users)
    last_code = encoder.history_codes(build.log.items)[2]
    of_surface = np.append(encoder.vocabularies["surface"].encode(build.log.surfaces), 0)
    of_query = np.append(encoder.vocabularies["query"].encode(build.queries), 0)
    of_hour, of_weekday = (
        encoder.vocabularies["hour"].encode(HOURS),
        encoder.vocabularies["weekday"].encode(WEEKDAYS),
    )
    out = build.create("categorical", np.int32, (build.rows, len(spec.categoricals)))
    names = [column.name for column in spec.categoricals]
    user_side, item_side = encoder.categorical_indices(["user"]), encoder.categorical_indices(["item"])
    for rows in build.chunks("categorical features"):
        hour, weekday = hour_and_weekday(arrays["ts"][rows])
        block = np.empty((rows.stop - rows.start, len(names)), dtype=np.int32)
        block[:, user_side] = user_codes[arrays["user"][rows]]
        block[:, item_side] = item_codes[arrays["item_row"][rows]]
        has, last = _last_items(build, rows)
        block[:, names.index("last_category")] = np.where(has, last_code[last], 0)
        block[:, names.index("surface")] = of_surface[arrays["surface"][rows]]
        block[:, names.index("query")] = of_query[build.query[rows]]
        block[:, names.index("hour")], block[:, names.index("weekday")] = of_hour[hour], of_weekday[weekday]
        out[rows] = block
    build.arrays["categorical"] = out


def _write_numeric(build: _Build, encoder: FeatureEncoder) -> None:
    """numeric.npy [N, M]: the counters by ASOF JOIN, finished, then scaled by mean and deviation in
    training."""
    log, spec, arrays = build.log, build.log.spec, build.arrays
    reference = (log.first_ts + log.last_ts) // 2
    sums: dict[str, np.ndarray] = {}
    since: dict[str, np.ndarray] = {}
    for counter in track(spec.counters, "counters", unit="counter"):
        width = len(spec.half_lives) * len(counter.signals)
        sums[counter.name] = build.create(f"raw_{counter.name}_sums", np.float32, (build.rows, width))
        since[counter.name] = build.create(
            f"raw_{counter.name}_since", np.float32, (build.rows, max(len(counter.since), 1))
        )
        since[counter.name][:] = np.nan
        count_examples(
            log, counter, reference, sums[counter.name], since[counter.name][:, : len(counter.since)]
        )
    words = [tokens(text) for text in build.queries]
    signup = log.users.signup
    out = build.create("numeric", np.float32, (build.rows, len(spec.numeric_columns)))
    total = np.zeros(out.shape[1])
    squares, seen = total.copy(), total.copy()
    for rows in build.chunks("numeric features"):
        start, end = arrays["history_start"][rows], arrays["history_end"][rows]
        raw = Raw({k: v[rows] for k, v in sums.items()}, {k: v[rows] for k, v in since.items()})
        singles = single_values(
            log.items,
            arrays["item_row"][rows],
            arrays["ts"][rows],
            signup[arrays["user"][rows]],
            end - start,
            arrays["content_summaries"][np.where(end > start, end, 0)],
            words,
            build.query[rows],
        )
        values = finish(spec, encoder.priors, raw, singles, rows.stop - rows.start)
        out[rows] = values
        known = values[: max(0, build.train - rows.start)].astype(np.float64)
        total += np.nansum(known, axis=0)
        squares += np.nansum(known**2, axis=0)
        seen += np.isfinite(known).sum(axis=0)
    encoder.mean = total / np.maximum(seen, 1)
    spread = np.sqrt(np.maximum(squares / np.maximum(seen, 1) - encoder.mean**2, 0.0))
    encoder.std = np.where(spread > 1e-6, spread, 1.0)  # a constant column becomes zeros
    for rows in build.chunks("scaling"):
        out[rows] = encoder.numeric(out[rows])
    build.arrays["numeric"] = out
    del sums, since
    for path in build.directory.glob("raw_*.npy"):
        path.unlink()
