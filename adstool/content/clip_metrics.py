"""How good a CLIP is on held-out pairs: retrieval of pictures by text, and categories without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adstool.content.clip_data import Pair


def clip_metrics(
    image: np.ndarray, text: np.ndarray, prompts: np.ndarray, pairs: Sequence[Pair]
) -> dict[str, float]:
    """Figures on n held-out pairs from unit vectors: image and text [n, dim], prompts [categories, dim].

    recall_at_10: share of titles whose picture, or one with the same text, is among the ten nearest.
    category_precision_at_10: share of a title's ten nearest pictures that are of its category.
    zero_shot_category: share of pictures whose nearest category name is their own; `prompts` are the vectors
    of `category_names(pairs)`. `chance_*`: the same for random vectors. `n`: pairs behind the figures.
    """
    n = len(pairs)
    if n == 0:
        return {"n": 0}
    k = min(10, n)
    texts = np.unique([pair.text for pair in pairs], return_inverse=True)[1]
    names = category_names(pairs)
    category = np.array([names.index(pair.category) if pair.category else -1 for pair in pairs])
    nearest = np.argsort(-(text @ image.T), axis=1, kind="stable")[:, :k]
    same = np.bincount(texts)[texts]
    figures = {
        "n": n,
        "recall_at_10": float((texts[nearest] == texts[:, None]).any(axis=1).mean()),
        "chance_recall_at_10": float((1 - (1 - same / n) ** k).mean()),
    }
    labelled = category >= 0
    if len(names) > 1 and labelled.any():
        precise = (category[nearest] == category[:, None])[labelled]
        guess = np.argmax(image[labelled] @ prompts.T, axis=1)
        shares = np.bincount(category[labelled]) / labelled.sum()
        figures |= {
            "category_precision_at_10": float(precise.mean()),
            "zero_shot_category": float((guess == category[labelled]).mean()),
            "chance_category": float((shares**2).sum()),
            "largest_category": float(shares.max()),
        }
    return figures


def category_names(pairs: Sequence[Pair]) -> list[str]:
    """The categories of these pairs, sorted."""
    return sorted({pair.category for pair in pairs if pair.category})
