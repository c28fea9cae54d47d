"""adstool between other programs: streams closed, cut off, full, narrow or without our letters."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from support import cli_json, run_cli

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shell redirections and terminals of POSIX")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streams") / "größe-漢"
    assert run_cli("init", root).returncode == 0
    return root


def shell(script: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `adstool` is ours."""
    line = f'set -o pipefail; adstool() {{ "{sys.executable}" -m adstool "$@"; }}; {script}'
    done = subprocess.run(
        ["bash", "-c", line], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("adstool config | head -n 1", 0, ""),
        ("adstool config nonsense 2>&1 | head -c 1", 2, ""),
        ("adstool config >&-", 0, ""),
        ("adstool config --json <&- >&- 2>&-", 0, ""),
        ("adstool config > /dev/full", 1, "error: Standard output cannot be written: No space left"),
        ("adstool config --json > /dev/full", 1, "error: Standard output cannot be written: No space left"),
        ("adstool config nonsense 2> /dev/full", 2, ""),
    ],
)
def test_a_stream_that_is_gone_or_full_ends_no_work(
    workspace: Path, script: str, code: int, said: str
) -> None:
    if "/dev/full" in script and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(script, workspace)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said) if said else not done.stderr


def test_a_closed_stdout_does_not_get_a_file_of_ours(tmp_path: Path) -> None:
    """Descriptor 1 must be taken before a file is opened, or prints would be written into it."""
    done = shell("adstool init made >&- && cat made/adstool.toml", tmp_path)
    assert done.stdout == (tmp_path / "made" / "adstool.toml").read_text(encoding="utf-8")
    script = "import os; from adstool.commands._streams import open_standard_streams as f; f(); "
    script += f"os.write(2, str(os.open({str(tmp_path / 'made' / 'adstool.toml')!r}, os.O_RDONLY)).encode())"
    opened = shell(f'"{sys.executable}" -c "{script}" <&- >&-', tmp_path)
    assert opened.stderr == "3"


def test_letters_that_the_encoding_lacks_are_replaced_and_json_keeps_them(workspace: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for words in (["init", "."], ["config"]):
        shown = subprocess.run(
            [sys.executable, "-m", "adstool", *words],
            cwd=workspace,
            capture_output=True,
            env={**os.environ, **environment},
        )
        assert shown.returncode == 0, shown.stderr
        assert "gr" in shown.stdout.decode("ascii")
    said = subprocess.run(
        [sys.executable, "-m", "adstool", "--json", "init", "."],
        cwd=workspace,
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert Path(json.loads(said.stdout.decode("utf-8"))["workspace"]) == workspace


def in_terminal(width: int, *words: str, cwd: Path, **environment: str) -> str:
    """What adstool writes to a terminal of `width` columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "adstool", *words]
    with subprocess.Popen(
        command, cwd=cwd, stdin=slave, stdout=slave, stderr=slave, env={**kept, **environment}
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:
            pass  # the other end was closed
    os.close(master)
    assert process.returncode == 0
    return shown.decode("utf-8")


def test_a_narrow_terminal_and_no_color(workspace: Path) -> None:
    shown = in_terminal(40, "config", cwd=workspace, TERM="xterm-256color", NO_COLOR="1")
    assert "Traceback" not in shown
    assert "\x1b[3" not in shown  # of the escapes, those of colours
    lines = re.sub("\x1b\\[[0-9;]*m", "", shown).replace("\r", "").split("\n")
    assert max(len(line) for line in lines if not line.startswith("Next:")) <= 40
    assert "\x1b" not in run_cli("config", cwd=workspace).stdout


def test_quiet_leaves_results_and_failures_alone(workspace: Path) -> None:
    answer = run_cli("--quiet", "config", cwd=workspace)
    assert "funnel.slate" in answer.stdout
    assert "Next:" not in answer.stdout
    made = run_cli("init", "--quiet", ".", cwd=workspace)
    assert (made.stdout, made.stderr) == ("", "")
    failed = run_cli("--quiet", "status", cwd=workspace.parent)
    assert failed.stdout == ""
    assert failed.stderr.startswith("error: ")


def test_what_failed_is_the_json_object_or_its_key(workspace: Path) -> None:
    missing = run_cli("--json", "config", cwd=workspace.parent)
    error = json.loads(missing.stdout)["error"]
    assert missing.returncode == error["exit_code"] == 1
    assert f"error: {error['message']}\n  try: {error['try']}\n" == missing.stderr
    usage = run_cli("config", "--nonsense", "--json", cwd=workspace)
    assert json.loads(usage.stdout)["error"]["kind"] == "UsageError"
    assert usage.returncode == 2
    (workspace / "adstool.toml").write_text("[funnel]\nretreive = 3\n")
    try:
        both = json.loads(run_cli("--json", "doctor", cwd=workspace).stdout)
    finally:
        (workspace / "adstool.toml").write_text("")
    assert both["ok"] is False
    assert "settings" in both["error"]["message"]
    assert cli_json("config", cwd=workspace).keys() == {"workspace", "settings"}


def test_what_data_says_commands_no_terminal_and_a_settings_file_must_be_there(workspace: Path) -> None:
    told = run_cli("--workspace", workspace, "ingest", workspace / "events-\x1b[31m\u202e.jsonl")
    assert told.returncode == 1
    assert "\\x1b[31m\\u202e" in told.stderr
    assert "\x1b" not in told.stderr
    gone = run_cli("--workspace", workspace, "status", env={"ADSTOOL_CONFIG": str(workspace / "gone.toml")})
    assert gone.returncode == 2
    assert "gone.toml" in gone.stderr
