"""The last step of every numeric feature, one function for training and serving: counters to columns.

Both paths hand over the same raw values (decayed sums, hours since, numbers of the item, user and request),
so a difference between them could only come from those, and a test replays requests through both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adstool.features.counters import Raw
from adstool.features.spec import ENGAGED, IMPRESSION, LOG_PRICE, PRICED, Counter, FeatureSpec

CLIP = 5.0


def finish(
    spec: FeatureSpec,
    priors: Mapping[str, Mapping[str, float]],
    raw: Raw,
    singles: Mapping[str, np.ndarray | float],
    rows: int,
) -> np.ndarray:
    """The numeric columns before standardising: float32 [rows, M], nan where a value is not known.

    singles: what the numerics of the spec are computed from, each [rows] or one number: user_tenure_days,
    user_engagements, item_age_hours, item_price, content_similarity, query_title_overlap, query_text_overlap,
    query_category_fit, query_tokens.
    """
    # Filled column by column: in Fortran order each is one contiguous run.
    out = np.empty((rows, len(spec.numeric_columns)), dtype=np.float32, order="F")
    column = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        for counter in spec.counters:
            column = _counter_columns(spec, counter, priors.get(counter.name, {}), raw, out, column)
        derived = {**singles, **_derived(spec, raw, singles)}
        for numeric in spec.numerics:
            value = np.asarray(derived[numeric.name], dtype=np.float32)
            out[:, column] = np.sign(value) * np.log1p(np.abs(value)) if numeric.log else value
            column += 1
    return out


def _counter_columns(
    spec: FeatureSpec, counter: Counter, priors: Mapping[str, float], raw: Raw, out: np.ndarray, column: int
) -> int:
    sums = np.ascontiguousarray(np.asarray(raw.sums[counter.name], dtype=np.float32).T)  # a row a column
    width = len(counter.signals)
    counts = [counter.signals.index(signal) for signal in counter.counts]
    rates = [counter.signals.index(signal) for signal in counter.rates]
    prior = np.array([priors[signal] for signal in counter.rates])[:, None]
    added = (counter.strength * prior).astype(np.float32)
    usual = np.log(prior).astype(np.float32)
    for h in range(len(spec.half_lives)):
        # All signals of a half life at once: with few rows the number of calls is what costs.
        block = sums[h * width : (h + 1) * width]
        if counts:
            out[:, column : column + len(counts)] = np.log(block[counts] + np.float32(1.0)).T
            column += len(counts)
        if rates:
            shown = np.log(block[counter.signals.index(IMPRESSION)] + np.float32(counter.strength))
            out[:, column : column + len(rates)] = (np.log(block[rates] + added) - shown - usual).T
            column += len(rates)
    if counter.since:
        since = np.asarray(raw.since[counter.name], dtype=np.float32)
        out[:, column : column + len(counter.since)] = np.log(
            since[:, : len(counter.since)] + np.float32(1.0)
        )
        column += len(counter.since)
    return column


def _derived(spec: FeatureSpec, raw: Raw, singles: Mapping[str, np.ndarray | float]) -> dict[str, np.ndarray]:
    """Numerics made of more than one raw value."""
    values: dict[str, np.ndarray] = {}
    user, pair = spec.counter("user"), spec.counter("user_category")
    names = {numeric.name for numeric in spec.numerics}
    longest = int(np.argmax(spec.half_lives))
    if user and "user_mean_log_price" in names:
        count = _sum(spec, user, raw, PRICED, longest)
        mean = np.where(count > 1e-12, _sum(spec, user, raw, LOG_PRICE, longest) / count, np.nan)
        values["user_mean_log_price"] = mean
        values["price_against_user"] = np.log1p(np.asarray(singles["item_price"], dtype=np.float64)) - mean
    if user and pair:
        for h, name in enumerate(n for n in names_of_shares(spec) if n in names):
            own = _sum(spec, pair, raw, ENGAGED, h)
            values[name] = own / (_sum(spec, user, raw, ENGAGED, h) + 1.0)
    return values


def names_of_shares(spec: FeatureSpec) -> list[str]:
    """The user's share of a category, a column a half life, in the order of the half lives."""
    return [n.name for n in spec.numerics if n.name.startswith("user_category_share_")]


def _sum(spec: FeatureSpec, counter: Counter, raw: Raw, signal: str, half_life: int) -> np.ndarray:
    place = half_life * len(counter.signals) + counter.signals.index(signal)
    return np.asarray(raw.sums[counter.name][:, place], dtype=np.float64)


def standardise(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(x − mean) ÷ std, clipped to ±5, 0 where the value is not known: float32 [n, M], rows contiguous."""
    scaled = (np.asarray(values, dtype=np.float32) - mean.astype(np.float32)) * (1.0 / std).astype(np.float32)
    np.clip(scaled, -CLIP, CLIP, out=scaled)
    np.copyto(scaled, np.float32(0.0), where=np.isnan(scaled))
    return np.ascontiguousarray(scaled)
