"""The report's section of a simulation: every arm, every difference, what comes from data escaped."""

from __future__ import annotations

from typing import Any

from adstool.evaluation.sections_market import market_figures, market_section
from adstool.workspace import Workspace

SUMS = {"spend": 90.0, "value": 200.0, "conversions": 4.0, "clicks": 120.0, "views": 1000.0, "hide": 20.0}


def arm(blocks: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "revenue": 90.0, "value": 200.0, "roas": 2.2, "budget_utilisation": 0.4, "clicks": 120.0,
        "hides": 20.0, "value_calibration": 1.1, "blocks": blocks,
        "targets": {"campaigns": 2, "met": 0.5, "met_as_predicted": 1.0, "met_and_used": None},
    }  # fmt: skip


def result() -> dict[str, Any]:
    part = {"value": 9.0, "interval": [4.0, 14.0], "relative": 0.1, "relative_interval": [0.05, 0.15]}
    row = {
        "campaign_id": "<c1>", "pays_for": "money", "budget": 100.0, "spend": 95.0, "used": 0.95,
        "target": 2.0, "delivered": 2.1, "clicks": 40.0, "value": 199.5,
    }  # fmt: skip
    side = {"campaign_id": "<c1>", "spend": 1.0, "value": 3.0, "surplus": 2.0}
    return {
        "arms": {"current": arm({"standard": SUMS}), "a<b": arm({"top": SUMS, "standard": SUMS})},
        "differences": {
            "a<b": {
                "against": "current", "revenue": part, "roas": {**part, "relative": None},
                "campaigns": {"campaigns": 1, "gain": 1, "lose": 0, "best": [side], "worst": [side]},
            }
        },
        "campaigns": {"current": [row], "a<b": [{**row, "target": None, "used": None}]},
        "about": {
            "requests": 1000, "funnel_requests": 100, "repeated": True, "days": 7,
            "outcomes": "true rates of the synthetic world", "arms_share": "nothing",
        },
    }  # fmt: skip


def test_arms_changes_delivery_and_formats_are_shown(tmp_path: Any) -> None:
    html = market_figures(result())
    assert "1,000 requests (100 requests of the log, repeated" in html
    assert "+10.0 %" in html
    assert "RoAS</text>" not in html  # it has no relative change
    assert html.count("<circle") >= 2  # the change, and the campaign with a target
    assert "2.10 of 2" in html
    assert "&lt;c1&gt;" in html
    assert "a&lt;b" in html
    assert "<c1>" not in html
    assert "50.0% of 2" in html
    assert "top" in html
    assert "12.0%" in html  # clicks of views, by format
    assert market_section(Workspace(tmp_path)) == ""
