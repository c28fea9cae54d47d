"""Gates: what passes, what fails, and what is said about a file that is no gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from adstool.errors import AdstoolError
from adstool.evaluation.gate import check_gate, read_gate

RESULTS = {
    "lightweight": {"utility_regret": 0.04, "intervals": {"utility_regret": [0.03, 0.05]}},
    "engagement": {"run_id": "r1", "heads": {"click": {"auc": 0.71, "ne": None}}},
    "retrieval": {"merged": {"recall@100": 0.8}},
    "synthetic": True,
}


def _gate(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gate.toml"
    path.write_text(text)
    return path


def test_limits_are_judged_at_their_edges(tmp_path: Path) -> None:
    limits = read_gate(
        _gate(
            tmp_path,
            "[lightweight]\nutility_regret = {max = 0.04}\n"
            "[engagement.heads.click]\nauc = {min = 0.72, max = 0.9}\nne = {max = 1}\n"
            '[retrieval.merged]\n"recall@100" = {min = 0.8}\n',
        )
    )
    checks = {check.limit.name: check for check in check_gate(limits, RESULTS)}
    assert checks["lightweight.utility_regret"].passed
    assert checks["retrieval.merged.recall@100"].passed
    assert not checks["engagement.heads.click.auc"].passed
    assert checks["engagement.heads.click.auc"].sentence() == "engagement.heads.click.auc is 0.71, below 0.72"
    assert not checks["engagement.heads.click.ne"].passed  # an unknown figure does not pass
    assert "not known" in checks["engagement.heads.click.ne"].sentence()


def test_a_metric_nobody_measured_is_named(tmp_path: Path) -> None:
    limits = read_gate(_gate(tmp_path, "[lightweight]\nutility_regrets = {max = 1}\n"))
    with pytest.raises(AdstoolError) as caught:
        check_gate(limits, RESULTS)
    assert "lightweight.utility_regrets" in caught.value.message
    assert "lightweight.utility_regret'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lightweight = 3\n", "not a limit"),
        ("[lightweight]\nutility_regret = {maximum = 3, max = 1}\n", "no bound"),
        ("[lightweight]\nutility_regret = {max = true}\n", "no bound"),
        ("[lightweight\n", "not valid TOML"),
        ("", "no limit"),
    ],
)
def test_a_file_that_is_no_gate_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AdstoolError, match=said):
        read_gate(_gate(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdstoolError, match=r"nowhere\.toml"):
        read_gate(tmp_path / "nowhere.toml")
