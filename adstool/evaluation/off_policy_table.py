"""A table of a logged policy: which columns mean what, read by DuckDB and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from adstool.errors import DataError, UsageError
from adstool.errors import quoted as shown
from adstool.ingestion.inputs import literal
from adstool.training.flat_table import quoted
from adstool.warehouse import load_sql

Array = NDArray[Any]


@dataclass(frozen=True)
class OffPolicyRequest:
    """A log and the columns that mean something in it; None and () for those it does not have."""

    log: Path
    reward: str
    target: str
    propensity: str | None = None
    q_hat: str | None = None
    q_target: str | None = None
    user: str | None = None
    action: str | None = None
    context: tuple[str, ...] = ()
    embedding: tuple[str, ...] = ()
    slate: str | None = None
    position: str | None = None
    threshold: float | None = None

    def check(self) -> None:
        """Raise UsageError for options that need each other."""
        if self.q_target and not self.q_hat:
            raise UsageError("--q-target needs --q-hat.", "Name the model's reward of the action taken too.")
        if bool(self.slate) != bool(self.position):
            raise UsageError("--request and --position go together.", "Name both columns, or neither.")
        if self.propensity is None and self.action is None:
            raise UsageError(
                "Without --propensity, propensities are fitted, and that needs --action.",
                "Name the column of the logged propensity, or --action (and --context) to fit them.",
            )

    @property
    def numbers(self) -> dict[str, str]:
        """The columns that must hold numbers, by what they mean."""
        named = ("reward", "target", "propensity", "q_hat", "q_target", "position")
        return {name: column for name in named if (column := getattr(self, name)) is not None}

    @property
    def values(self) -> tuple[str, ...]:
        """The columns of any type, each once."""
        named = [self.user, self.action, self.slate, *self.context, *self.embedding]
        return tuple(dict.fromkeys(name for name in named if name is not None))


def read_log(request: OffPolicyRequest) -> dict[str, Array]:
    """The columns of the log: numbers float64 [n] by their meaning, the others [n] by their name.

    csv, parquet or jsonl, plain or compressed. Raises DataError when the file or a column cannot be read.
    """
    source = _scan(request.log)
    con = duckdb.connect()
    try:
        path = {"path": literal(request.log)}
        present = [row[0] for row in con.execute(f"describe select * from {source}", path).fetchall()]
        absent = [name for name in (*request.numbers.values(), *request.values) if name not in present]
        if absent:
            raise DataError(
                f"{request.log} has no column {', '.join(map(shown, absent))}.",
                f"It has: {', '.join(present)[:2000]}.",
            )
        numbers = {name: f"try_cast({quoted(column)} as double)" for name, column in request.numbers.items()}
        parts = [f"{number} as n_{name}" for name, number in numbers.items()]
        # Not n_{name}, for a column of the file may have that name.
        parts += [
            f"{quoted(request.numbers[name])} is not null and {number} is null as bad_{name}"
            for name, number in numbers.items()
        ]
        parts += [f"{quoted(name)} as v_{place}" for place, name in enumerate(request.values)]
        sql = load_sql("evaluation_ope_log").format(columns=", ".join(parts), source=source)
        found = con.execute(sql, path).fetchnumpy()
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{request.log} cannot be read: {reason}", "Check that it is whole and is what its name says."
        ) from None
    finally:
        con.close()
    columns: dict[str, Array] = {}
    for name, column in request.numbers.items():
        bad = np.flatnonzero(np.ma.filled(found[f"bad_{name}"], False))
        if len(bad):
            raise DataError(
                f"{request.log}: column '{column}' is no number in row {bad[0] + 1} ({len(bad):,} rows).",
                "Mend or leave out those rows.",
            )
        columns[name] = np.ma.filled(np.ma.asarray(found[f"n_{name}"], dtype=np.float64), np.nan)
    for place, name in enumerate(request.values):
        columns[name] = _plain(found[f"v_{place}"])
    return columns


def _plain(column: Any) -> Array:
    """A column without masks: text and times as text, missing as an empty one, vectors as they are."""
    values = np.ma.asarray(column)
    if values.dtype == object:
        filled = np.ma.filled(values, None)
        if is_vectors(np.asarray(filled)):
            return np.asarray(filled)
        return np.array(["" if one is None else str(one) for one in filled], dtype=str)
    if values.dtype.kind == "M":
        return np.asarray(np.ma.filled(values, np.datetime64("NaT")).astype("int64"))
    return np.asarray(np.ma.filled(values, np.nan) if values.dtype.kind == "f" else np.ma.filled(values, 0))


def _scan(path: Path) -> str:
    """The table function that reads a file, by its name."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Give a csv, parquet or jsonl file.")
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".parquet", ".pq")):
        return "read_parquet($path, hive_partitioning = false)"
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return "read_json($path, hive_partitioning = false)"
    if name.endswith((".csv", ".tsv", ".txt")):
        return "read_csv($path, sample_size = -1, hive_partitioning = false)"
    raise DataError(
        f"{path} is no csv, parquet or jsonl file, by its name.", "Name it .csv, .parquet or .jsonl."
    )


def is_vectors(column: Array) -> bool:
    """Whether a column holds a vector a row."""
    return column.dtype == object and len(column) > 0 and isinstance(column[0], np.ndarray | list)


def stacked(column: Array) -> Array:
    """A column of vectors as float64 [n, d]; raises DataError when their lengths differ."""
    try:
        return np.stack([np.asarray(one, dtype=np.float64) for one in column])
    except ValueError:
        raise DataError(
            "The vectors of a column of the log are not all of one length.",
            "Give --embedding and --context columns whose vectors have one length.",
        ) from None
