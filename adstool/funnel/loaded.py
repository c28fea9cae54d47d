"""What serves a request: an index with its models, loaded whole, and whether they are out of date."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from adstool.errors import AdstoolError
from adstool.funnel.index import Index, load_index
from adstool.funnel.quota import LearnedQuota, load_quota
from adstool.progress import log
from adstool.serving.light import LightScorer, Tower, open_towers
from adstool.serving.scorer import QUANTIZATION, Scorer, share_encoders
from adstool.training.calibration import NAME as CALIBRATION
from adstool.workspace import Workspace

POINTERS = ("index", "engagement", "quota")  # models whose run in use is the one that serves
CHANGING = (QUANTIZATION, CALIBRATION)  # what verbs write into a run after it was made
RETRY_SECONDS = 30.0  # after which what could not be loaded is tried again though no file says it changed

Stamp = tuple[tuple[Path, int, int, int], ...]  # path, inode, time of change in ns, bytes; -1 if absent


@dataclass(frozen=True)
class Loaded:
    """An index and its models; a swap replaces all of it at once."""

    index: Index
    towers: dict[str, Tower]
    light: LightScorer
    heavy: Scorer
    quota: LearnedQuota | None  # None: none was learned
    stamp: Stamp

    def stale(self) -> bool:
        """Whether another run is in use now, or one of these was calibrated or quantized: a few stats."""
        return _stamp(path for path, *_ in self.stamp) != self.stamp


def load(ws: Workspace, threads: int = 1, sources: Collection[str] = ()) -> Loaded:
    """The index and models in use, each computing with so many threads; sources: installed ones, by name.

    Raises AdstoolError naming the verb that makes what is missing.
    """
    # Stamps are taken before what they are of is read: a change in between is then seen as one.
    pointers = _stamp(ws.models / name / "current" for name in POINTERS)
    index = load_index(ws.require_run("index", "index"), sources)
    engagement = ws.require_run("engagement", "train engagement")
    runs = [*(ws.models / model / run for model, run in index.runs.items()), engagement]
    changing = _stamp(run / name for run in runs for name in CHANGING)
    towers = open_towers({model: _tower(ws, model, run) for model, run in index.runs.items()}, threads)
    heavy = Scorer(engagement, threads=threads)
    share_encoders(*towers.values(), heavy)
    light = towers["lightweight"]
    assert isinstance(light, LightScorer)
    return Loaded(index, towers, light, heavy, load_quota(ws), pointers + changing)


def _tower(ws: Workspace, model: str, run: str) -> Path:
    folder = ws.models / model / run
    if not folder.is_dir():
        raise AdstoolError(f"The index was made with {model} {run}, which is gone.", "Run adstool index.")
    current = ws.current_run(model)
    if current is not None and current.name != run:
        log.warning("The index is of %s %s; %s is newer: adstool index.", model, run, current.name)
    return folder


def _stamp(paths: Iterable[Path]) -> Stamp:
    found = []
    for path in paths:
        try:
            facts = path.stat()
            found.append((path, facts.st_ino, facts.st_mtime_ns, facts.st_size))
        except OSError:
            found.append((path, -1, -1, -1))
    return tuple(found)


class Refusals:
    """What could not be taken into use: said once, and tried again only after a change or a while."""

    def __init__(self) -> None:
        self._stamp: Stamp = ()
        self._until = 0.0

    def due(self, loaded: Loaded) -> bool:
        """Whether what is in use now should be tried."""
        now = _stamp(path for path, *_ in loaded.stamp)
        return now != self._stamp or time.monotonic() >= self._until

    def add(self, loaded: Loaded, error: Exception) -> None:
        """What is in use now failed with `error`, while `loaded` goes on."""
        now = _stamp(path for path, *_ in loaded.stamp)
        if now != self._stamp:
            hint = f" {error.hint}" if isinstance(error, AdstoolError) else ""
            log.warning(
                "What is in use now cannot serve, so index %s and engagement %s go on: %s%s",
                loaded.index.directory.name,
                loaded.heavy.run_dir.name,
                str(error) or type(error).__name__,
                hint,
            )
        self._stamp, self._until = now, time.monotonic() + RETRY_SECONDS
