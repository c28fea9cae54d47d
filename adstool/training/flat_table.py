"""Flat tables of anyone's features (csv, parquet) as memory-mapped examples, of any size."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from adstool.errors import AdstoolError, DataError
from adstool.errors import quoted as shown
from adstool.features.encoder import Vocabulary
from adstool.ingestion.inputs import literal
from adstool.progress import log
from adstool.workspace import read_json, write_json

if TYPE_CHECKING:
    import duckdb

    from adstool.config import Settings

CHUNK = 1 << 17  # rows encoded at a time
DISTINCT_CATEGORIES = 1000  # integers with at most this many values are taken for categories
HEAVY_TAIL = 20.0  # numbers beyond this are taken as sign(x) ln(1 + |x|)
CLIP = 5.0  # standard deviations
INTEGERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)
NUMBERS = ("FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True)
class NumericScale:
    """How a numeric column is scaled: (f(x) - mean) / std with f the signed logarithm or nothing."""

    name: str
    log: bool
    mean: float
    std: float

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Scaled values, clipped to 5 standard deviations; missing ones are 0, the mean."""
        values = np.sign(values) * np.log1p(np.abs(values)) if self.log else values
        scaled = np.clip((values - self.mean) / self.std, -CLIP, CLIP)
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)


@dataclass(frozen=True)
class FlatEncoder:
    """How the columns of a flat table become codes and numbers; stored with the run."""

    label: str
    vocabularies: dict[str, Vocabulary]
    scales: tuple[NumericScale, ...]

    def save(self, directory: Path) -> None:
        """Write features.json and vocabularies/<n>.parquet, numbered by column, into `directory`."""
        import pyarrow.parquet as pq

        folder = directory / "vocabularies"
        folder.mkdir(parents=True, exist_ok=True)
        for index, vocabulary in enumerate(self.vocabularies.values()):
            codes = pa.array(range(1 + vocabulary.buckets, vocabulary.cardinality), type=pa.int32())
            pq.write_table(pa.table({"value": vocabulary.values, "code": codes}), folder / f"{index}.parquet")
        write_json(
            directory / "features.json",
            {
                "label": self.label,
                "categorical": {name: v.buckets for name, v in self.vocabularies.items()},
                "numeric": [scale.__dict__ for scale in self.scales],
            },
        )

    @classmethod
    def load(cls, directory: Path) -> FlatEncoder:
        """What `save` wrote; raises AdstoolError when it is damaged."""
        import pyarrow.parquet as pq

        document = read_json(directory / "features.json")
        try:
            vocabularies = {}
            for index, (name, buckets) in enumerate(document["categorical"].items()):
                stored = pq.read_table(directory / "vocabularies" / f"{index}.parquet")
                vocabularies[name] = Vocabulary(stored.column("value").combine_chunks(), int(buckets))
            scales = tuple(NumericScale(**scale) for scale in document["numeric"])
            return cls(document["label"], vocabularies, scales)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowInvalid) as error:
            raise AdstoolError(
                f"{directory} has a damaged features.json: {error}",
                "Train it again: adstool train engagement --train FILE --test FILE --label COLUMN",
            ) from None


@dataclass(frozen=True)
class FlatRequest:
    """Which files and columns make the examples; empty column lists are guessed from the training file."""

    train: Path
    test: Path | None  # None only where `train` is the name of a flat table, until it is resolved
    valid: Path | None
    label: str
    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    min_count: int
    unknown_buckets: int

    def fingerprint(self) -> str:
        """Changes with the files (size, time of change), the columns and the encoding."""
        files = [p for p in (self.train, self.valid, self.test) if p is not None]
        stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        rest = (self.label, self.categorical, self.numeric, self.min_count, self.unknown_buckets)
        return hashlib.sha256(json.dumps([stats, rest]).encode()).hexdigest()[:16]


def quoted(name: str) -> str:
    """A column's name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def scratch(directory: Path, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB file of our own that may spill to disk; gone afterwards."""
    import duckdb

    from adstool.warehouse.memory import duckdb_limits

    path = directory / f"scratch-{os.getpid()}.duckdb"
    path.unlink(missing_ok=True)
    con = duckdb.connect(str(path), config={**duckdb_limits(settings)})
    try:
        yield con
    finally:
        con.close()
        path.unlink(missing_ok=True)


def source_of(path: Path, typed: bool = False) -> str:
    """The table function that reads a file; csv as text unless `typed`, so that all files read alike."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Give a csv or parquet file.")
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".parquet", ".pq")):
        return "read_parquet($path, hive_partitioning = false)"
    if name.endswith((".csv", ".tsv", ".txt")):
        types = "sample_size = -1" if typed else "all_varchar = true"
        return f"read_csv($path, {types}, hive_partitioning = false)"
    raise DataError(f"{path} is neither csv nor parquet, by its name.", "Name it .csv, .csv.gz or .parquet.")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What DuckDB says of a file it cannot read, as DataError."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise DataError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            "Check that it is whole and is what its name says.",
        ) from None


def columns_of(con: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """The columns of a file and their DuckDB types; raises DataError when it cannot be read."""
    with reading(path):
        query = f"describe select * from {source_of(path, True)}"
        rows = con.execute(query, {"path": literal(path)}).fetchall()
    return {row[0]: row[1] for row in rows}


def load_table(con: duckdb.DuckDBPyConnection, table: str, path: Path, request: FlatRequest) -> None:
    """Put the label (0, 1) and the wanted columns of a file into a table of the scratch database.

    Raises DataError for absent columns, labels other than 0 and 1, and text in a numeric column.
    """
    present = columns_of(con, path)
    wanted = (request.label, *request.categorical, *request.numeric)
    absent = [name for name in wanted if name not in present]
    if absent:
        raise DataError(
            f"{path} has no column {', '.join(map(shown, absent))}.", f"It has: {', '.join(present)[:2000]}."
        )
    label = f"cast({quoted(request.label)} as varchar)"
    parts = [f"coalesce(try_cast({label} as double), cast(try_cast({label} as boolean) as double)) as label"]
    parts += [f"cast({quoted(name)} as varchar) as c{i}" for i, name in enumerate(request.categorical)]
    for i, name in enumerate(request.numeric):
        number = f"try_cast({quoted(name)} as double)"
        # Not n{i}, for a column of the file may have that name.
        parts += [f"{number} as n{i}", f"{quoted(name)} is not null and {number} is null as bad{i}"]
    body = f"select {', '.join(parts)} from {source_of(path)}"
    with reading(path):
        con.execute(f"create table {table} as {body}", {"path": literal(path)})
    _check(con, table, path, request)


def _check(con: duckdb.DuckDBPyConnection, table: str, path: Path, request: FlatRequest) -> None:
    bad = "".join(f", count(*) filter (bad{i})" for i in range(len(request.numeric)))
    wrong = "count(*) filter (label is null or label not in (0, 1))"
    row = con.execute(f"select count(*), {wrong}{bad} from {table}").fetchall()[0]
    if row[0] == 0:
        raise DataError(f"{path} has no rows.", "Give a file with data.")
    if row[1]:
        raise DataError(
            f"{path}: column {request.label!r} is not 0 or 1 in {row[1]:,} of {row[0]:,} rows.",
            "Give a label column of 0 and 1 (or true and false) without gaps.",
        )
    for name, count in zip(request.numeric, row[2:], strict=True):
        if count:
            log.warning(f"{path}: {count:,} values of column {name!r} are no numbers and count as missing.")


def guess_columns(
    con: duckdb.DuckDBPyConnection, path: Path, label: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Categorical and numeric columns of a file, by type and number of values; says what it left out.

    Text, booleans and integers of few values are categories; other numbers are numeric; columns with another
    value in (nearly) every row, such as row ids, and constant ones are left out.
    """
    types = columns_of(con, path)
    if label not in types:
        raise DataError(f"{path} has no column {label!r}.", f"It has: {', '.join(types)}.")
    names = [name for name in types if name != label]
    if not names:
        raise DataError(f"{path} has only the label column {label!r}.", "Give a table with features.")
    counts = ", ".join(f"approx_count_distinct({quoted(name)})" for name in names)
    query = f"select count(*), {counts} from {source_of(path, True)}"
    with reading(path):
        row = con.execute(query, {"path": literal(path)}).fetchall()[0]
    categorical, numeric, dropped = [], [], []
    for name, distinct in zip(names, row[1:], strict=True):
        kind = types[name]
        is_number = kind.startswith(NUMBERS)
        if distinct <= 1 or (not is_number and distinct > 0.9 * row[0]):
            dropped.append(name)
        elif is_number or (kind in INTEGERS and distinct > DISTINCT_CATEGORIES):
            numeric.append(name)
        else:
            categorical.append(name)
    log.info(
        f"Categorical columns: {', '.join(categorical) or 'none'}. Numeric: {', '.join(numeric) or 'none'}."
    )
    if dropped:
        log.info(f"Left out, since they are constant or differ in every row: {', '.join(dropped)}.")
    return tuple(categorical), tuple(numeric)


def fit_encoder(con: duckdb.DuckDBPyConnection, request: FlatRequest) -> FlatEncoder:
    """Vocabularies and scales from the training table."""
    vocabularies = {}
    for i, name in enumerate(request.categorical):
        query = f"select c{i}, count(*) as n from train where c{i} != '' group by all having n >= $least"
        counts = dict(con.execute(query, {"least": request.min_count}).fetchall())
        vocabularies[name] = Vocabulary.of(counts, request.min_count, request.unknown_buckets)
    scales = []
    for i, name in enumerate(request.numeric):
        finite = f"case when isfinite(n{i}) then n{i} end"
        largest = con.execute(f"select max(abs({finite})) from train").fetchall()[0][0]
        heavy = largest is not None and largest > HEAVY_TAIL
        value = f"sign({finite}) * ln(1 + abs({finite}))" if heavy else finite
        moments = con.execute(f"select avg({value}), stddev_pop({value}) from train").fetchall()[0]
        mean, std = moments if moments[0] is not None else (0.0, 1.0)
        scales.append(NumericScale(name, heavy, float(mean), float(std) or 1.0))
    return FlatEncoder(request.label, vocabularies, tuple(scales))


def encode_table(
    con: duckdb.DuckDBPyConnection, table: str, encoder: FlatEncoder
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]]:
    """Chunks of (codes [n, F], numbers [n, M], labels [n]) of a scratch table, in the file's order."""
    names = ["label"] + [f"c{i}" for i in range(len(encoder.vocabularies))]
    names += [f"n{i}" for i in range(len(encoder.scales))]
    reader = con.sql(f"select {', '.join(names)} from {table}").to_arrow_reader(CHUNK)
    for batch in reader:
        codes = [v.encode(batch.column(f"c{i}")) for i, v in enumerate(encoder.vocabularies.values())]
        numbers = [scale.apply(_floats(batch.column(f"n{i}"))) for i, scale in enumerate(encoder.scales)]
        yield (
            _stack(codes, batch.num_rows, np.int32),
            _stack(numbers, batch.num_rows, np.float32),
            batch.column("label").to_numpy(zero_copy_only=False).astype(np.float32),
        )


def _floats(column: pa.Array) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def _stack(columns: Sequence[NDArray[Any]], rows: int, kind: type) -> NDArray[Any]:
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype=kind)


def remove_stale(folder: Path, keep: str) -> None:
    """Forget the cached examples of other files and columns, and what a killed process left."""
    for path in folder.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
