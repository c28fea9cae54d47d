"""Parquet files with moments that DuckDB cannot hold, for one of which it refuses to read the whole file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adstool.ingestion.inputs import Input, damaged

EARLIEST, LATEST = -62_135_596_800, 253_402_300_799  # seconds of the years 1 to 9999, which have a usual text
A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
BATCH = 50_000


def unreadable(error: BaseException) -> bool:
    """Whether DuckDB could not read a parquet file for a moment in it."""
    text = str(error)
    return "Could not convert Timestamp(MS)" in text or "Int96 timestamp is out of range" in text


def times_as_text(source: Input, target: Path) -> Input:
    """A copy of a parquet file, row by row and column by column, whose timestamps are text.

    Moments beyond the years 1 to 9999 become a text that is none, so that their rows are refused. Those of
    the old type INT96 keep their milliseconds. Raises DataError for what Arrow cannot read either.
    """
    try:
        _rewrite(source.path, target)
    except pa.ArrowException as error:
        raise damaged(source.name, error) from None
    return replace(source, path=target)


def _rewrite(path: Path, target: Path) -> None:
    with pq.ParquetFile(path, coerce_int96_timestamp_unit="ms") as file:
        kinds = [pa.string() if pa.types.is_timestamp(f.type) else f.type for f in file.schema_arrow]
        schema = pa.schema(list(zip(file.schema_arrow.names, kinds, strict=True)))
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(BATCH):
                columns = [_text(c) if pa.types.is_timestamp(c.type) else c for c in batch.columns]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _text(moments: pa.Array) -> pa.Array:
    unit = moments.type.unit
    numbers = moments.cast(pa.int64())  # since 1970 in UTC, whatever the zone of the column
    least = max(EARLIEST * A_SECOND[unit], -(2**63))
    most = min((LATEST + 1) * A_SECOND[unit], 2**63) - 1
    usual = pc.and_(pc.greater_equal(numbers, least), pc.less_equal(numbers, most))
    within = pc.if_else(usual, numbers, None).cast(pa.timestamp(unit)).cast(pa.string())
    others = pc.binary_join_element_wise(f"timestamp[{unit}]", numbers.cast(pa.string()), " ")
    return pc.coalesce(within, others)
