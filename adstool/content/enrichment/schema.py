"""What enrichment knows of an item, and the check that every answer has to pass.

An answer is taken only if it is one JSON object with exactly the fields asked for, each a short list of plain
words. Whatever else a model writes, markup, links, further keys, sentences, makes the answer unfit.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

LISTS = ("colour", "material", "style", "occasion", "intents", "audience")
MOST_VALUES = 5  # of a list
LONGEST = 60  # characters of a value
GRADES = (1, 5)
_PLAIN = re.compile(r"[\w][\w \-'’&,.+%/]*")
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


class SchemaProblem(ValueError):
    """An answer does not have the shape asked for; the text says where and why."""


@dataclass(frozen=True)
class Attributes:
    """What is known of an item: lower-case words, most certain first; `confidence` is by field, if known."""

    colour: tuple[str, ...] = ()
    material: tuple[str, ...] = ()
    style: tuple[str, ...] = ()
    occasion: tuple[str, ...] = ()
    intents: tuple[str, ...] = ()  # what somebody who wants the item is about to do
    audience: tuple[str, ...] = ()
    category: str | None = None
    confidence: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """The attributes as they are stored."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Attributes:
        """What `to_json` wrote."""
        stored = json.loads(text)
        return cls(**{**stored, **{name: tuple(stored[name]) for name in LISTS}})

    def sentence(self) -> str:
        """The attributes as a short text, for an embedding; empty when nothing is known."""
        said = {
            "": (self.category,) if self.category else (),
            "colour": self.colour,
            "material": self.material,
            "style": self.style,
            "for": (*self.occasion, *self.intents),
            "who": self.audience,
        }
        return "; ".join(f"{name} {', '.join(values)}".strip() for name, values in said.items() if values)


def read_object(text: str) -> dict[str, Any]:
    """The JSON object that an answer is; a code fence around it is allowed. Raises SchemaProblem."""
    fenced = _FENCED.fullmatch(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError) as error:
        raise SchemaProblem(f"the answer is not JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise SchemaProblem(f"the answer is a JSON {type(value).__name__}, not an object")
    return value


def parse_attributes(text: str) -> Attributes:
    """The attributes that an answer gives. Raises SchemaProblem naming the first field that is wrong."""
    value = read_object(text)
    _exactly(value, (*LISTS, "category"))
    lists: dict[str, Any] = {name: _words(name, value[name]) for name in LISTS}
    category = value["category"]
    return Attributes(**lists, category=None if category is None else plain_word("category", category))


def parse_grade(text: str) -> int:
    """The relevance grade, 1 to 5, that an answer gives. Raises SchemaProblem."""
    value = read_object(text)
    _exactly(value, ("grade",))
    grade = value["grade"]
    if isinstance(grade, bool) or not isinstance(grade, int) or not GRADES[0] <= grade <= GRADES[1]:
        raise SchemaProblem(f"'grade' must be an integer from {GRADES[0]} to {GRADES[1]}")
    return grade


def _exactly(value: dict[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in value]
    if missing:
        raise SchemaProblem(f"'{missing[0]}' is missing")
    unknown = sorted(str(name)[:40] for name in value.keys() - set(names))
    if unknown:
        raise SchemaProblem(f"'{unknown[0]}' was not asked for")


def _words(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SchemaProblem(f"'{name}' must be a list of strings")
    if len(value) > MOST_VALUES:
        raise SchemaProblem(f"'{name}' has {len(value)} values, more than {MOST_VALUES}")
    return tuple(dict.fromkeys(plain_word(name, item) for item in value))


def plain_word(name: str, value: Any) -> str:
    """A value of attribute `name`, lower case, single blanks. Raises SchemaProblem for no plain word."""
    if not isinstance(value, str):
        raise SchemaProblem(f"'{name}' must hold strings only")
    plain = " ".join(value.split()).casefold()
    if not plain or len(plain) > LONGEST:
        raise SchemaProblem(f"a value of '{name}' is empty or longer than {LONGEST} characters")
    if not _PLAIN.fullmatch(plain) or "//" in plain:
        raise SchemaProblem(f"a value of '{name}' holds characters that are not of a plain word")
    return plain
