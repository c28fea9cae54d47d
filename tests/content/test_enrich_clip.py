"""`enrich --with clip`: shares against open_clip called directly, what is believed, and knowledge vectors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cli_json

from adstool.config import FeatureSettings, Settings
from adstool.content.embedding import embed_items
from adstool.content.enrichment.attributes_by_clip import enrich_by_clip
from adstool.content.enrichment.knowledge import embed_knowledge, feature_knowledge, load_knowledge
from adstool.content.enrichment.prompts import ItemText
from adstool.content.enrichment.schema import Attributes
from adstool.content.enrichment.store import load_attributes
from adstool.content.enrichment.vocabulary import AttributeVocabulary, Words, read_vocabulary
from adstool.content.enrichment.zero_shot import EVIDENCE, Agreement, AttributeScorer
from adstool.content.search import load_active_clip
from adstool.content.vectors import load_vectors
from adstool.errors import AdstoolError
from adstool.warehouse import open_warehouse
from adstool.warehouse.status import attribute_sources

Shop = Any


@pytest.fixture
def embedded(shop: Shop) -> Shop:
    """Twelve ads and four pins with vectors; their titles hold a colour, none a material."""
    shop.fill(12)
    shop.fill(4, "pin")
    embed_items(shop.ws, shop.settings, shop.con)
    return shop


def enrich(shop: Shop, limit: int | None = None, **given: Any) -> Any:
    wanted = dataclasses.replace(shop.settings.enrichment, **{"unchecked": True, **given})
    settings = dataclasses.replace(shop.settings, enrichment=wanted)
    with shop.left_alone():
        return enrich_by_clip(shop.ws, settings, limit=limit)


def test_shares_are_those_that_open_clip_gives(embedded: Shop, tiny_clip: Path) -> None:
    import open_clip
    import torch

    words = {
        "colour": Words(("{}", "a {} item"), ("red", "blue", "green")),
        "category": Words(("a photo of a {}",), ("dresses", "shoes")),
    }
    scorer = AttributeScorer(load_active_clip(embedded.ws, embedded.settings), AttributeVocabulary(words))
    ids, vectors = load_vectors(embedded.ws, "ad")
    found = scorer.shares(vectors)

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    tokenizer = open_clip.SimpleTokenizer(context_length=16, bpe_path=str(tiny_clip / "merges.txt.gz"))
    rows = embedded.con.execute("select ad_id, title, image from ads order by ad_id").fetchall()
    assert [row[0] for row in rows] == ids
    from PIL import Image

    unit = torch.nn.functional.normalize
    with torch.no_grad():
        for place, (_, title, image) in enumerate(rows):
            joint = unit(model.eval().encode_text(tokenizer([title])), dim=-1)
            if image:
                picture = preprocess(Image.open(image).convert("RGB"))[None]
                joint = unit(joint + unit(model.encode_image(picture), dim=-1), dim=-1)
            for name, phrases in (
                ("colour", [["red", "a red item"], ["blue", "a blue item"], ["green", "a green item"]]),
                ("category", [["a photo of a dress"], ["a photo of a shoe"]]),
            ):
                texts = [unit(model.encode_text(tokenizer(p)), dim=-1).mean(0) for p in phrases]
                logits = model.logit_scale.exp() * joint @ unit(torch.stack(texts), dim=-1).T
                want = logits.softmax(-1).numpy()[0]
                np.testing.assert_allclose(found[name][place], want, atol=2e-5)


def test_words_of_the_text_come_first_and_shares_below_the_limit_give_nothing(embedded: Shop) -> None:
    words = {
        "colour": Words(("{}",), ("red", "blue")),
        "style": Words(("{}",), ("plain", "dots", "checks")),
        "category": Words(("{}",), ("dresses", "shoes")),
    }
    scorer = AttributeScorer(load_active_clip(embedded.ws, embedded.settings), AttributeVocabulary(words))
    _, vectors = load_vectors(embedded.ws, "ad")
    shares = scorer.shares(vectors[:2])
    texts = [ItemText("Two red and blue dresses", None, None, None), None]
    said, seen = scorer.attributes(vectors[:2], texts, {"colour", "style"}, least=0.0)
    assert said.colour == ("red", "blue")
    assert said.category is None  # not believed
    assert set(said.confidence) == {"style"}
    order = np.argsort(-shares["style"][1])
    assert seen.style == tuple(np.array(["plain", "dots", "checks"])[order])
    assert seen.confidence["style"] == pytest.approx(shares["style"][1].max(), abs=1e-4)
    assert scorer.attributes(vectors[:2], [None, None], {"style"}, least=1.1) == [Attributes(), Attributes()]


def test_clip_is_judged_where_the_right_word_is_known(embedded: Shop) -> None:
    words = {"colour": Words(("{}",), ("red", "blue")), "style": Words(("{}",), ("plain", "dots"))}
    scorer = AttributeScorer(load_active_clip(embedded.ws, embedded.settings), AttributeVocabulary(words))
    _, vectors = load_vectors(embedded.ws, "ad")
    many = np.repeat(vectors[:1], EVIDENCE + 1, axis=0)
    first = ("red", "blue")[int(scorer.shares(many)["colour"][0].argmax())]
    texts = [ItemText(f"{first} dress", None, None, None)] * 20
    texts += [ItemText("red and blue", None, None, None)]  # two words tell nothing
    texts += [ItemText(f"{'blue' if first == 'red' else 'red'} dress", None, None, None)] * (EVIDENCE - 20)
    agreement = scorer.judge(many, texts)
    assert agreement == {"colour": Agreement(EVIDENCE, 20), "style": Agreement(0, 0)}
    assert agreement["colour"].share == pytest.approx(20 / EVIDENCE)
    assert agreement["colour"].believed(0.5, False)
    assert not agreement["colour"].believed(0.9, True)
    assert not agreement["style"].believed(0.5, False)
    assert agreement["style"].believed(0.5, True)
    assert Agreement(EVIDENCE - 1, EVIDENCE - 1).share is None


def test_items_are_enriched_once_until_their_content_or_the_vocabulary_changes(
    embedded: Shop, tmp_path: Path
) -> None:
    done = enrich(embedded, limit=5)
    assert (done.enriched, done.cached, done.left, done.calls) == (5, 0, 11, 0)
    done = enrich(embedded)
    assert (done.enriched, done.cached, done.left) == (11, 5, 0)
    assert enrich(embedded).cached == 16
    assert load_attributes(embedded.con, "ad")["ad001"].colour == ("blue",)
    embedded.con.execute("update ads set title = 'green lamp' where ad_id = 'ad001'")
    embed_items(embedded.ws, embedded.settings, embedded.con)
    done = enrich(embedded)
    assert (done.enriched, done.cached) == (1, 15)
    assert load_attributes(embedded.con, "ad")["ad001"].colour == ("green",)
    own = tmp_path / "own.toml"
    own.write_text('[material]\nprompts = ["{}"]\nvalues = ["wool"]\n', encoding="utf-8")
    done = enrich(embedded, vocabulary=str(own))
    assert (done.enriched, done.cached) == (16, 0)
    assert load_attributes(embedded.con, "ad")["ad001"] == Attributes(
        material=("wool",), confidence={"material": 1.0}
    )
    count = embedded.con.execute("select count(*) from enrichments").fetchall()
    assert count == [(16,)]  # an item has one row a source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[colour]\nvalues = ['red']\n", "prompts and values"),
        ("[colour]\nprompts = ['a']\nvalues = ['red']\n", "has no {}"),
        ("[colour]\nprompts = ['{}']\nvalues = ['red', 'Red']\n", "twice"),
        ("[colour]\nprompts = ['{}']\nvalues = ['<b>']\n", "plain word"),
        ("[colour]\nprompts = ['{}']\nvalues = [3]\n", "list of texts"),
        ("[size]\nprompts = ['{}']\nvalues = ['xl']\n", "no attribute"),
        ("[colour\n", "not valid TOML"),
    ],
)
def test_a_vocabulary_that_is_wrong_names_its_section(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "words.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AdstoolError, match=said) as caught:
        read_vocabulary(str(path))
    assert str(path) in caught.value.message


def test_the_shipped_vocabulary_is_whole() -> None:
    assert set(read_vocabulary("").words) == {
        *("category", "colour", "material", "style", "occasion", "intents", "audience")
    }
    with pytest.raises(AdstoolError, match="cannot be read"):
        read_vocabulary("/nowhere/words.toml")


def test_knowledge_is_the_text_of_the_attributes_as_a_vector(embedded: Shop) -> None:
    assert load_knowledge(embedded.ws, "ad")[0] == []
    wanted = Settings(features=FeatureSettings(knowledge=True))
    assert [ids for ids, _ in feature_knowledge(embedded.ws, wanted).values()] == [[], []]
    enrich(embedded)
    made = embed_knowledge(embedded.ws, embedded.settings, embedded.con)
    known = load_attributes(embedded.con, "ad")
    ids, vectors = load_knowledge(embedded.ws, "ad")
    assert made == {"ad": 12, "pin": 4}
    assert ids == sorted(known)
    clip = load_active_clip(embedded.ws, embedded.settings)
    want = np.concatenate([clip.encode_texts([known[item_id].sentence()]) for item_id in ids])
    np.testing.assert_allclose(vectors, want, atol=1e-5)
    assert feature_knowledge(embedded.ws, wanted)["ad"][0] == ids
    assert feature_knowledge(embedded.ws, Settings()) == {}
    embedded.con.execute("delete from ads where ad_id = 'ad003'")
    assert embed_knowledge(embedded.ws, embedded.settings, embedded.con) == {"ad": 11, "pin": 4}
    assert "ad003" not in load_knowledge(embedded.ws, "ad")[0]


def test_only_new_knowledge_goes_through_the_model(embedded: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    enrich(embedded)
    embed_knowledge(embedded.ws, embedded.settings, embedded.con)
    from adstool.content.enrichment import knowledge

    def never(*_: Any) -> None:
        raise AssertionError("the model was loaded for nothing")

    monkeypatch.setattr(knowledge, "load_active_clip", never)
    assert embed_knowledge(embedded.ws, embedded.settings, embedded.con) == {"ad": 12, "pin": 4}


def test_a_language_model_is_preferred_to_clip(embedded: Shop) -> None:
    enrich(embedded)
    payload = Attributes(colour=("mauve",)).to_json()
    embedded.con.execute(
        "insert into enrichments by name select 'ad' as item_type, 'ad001' as item_id, 'llm:m' as source,"
        " $payload::json as payload, timestamp '2020-01-01' as created_at",
        {"payload": payload},
    )
    assert load_attributes(embedded.con, "ad")["ad001"].colour == ("mauve",)
    assert load_attributes(embedded.con, "ad")["ad002"].colour == ("green",)


def test_the_verb_enriches_the_catalogue(embedded: Shop) -> None:
    embedded.con.close()
    done = cli_json("--workspace", embedded.ws.root, "enrich", "ads")
    assert (done["enriched"], done["cached"], done["knowledge"]) == (12, 0, {"ad": 12})
    assert done["agreement"]["colour"]["items"] == 12
    assert done["agreement"]["colour"]["believed"] is False  # too few to judge a random CLIP by
    with open_warehouse(embedded.ws, embedded.settings, read_only=True) as con:
        known = load_attributes(con, "ad")
        assert attribute_sources(con) == {done["source"]: 12}
    assert len(known) == 12
    assert known["ad001"] == Attributes(colour=("blue",))  # what the title says
