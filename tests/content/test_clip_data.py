"""What a CLIP learns from: the vocabulary against CLIP's own tokenizer, true texts, splits, the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from adstool.content.clip_data import (
    Pair,
    batches_of,
    draw_text,
    item_text,
    singular,
    split_of,
    true_of,
    words_of,
)
from adstool.content.clip_losses import contrastive_loss, view_loss
from adstool.content.clip_metrics import clip_metrics
from adstool.content.clip_towers import augmented, normalised
from adstool.content.vocabulary import MERGES, catalogue_merges, load_tokenizer, write_merges

TITLES = ("Wedding gown: pink glass", "Quixotic zebra-print Kurtas for women's wear 2026", "naïve café lamp")


def test_catalogue_words_are_cut_as_clip_cuts_them(tmp_path: Path) -> None:
    merges = catalogue_merges(TITLES, common=100)
    assert len(merges) < 300
    write_merges(tmp_path / MERGES, merges)
    own, full = load_tokenizer(tmp_path, 24), open_clip.SimpleTokenizer(context_length=24)
    assert own.vocab_size == len(merges) + 514
    for title in TITLES:
        pieces = [own.decoder[token] for token in own.encode(title)]
        assert pieces == [full.decoder[token] for token in full.encode(title)]
    unseen = own.encode("unheard-of words ☃")
    assert own.decode(unseen).strip() == "unheard - of words ☃"
    first = (tmp_path / MERGES).read_bytes()
    write_merges(tmp_path / MERGES, merges)
    assert (tmp_path / MERGES).read_bytes() == first


def test_a_text_is_true_of_pictures_of_which_all_its_words_are_said() -> None:
    pairs = [
        Pair("a", "Red dress", "", "Dresses"),
        Pair("b", "Long red evening dress", "", "Dresses"),
        Pair("c", "Red shoe", "with a strap", "Shoes"),
    ]
    texts = ["red dress", "Long red evening dress", "RED", "dresses", "strap shoes"]
    expected = [[1, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(true_of(texts, pairs), np.array(expected, bool))


def test_plural_endings_go_and_other_words_stay() -> None:
    nouns = {"Dresses": "Dress", "watches": "watch", "shoes": "shoe", "shirts": "shirt", "boxes": "box"}
    assert {word: singular(word) for word in nouns} == nouns
    for word in ("dress", "bus", "gas", "red", "1990s", "glass"):
        assert singular(word) == word


words = st.lists(st.sampled_from(["red", "Blue", "dress", "shoe", "of", "silk"]), min_size=1, max_size=6)


@given(title=words, description=words, category=st.sampled_from(["", "Dresses"]), seed=st.integers(0, 999))
def test_a_drawn_text_is_true_of_its_own_picture(
    title: list[str], description: list[str], category: str, seed: int
) -> None:
    pair = Pair("a", " ".join(title), " ".join(description), category)
    text = draw_text(pair, np.random.default_rng(seed))
    assert text.strip()
    assert words_of(text) <= pair.words
    assert true_of([text], [pair])[0, 0]


def test_item_text_joins_what_there_is() -> None:
    assert item_text("Dress", "Long.") == "Dress. Long."
    assert item_text(None, " ") == ""
    assert item_text(" Dress ", None) == "Dress"


def test_splits_hold_about_their_share_and_depend_on_the_file_name_alone() -> None:
    names = [split_of(f"/x/{i}.jpg") for i in range(4000)]
    assert names == [split_of(f"/elsewhere/{i}.jpg") for i in range(4000)]
    assert 0.04 < names.count("valid") / 4000 < 0.06
    assert 0.085 < names.count("test") / 4000 < 0.115


def test_half_of_a_batch_is_alike_and_no_row_comes_twice() -> None:
    rows = np.arange(1000, 1403)
    categories = [f"c{row % 3}" for row in rows]
    batches = batches_of(rows, categories, 20, np.random.default_rng(1))
    seen = np.concatenate(batches)
    assert [len(batch) for batch in batches] == [20] * 20
    assert len(set(seen)) == len(seen) == 400
    assert set(seen) <= set(rows)
    kinds = [{categories[row - 1000] for row in batch[:10]} for batch in batches]
    assert sum(len(kind) == 1 for kind in kinds) >= 18
    assert np.mean([len({categories[row - 1000] for row in batch[10:]}) for batch in batches]) > 2.5
    again = batches_of(rows, categories, 20, np.random.default_rng(1))
    np.testing.assert_array_equal(np.stack(batches), np.stack(again))


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))), dim=-1)


def test_with_one_true_picture_a_text_the_loss_is_clips() -> None:
    image, text, scale = unit(12, 8), unit(12, 8).flip(0), torch.tensor(14.0)
    expected = open_clip.ClipLoss()(image, text, scale)
    torch.testing.assert_close(
        contrastive_loss(image, text, scale, torch.eye(12, dtype=torch.bool)), expected
    )


def test_with_several_true_pictures_the_loss_is_the_mean_log_softmax_of_them() -> None:
    image, text, scale = unit(5, 8), unit(5, 8).flip(0), torch.tensor(3.0)
    true = torch.eye(5, dtype=torch.bool)
    true[0, 3] = true[2, 1] = true[2, 4] = True
    logits = scale * text @ image.T
    total = 0.0
    for scores, mask in ((logits, true), (logits.T, true.T)):
        for row, hits in zip(scores, mask, strict=True):
            total += float(-(row - row.logsumexp(0))[hits].mean()) / 5
    assert float(contrastive_loss(image, text, scale, true)) == pytest.approx(total / 2, rel=1e-5)


def test_pictures_are_normalised_as_open_clip_does_and_augmentation_can_be_off() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    cfg = open_clip.transform.PreprocessCfg(size=64, resize_mode="squash")
    preprocess = open_clip.transform.image_transform_v2(cfg, is_train=False)
    from PIL import Image

    expected = torch.stack([preprocess(Image.fromarray(p.transpose(1, 2, 0))) for p in pixels])
    prepared = normalised(pixels)
    torch.testing.assert_close(prepared, expected)
    rng = np.random.default_rng(0)
    assert augmented(prepared, rng, 0.0) is prepared
    moved = augmented(prepared, rng, 0.2)
    assert moved.shape == prepared.shape
    assert not torch.allclose(moved, prepared)


def test_metrics_of_hand_worked_vectors() -> None:
    pairs = [Pair(str(i), f"title {i % 12}", "", "a" if i < 12 else "b") for i in range(24)]
    image = np.eye(24, dtype=np.float32)
    prompts = np.stack([image[:12].mean(0), image[12:].mean(0)])
    exact = clip_metrics(image, image, prompts, pairs)
    assert exact["recall_at_10"] == 1.0
    assert exact["zero_shot_category"] == 1.0
    assert exact["chance_recall_at_10"] == pytest.approx(1 - (1 - 2 / 24) ** 10)
    assert exact["chance_category"] == 0.5
    swapped = clip_metrics(image, image, prompts[::-1], pairs)
    assert swapped["zero_shot_category"] == 0.0
    assert clip_metrics(image[:0], image[:0], prompts, []) == {"n": 0}


def test_view_loss_is_the_mean_log_softmax_of_a_pictures_own_view() -> None:
    first, second = unit(6, 8), unit(6, 8).flip(0)
    logits = (first @ second.T / 0.1).double().numpy()
    by_row = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    by_column = logits - np.log(np.exp(logits).sum(axis=0, keepdims=True))
    expected = -(np.diag(by_row).mean() + np.diag(by_column).mean()) / 2
    assert float(view_loss(first, second)) == pytest.approx(expected, rel=1e-5)
