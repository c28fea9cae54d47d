"""Settings: precedence, origins, and errors that name the nearest known key."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import pytest

from adstool.config import SECTIONS, Settings, load_settings
from adstool.errors import AdstoolError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "adstool.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path, "[funnel]\nretrieve = 100\nlightweight = 50\nslate = 5\n")
    environment = {"ADSTOOL_FUNNEL_RETRIEVE": "300", "ADSTOOL_FUNNEL_LIGHTWEIGHT": "70", "HOME": "/"}
    settings = load_settings(path, {"funnel.retrieve": 900}, environment)
    assert settings.funnel.retrieve == 900
    assert settings.funnel.lightweight == 70
    assert settings.funnel.slate == 5
    assert settings.auction.rule == "gsp"
    assert settings.origins["funnel.retrieve"] == "command line"
    assert settings.origins["funnel.lightweight"] == "environment ADSTOOL_FUNNEL_LIGHTWEIGHT"
    assert settings.origins["funnel.slate"] == str(path)
    assert "auction.rule" not in settings.origins


def test_section_names_with_keys_of_two_words_come_from_the_environment() -> None:
    settings = load_settings(None, None, {"ADSTOOL_WAREHOUSE_LOCK_WAIT_SECONDS": "2.5"})
    assert settings.warehouse.lock_wait_seconds == 2.5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[funnel]\nretreive = 3\n", "funnel.retrieve"),
        ("[funel]\nretrieve = 3\n", "funnel"),
        ('[[actions]]\nname = "x"\nwieght = 1.0\n', "weight"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(AdstoolError) as caught:
        load_settings(write(tmp_path, text), None, {})
    assert named in caught.value.hint
    assert "adstool.toml" in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    "text",
    [
        '[funnel]\nretrieve = "many"\n',
        "[funnel]\nretrieve = 2.5\n",
        "[auction]\nrule = 3\n",
        '[features]\nhalf_life_days = ["a"]\n',
        "[training]\nlearning_rate = true\n",
        "actions = 3\n",
        "[[actions]]\nweight = 2.0\n",
        '[[actions]]\nname = "x"\nkind = "ternary"\n',
        '[[actions]]\nname = "x"\n[[actions]]\nname = "x"\n',
        "funnel = 3\n",
        "this is not toml",
        "[auction]\nreserve = nan\n",
        "[auction]\nreserve = 1" + "0" * 400 + "\n",
        "[funnel]\nslate = 1" + "0" * 5000 + "\n",
        "[features]\nhalf_life_days = [1.0, inf]\n",
        "[funnel]\nthreads = 1000000\n",  # the kernel would end a process of so many
        "[warehouse]\nthreads = -1\n",
        "actions = [3]\n",
        "[funnel]\nslate = " + "[" * 5000 + "\n",
        "[funnel]\nslate = '" + "z" * 100_000 + "'\n",
    ],
)
def test_a_wrong_value_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(AdstoolError) as caught:
        load_settings(write(tmp_path, text), None, {})
    assert "adstool.toml" in caught.value.message


def test_actions_of_the_file_replace_the_default_ones(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[[actions]]\nname = "save"\nweight = 4\n[[actions]]\nname = "dwell"\nkind = "duration"\n'
    )
    settings = load_settings(path, None, {})
    assert [(a.name, a.kind, a.weight) for a in settings.actions] == [
        ("save", "binary", 4.0),
        ("dwell", "duration", 1.0),
    ]


def test_the_template_shows_every_setting_with_its_default() -> None:
    lines = files("adstool").joinpath("adstool.toml").read_text(encoding="utf-8").splitlines()
    settings, section = Settings(), ""
    shown: dict[str, object] = {}
    for line in lines:
        if line.startswith("["):
            section = line.strip("[]")
        elif section and line.startswith("# ") and " = " in line:
            shown |= {f"{section}.{k}": v for k, v in tomllib.loads(line[2:]).items()}
    expected = {
        f"{name}.{key}": list(value) if isinstance(value, tuple) else value
        for name in SECTIONS
        for key, value in asdict(getattr(settings, name)).items()
    }
    assert shown == expected
    told = [line for line in lines if re.match(r"# [a-z_]+ = ", line)]
    silent = [line for line in told if not re.search(r" # \S.{8}", line)]
    assert silent == [], "every setting says what it is, with its unit or what may be written"
    assert len(told) > len(expected)  # those of [[actions]] and [[formats]], too


def test_fingerprint_changes_with_its_sections_only() -> None:
    first = load_settings(None, {"funnel.slate": 5}, {})
    second = load_settings(None, {"funnel.slate": 6}, {})
    assert first.fingerprint("funnel") != second.fingerprint("funnel")
    assert first.fingerprint("auction", "actions") == second.fingerprint("auction", "actions")
