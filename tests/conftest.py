"""Fixtures shared by the tests: the finished demo and the small shop, each made once a session."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from schemas import check_output
from support import run_cli

from adstool.commands import main
from adstool.config import Settings, load_settings
from adstool.workspace import Workspace

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` was given to fill: once for all workers of a run in parallel."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker whose attempt failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def demo_made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's workspace and what `adstool demo` said on stdout; do not change it, copy it."""

    def make(folder: Path) -> None:
        done = run_cli("demo", folder / "shop")
        assert done.returncode == 0, done.stderr
        (folder / "said.txt").write_text(done.stdout)

    folder = made_once(tmp_path_factory, "demo", make)
    return folder / "shop", (folder / "said.txt").read_text()


@pytest.fixture(scope="session")
def demo(demo_made: tuple[Path, str]) -> Path:
    """The finished demo workspace; do not change it, copy it."""
    return demo_made[0]


@pytest.fixture
def demo_copy(demo: Path, tmp_path: Path) -> Path:
    """A finished demo workspace of one's own."""
    return Path(shutil.copytree(demo, tmp_path / "shop"))


@pytest.fixture
def demo_named(demo: Path, tmp_path: Path) -> Path:
    """A folder with a finished demo of one's own in its `demo`, as `adstool demo` leaves it."""
    shutil.copytree(demo, tmp_path / "demo")
    return tmp_path


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A small workspace with models and index; do not change it, copy it."""

    def make(folder: Path) -> None:
        from shop import make_shop  # loads torch, which most tests do without

        make_shop(folder)

    return Workspace(made_once(tmp_path_factory, "shop", make) / "shop")


@pytest.fixture
def shop_copy(shop: Workspace, tmp_path: Path) -> Workspace:
    """A small workspace of one's own."""
    return Workspace(Path(shutil.copytree(shop.root, tmp_path / "shop")))


@pytest.fixture(scope="session")
def settings(shop: Workspace) -> Settings:
    """The settings of the small workspace."""
    return load_settings(shop.config, environment={})


@pytest.fixture
def verb_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, Any]]:
    """verb_json(*words, cwd=...): the exit code and the JSON object of `adstool --json WORDS`.

    In this process, without the second that loading the libraries takes.
    """
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

    return call


@pytest.fixture(autouse=True)
def logging_as_imported() -> None:
    """A verb called in this process, by a test or a fixture, sets up the log; others read it all the same."""
    log = logging.getLogger("adstool")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)
