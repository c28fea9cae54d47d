"""How much of what was asked for an item's words say, beside how near its vector is."""

from __future__ import annotations

from adstool.content.text import tokens

NEAREST = 200  # items nearest by vector, at least, among which words may change the order


def word_share(query: str, words: str | None) -> float:
    """The share of the query's words that `words` hold, plurals in s and es alike; 0 for a query without."""
    asked, held = tokens(query), set(tokens(words))
    plurals = {word + ending for word in held for ending in ("s", "es")}
    found = [w for w in asked if w in held or w in plurals or {w + "s", w + "es"} & held]
    return len(found) / len(asked) if asked else 0.0
