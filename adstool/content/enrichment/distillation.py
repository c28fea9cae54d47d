"""From the grades of the language model to those of a student, for every pair that was logged."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from adstool.config import Settings
from adstool.content.clip import ClipModel
from adstool.content.clip_data import words_of
from adstool.content.enrichment.prompts import RELEVANCE_VERSION, ItemText
from adstool.content.enrichment.relevance import (
    STUDENT,
    Graded,
    Pair,
    logged_pairs,
    pair_hash,
    read_grades,
    write_student_grades,
)
from adstool.content.enrichment.store import Key, read_items
from adstool.content.enrichment.student import Student, agreement, fit_student, pair_features
from adstool.content.search import load_active_clip, require_active
from adstool.content.vectors import SIDES, load_vectors
from adstool.progress import bar, log
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, read_json, write_json

RULE = "student-1"  # change it with the way a student is fitted
LEAST = 50  # grades to learn from and to be judged on
HELD_OUT = 5  # one pair in so many is kept for judging
CHUNK = 32768  # pairs graded at once


def distil(
    ws: Workspace,
    settings: Settings,
    teacher: str,
    kinds: Sequence[str] = ("ad", "pin"),
) -> dict[str, Any] | None:
    """Train a student on the grades of `teacher` (a source), keep it as model run `relevance`, and let it
    grade every logged pair whose item has a vector.

    Returns its agreement with the teacher on held-out pairs and what it graded; None, with a note why, while
    there are too few grades. Raises AdstoolError before the first `embed`.
    """
    started = time.monotonic()
    with open_warehouse(ws, settings, read_only=True) as con:
        items = read_items(con, kinds)
        answers = read_grades(con, teacher, RELEVANCE_VERSION)
    vectors = PairVectors(ws, settings, items, kinds)
    graded = [
        found
        for found in answers
        if found.grade is not None and found.pair.item in items and _is_current(found, items)
    ]
    graded = sorted(
        (found for found in graded if found.pair.item in vectors), key=lambda found: _order(found.pair)
    )
    grades = np.array([int(found.grade or 0) for found in graded])
    if len(grades) < LEAST or len(np.unique(grades)) < 2:
        log.info(
            "%d usable grades by %s: a student needs %d and two different ones", len(grades), teacher, LEAST
        )
        return None
    fingerprint = _fingerprint(ws, settings, graded)
    before = ws.current_run("relevance")
    if before is not None and read_json(before / "run.json").get("fingerprint") == fingerprint:
        student, measured, run_id = Student.load(before), read_json(before / "metrics.json"), before.name
    else:
        student, measured = _learn(vectors, graded, grades, settings.training.seed)
        facts = {"teacher": teacher, "fingerprint": fingerprint, "seconds": time.monotonic() - started}
        run_id = _save(ws, settings, student, measured, facts)
    with open_warehouse(ws, settings, read_only=True) as con:
        pairs = [pair for pair in logged_pairs(con, kinds) if pair.item in vectors]
    labels = _label(student, vectors, pairs)
    with open_warehouse(ws, settings) as con:
        write_student_grades(con, f"{STUDENT}{run_id}", RELEVANCE_VERSION, pairs, labels)
    levels, counts = np.unique(labels, return_counts=True)
    shares = {str(level): int(count) for level, count in zip(levels.tolist(), counts.tolist(), strict=True)}
    labelled = {"pairs": len(pairs), "queries": len({pair.query for pair in pairs}), "grades": shares}
    return {"run_id": run_id, "kind": student.kind, "teacher": teacher, **measured, "labelled": labelled}


def _learn(
    vectors: PairVectors, graded: Sequence[Graded], grades: np.ndarray, seed: int
) -> tuple[Student, dict[str, Any]]:
    """A student fitted on four fifths of the grades, and its agreement with the teacher on the rest."""
    pairs = [found.pair for found in graded]
    features = vectors.features(pairs)
    held = np.arange(len(pairs)) % HELD_OUT == 0
    numbers = {query: number for number, query in enumerate(sorted({pair.query for pair in pairs}))}
    queries = np.array([numbers[pair.query] for pair in pairs])
    student, validated = fit_student(features[~held], grades[~held], queries[~held], seed)
    return student, {
        "test": agreement(grades[held], student.grades(features[held])),
        "train": agreement(grades[~held], student.grades(features[~held])),
        "cross_validated_kappa": validated,
    }


class PairVectors:
    """The vectors of items and queries under the CLIP in use, put together for the student."""

    def __init__(
        self, ws: Workspace, settings: Settings, items: dict[Key, ItemText], kinds: Sequence[str]
    ) -> None:
        self._dim = require_active(ws).dim
        self._items = items
        self._batch = settings.content.batch_size
        self._ws, self._settings = ws, settings
        self._clip: ClipModel | None = None
        self._words: dict[Key, frozenset[str]] = {}
        self._queries: dict[str, np.ndarray] = {}
        self._sides: dict[str, tuple[dict[Key, int], np.ndarray]] = {}
        for side in SIDES:
            place: dict[Key, int] = {}
            parts = []
            for kind in kinds:
                ids, found = load_vectors(ws, kind, column=side)
                place |= {(kind, item_id): len(place) + row for row, item_id in enumerate(ids)}
                parts.append(found.reshape(len(ids), self._dim))
            parts.append(np.zeros((1, self._dim), np.float32))  # of an item without this side
            self._sides[side] = place, np.concatenate(parts)

    def __contains__(self, item: Key) -> bool:
        return item in self._sides["joint"][0]

    def features(self, pairs: Sequence[Pair]) -> np.ndarray:
        """What the student sees of these pairs: float32 [n, dim + 4]."""
        self._encode(sorted({pair.query for pair in pairs} - self._queries.keys()))
        query = np.stack([self._queries[pair.query] for pair in pairs])
        sides = {}
        for side, (place, vectors) in self._sides.items():
            sides[side] = vectors[[place.get(pair.item, -1) for pair in pairs]]
        overlap = np.array([self._overlap(pair) for pair in pairs], np.float32)
        return pair_features(query, sides["joint"], sides["text"], sides["image"], overlap)

    def _encode(self, queries: Sequence[str]) -> None:
        if queries and self._clip is None:
            self._clip = load_active_clip(self._ws, self._settings)
        with bar("queries", total=len(queries), unit="query") as shown:
            for start in range(0, len(queries), self._batch):
                part = queries[start : start + self._batch]
                assert self._clip is not None
                self._queries |= zip(part, self._clip.encode_texts(part), strict=True)
                shown.update(len(part))

    def _overlap(self, pair: Pair) -> float:
        asked = words_of(pair.query)
        if pair.item not in self._words:
            item = self._items.get(pair.item, ItemText(None, None, None, None))
            text = f"{item.title or ''} {item.description or ''} {item.category or ''}"
            self._words[pair.item] = words_of(text)
        return len(asked & self._words[pair.item]) / max(len(asked), 1)


def _is_current(found: Graded, items: dict[Key, ItemText]) -> bool:
    return found.content_hash == pair_hash(found.pair.query, items[found.pair.item])


def _order(pair: Pair) -> bytes:
    """A random order of pairs that is always the same."""
    return hashlib.blake2b("\n".join((pair.query, *pair.item)).encode(), digest_size=8).digest()


def _fingerprint(ws: Workspace, settings: Settings, graded: Sequence[Graded]) -> str:
    """A hash of all that decides the student: the grades, the vectors' model and the seed."""
    rows = [(found.pair.query, *found.pair.item, found.content_hash, found.grade) for found in graded]
    described = json.dumps([RULE, require_active(ws).slug, settings.training.seed, rows])
    return hashlib.blake2b(described.encode(), digest_size=8).hexdigest()


def _save(
    ws: Workspace, settings: Settings, student: Student, measured: dict[str, Any], facts: dict[str, Any]
) -> str:
    ws.clear_partial("relevance")
    model = require_active(ws)
    with ws.new_run("relevance") as folder:
        student.save(folder)
        write_json(folder / "metrics.json", measured)
        write_json(
            folder / "run.json",
            {
                "model": "relevance",
                **facts,
                "vectors": model.slug,
                "prompt": RELEVANCE_VERSION,
                "seed": settings.training.seed,
                "versions": {name: version(name) for name in ("adstool", "numpy", "scikit-learn")}
                | {"python": sys.version.split()[0]},
            },
        )
    run = ws.current_run("relevance")
    assert run is not None
    return run.name


def _label(student: Student, vectors: PairVectors, pairs: Sequence[Pair]) -> np.ndarray:
    """The student's grade of every pair: int64 [n]."""
    grades = np.zeros(len(pairs), np.int64)
    with bar("label", total=len(pairs), unit="pair") as shown:
        for start in range(0, len(pairs), CHUNK):
            part = pairs[start : start + CHUNK]
            grades[start : start + len(part)] = student.grades(vectors.features(part))
            shown.update(len(part))
    return grades
