"""The wheel holds every package and data file, and works from another folder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "adstool").rglob("__init__.py")
    }
    assert listed == found | {"adstool.commands", "adstool.sql", "adstool.sample_data"}


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for line in [*PROJECT["project"]["dependencies"], *(one for lines in extras.values() for one in lines)]:
        if not line.startswith("adstool["):
            assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\d.]+,<[\d.]+", line), line


def test_every_import_is_a_declared_dependency() -> None:
    project = PROJECT["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    declared = {re.split(r"[<>=\[]", line)[0].replace("-", "_").lower() for line in lines}
    names = {"open_clip": "open_clip_torch", "PIL": "pillow", "sklearn": "scikit_learn", "pyarrow": "pyarrow"}
    used: set[str] = set()
    for path in [*(ROOT / "adstool").rglob("*.py"), *(ROOT / "commands").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                used.add((node.module or "").partition(".")[0])
    foreign = {name for name in used if name not in sys.stdlib_module_names and name != "adstool"}
    assert {names.get(name, name).lower() for name in foreign} <= declared


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git knows, or would take."""
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the source is known by git, and this is no clone")
    source = tmp_path_factory.mktemp("source") / "tree"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return source


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run([sys.executable, "-m", "pip", *words], cwd=tree, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_source_distribution_is_the_whole_tree(tree: Path, tmp_path: Path) -> None:
    script = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    wanted = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    subprocess.run([sys.executable, "-c", script], cwd=tree, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    missing = {name for name in wanted - held if "egg-info" not in name and not name.startswith("build/")}
    assert missing <= {".gitignore"}


def test_the_wheel_has_no_stray_top_level_and_all_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"adstool"}
    for folder in ("sql", "sample_data", "commands/schemas"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"adstool/{path.relative_to(ROOT).as_posix()}" in names
    assert "adstool/py.typed" in names
    assert "adstool/adstool.toml" in names


def test_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
        capture_output=True,
    )
    script = f"import sys; sys.path.insert(0, {str(target)!r}); import adstool; print(adstool.__file__)"
    where = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert str(target) in where.stdout
    script = f"import sys; sys.path.insert(0, {str(target)!r})\n"
    script += "from adstool.commands import main\nmain(sys.argv[1:])"
    for words in (
        ["init", "shop"],
        ["--workspace", "shop", "config", "--json"],
        ["sample", "w", "--users", "50"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
