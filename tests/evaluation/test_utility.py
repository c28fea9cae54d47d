"""Utility tuning: auctions under other weights, the front by brute force, only lines of a file changed."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import cli_json

from adstool.config import Settings, load_settings
from adstool.errors import AdstoolError
from adstool.evaluation.sections_utility import utility_section
from adstool.evaluation.utility import Weights, _choose, _front, axes_of, with_weights
from adstool.evaluation.utility_file import MARK, write_weights
from adstool.workspace import Workspace


def test_the_front_and_the_choice_by_brute_force() -> None:
    random = np.random.default_rng(0)
    totals = random.integers(1, 6, (60, 4)).astype(float)
    signed = totals[:, [0, 2, 3]] * [1, 1, -1]
    for place, one in enumerate(signed):
        beaten = any((other >= one).all() and (other > one).any() for other in signed)
        assert _front(totals)[place] != beaten
    now = totals[0]
    able = [i for i, t in enumerate(totals) if t[1] >= now[1] and t[2] >= now[2] and t[3] <= now[3]]
    assert totals[_choose(totals), 0] == max(totals[i, 0] for i in able)
    assert _choose(np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 0.98, 1.0, 1.0]])) == 0
    assert _choose(np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 0.995, 0.995, 1.005]])) == 1


def chosen(settings: Settings) -> Settings:
    heads = tuple(action.name for action in settings.actions)
    return with_weights(settings, axes_of(settings, heads), Weights(0.25, 3.0, -20.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine\n[auction]\n# utility_weight = 0.1\nrule = 'vcg'  # kept\n\n[funnel]\nslate = 5\n",
        "[auction]\nutility_weight = 0.5 # why\n[serve]\nport = 9\n",
        '[[actions]]\nname = "click"\n[[actions]]\nweight = 4.0   # of a save\nname = "save"\n\n'
        '[[actions]]\nname = "hide" # bad\nweight = -10\npositive = false\n[auction]\nreserve = 0.2\n',
        "[auction]\r\nutility_weight = 0.5\r\n",
    ],
)
def test_only_the_lines_of_the_weights_change(tmp_path: Path, text: str) -> None:
    path = tmp_path / "adstool.toml"
    path.write_bytes(text.encode())
    wanted = chosen(load_settings(path, environment={}))
    write_weights(path, wanted, ["first"])
    once = path.read_bytes().decode()
    got = load_settings(path, environment={})
    assert (got.actions, got.auction) == (wanted.actions, wanted.auction)
    assert replace(got, actions=(), auction=wanted.auction) == replace(
        load_settings(None, environment={}),
        actions=(),
        auction=wanted.auction,
        funnel=got.funnel,
        serve=got.serve,
    )
    assert once.count(MARK) == 1
    kept = [line for line in text.splitlines() if "weight" not in line or line.startswith("#")]
    assert [line for line in once.splitlines() if line in kept][: len(kept)] == kept
    assert ("\r\n" in once) == ("\r\n" in text)
    write_weights(path, wanted, ["first"])
    assert path.read_bytes().decode() == once


def test_a_file_that_cannot_be_changed_line_by_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "adstool.toml"
    text = 'actions = [{name = "click"}, {name = "save"}, {name = "hide", positive = false}]\n'
    path.write_text(text)
    with pytest.raises(AdstoolError, match="line by line"):
        write_weights(path, chosen(load_settings(path, environment={})), ["first"])
    assert path.read_text() == text


def test_the_verb_tries_and_writes(shop_copy: Workspace) -> None:
    before = shop_copy.config.read_text()
    found = cli_json("--workspace", shop_copy.root, "evaluate", "utility", "--write")["utility"]
    current = [one for one in found["settings"] if one["utility_weight"] == 0.1 and one["wanted"] == 4.0]
    assert len(found["settings"]) == 176
    assert any(one["unwanted"] == -10.0 for one in current)
    same = [one for one in found["settings"] if (one["wanted"], one["unwanted"]) == (4, -10)]
    by_money = {one["utility_weight"]: one for one in same}
    # Less money for utility, more revenue and fewer saves.
    assert by_money[0.0]["revenue"] > by_money[2.0]["revenue"]
    assert by_money[0.0]["wanted_actions"] < by_money[2.0]["wanted_actions"]
    after = shop_copy.config.read_text()
    if found["chosen"] == found["current"]:
        assert (found["written"], after) == (None, before)
    else:
        document = tomllib.loads(after)
        assert document["auction"]["utility_weight"] == found["chosen"]["utility_weight"]
        assert after.count(MARK) == 2
        assert after.startswith(before)
    page = utility_section(found)
    assert page.count("<svg") == 2
    assert "Pareto front" in page
