"""Retargeting: items of advertisers at which the user was seen off the site."""

from __future__ import annotations

import numpy as np

from adstool.funnel.ann import best
from adstool.funnel.asked import DAY, Asked, Found

HALF_LIFE_DAYS = 7.0  # a conversion this old counts half


def retargeting(asked: Asked, depth: int) -> Found:
    """Items of advertisers of the user's conversions, online and offline, that were known before the request.

    score = sum over the conversions at the item's advertiser of 2^(-age / half life), times the item's
    popularity within its category.
    """
    advertisers, times = asked.state.off_site.before(asked.ctx.user, asked.ctx.ts)
    if not len(advertisers):
        return Found.nothing()
    seen, place = np.unique(advertisers, return_inverse=True)
    fresh = np.exp2(-(asked.ctx.ts - times) / (HALF_LIFE_DAYS * DAY))
    weight = np.bincount(place, weights=fresh)
    shelves = asked.orders.by_advertiser
    parts = [shelves.first(advertiser, depth, asked.eligible) for advertiser in seen.tolist()]
    scores = np.repeat(weight, [len(part) for part in parts])
    able = np.concatenate(parts)
    order = np.argsort(able)
    able, scores = able[order], scores[order]
    scores = scores * asked.state.popularity_within[asked.rows][able]
    chosen = best(scores, depth)
    return Found(able[chosen], scores[chosen].astype(np.float32))
