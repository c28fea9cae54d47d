"""The attribute words that CLIP chooses from, read from a TOML file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from adstool.content.enrichment.schema import LISTS, SchemaProblem, plain_word
from adstool.documents import read_toml, user_path
from adstool.errors import AdstoolError, choose

CATEGORY = "category"


@dataclass(frozen=True)
class Words:
    """The words of one attribute and the phrases they are put into."""

    prompts: tuple[str, ...]
    values: tuple[str, ...]

    def phrases(self, spoken: tuple[str, ...] | None = None) -> list[list[str]]:
        """For each value its phrases; `spoken` are the values as they are said in a phrase."""
        return [[prompt.replace("{}", value) for prompt in self.prompts] for value in spoken or self.values]


@dataclass(frozen=True)
class AttributeVocabulary:
    """The words by attribute; those of `category` come from the catalogue."""

    words: dict[str, Words]

    def with_categories(self, categories: tuple[str, ...]) -> AttributeVocabulary:
        """The same with these categories to choose from."""
        if CATEGORY not in self.words:
            return self
        chosen = Words(self.words[CATEGORY].prompts, categories)
        return AttributeVocabulary({**self.words, CATEGORY: chosen})

    @property
    def version(self) -> str:
        """A short hash of all words and phrases."""
        plain = {name: [words.prompts, words.values] for name, words in self.words.items()}
        return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=6).hexdigest()


def read_vocabulary(path: str) -> AttributeVocabulary:
    """The vocabulary in the file at `path`, or the one that ships with adstool for an empty path.

    Raises AdstoolError naming the section that is wrong.
    """
    file = user_path(path) if path else Path(str(files(__package__).joinpath("attributes.toml")))
    document = read_toml(file, f"The vocabulary {file}")
    unknown = sorted(document.keys() - {*LISTS, CATEGORY})
    if unknown:
        raise AdstoolError(f"{file}: '{unknown[0]}' is no attribute.", choose(unknown[0], (*LISTS, CATEGORY)))
    return AttributeVocabulary({name: _words(file, name, section) for name, section in document.items()})


def _words(file: Path, name: str, section: object) -> Words:
    needed = ("prompts",) if name == CATEGORY else ("prompts", "values")
    if not isinstance(section, dict) or section.keys() != set(needed):
        raise AdstoolError(
            f"{file}: [{name}] must have {' and '.join(needed)}.",
            "See adstool/content/enrichment/attributes.toml, the vocabulary that ships with adstool.",
        )
    for key in needed:
        entry = section[key]
        if not isinstance(entry, list) or not entry or not all(isinstance(text, str) for text in entry):
            raise AdstoolError(
                f"{file}: [{name}] {key} must be a list of texts.",
                "See adstool/content/enrichment/attributes.toml, the vocabulary that ships with adstool.",
            )
    if not all("{}" in prompt for prompt in section["prompts"]):
        raise AdstoolError(f"{file}: a prompt of [{name}] has no {{}}.", "Put {} where the word belongs.")
    try:
        values = tuple(plain_word(name, value) for value in section.get("values", ()))
    except SchemaProblem as problem:
        raise AdstoolError(
            f"{file}: [{name}] {problem}.", "Write it as a plain word in the list of values."
        ) from None
    if len(set(values)) != len(values):
        raise AdstoolError(f"{file}: [{name}] has a value twice.", "Leave it once in the list of values.")
    return Words(tuple(section["prompts"]), values)
