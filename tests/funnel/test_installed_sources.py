"""Sources of other packages: only those that are installed and named, held to what a source may answer."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.funnel.index import load_index
from adstool.funnel.installed import installed_sources
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.funnel.sources import sources_of
from adstool.workspace import Workspace

MODULE = '''
import numpy as np
from adstool.funnel.asked import Found

def last(asked, depth):
    """Every position, the last first, the last of all twice: also those that may not be shown."""
    n = len(asked.eligible)
    positions = np.concatenate([[n - 1], np.arange(n)[::-1]])
    return Found(positions, positions.astype(float))

def beyond(asked, depth):
    return Found(np.array([len(asked.eligible)]), np.ones(1))

def halves(asked, depth):
    return Found(np.array([0.5]), np.ones(1))

def uneven(asked, depth):
    return Found(np.arange(2), np.ones(1))

def ids(asked, depth):
    return ["a1", "a2"]

WORD = "no function"
'''
REQUEST = Request.parse({"user_id": "u1"}, 4)


def install(folder: Path, package: str, names: dict[str, str], module: str = MODULE) -> None:
    """Make a package with entry points in `folder`, as pip would leave it there."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {package}:{target}\n" for name, target in names.items())
    (info / "entry_points.txt").write_text(f"[adstool.sources]\n{lines}")
    (folder / f"{package}.py").write_text(module)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    names = ("last", "beyond", "halves", "uneven", "ids")
    install(folder, "shelf", {**{name: name for name in names}, "word": "WORD", "absent": "absent"})
    install(folder, "trap", {"trapped": "source"}, "raise RuntimeError('this code ran')\n")
    install(folder, "twin", {"last": "last"})
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("shelf", "trap", "twin"):
        sys.modules.pop(name, None)


def named(settings: Settings, *names: str) -> Settings:
    return dataclasses.replace(settings, funnel=dataclasses.replace(settings.funnel, sources=names))


def test_a_named_source_brings_what_may_be_shown(
    shop: Workspace, settings: Settings, installed: Path
) -> None:
    (installed / "twin-1.0.dist-info" / "entry_points.txt").unlink()
    ranker = Ranker(shop, named(settings, "last"))
    asked = ranker.ask(REQUEST)
    assert list(sources_of(asked))[-1] == "last"
    able = np.flatnonzero(asked.eligible)
    assert 0 < len(able) < len(asked.eligible)
    found = sources_of(asked)["last"](asked, 7)
    assert found.positions.tolist() == able[::-1][:7].tolist()
    assert found.scores.tolist() == found.positions.tolist()
    ranked = ranker.stages(REQUEST)
    first = ranked.candidates.positions.tolist().index(int(able[-1]))
    assert "last" in ranked.candidates.sources_of(first)
    assert "trap" not in sys.modules  # installed, and not named
    assert "last" not in sources_of(Ranker(shop, settings).index)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("beyond", "whole numbers"), ("halves", "whole numbers"), ("uneven", "(1,)"), ("ids", "answered list")],
)
def test_a_source_that_answers_nonsense_is_left_out_of_the_slate_with_the_reason(
    name: str, reason: str, shop: Workspace, settings: Settings, installed: Path
) -> None:
    slate = Ranker(shop, named(settings, name)).rank(REQUEST)
    assert [(one["stage"], reason in one["reason"]) for one in slate["fallbacks"]] == [(name, True)]
    assert len(slate["ads"]) == 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lost", "no installed package brings"),
        ("last", "several packages bring: shelf, twin"),
        ("clip", "adstool has itself"),
        ("trapped", "RuntimeError: this code ran"),
        ("absent", "AttributeError"),
        ("word", "is no function"),
    ],
)
def test_what_cannot_be_had_is_said(name: str, says: str, installed: Path, shop: Workspace) -> None:
    with pytest.raises(AdstoolError) as refused:
        load_index(shop.models / "index" / "r1", [name])
    assert says in refused.value.message
    assert refused.value.hint
    if name == "lost":
        assert "absent, beyond, halves, ids, last, trapped, uneven, word" in refused.value.hint
    assert installed_sources([]) == {}
