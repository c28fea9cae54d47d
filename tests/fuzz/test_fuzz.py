"""A seeded sample of tests/bench/fuzz.py: the promises hold for some cases of every kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adstool.workspace import Workspace
from fuzz.harness import Violation, make_template, place_for, rng_of
from fuzz.kinds import KINDS

SEED = 8
CASES = 130  # of all kinds, by their weights
DEAR = {
    "huge": 1,
    "request lines": 2,
    "rank options": 1,
    "settings of rank": 1,
    "weights": 1,
    "image paths": 2,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a little data, copied for every case."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def own_shop(tmp_path_factory: pytest.TempPathFactory, shop: Workspace) -> Path:
    """The shop, for cases that write its funnel log."""
    return Path(shutil.copytree(shop.root, tmp_path_factory.mktemp("own") / "shop"))


@pytest.mark.parametrize("name", KINDS)
def test_bad_input_breaks_no_promise(name: str, template: Path, own_shop: Path, tmp_path: Path) -> None:
    kind = KINDS[name]
    total = sum(one.weight for one in KINDS.values())
    broken = []
    for number in range(DEAR.get(name, -(-CASES * kind.weight // total))):
        with place_for(tmp_path, None if kind.bare else template, own_shop, f"c{number}") as place:
            try:
                kind.case(rng_of(name, SEED, number), place)
            except Violation as found:
                broken.append(f"case {number}: {found}")
    assert not broken, f"tests/bench/fuzz.py --only '{name}' --seed {SEED}: " + "\n".join(broken)
