"""`train semantic`: codebooks over the content vectors of ads and pins together, as runs of the model
`semantic`."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import SemanticIdsSettings, Settings
from adstool.content.codebooks import BITS, MAX_LEVELS, MODEL, Codebooks, load_semantic_ids
from adstool.content.kmeans import residual_kmeans
from adstool.content.semantic_quality import by_level, engaged_pairs, level_metrics, reconstruction
from adstool.content.vectors import ITEM_TYPES, active_model, load_vectors
from adstool.errors import DataError, UsageError, choose
from adstool.workspace import Workspace, read_json, write_json

if TYPE_CHECKING:
    import duckdb

MAX_SIZE = 1 << BITS
ITEMS_A_CODE = 4  # a codebook has at most one code for so many items
# What size 0 aims at, measured with `tests/bench/semantic_ids.py` on the sample world: codes of about twenty
# items do most for the engagement model; as first codes, four times coarser ones bring better candidates.
AUTO_ITEMS_A_CODE = 20
FIRST_LEVEL = 4
FIT_ITEMS = MAX_SIZE * 256  # items that codebooks are made from, at most
MEASURED = 65_536  # items that figures rest on, at most
HELD_OUT = 0.1  # share of items that codebooks are not made from, so that new ones can be judged
GROWN = 2.0  # codebooks are made again when the catalogue has grown by this factor,
DRIFTED = 1.25  # or when new items are reconstructed so much worse than those of then
Fitted = tuple[Codebooks, list[dict[str, float]]]  # and the curve of their training


@dataclass
class SemanticResult:
    """What `train semantic` made."""

    metrics: dict[str, Any]
    parameters: int
    rows_per_second: float
    seconds: float
    method: str
    sizes: tuple[int, ...]
    run_id: str = ""
    kept: bool = False  # the run in use still fits, so that nothing was made

    def to_json(self) -> dict[str, Any]:
        """As `train semantic --json` prints it."""
        return {"model": MODEL, **dataclasses.asdict(self), "sizes": list(self.sizes)}


@dataclass(frozen=True)
class _Items:
    """Items with a content vector: (type, id), float32 [n, D], and which codebooks are made from."""

    keys: list[tuple[str, str]]
    vectors: np.ndarray
    fitted: np.ndarray  # bool [n]

    def sample(self, most: int) -> _Items:
        """These items, or `most` of them."""
        if len(self.keys) <= most:
            return self
        rows = np.sort(np.random.default_rng(0).choice(len(self.keys), most, replace=False))
        return _Items([self.keys[row] for row in rows], self.vectors[rows], self.fitted[rows])

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        digest.update("\n".join(f"{kind}:{item}" for kind, item in self.keys).encode())
        digest.update(np.ascontiguousarray(self.vectors).tobytes())
        return digest.hexdigest()


def _items(ws: Workspace) -> _Items:
    keys: list[tuple[str, str]] = []
    parts = []
    for kind in ITEM_TYPES:
        ids, vectors = load_vectors(ws, kind)
        keys += [(kind, item) for item in ids]
        if ids:
            parts.append(vectors)
    if len(keys) < 2:
        raise DataError(
            f"{len(keys)} items have content vectors; semantic ids need two or more.",
            "Make the vectors: adstool embed all.",
        )
    fitted = np.array([_share_of(f"{kind}:{item}") >= HELD_OUT for kind, item in keys])
    if fitted.sum() < 2:
        fitted[:] = True
    return _Items(keys, np.concatenate(parts), fitted)


def _share_of(key: str) -> float:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2.0**64


def _kmeans(vectors: np.ndarray, sizes: Sequence[int], seed: int) -> Fitted:
    return Codebooks(tuple(residual_kmeans(vectors, sizes, seed))), []


def _rqvae(vectors: np.ndarray, sizes: Sequence[int], seed: int) -> Fitted:
    from adstool.content.rqvae import RqVaeConfig, fit_rqvae

    return fit_rqvae(vectors, sizes, seed, RqVaeConfig())


# How codebooks are made of vectors [n, D], sizes and a seed; another way is a function and a row here.
METHODS: dict[str, Callable[[np.ndarray, Sequence[int], int], Fitted]] = {"kmeans": _kmeans, "rqvae": _rqvae}


def chosen_settings(settings: Settings, overrides: Mapping[str, str]) -> SemanticIdsSettings:
    """[semantic_ids] with `--set key=value`; raises UsageError for an unknown key or a value out of
    bounds."""
    values: dict[str, Any] = {}
    known = ("method", "levels", "size", "seed")
    for key, text in overrides.items():
        if key not in known:
            raise UsageError(f"semantic ids have no setting '{key}'.", choose(key, known))
        if key != "method" and not text.isdigit():
            raise UsageError(f"--set {key}={text}: a whole number is needed.", f"For example {key}=4.")
        values[key] = text if key == "method" else int(text)
    chosen = dataclasses.replace(settings.semantic_ids, **values)
    if chosen.method not in METHODS:
        raise UsageError(f"There is no method '{chosen.method}'.", choose(chosen.method, METHODS))
    if not 1 <= chosen.levels <= MAX_LEVELS:
        raise UsageError(
            f"{chosen.levels} levels of semantic ids cannot be made.", f"Give 1 to {MAX_LEVELS}."
        )
    if not (chosen.size == 0 or 2 <= chosen.size <= MAX_SIZE):
        raise UsageError(f"A level of {chosen.size} codes cannot be made.", f"Give 0 or 2 to {MAX_SIZE}.")
    return chosen


def sizes_for(items: int, levels: int, asked: int) -> list[int]:
    """Codes of every level for so many items: at most a code for ITEMS_A_CODE of them, and 2 or more.

    asked: of every level; 0: a power of two that leaves a code about AUTO_ITEMS_A_CODE items, and at the
    first level that divided by FIRST_LEVEL.
    """
    limit = max(2, min(MAX_SIZE, items // ITEMS_A_CODE))
    if asked:
        return [min(asked, limit)] * levels
    usual = min(2 ** max(1, round(math.log2(max(items, 1) / AUTO_ITEMS_A_CODE))), limit)
    return [max(2, usual // FIRST_LEVEL), *[usual] * (levels - 1)]


def fit_codebooks(vectors: np.ndarray, chosen: SemanticIdsSettings) -> Fitted:
    """Codebooks of vectors [n, D] by the method asked for, and the curve of its training (k-means has none).

    A sample stands for a catalogue of more than FIT_ITEMS items.
    """
    if len(vectors) > FIT_ITEMS:
        rows = np.random.default_rng(chosen.seed).choice(len(vectors), FIT_ITEMS, replace=False)
        vectors = vectors[np.sort(rows)]
    return METHODS[chosen.method](vectors, sizes_for(len(vectors), chosen.levels, chosen.size), chosen.seed)


def measure(
    codebooks: Codebooks, items: _Items, con: duckdb.DuckDBPyConnection, actions: list[str]
) -> dict[str, Any]:
    """Figures by level: `train` of all items with co-engagement, `test` how new ones are reconstructed.

    A sample stands for more than MEASURED items.
    """
    items = items.sample(MEASURED)
    codes = codebooks.encode(items.vectors).astype(np.int64)
    known = codes[:, 0] >= 0
    held = ~items.fitted & known
    pairs = engaged_pairs(con, [key for key, ok in zip(items.keys, known, strict=True) if ok], actions)
    everything = level_metrics(codebooks, items.vectors[known], codes[known], pairs)
    return {
        "items": int(known.sum()),
        "pairs": int(pairs[:, 2].sum()),
        "held_out": int(held.sum()),
        "train": everything,
        "test": by_level(reconstruction(codebooks, items.vectors[held], codes[held])),
    }


def train_semantic(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    overrides: Mapping[str, str] | None = None,
) -> SemanticResult:
    """Make codebooks of the vectors in use and publish them as the run in use.

    Raises DataError when fewer than two items have vectors.
    """
    started = time.perf_counter()
    chosen = chosen_settings(settings, overrides or {})
    items = _items(ws)
    codebooks, curve = fit_codebooks(items.vectors[items.fitted], chosen)
    fitted_seconds = time.perf_counter() - started
    actions = [action.name for action in settings.actions if action.positive]
    metrics = measure(codebooks, items, con, actions)
    result = SemanticResult(
        metrics=metrics,
        parameters=codebooks.parameters,
        rows_per_second=len(items.keys) / max(fitted_seconds, 1e-9),
        seconds=0.0,
        method=chosen.method,
        sizes=codebooks.sizes,
    )
    with ws.new_run(MODEL) as run_dir:
        codebooks.save(run_dir)
        write_json(run_dir / "config.json", _config(ws, chosen, codebooks, items))
        write_json(run_dir / "metrics.json", metrics)
        result.seconds = time.perf_counter() - started
        write_json(run_dir / "run.json", _about(chosen, items, result, curve))
    run = ws.current_run(MODEL)
    assert run is not None
    result.run_id = run.name
    return result


def _config(
    ws: Workspace, chosen: SemanticIdsSettings, codebooks: Codebooks, items: _Items
) -> dict[str, Any]:
    active = active_model(ws)
    return {
        "kind": MODEL,
        **_asked(chosen),
        "sizes": list(codebooks.sizes),
        "content": active.slug if active else "",
        "content_dim": codebooks.dim,
        "items": len(items.keys),
    }


def _asked(chosen: SemanticIdsSettings) -> dict[str, Any]:
    """What decides the codebooks, besides the vectors."""
    return {key: getattr(chosen, key) for key in ("method", "levels", "size", "seed")}


def _about(
    chosen: SemanticIdsSettings, items: _Items, result: SemanticResult, curve: list[dict[str, float]]
) -> dict[str, Any]:
    return {
        "model": MODEL,
        "seed": chosen.seed,
        "data": items.fingerprint(),
        "rows": {"train": int(items.fitted.sum()), "test": int((~items.fitted).sum())},
        "parameters": result.parameters,
        "device": "cpu",
        "device_reason": "small matrices",
        "seconds": result.seconds,
        "rows_per_second": result.rows_per_second,
        "curve": curve,
        "versions": {name: version(name) for name in ("adstool", "numpy")}
        | {"python": sys.version.split()[0], "platform": platform.platform()},
    }


def refresh_semantic(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> SemanticResult:
    """The codebooks in use if they still fit, else new ones.

    They fit while the settings and the model of the vectors are those of then, the catalogue has not grown by
    GROWN, and the items that they were not made from are reconstructed at most DRIFTED times as badly as when
    they were made: ids then stay what they are, and new items get theirs from the same codebooks.
    """
    items = _items(ws)
    run = ws.current_run(MODEL)
    current = load_semantic_ids(ws) if run is not None else None
    if run is None or current is None:
        return train_semantic(ws, settings, con)
    config = read_json(run / "config.json")
    asked = _asked(chosen_settings(settings, {}))
    before = read_json(run / "metrics.json")
    if any(config.get(key) != value for key, value in asked.items()):
        return train_semantic(ws, settings, con)
    if len(items.keys) > GROWN * config["items"] or current.codebooks.dim != items.vectors.shape[1]:
        return train_semantic(ws, settings, con)
    actions = [action.name for action in settings.actions if action.positive]
    started = time.perf_counter()
    metrics = measure(current.codebooks, items, con, actions)
    if _error(metrics) > DRIFTED * _error(before):
        return train_semantic(ws, settings, con)
    seconds = time.perf_counter() - started
    return SemanticResult(
        metrics=metrics,
        parameters=current.codebooks.parameters,
        rows_per_second=len(items.keys) / max(seconds, 1e-9),
        seconds=seconds,
        method=asked["method"],
        sizes=current.codebooks.sizes,
        run_id=run.name,
        kept=True,
    )


def _error(metrics: Mapping[str, Any]) -> float:
    """What is left unexplained at the last level, of the items held out where there are some."""
    by_level = metrics.get("test") or metrics["train"]
    return float(by_level[max(by_level)]["relative_mse"])
