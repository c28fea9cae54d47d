"""A small student of the language model: relevance grades 1 to 5 from the vectors of a query and an item.

It regresses the teacher's grade on products of the two vectors, their cosines and the share of the query's
words that the item's text holds, by ridge regression or one hidden layer, whichever agrees more in
cross-validation. The score is cut into grades so that the student gives each grade as often as the teacher
does, which squared error alone would not: it draws scores to the middle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, KFold
from sklearn.neural_network import MLPRegressor

from adstool.content.enrichment.schema import GRADES
from adstool.errors import AdstoolError
from adstool.workspace import read_json, write_json

KINDS = ("ridge", "mlp")
LEVELS = np.arange(GRADES[0], GRADES[1] + 1)
FOLDS = 5
ALPHAS = np.logspace(0, 5, 16)  # of ridge, on standardised columns
HIDDEN = 16
STEPS = 200
WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def pair_features(
    query: np.ndarray, joint: np.ndarray, text: np.ndarray, image: np.ndarray, overlap: np.ndarray
) -> np.ndarray:
    """What the student sees of n pairs: float32 [n, dim + 4].

    query, joint, text, image: unit vectors [n, dim], zeros for an item without that side; overlap: [n], the
    share of the query's words in the item's text. The columns are the products query * joint, the three
    cosines and the overlap.
    """
    cosines = [np.einsum("nd,nd->n", query, side) for side in (joint, text, image)]
    columns = np.stack([*cosines, overlap], axis=1)
    return np.concatenate([query * joint, columns], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Student:
    """A fitted student: standardisation, dense layers with rectifiers between them, cuts of the score."""

    kind: str
    mean: np.ndarray
    scale: np.ndarray
    layers: list[tuple[np.ndarray, np.ndarray]]  # weights [in, out] and biases [out]
    cuts: np.ndarray  # four rising scores between the five grades

    def scores(self, features: np.ndarray) -> np.ndarray:
        """The regressed grade, float [n]."""
        hidden = (features - self.mean) / self.scale
        for number, (weights, biases) in enumerate(self.layers):
            hidden = hidden @ weights + biases
            if number + 1 < len(self.layers):
                hidden = np.maximum(hidden, 0.0)
        return np.asarray(hidden[:, 0])

    def grades(self, features: np.ndarray) -> np.ndarray:
        """Grades 1 to 5, int [n]."""
        return cut(self.scores(features), self.cuts)

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json."""
        arrays = {"mean": self.mean, "scale": self.scale, "cuts": self.cuts}
        for number, (weights, biases) in enumerate(self.layers):
            arrays |= {f"weights{number}": weights, f"biases{number}": biases}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / WEIGHTS)
        write_json(folder / CONFIG, {"kind": self.kind, "layers": len(self.layers)})

    @classmethod
    def load(cls, folder: Path) -> Student:
        """What `save` wrote. Raises AdstoolError when it is damaged."""
        config = read_json(folder / CONFIG)
        try:
            arrays = load_file(folder / WEIGHTS)
            layers = [(arrays[f"weights{n}"], arrays[f"biases{n}"]) for n in range(config["layers"])]
            return cls(config["kind"], arrays["mean"], arrays["scale"], layers, arrays["cuts"])
        except Exception as error:  # safetensors has its own exception types for each kind of damage
            raise AdstoolError(
                f"The student in {folder} cannot be read: {error}", "adstool enrich --with llm --relevance"
            ) from None


def cut(scores: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Grades of scores: one more than the number of cuts below them, int [n]."""
    return np.asarray(LEVELS[0] + np.searchsorted(cuts, scores, side="left"), dtype=np.int64)


def matching_cuts(scores: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """The cuts that give each grade as often to `scores` as it is in `grades`: float [4]."""
    ordered = np.sort(scores)
    below = [int((grades <= level).sum()) for level in LEVELS[:-1]]
    found = []
    for count in below:
        if count == 0:
            found.append(-np.inf)
        elif count == len(ordered):
            found.append(np.inf)
        else:
            found.append((ordered[count - 1] + ordered[count]) / 2)
    return np.array(found, dtype=np.float64)


def fit_student(
    features: np.ndarray, grades: np.ndarray, queries: np.ndarray, seed: int = 0
) -> tuple[Student, dict[str, float | None]]:
    """A student of these grades, of the kind that agrees most with them in cross-validation.

    features: [n, f]; grades: int [n]; queries: int [n], which pairs share a query. Returns it and the
    cross-validated kappa by kind; `unseen_queries` is the chosen kind's on queries it had no grade of.
    """
    folds = KFold(min(FOLDS, len(grades)), shuffle=True, random_state=seed)
    held = {kind: _held_out(kind, features, grades, folds.split(features), seed) for kind in KINDS}
    kappas = {
        kind: weighted_kappa(grades, cut(scores, matching_cuts(scores, grades)))
        for kind, scores in held.items()
    }
    kind = max(KINDS, key=lambda name: _or_least(kappas[name]))
    mean, scale, layers = _fit(kind, features, grades, seed)
    student = Student(kind, mean, scale, layers, matching_cuts(held[kind], grades))
    found: dict[str, float | None] = dict(kappas)
    found["unseen_queries"] = None
    groups = len(np.unique(queries))
    if groups >= FOLDS:
        split = GroupKFold(FOLDS).split(features, groups=queries)
        scores = _held_out(kind, features, grades, split, seed)
        found["unseen_queries"] = weighted_kappa(grades, cut(scores, matching_cuts(scores, grades)))
    return student, found


def agreement(teacher: np.ndarray, student: np.ndarray) -> dict[str, float | int | None]:
    """How well two gradings agree: quadratic weighted kappa, mean absolute difference, share of equals."""
    return {
        "pairs": len(teacher),
        "kappa": weighted_kappa(teacher, student),
        "mae": float(np.abs(teacher - student).mean()) if len(teacher) else None,
        "equal": float((teacher == student).mean()) if len(teacher) else None,
    }


def weighted_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Cohen's kappa of two gradings with quadratic weights: 1 agree, 0 as by chance; None where both give one
    and the same grade throughout, for which it is not defined."""
    size = len(LEVELS)
    counts = np.zeros((size, size))
    np.add.at(counts, (np.asarray(first) - LEVELS[0], np.asarray(second) - LEVELS[0]), 1.0)
    weights = (LEVELS[:, None] - LEVELS[None, :]) ** 2
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(len(first), 1)
    chance = float((weights * expected).sum())
    return None if chance == 0 else 1.0 - float((weights * counts).sum()) / chance


def _or_least(kappa: float | None) -> float:
    return -1.0 if kappa is None else kappa


def _held_out(
    kind: str,
    features: np.ndarray,
    grades: np.ndarray,
    folds: Iterator[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> np.ndarray:
    """Every pair's score by a student that was not fitted on it."""
    scores = np.zeros(len(grades))
    for train, test in folds:
        mean, scale, layers = _fit(kind, features[train], grades[train], seed)
        scores[test] = Student(kind, mean, scale, layers, np.zeros(4)).scores(features[test])
    return scores


def _fit(
    kind: str, features: np.ndarray, grades: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-9] = 1.0
    standard = (features - mean) / scale
    target = grades.astype(np.float64)
    model: Any
    if kind == "ridge":
        model = RidgeCV(alphas=ALPHAS).fit(standard, target)
        return mean, scale, [(model.coef_[:, None], np.array([model.intercept_]))]
    model = MLPRegressor(
        hidden_layer_sizes=(HIDDEN,), alpha=10.0, solver="lbfgs", max_iter=STEPS, random_state=seed
    )
    with warnings.catch_warnings():
        # Ending after STEPS is meant: it keeps a small student from learning single pairs by heart.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(standard, target)
    return mean, scale, list(zip(model.coefs_, model.intercepts_, strict=True))
