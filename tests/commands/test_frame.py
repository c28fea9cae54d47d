"""The command line's promises that hold for every verb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import cli_json, run_cli

from adstool.commands import hoist_globals

HEAVY = ("torch", "duckdb", "lancedb", "pyarrow", "numpy", "open_clip", "onnxruntime", "sklearn", "scipy")


def imported_by(*words: str, cwd: Path) -> set[str]:
    """Top-level modules in memory after `adstool WORDS`."""
    script = (
        "import sys\nfrom adstool.commands import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('MODULES ' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=cwd, capture_output=True, text=True)
    return set(done.stderr.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["init", "made"], ["config"], ["models"], ["train", "--help"]])
def test_light_verbs_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    assert not imported_by(*words, cwd=tmp_path) & set(HEAVY)


def test_global_options_may_stand_after_the_verb(tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    before = run_cli("--json", "--workspace", tmp_path, "config").stdout
    after = run_cli("config", "--workspace", tmp_path, "--json").stdout
    assert before == after
    assert json.loads(after)["workspace"] == str(tmp_path.resolve())


def test_words_after_a_double_dash_stay() -> None:
    assert hoist_globals(["search", "--json", "--", "--quiet"]) == ["--json", "search", "--", "--quiet"]


@pytest.mark.parametrize(
    "words", [["confg"], ["config", "--nonsense"], ["init", "a", "b"], ["rank", "-k", "many"]]
)
def test_wrong_usage_is_exit_2(words: list[str], tmp_path: Path) -> None:
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_failure_is_exit_1_with_what_to_try_and_no_traceback(tmp_path: Path) -> None:
    done = run_cli("config", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "try: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in run_cli("config", "--debug", cwd=tmp_path).stderr


def test_init_twice_keeps_the_settings(tmp_path: Path) -> None:
    assert cli_json("init", tmp_path / "w")["created"] is True
    (tmp_path / "w" / "adstool.toml").write_text("[funnel]\nslate = 3\n")
    assert cli_json("init", tmp_path / "w")["created"] is False
    settings = cli_json("config", cwd=tmp_path / "w")["settings"]
    assert settings["funnel.slate"] == {
        "value": 3,
        "origin": str((tmp_path / "w" / "adstool.toml").resolve()),
    }


def test_a_wrong_setting_is_found_before_any_work(tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    (tmp_path / "adstool.toml").write_text("[funnel]\nretreive = 3\n")
    done = run_cli("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "funnel.retrieve" in done.stderr


def test_models_of_an_empty_workspace(tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    assert cli_json("models", cwd=tmp_path) == {"models": []}


def test_doctor_looks_at_machine_and_workspace(tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    found = cli_json("doctor", cwd=tmp_path)
    assert found["ok"] is True
    assert {"python", "torch", "memory", "disk", "workspace", "settings", "lock"} <= {
        c["name"] for c in found["checks"]
    }
    (tmp_path / "adstool.toml").write_text("[funnel]\nretreive = 3\n")
    done = run_cli("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert [c["name"] for c in json.loads(done.stdout)["checks"] if not c["ok"]] == ["settings", "lock"][:1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_names_the_verbs(shell: str) -> None:
    # Without it typer looks for the shell among the parent processes, and a test may have none.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "adstool" in run_cli("--show-completion", shell, env=named).stdout
    done = run_cli(env={"_ADSTOOL_COMPLETE": "complete_bash", "COMP_WORDS": "adstool con", "COMP_CWORD": "1"})
    assert "config" in done.stdout
