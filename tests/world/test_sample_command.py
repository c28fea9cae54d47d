"""adstool sample as a process."""

from __future__ import annotations

from pathlib import Path

from support import cli_json, run_cli

SIZES = ("--users", "40", "--ads", "60", "--pins", "40", "--days", "3")


def test_it_writes_a_world_and_the_second_time_nothing(tmp_path: Path) -> None:
    made = cli_json("sample", tmp_path / "w", *SIZES, "--seed", "5")
    assert made["tables"]["users"] == 40
    assert made["tables"]["ads"] == 60
    assert made["tables"]["events"] > 100
    assert made["seconds"] > 0
    names = {path.name for path in (tmp_path / "w").iterdir()}
    assert names >= {"users.csv", "pins.csv", "advertisers.csv", "campaigns.csv", "ads.csv", "world.json"}
    assert names >= {"events-2026-11-02.jsonl.gz", "conversions.jsonl.gz", "images", "truth"}
    again = run_cli("sample", tmp_path / "w", *SIZES, "--seed", "5")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert "Next: adstool ingest" in again.stdout


def test_refusals_have_a_message_and_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    cases = [
        (("sample", tmp_path / "full"), 1, "was not made by adstool sample"),
        (("sample", tmp_path / "w", "--users", "2"), 2, "greater than or equal to 10"),
        (("sample", tmp_path / "w", "--preset", "huge"), 2, "--preset huge is not known"),
        (("sample", tmp_path / "w", "--images", tmp_path), 2, "--images goes with --catalog"),
    ]
    for words, code, message in cases:
        done = run_cli(*words)
        assert done.returncode == code, words
        assert message in done.stderr
        assert "try:" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists()
