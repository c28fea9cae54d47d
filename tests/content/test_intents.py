"""Zero-shot intents against open_clip called directly on the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from content.conftest import Shop

from adstool.content import search
from adstool.content.embedding import embed_items
from adstool.content.intents import PROMPTS, intents_key, read_intents, trimmed, zero_shot
from adstool.content.interest_kinds import intent_members
from adstool.content.interest_views import recent_queries
from adstool.content.interests import load_catalogue, refresh
from adstool.content.taxonomy import Topic
from adstool.content.vectors import load_vectors

TOPICS = (
    Topic("home/lamp", (), ("lamps",)),
    Topic("play", ("kite", "red ball")),
    Topic("bag_shop", ("bag",)),
)
NAMES = (("lamp", "lamps"), ("play", "kite", "red ball"), ("bag shop", "bag"))


def direct(folder: Path, texts: list[str]) -> np.ndarray:
    """Unit vectors of texts by open_clip alone."""
    import open_clip
    import torch

    from adstool.content.vocabulary import MERGES

    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=16, bpe_path=str(folder / MERGES))
    with torch.inference_mode():
        found = model.encode_text(tokenizer(texts)).numpy().astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def expected(folder: Path, vectors: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(cosine / temperature) of vectors over TOPICS, one number at a time."""
    prompts = [[prompt.format(name) for name in names for prompt in PROMPTS] for names in NAMES]
    means = [direct(folder, texts).mean(axis=0) for texts in prompts]
    cosine = np.array([[v @ m / np.linalg.norm(m) for m in means] for v in vectors.astype(np.float64)])
    return np.exp(cosine / temperature) / np.exp(cosine / temperature).sum(axis=1, keepdims=True)


def test_intents_are_those_of_open_clip_itself(
    shop: Shop, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill(6)
    embed_items(shop.ws, shop.settings, shop.con, images=None)
    for number, query in enumerate(("red lamp", "a kite", "red lamp")):
        shop.con.execute(
            "insert into events (event_id, ts, user_id, item_type, action, query)"
            " values (?, '2026-11-02', 'u1', 'query', 'query', ?)",
            [f"e{number}", query],
        )
    found = read_intents(shop.ws, shop.settings, shop.con, TOPICS)
    assert found is not None
    temperature = shop.settings.interests.temperature

    queries = ["a kite", "red lamp"]
    wanted = trimmed(expected(tiny_clip, direct(tiny_clip, queries), temperature))
    got = [[found.query_intents[query].get(topic.path, 0.0) for topic in TOPICS] for query in queries]
    assert np.array(got) == pytest.approx(wanted, abs=1e-4)

    ids, vectors = load_vectors(shop.ws, "ad")
    wanted = trimmed(expected(tiny_clip, vectors, temperature))
    rows = {(row["item_id"], row["topic"]): row["score"] for row in found.item_intents.to_pylist()}
    got = [[rows.get((item, topic.path), 0.0) for topic in TOPICS] for item in ids]
    assert np.array(got) == pytest.approx(wanted, abs=1e-4)

    # What was read once is read from the warehouse and the cache: no model is loaded.
    def refuse(*_: object) -> None:
        raise AssertionError("the CLIP was loaded again")

    monkeypatch.setattr(search, "load_active_clip", refuse)
    again = read_intents(shop.ws, shop.settings, shop.con, TOPICS)
    assert again is not None
    assert again.query_intents == found.query_intents
    assert again.item_intents.equals(found.item_intents)
    assert intents_key(shop.ws, shop.settings, TOPICS) != intents_key(shop.ws, shop.settings, TOPICS[:2])


def test_a_refresh_tells_interests_by_intent_and_what_queries_ask_for(shop: Shop) -> None:
    shop.fill(8)
    embed_items(shop.ws, shop.settings, shop.con, images=None)
    shop.con.execute(
        "insert into events (event_id, ts, user_id, item_type, item_id, action, query) values"
        " ('c', '2026-11-02', 'u1', 'ad', 'ad000', 'click', null),"
        " ('q', '2026-11-03', 'u1', 'query', null, 'query', 'something blue')"
    )
    catalogue = load_catalogue(shop.ws, shop.settings, shop.con)
    shares: dict[tuple[str, int], float] = {}
    for row in intent_members(catalogue).to_pylist():
        shares[row["item_id"], row["level"]] = shares.get((row["item_id"], row["level"]), 0.0) + row["share"]
    assert len(shares) == 8
    assert list(shares.values()) == pytest.approx([1.0] * 8)
    refresh(shop.con, shop.settings, catalogue)
    rows = shop.con.execute("select value, weight from interests where kind = 'intent'").fetchall()
    assert {value for value, _ in rows} <= catalogue.paths
    assert sum(weight for _, weight in rows) == pytest.approx(1.0)
    (asked,) = recent_queries(shop.con, shop.settings, "u1")
    assert (asked["query"], asked["read_by"]) == ("something blue", "clip")
    assert {one["topic"]: one["score"] for one in asked["intents"]} == catalogue.query_intents[
        "something blue"
    ]


def test_a_query_that_clip_has_not_read_is_read_by_its_words(shop: Shop) -> None:
    shop.fill(8)
    shop.con.execute(
        "insert into events (event_id, ts, user_id, item_type, action, query)"
        " values ('q', '2026-11-03', 'u1', 'query', 'query', $query)",
        {"query": shop.con.execute("select category from ads limit 1").fetchall()[0][0]},
    )
    (asked,) = recent_queries(shop.con, shop.settings, "u1")
    assert asked["read_by"] == "words"
    assert asked["intents"][0] == {"topic": asked["query"], "score": pytest.approx(1.0, abs=0.2)}


def test_a_colder_softmax_is_surer() -> None:
    random = np.random.default_rng(0)
    vectors, topics = random.normal(size=(5, 8)), random.normal(size=(4, 8))
    warm, cold = zero_shot(vectors, topics, 1.0), zero_shot(vectors, topics, 0.1)
    assert warm.sum(axis=1) == pytest.approx([1.0] * 5)
    assert (warm.argmax(axis=1) == cold.argmax(axis=1)).all()
    assert (cold.max(axis=1) > warm.max(axis=1)).all()
    assert trimmed(np.array([[0.9, 0.06, 0.04]])).tolist() == [pytest.approx([0.9375, 0.0625, 0.0])]
    assert trimmed(np.full((1, 40), 1 / 40)).sum() == pytest.approx(1.0)
