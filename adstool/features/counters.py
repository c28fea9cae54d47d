"""Decayed counters: S(t) = Σ_j x_j · 2^(−(t − t_j)/h) over the events of an entity strictly before t.

SQL keeps Y = Σ_j x_j · 2^((t_j − reference)/h), a plain running sum; S(t) = Y · 2^(−(t − reference)/h), so
one scalar a request and half life decays every counter at once. Exponents stay within ±900, far from
overflow: training takes the middle of the log as the reference, and a half life shorter than 1/1800 of the
log is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adstool.features.log import CodedLog, EntitySizes
from adstool.features.spec import IMPRESSION, LOG_PRICE, PRICED, Counter, FeatureSpec
from adstool.progress import log as notes
from adstool.warehouse import load_sql

DAY = 86_400_000_000  # microseconds
HOUR = DAY // 24
MAX_EXPONENT = 900.0
_BATCH = 131_072


@dataclass(frozen=True)
class Raw:
    """Counters at the time of n requests, by the counter's name; arrays of one row count for all of them.

    sums: float [n or 1, H·K], half life by half life, the K signals of the counter in order.
    since: float [n or 1, S], hours since the last event of each `since` signal; nan for never.
    """

    sums: Mapping[str, np.ndarray]
    since: Mapping[str, np.ndarray]


def safe_half_lives(spec: FeatureSpec, first_ts: int, last_ts: int) -> FeatureSpec:
    """The spec with half lives long enough for the span of the log; a raised one is noted."""
    shortest = (last_ts - first_ts) / DAY / (2 * MAX_EXPONENT)
    raised = tuple(max(half_life, shortest) for half_life in spec.half_lives)
    if raised != spec.half_lives:
        notes.warning(
            "The log spans %.0f days: half lives of the counters are at least %.2f days.",
            (last_ts - first_ts) / DAY,
            shortest,
        )
        return spec.with_half_lives(raised)
    return spec


def decay(spec: FeatureSpec, counter: Counter, elapsed: np.ndarray | int) -> np.ndarray:
    """2^(−elapsed/h) for every column of the counter's sums: float64 [n, H·K] (or [H·K] for one elapsed
    time).

    elapsed: microseconds from the reference time to the request.
    """
    days = np.asarray(elapsed, dtype=np.float64)[..., None] / DAY
    by_half_life = np.exp2(-days / np.asarray(spec.half_lives))
    return np.repeat(by_half_life, len(counter.signals), axis=-1)


def hours_since(asked: np.ndarray | int, last: np.ndarray) -> np.ndarray:
    """Hours from `last` (int64 microseconds [n, S], negative for never) to `asked`: float64, nan for
    never."""
    hours = np.maximum(np.asarray(asked, dtype=np.int64)[..., None] - last, 0) / HOUR
    return np.where(last < 0, np.nan, hours)


def signals_view(spec: FeatureSpec, counter: Counter, sizes: EntitySizes, reference: int) -> str:
    """SQL of the view `feature_signals`: entity, ts, y<half life>_<signal> and l<signal> of every event.

    Only numbers of the spec go into the text; there is no data in it.
    """
    used = sorted({n for s in (*counter.signals, *counter.since) for n in spec.signal_actions(s)})
    weights = [
        f"pow(2.0::double, (ts - {reference})::double / {half_life * DAY!r}::double) as w{h}"
        for h, half_life in enumerate(spec.half_lives)
    ]
    sums = [
        f"case when {_condition(spec, signal)} then w{h}{' * log_price' if signal == LOG_PRICE else ''}"
        f" else 0.0::double end as y{h}_{k}"
        for h in range(len(spec.half_lives))
        for k, signal in enumerate(counter.signals)
    ]
    lasts = [f"case when {_condition(spec, s)} then ts end as l{k}" for k, s in enumerate(counter.since)]
    ranked = " and ranked" if "item" in counter.keys else ""
    return (
        f"select entity, ts, {', '.join(sums)}, {', '.join(lasts or ['null::bigint as l0'])} from ("
        f"select {sizes.sql(counter.keys)} as entity, ts, action, log_price, {', '.join(weights)} "
        f"from feature_log where action in ({', '.join(map(str, used))}){ranked}) where entity is not null"
    )


def _condition(spec: FeatureSpec, signal: str) -> str:
    numbers = spec.signal_actions(signal)
    if not numbers:
        return "false"
    among = f"action in ({', '.join(map(str, numbers))})"
    return f"{among} and log_price is not null" if signal in (PRICED, LOG_PRICE) else among


def count_examples(
    log: CodedLog, counter: Counter, reference: int, sums: np.ndarray, since: np.ndarray
) -> None:
    """Fill the counter of every example of `feature_examples`, as of strictly before its time.

    sums: float32 [N, H·K], zero before; since: float32 [N, S], nan before. Rows without history stay as they
    are.
    """
    con, spec = log.con, log.spec
    view = signals_view(spec, counter, log.sizes, reference)
    con.execute(f"create or replace temp view feature_signals as {view}")
    con.execute(f"create or replace temp table feature_history as {load_sql('features_counter_history')}")
    entity = log.sizes.sql(counter.keys)
    probes = f"select * from (select example, ts, {entity} as entity from feature_examples)"
    con.execute(f"create or replace temp view feature_probes as {probes} where entity is not null")
    names = [f"y{h}_{k}" for h in range(len(spec.half_lives)) for k in range(len(counter.signals))]
    for batch in con.sql(load_sql("features_counter_examples")).to_arrow_reader(_BATCH):
        example = batch.column("example").to_numpy()
        asked = batch.column("asked").to_numpy()
        values = np.stack([batch.column(name).to_numpy() for name in names], axis=1)
        sums[example] = values * decay(spec, counter, asked - reference)
        if counter.since:
            since[example] = hours_since(asked, _lasts(batch, len(counter.since)))
    con.execute("drop table feature_history")


def count_state(log: CodedLog, counter: Counter, reference: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every entity after the whole log: sorted numbers int64 [n], Y float64 [n, H·K], last times int64 [n, S]
    (-1 never)."""
    view = signals_view(log.spec, counter, log.sizes, reference)
    log.con.execute(f"create or replace temp view feature_signals as {view}")
    table = log.con.sql(load_sql("features_counter_state")).to_arrow_table().combine_chunks()
    columns = len(log.spec.half_lives) * len(counter.signals)
    names = [f"y{h}_{k}" for h in range(len(log.spec.half_lives)) for k in range(len(counter.signals))]
    if not table.num_rows:
        shape = (0, len(counter.since))
        return np.zeros(0, dtype=np.int64), np.zeros((0, columns)), np.zeros(shape, dtype=np.int64)
    sums = np.stack([table.column(name).to_numpy() for name in names], axis=1)
    return table.column("entity").to_numpy(), sums, _lasts(table, len(counter.since))


def _lasts(table: object, count: int) -> np.ndarray:
    columns = [table.column(f"l{k}").fill_null(-1).to_numpy() for k in range(count)]  # type: ignore[attr-defined]
    rows = table.num_rows  # type: ignore[attr-defined]
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype=np.int64)


def base_rates(log: CodedLog, until: int) -> dict[str, dict[str, float]]:
    """The prior of every rate of every counter: events of the signal an impression, before `until`
    (microseconds)."""
    rows = log.con.execute(load_sql("features_action_counts"), {"until": until}).fetchall()
    priors: dict[str, dict[str, float]] = {}
    for counter in log.spec.counters:
        events: dict[int, int] = {}
        for action, ranked, has_item, has_category, has_advertiser, has_surface, count in rows:
            known = {"item": has_item and ranked, "category": has_category, "advertiser": has_advertiser}
            known |= {"surface": has_surface, "user": True}
            if all(known[key] for key in counter.keys):
                events[action] = events.get(action, 0) + count
        impressions = sum(events.get(n, 0) for n in log.spec.signal_actions(IMPRESSION))
        priors[counter.name] = {
            signal: max(
                sum(events.get(n, 0) for n in log.spec.signal_actions(signal)) / max(impressions, 1), 1e-6
            )
            for signal in counter.rates
        }
    return priors
