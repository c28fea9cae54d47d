"""Candidate sources that other packages bring: entry points of the group `adstool.sources`.

Code runs only with two consents: somebody installed the package into this environment, and `[funnel] sources`
names the source. So a workspace from a stranger can name no code but what its reader installed himself.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from adstool.errors import AdstoolError
from adstool.funnel.asked import Asked, Found, Source
from adstool.funnel.sources import SOURCES

GROUP = "adstool.sources"
MEND = "It must answer Found(positions [m], scores [m]) of adstool.funnel.asked."


def installed_sources(names: Collection[str]) -> dict[str, Source]:
    """The sources of these names, each held to what a source may answer; nothing else is imported.

    Raises AdstoolError for a name that no installed package or more than one brings, that adstool has itself,
    or whose code does not load.
    """
    if not names:
        return {}
    known = entry_points(group=GROUP)
    return {name: partial(_held, name, _loaded(name, list(known))) for name in names}


def _loaded(name: str, known: list[EntryPoint]) -> Source:
    if name in SOURCES:
        raise AdstoolError(
            f"funnel.sources names '{name}', which adstool has itself.",
            "Give the source of your package another name, or leave it out.",
        )
    found = [one for one in known if one.name == name]
    if not found:
        there = ", ".join(sorted({one.name for one in known})) or "none"
        raise AdstoolError(
            f"funnel.sources names '{name}', which no installed package brings.",
            f"Install the package that has it (installed sources: {there}), or take the name out.",
        )
    if len(found) > 1:
        packages = ", ".join(sorted(one.dist.name if one.dist else one.value for one in found))
        raise AdstoolError(
            f"funnel.sources names '{name}', which several packages bring: {packages}.", "Uninstall one."
        )
    try:
        source: Source = found[0].load()
    except Exception as error:  # a stranger's module may fail in any way
        raise AdstoolError(
            f"The source '{name}' ({found[0].value}) cannot be loaded: {type(error).__name__}: {error}",
            "Mend or reinstall its package, or take the name out of funnel.sources.",
        ) from error
    if not callable(source):
        raise AdstoolError(
            f"The source '{name}' ({found[0].value}) is no function.",
            "Name a function (asked, depth) -> Found.",
        )
    return source


def _held(name: str, source: Source, asked: Asked, depth: int) -> Found:
    """What `source` brings, without repeats and what may not be shown, `depth` at most.

    Raises AdstoolError where it is not what a source answers; the slate then says so.
    """
    found = source(asked, depth)
    if not isinstance(found, Found):
        raise AdstoolError(f"The source '{name}' answered {type(found).__name__}, not Found.", MEND)
    positions, scores = np.asarray(found.positions), np.asarray(found.scores, dtype=np.float32)
    n = len(asked.eligible)
    if positions.ndim != 1 or positions.shape != scores.shape:
        raise AdstoolError(
            f"The source '{name}' answered positions {positions.shape} and scores {scores.shape}.", MEND
        )
    if len(positions) and (positions.dtype.kind not in "iu" or positions.min() < 0 or positions.max() >= n):
        raise AdstoolError(
            f"The source '{name}' answered positions other than whole numbers 0 to {n - 1}.", MEND
        )
    positions = positions.astype(np.int64)
    _, first = np.unique(positions, return_index=True)
    kept = np.sort(first)
    kept = kept[asked.eligible[positions[kept]]][:depth]
    return Found(positions[kept], scores[kept])
