"""The whole way, as a user walks it: demo, run, what is stale and why, and what goes wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import cli_json, run_cli

from adstool.config import FeatureSettings, Settings
from adstool.pipeline import check_stage, record
from adstool.stages import BY_NAME, STAGES, Job
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

NAMES = [stage.name for stage in STAGES]


def states(payload: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in payload["stages"]}


def test_the_demo_does_every_stage_and_leaves_a_report(demo_made: tuple[Path, str]) -> None:
    root, said = demo_made
    done = re.findall(r"^  (.+?)  .* ([\d.]+) s$", said, re.MULTILINE)
    assert [verb for verb, _ in done] == [stage.verb for stage in STAGES]
    (report,) = (root / "reports").glob("*.html")
    assert report.stat().st_size > 50_000


def test_a_second_demo_does_nothing_and_says_so(demo: Path) -> None:
    again = cli_json("demo", demo)
    assert states(again) == dict.fromkeys(NAMES, "fresh")
    assert all(counts["inserted"] == counts["rejected"] == 0 for counts in again["tables"].values())
    assert again["tables"]["events"]["duplicate"] > 50_000
    assert "nothing was done" in run_cli("run", cwd=demo).stdout


def test_new_events_make_what_depends_on_them_stale(demo_copy: Path) -> None:
    event = {
        "event_id": "new",
        "ts": "2030-01-01T00:00:00Z",
        "user_id": "u1",
        "item_type": "ad",
        "item_id": "nobody-knows",
    }
    run_cli("ingest", "-", "--table", "events", cwd=demo_copy, stdin=json.dumps({**event, "action": "click"}))
    planned = cli_json("run", "--dry-run", cwd=demo_copy)
    assert states(planned)["embed"] == "fresh"
    assert states(planned)["engagement"] == "stale"
    reasons = {stage["name"]: stage["reason"] for stage in planned["stages"]}
    assert reasons["engagement"] == "the data changed"
    assert "train engagement must be done before" in reasons["calibrate"]
    assert {
        name for name, state in states(cli_json("run", "--dry-run", cwd=demo_copy)).items() if state == "done"
    } == set()


def test_a_setting_makes_only_its_stages_stale(demo_copy: Path) -> None:
    def stale(settings: str) -> set[str]:
        (demo_copy / "adstool.toml").write_text(settings)
        planned = states(cli_json("run", "--dry-run", cwd=demo_copy))
        return {name for name, state in planned.items() if state == "stale"}

    assert stale("[interests]\noffsite = false\n") == {"interests", "index", "evaluate", "report"}
    assert stale("[evaluation]\nbootstrap = 50\n") == {"evaluate", "report"}
    assert states(cli_json("run", "--only", "report", cwd=demo_copy)) == {"report": "done"}


def test_what_enrich_finds_out_makes_models_stale_where_they_read_it(tmp_path: Path) -> None:
    ws, chosen = Workspace(tmp_path), Settings(features=FeatureSettings(knowledge=True))
    with ws.new_run("retrieval"):
        pass
    stage = BY_NAME["retrieval"]
    with open_warehouse(ws, chosen) as con:
        job = Job(ws, chosen, con)
        record(ws, chosen, stage.name, {}, datetime.now(UTC))
        assert not check_stage(job, stage).stale
        con.execute("insert into enrichments (item_type, item_id, payload) values ('ad', 'a', '{}')")
        assert check_stage(job, stage).reason == "what enrich found changed"
        without = Job(ws, Settings(), con)
        record(ws, Settings(), stage.name, {}, datetime.now(UTC))
        con.execute("insert into enrichments (item_type, item_id, payload) values ('ad', 'b', '{}')")
        assert not check_stage(without, stage).stale


def test_a_verb_done_by_hand_counts_as_done(demo_copy: Path) -> None:
    cli_json("train", "retrieval", "--epochs", "1", "--seed", "7", cwd=demo_copy)
    verdicts = states(cli_json("run", "--dry-run", cwd=demo_copy))
    assert verdicts["retrieval"] == "fresh"
    assert verdicts["lightweight"] == "fresh"


def test_an_unknown_stage_is_named(demo: Path) -> None:
    done = run_cli("run", "--from", "trian", cwd=demo)
    assert done.returncode in (1, 2)
    assert "trian" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["run"], ["embed"], ["train", "engagement"], ["train", "retrieval"], ["index"], ["rank", "--user", "u1"],
     ["evaluate"], ["quantize", "engagement"], ["calibrate", "engagement"], ["search", "shoes"], ["rejects"],
     ["sql", "select 1"], ["interests"], ["interests", "u1"]],
)  # fmt: skip
def test_an_empty_workspace_gets_one_clear_message(words: list[str], tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("error: ") == 1
    assert "\n  try: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_locked_workspace_is_one_clear_message(demo_copy: Path) -> None:
    script = "import sys, time\nfrom pathlib import Path\nfrom adstool.workspace import Workspace\n"
    script += "with Workspace(Path('.').resolve()).lock(): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen(
        [sys.executable, "-c", script], cwd=demo_copy, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        for words in (
            ["embed"],
            ["train", "retrieval"],
            ["run"],
            ["ingest", "adstool.toml", "--table", "users"],
        ):
            done = run_cli(*words, cwd=demo_copy, env={"ADSTOOL_WAREHOUSE_LOCK_WAIT_SECONDS": "0.2"})
            assert done.returncode == 1
            assert f"process {holder.pid}" in done.stderr
    finally:
        holder.kill()
        holder.wait()
