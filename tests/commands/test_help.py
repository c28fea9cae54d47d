"""Help: every verb's page is whole, its examples run, and README says the same."""

from __future__ import annotations

import ast
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

from adstool.commands import VERBS, _reference, build_app, main
from adstool.commands._help import Verb, front_page, page, words_of
from adstool.commands._options import Group
from adstool.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
APP = typer.main.get_group(build_app())
PAGES = {name: verb for name, verb in APP.commands.items() if isinstance(verb, Verb)}
OPTIONS = [(verb, one) for verb in PAGES.values() for one in verb.params if one.param_type_name == "option"]
# One name for different things, where no other name would be better.
HOMONYMS = {"--format", "--requests", "--budget-ms", "--only", "--limit", "--preset", "--user"}
# Examples too slow to be run here (the tutorial and the tests of their verbs do): they are parsed, whole.
PARSED = (
    "sample",
    "embed",
    "search",
    "enrich",
    "train",
    "quantize",
    "index",
    "quota",
    "serve",
    "demo",
    "bench",
)


def words(parameter: Any) -> str:
    return " ".join([*parameter.opts, *parameter.secondary_opts])


def test_every_verb_has_a_page() -> None:
    assert list(PAGES) == list(VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_a_page_has_one_sentence_two_examples_and_every_option_in_a_group(name: str) -> None:
    verb = PAGES[name]
    assert verb.sentence.endswith(".")
    assert verb.sentence.count(". ") == 0
    assert len(verb.sentence) <= 80 - 14  # stands on one line of `adstool --help`
    assert len(verb.examples) == len(set(verb.examples)) == 2
    assert all(
        f"adstool {name}" in example or f"adstool --json {name}" in example for example in verb.examples
    )
    for parameter in verb.params:
        assert parameter.help.endswith("."), words(parameter)
        assert parameter.param_type_name == "argument" or parameter.rich_help_panel in set(Group)


@pytest.mark.parametrize(("verb", "parameter"), OPTIONS, ids=lambda one: one.name)
def test_an_option_says_what_holds_without_it(verb: Verb, parameter: Any) -> None:
    if parameter.is_flag and not parameter.secondary_opts:
        return
    stated = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    assert stated not in (None, ""), f"{verb.name} {words(parameter)} does not say its default"
    assert parameter.metavar or parameter.is_flag, f"{verb.name} {words(parameter)} has no metavar"


def test_the_same_option_has_the_same_words_in_every_verb() -> None:
    seen: dict[str, str] = {}
    for verb, parameter in OPTIONS:
        name = words(parameter)
        if set(name.split()) & HOMONYMS:
            continue
        assert seen.setdefault(name, parameter.help) == parameter.help, f"{name} of {verb.name}"


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_pages_fit_the_terminal(columns: int) -> None:
    for verb in PAGES.values():
        for line in page(verb, columns).split("\n"):
            single = len(line.split()) <= 1 or line.strip().startswith("-")  # a word is not broken
            assert len(line) <= columns or single or line.strip() in verb.examples, line
    front = front_page(APP, columns)
    assert "..." not in front.partition("\n")[2]
    assert all(len(line) <= columns or line.strip().startswith("-") for line in front.split("\n"))


def test_verbs_are_listed_in_groups_in_the_order_of_the_data() -> None:
    listed = [line.split()[0] for line in front_page(APP, 80).split("\n") if line.startswith("  ")]
    assert [name for name in listed if name in VERBS] == list(VERBS)


def test_what_may_be_written_is_what_is_known() -> None:
    from adstool.bench import FIGURES, LONG
    from adstool.evaluation.evaluate import ADVICE
    from adstool.evaluation.evaluate import STAGES as EVALUATED
    from adstool.ingestion.sources import FLAT_SOURCES, LOG_SOURCES, SOURCES
    from adstool.marketplace.strategies import STRATEGIES
    from adstool.pipeline import STAGES
    from adstool.serving.quantization import SCHEMES
    from adstool.serving.trials import TRIALS
    from adstool.training import conversion, engagement, lightweight, retrieval, users
    from adstool.training.conversion_task import LOSSES
    from adstool.training.delay import METHODS
    from adstool.warehouse.schema import TABLES

    presets = {
        name: module.PRESETS
        for name, module in {
            "conversion": conversion,
            "engagement": engagement,
            "lightweight": lightweight,
            "retrieval": retrieval,
            "users": users,
        }.items()
    }
    known: dict[str, list[str]] = {
        "bench": [*FIGURES, *LONG],
        "evaluate": [*EVALUATED, *ADVICE],
        "ingest": [*SOURCES, *FLAT_SOURCES, *LOG_SOURCES, *TABLES],
        "quantize": [*SCHEMES, *TRIALS],
        "run": [stage.name for stage in STAGES],
        "simulate": [*STRATEGIES, "gsp", "vcg", "first_price"],
        "train": [*(method for method in METHODS if method != "oracle"), *LOSSES],
    }
    for name, values in known.items():
        shown = page(PAGES[name], 1000)
        assert [value for value in values if value not in shown] == [], name
    shown = page(PAGES["train"], 1000)
    for model, of in presets.items():
        assert f"{model} ({', '.join(of)})" in shown


def test_exit_code_3_is_told_of_where_a_gate_can_refuse() -> None:
    def refuses(name: str) -> bool:
        names = [name, *{"evaluate": ["_ope"]}.get(name, [])]
        trees = [ast.parse((ROOT / "commands" / f"{one}.py").read_text()) for one in names]
        return any(getattr(node, "name", "") == "GateNotPassed" for tree in trees for node in ast.walk(tree))

    assert [name for name in VERBS if refuses(name)] == [n for n in VERBS if ", 3 " in PAGES[n].exit_codes]


@pytest.fixture(scope="module")
def bench_of_examples(shop: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the files beside it that the examples name."""
    root = Path(shutil.copytree(shop.root, tmp_path_factory.mktemp("examples") / "shop"))
    (root / "world").symlink_to(shop.root.parent / "world")
    shutil.copy(ROOT / "sample_data" / "spotlight.toml", root)
    Image.new("RGB", (8, 8), "red").save(root / "lamp.png")
    (root / "events.csv").write_text(
        "event_id,when,uid,item_type,item_id,action\ne1,2026-11-03,u1,ad,a1,click\n"
    )
    (root / "requests.jsonl").write_text('{"user_id": "u1"}\n{"user_id": "u2"}\n')
    random = np.random.default_rng(0)
    rows = [f"{random.integers(2)},{p:.3f},{q:.3f}" for p, q in random.uniform(0.3, 0.6, (400, 2))]
    (root / "log.csv").write_text("reward,p,q\n" + "\n".join(rows) + "\n")
    return root


def examples(run: bool) -> list[tuple[str, str]]:
    every = [(name, example) for name, verb in PAGES.items() for example in verb.examples]
    return [(name, example) for name, example in every if (name in PARSED) != run]


def given(example: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words after `adstool`, the environment before it being set."""
    parts = shlex.split(example)
    at = parts.index("adstool")
    for pair in parts[:at]:
        monkeypatch.setenv(*pair.split("=", 1))
    return parts[at + 1 :]


@pytest.mark.parametrize(("name", "example"), examples(run=True))
def test_an_example_runs(
    name: str, example: str, bench_of_examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(bench_of_examples)
    with pytest.raises(SystemExit) as ended:
        main(given(example, monkeypatch))
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert said.out


@pytest.mark.parametrize(("name", "example"), examples(run=False))
def test_a_long_example_is_understood(name: str, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rest = given(example, monkeypatch)
    assert rest[0] == name
    PAGES[name].make_context(name, rest[1:])


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("confg", "config"),
        ("embed --hlep", "--help"),
        ("rank --jsn", "--json"),
        ("index --wrkspace x", "--workspace"),
    ],
)
def test_the_nearest_is_suggested(wrong: str, meant: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong.split())
    assert ended.value.code == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_the_settings_file_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "adstool.toml").write_text("")
    (tmp_path / "other.toml").write_text("[funnel]\nslate = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADSTOOL_CONFIG", "other.toml")
    with pytest.raises(SystemExit):
        main(["config", "--json"])
    assert '"funnel.slate": {"value": 3' in capsys.readouterr().out


def test_readme_says_what_the_help_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert _reference.reference() in readme, "README is behind the verbs' help: run `just reference`"
    assert _reference.refreshed(readme) == readme, "README is behind the verbs' help: run `just reference`"
    assert all(" ".join([name, *words_of(PAGES[name])]).replace("|", "\\|") in readme for name in VERBS)
