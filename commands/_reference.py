"""README's table and reference of the verbs, made from their help: `just reference`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer.main

from adstool.commands import VERBS, build_app
from adstool.commands._help import Verb, body, words_of

COLUMNS = 100  # of a page in README


def refreshed(readme: str) -> str:
    """The text of README with what stands between its markers made anew."""
    for name, made in {"verbs": verbs_table(), "reference": reference()}.items():
        readme = re.sub(
            rf"(<!-- {name}: made by `just reference` -->\n).*?(<!-- end of {name} -->)",
            lambda found, made=made: f"{found[1]}{made}{found[2]}",  # type: ignore[misc]
            readme,
            flags=re.DOTALL,
        )
    return readme


def verbs_table() -> str:
    """A row a verb: how it is written, and its sentence."""
    rows = ["| | verb | what it does |", "|---|---|---|"]
    group = ""
    for verb in _verbs():
        heading = VERBS[str(verb.name)]
        words = " ".join([str(verb.name), *words_of(verb)]).replace("|", "\\|")
        rows.append(f"| {heading if heading != group else ''} | `{words}` | {verb.sentence} |")
        group = heading
    return "\n".join(rows) + "\n"


def reference() -> str:
    """What every verb's help tells, each folded away."""
    return "".join(
        f"<details><summary><code>adstool {verb.name}</code> {verb.sentence}</summary>\n\n"
        f"```text\n{_told(verb)}\n```\n\n</details>\n"
        for verb in _verbs()
    )


def _told(verb: Verb) -> str:
    return "\n\n".join([body(verb, COLUMNS), *([verb.exit_codes] if ", 3 " in verb.exit_codes else [])])


def _verbs() -> list[Verb]:
    commands = typer.main.get_group(build_app()).commands
    found = [commands[name] for name in VERBS]
    return [verb for verb in found if isinstance(verb, Verb)]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
