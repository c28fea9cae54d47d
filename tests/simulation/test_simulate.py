"""adstool simulate over the demo: arms through the real funnel, money in and out, formats, what cannot be."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
from support import cli_json, run_cli

from adstool.config import Settings, load_settings
from adstool.errors import AdstoolError, UsageError
from adstool.simulation.arms import read_arm, read_arms
from adstool.simulation.run import simulate
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, read_json

FORMAT = (
    '[[formats]]\nname = "spotlight"\nslots = 1\nexposure = [1.0]\nsize = 2.0\nlift = 1.5\nhide_lift = 2.0\n'
)


def test_arms_over_days_of_the_demo(demo_copy: Path, tmp_path: Path) -> None:
    form = tmp_path / "spotlight.toml"
    form.write_text(FORMAT)
    found = cli_json(
        "--workspace", demo_copy, "simulate", "--days", "2", "--asked", "40", "--requests", "3000",
        "--arms", "current,first_price,dual", "--format", form,
    )  # fmt: skip
    arms = found["arms"]
    assert list(arms) == ["current", "first_price", "dual", "current+spotlight"]
    for arm in arms.values():
        assert {"revenue", "spend", "value", "roas", "budget_utilisation"} <= set(arm)
        assert arm["roas"] == pytest.approx(arm["value"] / arm["spend"])
        assert 0 < arm["budget_utilisation"] <= 1
    # The same slates at bids instead of prices below them; nothing else but used up budgets differs.
    assert arms["first_price"]["spend"] > arms["current"]["spend"]
    against = found["differences"]["first_price"]
    assert against["revenue"]["value"] == pytest.approx(
        arms["first_price"]["revenue"] - arms["current"]["revenue"]
    )
    assert against["revenue"]["interval"][0] > 0
    blocks = arms["current+spotlight"]["blocks"]
    assert blocks["spotlight"]["views"] == pytest.approx(3000, rel=0.01)
    for name, rows in found["campaigns"].items():
        assert sum(row["spend"] for row in rows) == pytest.approx(arms[name]["spend"])
    assert found["about"]["outcomes"].startswith("true rates")
    assert found["about"]["repeated"]
    # A format of the settings goes by its name; the first is the page's own.
    settings = load_settings(Workspace(demo_copy).config)
    standard, kept = settings.formats[0], load_settings(form).formats[0]
    named = dataclasses.replace(settings, formats=(standard, kept))
    arm = read_arms(Workspace(demo_copy), named, "current", Path("spotlight"))[1]
    assert (arm.name, arm.new) == ("current+spotlight", kept)
    with pytest.raises(UsageError, match="no format of that name") as unknown:
        read_arms(Workspace(demo_copy), named, "current", Path("standard"))
    assert "spotlight" in unknown.value.hint
    # Kept for the report.
    assert read_json(demo_copy / "reports" / "simulation.json")["arms"].keys() == arms.keys()


def test_equal_arms_differ_by_nothing_and_split_arms_share(demo_copy: Path) -> None:
    ws = Workspace(demo_copy)
    settings = load_settings(ws.config)
    with open_warehouse(ws, settings) as con:
        arms = read_arms(ws, settings, "current,gsp", None)
        same = simulate(ws, settings, con, arms, days=1, requests=400, asked=40)
        for part in ("revenue", "value", "hides"):
            assert same["differences"]["gsp"][part]["value"] == 0
            assert same["differences"]["gsp"][part]["interval"] == [0, 0]
        shared = simulate(ws, settings, con, arms, days=1, requests=400, asked=40, split=True)
        views = [arm["views"] / 2 for arm in shared["arms"].values()]
        assert sum(views) == pytest.approx(same["arms"]["current"]["views"], rel=0.05)
        assert all(views)


def test_without_a_model_or_a_truth_nothing_is_said_of_money(demo_copy: Path, tmp_path: Path) -> None:
    ws = Workspace(demo_copy)
    shutil.rmtree(ws.models / "conversion")
    settings = load_settings(ws.config)
    with open_warehouse(ws, settings) as con:
        arms = read_arms(ws, settings, "current,vcg", None)
        found = simulate(ws, settings, con, arms, days=1, requests=200, asked=20)
        assert found["arms"]["vcg"]["value"] > 0  # by the truth
        assert math.isnan(found["arms"]["vcg"]["value_calibration"])
        con.execute("update events set user_id = 'x' || user_id")  # the world knows none of them
        other = simulate(ws, settings, con, arms, days=1, requests=200, asked=21)
        assert other["about"]["outcomes"].startswith("rates that the models")
        assert math.isnan(other["arms"]["vcg"]["roas"])
        assert "roas" not in other["differences"]["vcg"]
        assert other["arms"]["vcg"]["revenue"] > 0
        with pytest.raises(AdstoolError, match="no conversion model"):
            simulate(ws, settings, con, read_arms(ws, settings, "current,dual", None), days=1, asked=21)


def test_arms_that_are_none(demo: Path, tmp_path: Path) -> None:
    ws, settings = Workspace(demo), Settings()
    arm = read_arm(ws, settings, "vcg+pid+value*0.8")
    assert (arm.settings.auction.rule, arm.strategy, arm.value_scale) == ("vcg", "pid", 0.8)
    override = tmp_path / "reserve.toml"
    override.write_text("[auction]\nreserve = 0.5\n")
    assert read_arm(ws, settings, str(override)).settings.auction.reserve == 0.5
    for wrong in ("", "current,current", "nonsense", "engagement@r999", "value*x"):
        with pytest.raises(UsageError):
            read_arms(ws, settings, wrong, None)
    override.write_text("[funnel]\nlightweight = 5\n")
    with pytest.raises(UsageError, match="does not change"):
        read_arm(ws, settings, str(override))
    two = tmp_path / "two.toml"
    two.write_text(FORMAT.replace("slots = 1", "slots = 0"))
    with pytest.raises(AdstoolError, match="slots = 0"):
        read_arms(ws, settings, "current", two)
    two.write_text(FORMAT + FORMAT.replace("spotlight", "other"))
    with pytest.raises(AdstoolError, match="no single format"):
        read_arms(ws, settings, "current", two)
    assert run_cli("--workspace", demo, "simulate", "--days", "0").returncode == 2
