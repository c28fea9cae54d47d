"""Rules of the tree itself: nothing is pickled, evaluated or run by a shell, and nothing asks the network
unasked. Held by reading every source file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for top in ("adstool", "commands") for path in (ROOT / top).rglob("*.py"))
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "codeop"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "execfile", "os.system", "os.popen"} | {
    *("torch.jit.load", "torch.hub.load", "pd.read_pickle", "pandas.read_pickle", "subprocess.getoutput"),
    *("tempfile.mktemp",),
}


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The syntax tree of every source file of the product, by its path."""
    return {str(p.relative_to(ROOT)): ast.parse(p.read_text(encoding="utf-8")) for p in FILES}


def test_nothing_is_pickled(trees: dict[str, ast.Module]) -> None:
    found = []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                named = [node.module or ""]
            else:
                continue
            found += [(name, one) for one in named if one.partition(".")[0] in BANNED_MODULES]
        for called, call in _calls(tree):
            if called in ("torch.load", "torch.save"):
                found.append((name, called))
            if called.endswith("load") and _keyword(call, "allow_pickle") not in (None, "False"):
                found.append((name, f"{called} allows pickle"))
    assert found == []


def test_nothing_is_evaluated_and_no_shell_is_used(trees: dict[str, ast.Module]) -> None:
    found = []
    for name, tree in trees.items():
        for called, call in _calls(tree):
            if called in BANNED_CALLS or called.rpartition(".")[2] in ("create_subprocess_shell",):
                found.append((name, called))
            if _keyword(call, "shell") not in (None, "False"):
                found.append((name, f"{called} by a shell"))
            if _keyword(call, "trust_remote_code") not in (None, "False"):
                found.append((name, f"{called} trusts code"))
    assert found == []


def test_models_of_a_hub_are_read_from_the_disk_only() -> None:
    """transformers is asked with local_files_only and without code; open_clip fetches only a tag by name."""
    text = (ROOT / "adstool" / "content" / "enrichment" / "local_chat.py").read_text(encoding="utf-8")
    assert '"local_files_only": True, "trust_remote_code": False' in text
    assert text.count("from_pretrained(") == text.count("**only")
    users = [str(p.relative_to(ROOT)) for p in FILES if "from_pretrained" in p.read_text(encoding="utf-8")]
    assert users == [str(Path("adstool", "content", "enrichment", "local_chat.py"))]


def test_the_network_is_touched_in_few_places_only(trees: dict[str, ast.Module]) -> None:
    """A language model that was named, the server, doctor's and bench's look at it on this machine.

    CLIP weights are fetched by open_clip, when they are asked for by their tag.
    """
    network = {"socket", "urllib.request", "http.client", "requests", "httpx", "aiohttp", "ftplib", "smtplib"}
    found = set()
    for name, tree in trees.items():
        for node in ast.walk(tree):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {Path(name).as_posix() for one in named if one in network}
    assert found <= {
        "adstool/content/enrichment/http_chat.py",
        "adstool/bench/verbs.py",
        "adstool/doctor/services.py",
        "adstool/server/run.py",
    }


def test_libraries_are_asked_not_to_report_before_any_is_imported() -> None:
    first = (ROOT / "adstool" / "__init__.py").read_text(encoding="utf-8")
    for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED"):
        assert name in first
    assert re.findall(r"^(?:import|from) .*$", first, re.MULTILINE) == ["import os"]
