"""Zero-shot attributes: which words of a vocabulary a vector of CLIP is nearest to, and whether to trust it.

For every attribute the phrases of its words go through the text tower; an item's share for a word is the
softmax of the cosines to its joint vector, at the temperature that the model learned. A small CLIP always
chooses something, also between words it never learned, so it is checked on items whose texts name a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adstool.content.clip import ClipModel
from adstool.content.clip_data import singular, words_of
from adstool.content.enrichment.prompts import ItemText
from adstool.content.enrichment.schema import MOST_VALUES, Attributes
from adstool.content.enrichment.vocabulary import CATEGORY, AttributeVocabulary, Words

EVIDENCE = 30  # items that must name a word of an attribute before CLIP is judged on it
JUDGED = 5000  # items it is judged on at most


class AttributeScorer:
    """The phrases of a vocabulary as vectors of one CLIP."""

    def __init__(self, clip: ClipModel, vocabulary: AttributeVocabulary) -> None:
        self.vocabulary = vocabulary
        self._scale = float(clip.model.logit_scale.detach().float().exp().cpu())
        self._texts = {
            name: _phrase_vectors(clip, name, words)
            for name, words in vocabulary.words.items()
            if words.values
        }

        self._parts = [
            (name, value, words_of(value))
            for name, words in vocabulary.words.items()
            if name != CATEGORY
            for value in words.values
        ]

    def shares(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """By attribute the shares of its words, float [n, words], each row of sum 1; vectors: [n, dim]."""
        found = {}
        for name, texts in self._texts.items():
            logits = self._scale * (vectors @ texts.T)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            found[name] = powers / powers.sum(axis=1, keepdims=True)
        return found

    def attributes(
        self, vectors: np.ndarray, texts: Sequence[ItemText | None], believed: set[str], least: float
    ) -> list[Attributes]:
        """Attributes of items by their joint vectors [n, dim] and texts.

        A word that the item's own text names is taken from there; for the other attributes CLIP, where it is
        `believed`, gives words whose share is at least `least`, greatest first, with the first one's
        share as confidence. The category is always CLIP's guess.
        """
        shares = {name: share for name, share in self.shares(vectors).items() if name in believed}
        found = []
        for row, text in enumerate(texts):
            fields: dict[str, Any] = {**self._named(text)}
            fields["confidence"] = {}
            for name in shares.keys() - fields.keys():
                words = self._chosen(name, shares[name][row], least)
                if words:
                    fields[name] = words[0] if name == CATEGORY else words
                    fields["confidence"][name] = round(float(shares[name][row].max()), 4)
            found.append(Attributes(**fields))
        return found

    def judge(self, vectors: np.ndarray, texts: Sequence[ItemText | None]) -> dict[str, Agreement]:
        """By attribute, how often CLIP's first choice is the one word that the item's text (for the category:
        the catalogue) names."""
        firsts = {name: share.argmax(axis=1) for name, share in self.shares(vectors).items()}
        found = {name: [0, 0] for name in firsts}
        for row, text in enumerate(texts):
            said: dict[str, Any] = dict(self._named(text))
            if text is not None and text.category:
                said[CATEGORY] = (text.category,)
            for name, words in said.items():
                if name in firsts and len(words) == 1:
                    found[name][0] += 1
                    found[name][1] += self.vocabulary.words[name].values[int(firsts[name][row])] == words[0]
        return {name: Agreement(items, right) for name, (items, right) in found.items()}

    def _chosen(self, name: str, share: np.ndarray, least: float) -> tuple[str, ...]:
        order = np.argsort(-share, kind="stable")[:MOST_VALUES].tolist()
        values = self.vocabulary.words[name].values
        return tuple(values[place] for place in order if share[place] >= least)

    def _named(self, text: ItemText | None) -> Mapping[str, tuple[str, ...]]:
        """By attribute, the words of the vocabulary that an item's title and description hold."""
        if text is None:
            return {}
        held = words_of(f"{text.title or ''} {text.description or ''}")
        found: dict[str, tuple[str, ...]] = {}
        for name, value, parts in self._parts:
            if parts <= held and len(found.get(name, ())) < MOST_VALUES:
                found[name] = (*found.get(name, ()), value)
        return found


@dataclass(frozen=True)
class Agreement:
    """How CLIP did where the right word is known."""

    items: int
    right: int

    @property
    def share(self) -> float | None:
        """Of the items, how many it got right; None where too few tell."""
        return self.right / self.items if self.items >= EVIDENCE else None

    def believed(self, least: float, unchecked: bool) -> bool:
        """Whether CLIP's choice is taken: it is right often enough, or cannot be judged and is wanted so."""
        return unchecked if self.share is None else self.share >= least


def _phrase_vectors(clip: ClipModel, name: str, words: Words) -> np.ndarray:
    """The mean over its phrases of every word's vector, unit length: float32 [words, dim]."""
    # Catalogues name categories in the plural, phrases speak of one item.
    spoken = tuple(map(singular, words.values)) if name == CATEGORY else words.values
    phrases = words.phrases(spoken)
    encoded = clip.encode_texts([phrase for group in phrases for phrase in group])
    means = encoded.reshape(len(phrases), len(words.prompts), -1).mean(axis=1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
