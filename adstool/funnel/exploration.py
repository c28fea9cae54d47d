"""Exploration: little-shown items by Thompson sampling, so that what nobody knows yet gets its chance."""

from __future__ import annotations

import hashlib

import numpy as np

from adstool.funnel.ann import best
from adstool.funnel.asked import Asked, Found, Outcomes

DRAWN = 4  # times the depth: items that are drawn to be judged
PRIOR = 20.0  # impressions at the category's rate that every item is taken to have had


def outcomes(shown: np.ndarray, engaged: np.ndarray, category: np.ndarray) -> Outcomes:
    """Outcomes of impressions and engagements [n] and category numbers [n], -1 for none."""
    total = max(float(shown.sum()), 1.0)
    overall = min(max(float(engaged.sum()) / total, 1e-6), 0.5)
    size = int(category.max(initial=-1)) + 2  # the last place is that of no category
    by = np.where(category >= 0, category, size - 1)
    numerator = np.bincount(by, weights=engaged, minlength=size) + PRIOR * overall
    rate = numerator / (np.bincount(by, weights=shown, minlength=size) + PRIOR)
    little = np.flatnonzero(shown < max(float(shown.mean()), 1.0)) if len(shown) else shown[:0]
    usual = np.clip(rate[by], 1e-6, 0.5).astype(np.float32)
    return Outcomes(shown, engaged, usual, little.astype(np.int64))


def exploration(asked: Asked, depth: int) -> Found:
    """Little-shown items by a rate drawn from what is believed of each, times how wanted its category is.

    The rate is drawn from Beta(prior · usual + engagements, prior · (1 - usual) + the other impressions)
    (Thompson 1933; Chapelle and Li 2011): what was shown without success comes up less and less, what is not
    known comes up by chance. All chance comes from the request's id: asked again, it answers the same.
    """
    seed = int.from_bytes(hashlib.blake2b(asked.request_id.encode(), digest_size=8).digest(), "big")
    random = np.random.default_rng(seed)
    known = asked.outcomes
    able = _drawn(known.little, DRAWN * depth, asked.eligible, random)
    usual, shown, engaged = known.usual[able], known.shown[able], known.engaged[able]
    engaged = np.minimum(engaged, shown)
    draws = random.beta(PRIOR * usual + engaged, PRIOR * (1.0 - usual) + shown - engaged)
    category = asked.state.items.categories[0][asked.rows][able]
    wanted = np.append(np.maximum(asked.wanted, 0.0), 0.0)  # category -1 reads the appended place
    scores = draws * (wanted[category] + max(float(wanted.mean()), 1e-9))
    chosen = best(scores, depth)
    return Found(able[chosen], scores[chosen].astype(np.float32))


def _drawn(little: np.ndarray, k: int, eligible: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """k eligible positions of these by chance, all of them where there are fewer."""
    tried = 2 * k
    while tried < len(little):
        drawn = little[random.choice(len(little), tried, replace=False)]
        drawn = drawn[eligible[drawn]]
        if len(drawn) >= k:
            return np.asarray(drawn[:k])
        tried *= 4
    able = little[eligible[little]]
    return np.asarray(able[random.choice(len(able), k, replace=False)] if len(able) > k else able)
