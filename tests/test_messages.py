"""Every message of adstool says what happened, where, and what to try, in one voice: read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adstool.errors import AdstoolError, choose

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "adstool").rglob("*.py"), *(ROOT / "commands").glob("*.py")])
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
VALUE = "{}"  # what stands for a value that is only known when the message is made
# What may stand at the end of a hint without a full stop, so that it can be copied.
COMMAND = re.compile(
    r"(^|: |, or |Try |example )(adstool|pip|iconv|gunzip|jq|--\w+) ?[^ ].*[^.]$|^[A-Z]\w* it: .*[^.]$"
)
NAMED = re.compile(
    r"\{\}|--\w|\[\w|'|\w\.\w|`|-k\b|PATH|\b(log|catalogue|warehouse|index|model|request|requests|body|search)\b"
)
INTERNAL = re.compile(r"\.py\b|\b[a-z]+[A-Z]\w*|\bself\b|Config\b")
PROPER = {"iPinYou"}
VAGUE = re.compile(
    r"^(Mend|Choose|Rename|Align|Change|Fix|Train|Give|Leave)( it| one| them| the \w+)?( out)?\.$"
)


@dataclass(frozen=True)
class Message:
    where: str
    text: str
    hint: str | None

    def __str__(self) -> str:
        return f"{self.where}: {self.text} / {self.hint}"


def template(node: ast.expr | None) -> list[str]:
    """The texts that an expression can be, {} standing for what is only known later."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(one.value if isinstance(one, ast.Constant) else VALUE for one in node.values)]  # type: ignore[misc]
    if isinstance(node, ast.BinOp):
        return [a + b for a in template(node.left) for b in template(node.right)]
    if isinstance(node, ast.IfExp):
        return [*template(node.body), *template(node.orelse)]
    return [VALUE]


def error_classes(trees: dict[Path, ast.Module]) -> set[str]:
    names = {"AdstoolError"}
    while True:
        found = {
            node.name
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") in names for base in node.bases)
        }
        if found <= names:
            return names
        names |= found


def messages() -> Iterator[Message]:
    classes = error_classes(TREES)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in classes:
                continue
            place = 2 if node.func.id == "GateNotPassed" else 1  # type: ignore[attr-defined]
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            hint = node.args[place] if len(node.args) > place else given.get("hint")
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            hints: list[str | None] = [*template(hint)] if hint is not None else [None]
            for text in template(node.args[0]):
                yield from (Message(where, text, one) for one in hints)


MESSAGES = list(messages())


def all_warnings() -> Iterator[Message]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "warning":
                for text in template(node.args[0]):
                    yield Message(
                        f"{path.relative_to(ROOT)}:{node.lineno}",
                        re.sub(r"%[\w,.]*[sdfg]", VALUE, text),
                        None,
                    )


def listed(bad: list[Message]) -> str:
    return "\n".join(map(str, bad))


def test_there_are_hundreds_of_them() -> None:
    assert len(MESSAGES) > 400


def test_a_message_is_a_sentence() -> None:
    bad = [one for one in MESSAGES if not one.text.endswith((".", "?", VALUE))]
    bad += [one for one in MESSAGES if not re.match(r"[\w'{\[-]", one.text)]
    assert not bad, listed(bad)


def test_a_message_says_what_to_try() -> None:
    bad = [one for one in MESSAGES if one.hint is None or len(one.hint) < 2 or VAGUE.match(one.hint)]
    assert not bad, listed(bad)


def test_what_to_try_ends_with_a_full_stop_or_a_command_to_copy() -> None:
    bad = [
        one
        for one in MESSAGES
        if one.hint and not one.hint.endswith((".", "?", VALUE)) and not COMMAND.search(one.hint)
    ]
    assert not bad, listed(bad)


def test_a_message_says_where() -> None:
    bad = [one for one in MESSAGES if not NAMED.search(one.text)]
    assert not bad, listed(bad)


def test_no_name_of_the_inside_is_said() -> None:
    bad = [
        one
        for one in MESSAGES
        if any(word not in PROPER for word in INTERNAL.findall(f"{one.text} {one.hint}"))
    ]
    assert not bad, listed(bad)


def test_a_warning_is_a_sentence() -> None:
    found = list(all_warnings())
    assert len(found) > 20
    bad = [one for one in found if not one.text.endswith((".", VALUE)) and not COMMAND.search(one.text)]
    bad += [one for one in found if re.match(r"[a-z]+ ", one.text) or not NAMED.search(one.text)]
    assert not bad, listed(bad)


def test_a_choice_names_the_nearest_and_few_names_whole() -> None:
    many = [f"setting_{number}" for number in range(30)]
    assert choose("engagment", ("retrieval", "engagement")) == (
        "Did you mean 'engagement'? Use one of: retrieval, engagement."
    )
    assert choose("xyz", ("ads", "pins")) == "Use one of: ads, pins."
    assert choose("setting_07", many) == "Did you mean 'setting_7'?"
    assert choose("qqq", many).startswith("Use one of: setting_0, ")


@pytest.mark.parametrize(
    ("given", "said"),
    [("It is gone", "It is gone."), ("x: no such file\n", "x: no such file."), ("Done.", "Done.")],
)
def test_a_message_that_ends_with_somebody_elses_words_gets_its_full_stop(given: str, said: str) -> None:
    assert AdstoolError(given).message == said


def test_the_middle_of_a_huge_value_is_left_out() -> None:
    error = AdstoolError(f"There is no format '{'x' * 5000}'", f"Try '{'y' * 5000}' instead")
    assert len(error.message) < 2010
    assert len(error.hint) < 2010
    assert error.message.startswith("There is no format 'xxx")
    assert error.message.endswith("xxx'.")
    assert error.hint.endswith("yyy' instead")
