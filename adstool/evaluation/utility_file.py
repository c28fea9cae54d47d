"""Chosen weights into adstool.toml: the lines that hold them and nothing else, with the evidence above."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from adstool.config import Action, Settings, load_settings
from adstool.errors import AdstoolError
from adstool.workspace import write_text

MARK = "# evaluate utility: "
_HEADER = re.compile(r"\s*\[")


def write_weights(path: Path, settings: Settings, evidence: list[str]) -> None:
    """Write auction.utility_weight and the weights of all actions of `settings` into the file at `path`.

    Evidence goes above the line of utility_weight, in place of an earlier one. What else the file holds stays
    as it is. The new text is read back before it replaces the old; raises AdstoolError, with the file
    untouched, when it does not say what it should (tables written inline, say).
    """
    raw = path.read_bytes().decode("utf-8") if path.is_file() else ""
    ending = "\r\n" if "\r\n" in raw else "\n"
    text = raw.replace("\r\n", "\n")
    before = load_settings(path, environment={})
    lines = [line for line in text.removesuffix("\n").split("\n") if not line.startswith(MARK)]
    lines = _set_auction(lines, settings.auction.utility_weight, evidence)
    lines = _set_actions(lines, settings.actions, before)
    new = "\n".join(lines) + "\n"
    if not _says(new, settings) or _rest(new, text) != _rest(text, text):
        raise AdstoolError(
            f"{path} is written in a way whose weights cannot be changed line by line; it was left as it is.",
            f"Write yourself: [auction] utility_weight = {settings.auction.utility_weight:g}; weights "
            + ", ".join(f"{action.name} = {action.weight:g}" for action in settings.actions),
        )
    write_text(path, new.replace("\n", ending))


def _says(text: str, settings: Settings) -> bool:
    """Whether a document holds these weights."""
    try:
        document = tomllib.loads(text)
        actions = {entry["name"]: entry["weight"] for entry in document["actions"]}
        money = document["auction"]["utility_weight"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return False
    return bool(
        money == settings.auction.utility_weight
        and actions == {action.name: action.weight for action in settings.actions}
    )


def _rest(text: str, before: str) -> dict[str, object]:
    """All that a document says but the weights; its actions only if the document `before` had some."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
    auction = {key: value for key, value in document.pop("auction", {}).items() if key != "utility_weight"}
    actions = document.pop("actions", [])
    if "actions" in tomllib.loads(before):
        document["actions"] = [{k: v for k, v in one.items() if k != "weight"} for one in actions]
    return {**document, "auction": auction}


def _section(lines: list[str], start: int) -> int:
    """The line after the last of the section whose header is line `start`."""
    later = (place for place in range(start + 1, len(lines)) if _HEADER.match(lines[place]))
    return next(later, len(lines))


def _set_auction(lines: list[str], money: float, evidence: list[str]) -> list[str]:
    comments = [MARK + line for line in evidence]
    line = f"utility_weight = {money:g}"
    start = next((place for place, one in enumerate(lines) if re.match(r"\s*\[\s*auction\s*\]", one)), None)
    if start is None:
        return [*lines, *([""] if lines else []), "[auction]", *comments, line]
    end = _section(lines, start)
    old = next((p for p in range(start + 1, end) if re.match(r"\s*utility_weight\s*=", lines[p])), None)
    if old is not None:
        return [*lines[:old], *comments, _with_number(lines[old], money), *lines[old + 1 :]]
    return [*lines[: start + 1], *comments, line, *lines[start + 1 :]]


def _with_number(line: str, number: float) -> str:
    """A line `key = number  # comment` with another number."""
    return re.sub(r"(=\s*)[^\s#]+", lambda found: f"{found.group(1)}{number:g}", line, count=1)


def _set_actions(lines: list[str], actions: tuple[Action, ...], before: Settings) -> list[str]:
    """The weights in the entries of [[actions]]; all entries anew at the end of a file that has none."""
    weights: Mapping[str, float] = {action.name: action.weight for action in actions}
    starts = [place for place, one in enumerate(lines) if re.match(r"\s*\[\[\s*actions\s*\]\]", one)]
    if not starts:
        return [*lines, *(line for action in before.actions for line in _entry(action, weights[action.name]))]
    # From the last entry up, so that the places of those above stay right.
    for start in reversed(starts):
        inside = range(start + 1, _section(lines, start))
        named = next((p for p in inside if re.match(r"\s*name\s*=", lines[p])), None)
        if named is None:
            continue
        name = str(tomllib.loads(lines[named].strip())["name"])
        old = next((p for p in inside if re.match(r"\s*weight\s*=", lines[p])), None)
        if old is not None:
            lines[old] = _with_number(lines[old], weights[name])
        else:
            lines.insert(named + 1, f"weight = {weights[name]:g}")
    return lines


def _entry(action: Action, weight: float) -> list[str]:
    """An [[actions]] entry of what is not a default."""
    lines = ["", "[[actions]]", f'name = "{action.name}"', f"weight = {weight:g}"]
    for one in fields(Action):
        value = getattr(action, one.name)
        if one.name not in ("name", "weight") and value != one.default:
            shown = (
                str(value).lower()
                if isinstance(value, bool)
                else f'"{value}"'
                if isinstance(value, str)
                else value
            )
            lines.append(f"{one.name} = {shown}")
    return lines
