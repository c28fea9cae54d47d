"""README tells the truth about commands, verbs and files."""

from __future__ import annotations

import re
from pathlib import Path

from adstool.commands import VERBS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_two_shell_blocks_are_the_two_commands() -> None:
    first, second = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[:2]
    assert "venv" in first
    assert "adstool demo" in first
    assert "venv" in second
    assert "pytest" in second


def test_every_verb_is_in_the_table() -> None:
    section = README.partition("\n## Verbs\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\|[^|]*\| `(\w+)[^`]*` \|", section, re.MULTILINE)
    assert table == list(VERBS)


def test_every_file_the_map_names_is_there() -> None:
    for name in re.findall(r"`((?:adstool|commands|sql|sample_data|tests)/[\w./*-]+)`", README):
        assert list(ROOT.glob(name.rstrip("/"))), name
