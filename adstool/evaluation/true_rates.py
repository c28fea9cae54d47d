"""What really happens: true rates of a synthetic world where there are any, for the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from adstool.funnel.request import Request
from adstool.marketplace.market import Outcomes
from adstool.warehouse import lent, load_sql
from adstool.world.behaviour import ACTIONS
from adstool.world.oracle import Asked, Oracle, decays

if TYPE_CHECKING:
    import duckdb

BLOCK = 500  # requests asked at once


def true_outcomes(
    con: duckdb.DuckDBPyConnection,
    truth: Path | None,
    requests: Sequence[Request],
    moments: np.ndarray,
    items: Sequence[Sequence[str]],
    actions: tuple[str, ...],
) -> Outcomes | None:
    """The true rates of requests at moments [N] (microseconds UTC) for items [N, C]; None without a truth
    that covers all actions and users."""
    oracle = Oracle.find(truth) if truth is not None else None
    if oracle is None or any(name not in ACTIONS for name in actions):
        return None
    if any(request.user_id not in oracle.user_of for request in requests):
        return None
    engaged, exposed = _carried(con, oracle, requests, moments)
    columns = [ACTIONS.index(name) for name in actions]
    parts = []
    for start in range(0, len(requests), BLOCK):
        some = slice(start, start + BLOCK)
        asked = Asked(
            [one.user_id for one in requests[some]],
            moments[some],
            [one.surface for one in requests[some]],
            [one.query for one in requests[some]],
            engaged[some],
            exposed[some],
        )
        chances, conversions, money = oracle.rates(asked, items[some])
        parts.append((chances[..., columns], conversions, money))
    joined = [np.concatenate([part[place] for part in parts]).astype(np.float32) for place in range(3)]
    return Outcomes(joined[0], joined[1], joined[2])


def _carried(
    con: duckdb.DuckDBPyConnection, oracle: Oracle, requests: Sequence[Request], moments: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Recent engagement and exposure by category, [N, categories] each."""
    gains, seen, engaged_days, exposed_days = decays()
    names = sorted({*gains, *seen})
    carried = pa.table({
        "action": names,
        "engaged": [gains.get(name, 0.0) for name in names],
        "exposed": [seen.get(name, 0.0) for name in names],
    })  # fmt: skip
    asked = pa.table({
        "number": np.arange(len(requests)),
        "user_id": [one.user_id for one in requests],
        "ts": pa.array(moments, type=pa.timestamp("us")),
    })  # fmt: skip
    with lent(con, asked_requests=asked, carried=carried):
        found = con.execute(
            load_sql("simulation_state"), {"engaged_days": engaged_days, "exposed_days": exposed_days}
        ).fetchall()
    category_of = {name: number for number, name in enumerate(oracle.categories)}
    engaged = np.zeros((len(requests), len(category_of)))
    exposed = np.zeros_like(engaged)
    for number, category, gained, shown in found:
        if category in category_of:
            engaged[number, category_of[category]] = gained
            exposed[number, category_of[category]] = shown
    return engaged, exposed
