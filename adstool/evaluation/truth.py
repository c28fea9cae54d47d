"""The hidden truth of a synthetic world, matched to logged impressions: the floor under every loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.warehouse import lent, load_sql

if TYPE_CHECKING:
    import duckdb

    from adstool.features.dataset import Dataset

Array = NDArray[Any]
IMPRESSIONS = "impressions.parquet"  # one row an impression: request_id, item_id, p_<action>


def locate_truth(con: duckdb.DuckDBPyConnection, settings: Settings) -> Path | None:
    """The truth folder: `evaluation.truth` of the settings, else truth/ beside an ingested file, else None.

    Raises AdstoolError when the settings name a folder that holds no truth.
    """
    named = settings.evaluation.truth
    if named:
        folder = Path(named)
        if not (folder / IMPRESSIONS).is_file():
            raise AdstoolError(
                f"evaluation.truth = {named!r} holds no {IMPRESSIONS}.",
                "Name the truth/ folder that `adstool sample` wrote, or leave it empty.",
            )
        return folder
    parents = [Path(path).parent for (path,) in con.execute(load_sql("evaluation_folders")).fetchall()]
    return next((p / "truth" for p in parents if (p / "truth" / IMPRESSIONS).is_file()), None)


def true_probabilities(
    con: duckdb.DuckDBPyConnection, truth: Path, dataset: Dataset, rows: slice, heads: tuple[str, ...]
) -> dict[str, Array]:
    """The true probability of each head's action on each of the dataset's `rows`, [n]; nan where not known.

    Heads of which the truth has no column are left out. The match is by request and item, through the log's
    own impressions, which say when each request happened.
    """
    path = truth / IMPRESSIONS
    try:
        columns = [f"p_{head}" for head in heads if f"p_{head}" in pq.read_schema(path).names]
        known = pq.read_table(path, columns=["request_id", "item_id", *columns])
    except (OSError, pa.ArrowException) as error:
        raise AdstoolError(
            f"{path} cannot be read: {error}", "Write the world again: adstool sample."
        ) from None
    people = dataset.users.column("user_id")
    wanted = pa.table(
        {
            "row": np.arange(rows.stop - rows.start),
            "ts": np.asarray(dataset.ts[rows]),
            "user_id": people.take(pa.array(np.asarray(dataset.user[rows]))),
            "item_id": pa.array(dataset.items.ids).take(pa.array(np.asarray(dataset.item_row[rows]))),
        }
    )
    with lent(con, evaluated_rows=wanted, true_impressions=known):
        found = con.execute(load_sql("evaluation_truth")).fetchnumpy()
    at = found["row"]
    result = {}
    for column in columns:
        values = np.full(rows.stop - rows.start, np.nan)
        values[at] = found[column]
        result[column.removeprefix("p_")] = values
    return result
