"""The hidden truth of a world: what goes into truth/, and the table of what each signal is worth.

Nothing but the world and evaluation may read truth/.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adstool.errors import AdstoolError, choose
from adstool.workspace import read_json, write_json
from adstool.world import behaviour, conversions
from adstool.world.behaviour import ACTIONS, SIGNALS, Behaviour, Day
from adstool.world.catalogue import FAST_SIGMA, KINDS, SLOW_SIGMA, Catalogue, median_delay
from adstool.world.config import WorldConfig
from adstool.world.conversions import CAUSES, Conversions, OffSite
from adstool.world.policies import POLICIES
from adstool.world.population import Population, turned
from adstool.world.vocabulary import Ints
from adstool.world.writers import named, numbered, timestamps, write_parquet

Floats = NDArray[np.float64]


class ImpressionTruth:
    """Writes truth/impressions.parquet, a row group a day: one row an impression, key (request_id, item_id).

    Columns: user_id, item_type, position, policy, candidates (the slot was drawn from so many), p_<action>
    of the impression, p_convert given a click and p_view_convert given none (null for pins), and
    signal_<name> in logits of a click.
    """

    def __init__(self, folder: Path, catalogue: Catalogue, people: Population) -> None:
        """The file is open until `close`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.catalogue, self.people = folder / "impressions.parquet", catalogue, people
        self.writer: pq.ParquetWriter | None = None

    def write(self, day: Day, request: Ints, click: Floats, view: Floats) -> None:
        """Add a day; `request` is each impression's request number, `click` and `view` conversion chances."""
        shown = day.shown
        columns = {
            "request_id": numbered("r", request),
            "item_id": named(shown.item, self.catalogue.items.ids),
            "user_id": named(day.requests.user[shown.request], self.people.ids),
            "item_type": named(np.where(shown.item < self.catalogue.items.ads, 0, 1), ("ad", "pin")),
            "position": pa.array(shown.position.astype(np.int16)),
            "policy": named(day.policy[shown.request], POLICIES),
            "candidates": pa.array(shown.choices.astype(np.int16)),
        }
        columns |= {f"p_{action}": pa.array(shown.probability[:, i]) for i, action in enumerate(ACTIONS)}
        columns["p_convert"] = pa.array(click, mask=np.isnan(click))
        columns["p_view_convert"] = pa.array(view, mask=np.isnan(view))
        columns |= {
            f"signal_{name}": pa.array(shown.signals[:, i].astype(np.float32))
            for i, name in enumerate(SIGNALS)
        }
        table = pa.table(columns)
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, table.schema, compression="zstd", compression_level=9)
        self.writer.write_table(table, row_group_size=max(len(table), 1))

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()


def write_static(
    folder: Path, laws: Behaviour, off_site: OffSite, catalogue: Catalogue, people: Population
) -> None:
    """truth/users, items, advertisers as parquet; laws.json: weights and intercepts of the true logits."""
    items, words, who = catalogue.items, catalogue.words, catalogue.advertisers
    write_parquet(folder / "users.parquet", pa.table({
        "user_id": pa.array(people.ids),
        "persona": pa.array(people.persona.astype(np.int16)),
        "interest_from": _vectors(people.interest_from),
        "interest_to": _vectors(people.interest_to),
        "drift_days": pa.array(people.drift_days.astype(np.float32)),
        "style_taste": _vectors(people.taste),
        "log_means": pa.array(people.means.astype(np.float32)),
        "activity": pa.array(people.activity.astype(np.float32)),
    }))  # fmt: skip
    write_parquet(folder / "items.parquet", pa.table({
        "item_id": pa.array(items.ids),
        "item_type": named(np.where(np.arange(len(items.ids)) < items.ads, 0, 1), ("ad", "pin")),
        "category": named(items.category, words.categories),
        "style": named(items.style, words.styles),
        "style_appeal": pa.array(catalogue.appeal[items.style].astype(np.float32)),
        "quality": pa.array(items.quality.astype(np.float32)),
        "creative": pa.array(items.creative.astype(np.float32)),
        "vector": _vectors(items.vector),
    }))  # fmt: skip
    write_parquet(folder / "advertisers.parquet", pa.table({
        "advertiser_id": numbered("adv", 1 + np.arange(len(who.names))),
        "quality": pa.array(who.quality),
        "landing": pa.array(who.landing),
        "fast_share": pa.array(who.fast_share),
        "fast_median_seconds": pa.array(who.fast_median),
        "slow_median_seconds": pa.array(who.slow_median),
        "median_delay_seconds": pa.array(median_delay(who)),
        "offline_share": pa.array(who.offline_share),
    }))  # fmt: skip
    write_json(folder / "laws.json", {
        "signals": list(SIGNALS),
        "actions": {
            name: {"intercept": float(laws.scales.intercept[i]), "mix": behaviour.MIX[i].tolist()}
            for i, name in enumerate(ACTIONS)
        },
        "long_click": "p_long_click = p_click * sigmoid(its logit); the other actions are sigmoids of theirs",
        "grid": behaviour.GRID,
        "conversion": {
            "after_click": off_site.after_click,
            "after_view": off_site.after_view,
            "mix": [conversions.MIX.get(name, 0.0) for name in SIGNALS],
            "landing": conversions.LANDING,
        },
        "delay_sigmas": {"fast": FAST_SIGMA, "slow": SLOW_SIGMA},
    })  # fmt: skip


def write_conversion_truth(
    folder: Path,
    config: WorldConfig,
    catalogue: Catalogue,
    people: Population,
    table: Conversions,
    known: Ints,
) -> None:
    """truth/conversions.parquet: every conversion with its cause; `in_log` says which the site knows."""
    in_log = np.zeros(len(table), dtype=bool)
    in_log[known] = True
    organic = table.request < 0
    write_parquet(folder / "conversions.parquet", pa.table({
        "conversion_id": numbered("k", 1 + np.arange(len(table))),
        "ts": timestamps(config, table.seconds),
        "reported_at": timestamps(config, table.reported),
        "user_id": named(table.user, people.ids),
        "advertiser_id": numbered("adv", table.advertiser + 1),
        "kind": named(table.kind, KINDS),
        "value": pa.array(table.value, mask=np.isnan(table.value)),
        "offline": pa.array(table.offline),
        "cause": named(table.cause, CAUSES),
        "request_id": pc.if_else(pa.array(organic), None, numbered("r", table.request)),
        "item_id": named(table.item, catalogue.items.ids),
        "delay_seconds": pa.array(table.delay, mask=organic),
        "lost": pa.array(table.lost),
        "in_log": pa.array(in_log),
    }))  # fmt: skip


def _vectors(values: Floats) -> pa.Array:
    flat = pa.array(values.astype(np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def true_interests(folder: Path, moment: int) -> tuple[list[str], list[str], Floats]:
    """Users, categories, and the cosine [users, categories] of what each user wants at `moment` (microseconds
    UTC) and what the category's items are on the whole. `folder` is a world's truth/, beside its world.json.
    """
    world = read_json(folder.parent / "world.json")
    start = datetime.fromisoformat(world["settings"]["start"]).replace(tzinfo=UTC)
    users = pq.read_table(folder / "users.parquet")
    items = pq.read_table(folder / "items.parquet", columns=["category", "vector"])
    seconds = np.full(users.num_rows, moment // 1_000_000 - int(start.timestamp()))
    interest = turned(
        _matrix(users["interest_from"]),
        _matrix(users["interest_to"]),
        users["drift_days"].to_numpy().astype(np.float64),
        seconds,
    )
    names, category = np.unique(items["category"].to_pylist(), return_inverse=True)
    centres = np.zeros((len(names), interest.shape[1]))
    np.add.at(centres, category, _matrix(items["vector"]))
    cosine = _unit(interest) @ _unit(centres).T
    return users["user_id"].to_pylist(), names.tolist(), cosine


def _matrix(column: pa.ChunkedArray) -> Floats:
    parts = [np.stack(chunk.to_numpy(zero_copy_only=False)) for chunk in column.chunks if len(chunk)]
    return np.concatenate(parts).astype(np.float64)


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


@dataclass(frozen=True)
class SignalRow:
    """What the true model of an action loses without one signal."""

    signal: str
    ne: float  # normalized entropy without the signal, intercept and scale refitted
    cost: float  # ne / floor - 1: relative rise over the true rates


@dataclass(frozen=True)
class SignalTable:
    """The floor of an action and the cost of each missing signal, dearest first."""

    action: str
    impressions: int
    base_rate: float
    floor: float  # normalized entropy of the true probabilities
    rows: tuple[SignalRow, ...]


def signal_table(truth: Path, action: str = "click", item_type: str = "ad") -> SignalTable:
    """Normalized entropy of the true rates, and what it becomes with each signal removed.

    Expected cross entropies under the true probabilities, so there is no noise of drawn labels. "Removed":
    the logit without the signal's part, then the best scale and intercept for it (Newton's method).
    Raises AdstoolError when `truth` holds no truth or `action` is not one of its logits.
    """
    path = truth / "impressions.parquet"
    if not path.is_file():
        raise AdstoolError(
            f"{truth} holds no impressions.parquet.", "Name the truth/ folder of a synthetic world."
        )
    laws = read_json(truth / "laws.json")
    if action not in laws["actions"] or action == "long_click":
        able = [name for name in laws["actions"] if name != "long_click"]
        raise AdstoolError(f"'{action}' has no logit of its own in {truth}.", choose(action, able))
    signals = list(laws["signals"])
    columns = [f"signal_{name}" for name in signals]
    table = pq.read_table(path, columns=["item_type", f"p_{action}", *columns])
    rows = np.asarray(table["item_type"].to_pylist()) == item_type
    true = table[f"p_{action}"].to_numpy()[rows]
    parts = np.stack([table[name].to_numpy()[rows].astype(np.float64) for name in columns], axis=1)
    parts *= np.array(laws["actions"][action]["mix"])
    base = float(true.mean())
    base_entropy = _entropy(true, np.full_like(true, base))
    floor = _entropy(true, true) / base_entropy
    found = []
    for i, name in enumerate(signals):
        ne = _entropy(true, _refitted(true, parts.sum(axis=1) - parts[:, i])) / base_entropy
        found.append(SignalRow(name, ne, ne / floor - 1))
    found.sort(key=lambda row: -row.cost)
    return SignalTable(action, len(true), base, floor, tuple(found))


def _refitted(true: Floats, logit: Floats) -> Floats:
    """sigmoid(a + b * logit) with the a, b of least expected cross entropy."""
    design = np.stack([np.ones_like(logit), logit], axis=1)
    weights = np.array([np.log(true.mean() / (1 - true.mean())) - logit.mean(), 1.0])
    for _ in range(25):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (p - true)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    fitted: Floats = 1 / (1 + np.exp(-design @ weights))
    return fitted


def _entropy(true: Floats, predicted: Floats) -> float:
    return float(-(true * np.log(predicted) + (1 - true) * np.log1p(-predicted)).mean())
