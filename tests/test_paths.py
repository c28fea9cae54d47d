"""Paths that work on Windows and macOS, too: names in the tree, how files are opened, what is imported."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for top in ("adstool", "commands") for path in (ROOT / top).rglob("*.py"))
DEVICES = {"con", "prn", "aux", "nul"} | {f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10)}
UNIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}
TEXT = {"read_text", "write_text"}


def test_every_name_in_the_tree_can_be_had_everywhere() -> None:
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    parts = {part for name in listed for part in name.split("/")}
    assert not [part for part in parts if re.search(r'[<>:"\\|?*\x00-\x1f]|[ .]$', part)]
    assert not [part for part in parts if part.partition(".")[0].lower() in DEVICES]
    assert [name for name, times in Counter(name.lower() for name in listed).items() if times > 1] == []
    assert (
        max(map(len, listed)) < 160
    )  # Windows has 260 for the whole path, the folder of the checkout included


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The syntax tree of every source file, by its path."""
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text(encoding="utf-8")) for p in SOURCES}


def test_text_files_are_opened_with_their_encoding(trees: dict[str, ast.Module]) -> None:
    """Else Windows takes its own code page."""
    found = []
    for name, tree in trees.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            given = {keyword.arg for keyword in call.keywords}
            if "encoding" in given or None in given:
                continue
            mode = ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'"
            if called == "open" and "b" not in mode and mode.startswith("'"):
                found.append((name, call.lineno))
            if called.rpartition(".")[2] in TEXT and len(call.args) <= (called.endswith("write_text")):
                found.append((name, call.lineno))
    assert found == []


def test_files_are_renamed_over_old_ones(trees: dict[str, ast.Module]) -> None:
    """os.rename and Path.rename refuse on Windows where the name is taken; os.replace never does."""
    found = [
        (name, node.lineno)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".rename", ".renames"))
    ]
    assert found == []


def test_what_only_unix_has_is_imported_inside_functions(trees: dict[str, ast.Module]) -> None:
    found = []
    for name, tree in trees.items():
        for node in tree.body:
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [(name, one) for one in named if one in UNIX_ONLY]
        signals = re.findall(r"signal\.(SIG(?!INT|TERM|BREAK|_)\w+)", ast.unparse(tree))
        text = ast.unparse(tree)
        found += [(name, one) for one in signals if f"hasattr(signal, '{one}')" not in text]
    assert found == []


def test_no_folder_of_unix_is_written_down(trees: dict[str, ast.Module]) -> None:
    found = []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += [(name, one) for one in re.findall(r"^/(?:tmp|var|usr|etc|home)\b", node.value)]
    assert found == [("adstool/doctor/machine.py", "/tmp")]  # in words, where Python found no folder at all
