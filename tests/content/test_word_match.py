"""The share of a query's words that an item's words hold."""

from __future__ import annotations

import pytest

from adstool.content.word_match import word_share


@pytest.mark.parametrize(
    ("query", "words", "share"),
    [
        ("red dress", "AND Women Red Dresses", 1.0),
        ("Red DRESSES", "a red dress", 1.0),
        ("red dress", "Red shoe", 0.5),
        ("houses", "house", 1.0),
        ("tie", "ties", 1.0),
        ("red red", "red", 1.0),  # a word counts once
        ("dress", "dressing table", 0.0),
        ("rote Schuhe", None, 0.0),
        (" - ", "red", 0.0),
        ("kleid größe", "Größe 38", 0.5),
    ],
)
def test_shares(query: str, words: str | None, share: float) -> None:
    assert word_share(query, words) == share
