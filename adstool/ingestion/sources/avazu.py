"""Avazu's click log as Kaggle published it (train.csv), into the flat table `avazu`.

Every column is a category; the hour is split into hour of day and weekday:
https://www.kaggle.com/c/avazu-ctr-prediction/data.
"""

from __future__ import annotations

from adstool.ingestion.inputs import Input
from adstool.ingestion.sources.base import Feed
from adstool.warehouse.flat import AVAZU_CATEGORIES

NEEDS = ("id", "click", "hour", *AVAZU_CATEGORIES)


def feed(source: Input) -> Feed:
    """How this file is read."""
    return Feed(source.path.name, "avazu", "source_avazu", NEEDS)
