"""Verbs run in this process: as `adstool WORDS` does, without the second that loading the libraries takes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from schemas import check_output

from adstool.commands import main


@pytest.fixture
def verb_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, Any]]]:
    """verb_json(*words, cwd=...): the exit code and the JSON object of `adstool --json WORDS`."""
    log = logging.getLogger("adstool")
    before = (list(log.handlers), log.propagate, log.level)
    for name in [name for name in os.environ if name.startswith("ADSTOOL_")]:
        monkeypatch.delenv(name)

    def call(*words: str | Path, cwd: Path) -> tuple[int, Any]:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["--json", *map(str, words)])
        said = capsys.readouterr()
        (line,) = said.out.splitlines()
        code = ended.value.code
        assert isinstance(code, int)
        check_output([str(word) for word in words], said.out, code)
        return code, json.loads(line)

    yield call
    log.handlers, log.propagate = before[0], before[1]
    log.setLevel(before[2])
