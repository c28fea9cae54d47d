"""Settings, gates, formats, topics, vocabularies: documents in TOML, JSON and CSV that people write."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from adstool.config import SECTIONS, Settings
from fuzz.containers import mutated
from fuzz.harness import Place, expect, run
from fuzz.values import IDS

DEEP_TOML = "a = " + "[" * 100_000 + "\n"
GARBAGE: tuple[bytes, ...] = (
    b"",
    b"\xff\xfea\x00=\x001\x00",
    b"\xef\xbb\xbf[funnel]\nslate = 3\n",
    b"a = 1\xe9\n",
    b"a = 1\x00\n",
    b"a = 1\r",
    b"= 1\n",
    b"[a]\n[a]\n",
    b"a = 1\na = 2\n",
    b"a.b = 1\n[a]\n",
    b"[[a]]\n[a]\n",
    DEEP_TOML.encode(),
    b"a = {" * 20_000,
    b"a" + b".a" * 900 + b" = 1\n",
    b"a = '''",
    b'a = "\\ud800"\n',
    b"a = 1" + b"0" * 5000 + b"\n",
    b"a = 99999-12-31\n",
    b"a = 1979-05-27T07:32:60Z\n",
    b"<html></html>",
    b'{"a": 1}',
    b"PK\x03\x04",
    bytes(1000),
)
ODD_VALUES = (
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "0",
    "1" + "0" * 400,
    "1" + "0" * 30,
    "0x7fffffffffffffff",
    "true",
    '""',
    '"\\u0000"',
    '"x"',
    "[]",
    "[[]]",
    "[1, 'a']",
    "['']",
    "{}",
    "{ a = 1 }",
    "1979-05-27T07:32:00Z",
    "00:00:00",
    "1.5",
    "'" + "z" * 100_000 + "'",
    "['" + "z" * 3000 + "']",
    '"../../etc/passwd"',
    '"nan"',
    '"1_000"',
)


def _keys() -> list[tuple[str, str]]:
    types = {f.name: f.default_factory for f in fields(Settings)}
    return [
        (name, one.name)
        for name in SECTIONS
        for one in fields(types[name]())  # type: ignore[operator,arg-type]
    ]


KEYS = _keys()


@contextlib.contextmanager
def environment(given: dict[str, str]) -> Iterator[None]:
    """Variables of the environment, for a while."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _document(rng: random.Random) -> bytes:
    """A settings file of odd values, some of it good."""
    draw = rng.random()
    if draw < 0.2:
        return rng.choice(GARBAGE)
    if draw < 0.6:
        lines = []
        for section, key in rng.sample(KEYS, rng.randrange(1, 4)):
            lines += [f"[{section}]", f"{key} = {rng.choice(ODD_VALUES)}"]
            if rng.random() < 0.2:
                lines.append(f"{key[:-1]}x = 1")
        return "\n".join(lines).encode()
    name = rng.choice(("actions", "formats", "sources"))
    if draw < 0.7:
        return f"{name} = {rng.choice(ODD_VALUES)}\n".encode()
    entry = [f"[[{name}]]"]
    if rng.random() < 0.9:
        entry.append(f"name = {json.dumps(rng.choice((*IDS, '', 'click', 'save')))}".replace("\\u007f", ""))
    keys = ("kind", "loss", "weight", "positive", "window_hours", "slots", "exposure", "size", "rule", "lift")
    kinds = ('"count"', '"duration"')
    entry += [f"{key} = {rng.choice((*ODD_VALUES, *kinds))}" for key in rng.sample(keys, 2)]
    return "\n".join(entry * rng.choice((1, 2))).encode("utf-8", "replace")


def settings_case(rng: random.Random, place: Place) -> str:
    """adstool.toml, a file of --config, variables: read or refused with the place that is wrong."""
    place.notes["before"] = place.warehouse()
    how = rng.choice(("adstool.toml", "--config", "environment", "bytes"))
    given: dict[str, str] = {}
    words: list[Any] = []
    if how == "environment":
        section, key = rng.choice(KEYS)
        name = rng.choice(
            (
                f"ADSTOOL_{section}_{key}".upper(),
                f"ADSTOOL_{section}".upper(),
                "ADSTOOL_",
                "ADSTOOL_X_Y",
                f"ADSTOOL_{section}_{key}x".upper(),
            )
        )
        given[name] = rng.choice((*ODD_VALUES, "", "nan", "1,2,x", "\udcff", " 1 ", "yes")).replace(
            "\x00", ""
        )
    elif how == "bytes":
        (place.workspace / "adstool.toml").write_bytes(
            mutated(
                rng,
                b"[funnel]\nslate = 3\n[auction]\nrule = 'gsp'\n[[actions]]\nname = 'click'\nweight = 1.0\n",
                5,
            )
        )
    else:
        path = place.workspace / "adstool.toml" if how == "adstool.toml" else place.write("other.toml", b"")
        path.write_bytes(_document(rng))
        if how == "--config":
            path = rng.choice((path, path, place.files, place.files / "nowhere.toml"))
            words = ["--config", path]
    path_of_events = place.write(
        "events.jsonl", b'{"event_id": "n", "ts": 1, "user_id": "u", "item_type": "ad", "action": "click"}\n'
    )
    with environment(given):
        said = place.run(*words, rng.choice(("config", "config", "status")))
        if words and not words[1].is_file():
            expect(said.code != 0, f"--config {words[1]} was taken for settings")
        if rng.random() < 0.5:
            other = place.run(*words, "ingest", path_of_events)
            expect(said.code == 0 or other.code != 0, "ingest took settings that config refused")
            if other.code:
                expect(place.warehouse() == place.notes["before"], "a verb that failed changed the warehouse")
    if said.code:
        named = (
            "toml" in said.err
            or any(name in said.err for name in given)
            or "config" in said.err
            or "warehouse." in said.err
        )
        expect(named, f"the message does not say where: {said.err[:300]}")
    return f"{how} refused" if said.code else how


def serving_settings_case(rng: random.Random, place: Place) -> str:
    """Settings of any size, under `rank`: it answers, or says which setting it cannot use."""
    assert place.shop is not None
    kept = ("funnel", "index", "auction", "features", "interests", "training", "warehouse", "conversion")
    section, key = rng.choice([pair for pair in KEYS if pair[0] in kept])
    value = rng.choice(
        (
            "0",
            "-1",
            "1",
            "1000000",
            "1e300",
            "-1e300",
            "nan",
            "inf",
            "1e-300",
            "",
            "x",
            "gsp",
            "1000000000000000000000",
        )
    )
    with environment({f"ADSTOOL_{section}_{key}".upper(): value}):
        said = run("--json", "--workspace", place.shop, "rank", "--user", "u1")
    if said.code == 0:
        expect(
            not said.json.get("fallbacks"),
            f"{section}.{key} = {value}: a stage failed: {said.json.get('fallbacks')}",
        )
    else:
        expect(key in said.err, f"{section}.{key} = {value}: the message does not name it: {said.err[:300]}")
    return "rank refused" if said.code else "rank"


GATES: tuple[bytes, ...] = (
    b"[lightweight]\nutility_regret = {max = nan}\n",
    b"[lightweight]\nutility_regret = {min = nan, max = inf}\n",
    b"[lightweight]\nutility_regret = {max = 1" + b"0" * 400 + b"}\n",
    b"[lightweight]\nutility_regret = {min = 1" + b"0" * 400 + b"}\n",
    b"[lightweight]\nutility_regret = {max = '1'}\n",
    b"[lightweight]\nutility_regret = {max = true}\n",
    b"[lightweight]\nutility_regret = {max = [1]}\n",
    b"[lightweight]\nutility_regret = {most = 1}\n",
    b"[lightweight]\nutility_regret = {min = 1, max = 0}\n",
    b"[lightweight]\nutility_regret = {}\n",
    b"[lightweight]\nutility_regret = 1\n",
    b"[lightweight]\n",
    b"[min]\nmax = 1\n",
    b"min = 1\n",
    b"[x]\ny = {max = 1}\n",
    b'["a.b"]\n"c d" = {max = 1}\n',
    b'["\\u0000"]\n"\\u001b[31m" = {max = 1}\n',
    b"[lightweight]\nutility_regret = {max = 1e999}\n",
    b"[lightweight]\nutility_regret = {max = 1979-05-27}\n",
    b"[lightweight]\nutility_regret = {max = 0.05}\n",
)


def gate_case(rng: random.Random, place: Place) -> str:
    """A gate file against results that are known."""
    from adstool.errors import AdstoolError
    from adstool.evaluation.gate import check_gate, read_gate

    content = rng.choice(
        (rng.choice(GATES), rng.choice(GATES), rng.choice(GARBAGE), mutated(rng, GATES[-1], 3))
    )
    path = place.write("gate.toml", content)
    path = rng.choice((path,) * 8 + (place.files, place.files / "nowhere.toml"))
    results = {"lightweight": {"utility_regret": rng.choice((0.03, 0.5, float("nan"), None)), "count": 3}}
    try:
        checks = check_gate(read_gate(path), results)
        said = [check.sentence() for check in checks if not check.passed]
    except AdstoolError as error:
        expect(error.hint, f"no advice: {error.message}")
        expect(len(error.message) < 4000, f"a message of {len(error.message)} characters")
        return "gate refused"
    expect(all("None" not in one for one in said), f"{said}")
    return "gate failed" if said else "gate"


def _topics(rng: random.Random) -> tuple[str, bytes]:
    """A taxonomy file's suffix and content."""
    kind = rng.choice((".toml", ".json", ".csv", ".yaml", ""))
    if rng.random() < 0.3:
        return kind, rng.choice((*GARBAGE, b"[" * 100_000, b'{"a":' * 50_000))
    name, word = rng.choice((*IDS, "home/lighting", "/", "a//b", "")), rng.choice((*IDS, ""))
    value: Any = rng.choice(
        (
            [word],
            {"words": [word]},
            {"categories": [word]},
            {"x": 1},
            [],
            5,
            None,
            [1],
            {"words": "x"},
            {"words": [[]]},
            [word] * 2000,
        )
    )
    if kind == ".csv":
        quoted = [json.dumps(text) for text in (name, word)]
        head = rng.choice(
            ("topic,word", "topic,category", "topic,topic,word", "word", "Topic,Word", "topic,word\r")
        )
        return kind, f"{head}\n{','.join(quoted)}\n{rng.choice(('', 'a', 'a,b,c,d', chr(34)))}\n".encode(
            "utf-8", "replace"
        )
    if kind == ".toml":
        listed = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else '["x"]'
        return kind, f"{json.dumps(name)} = {listed}\n".encode("utf-8", "replace")
    return kind, json.dumps(rng.choice(({name: value}, {name: value, "b": ["x"]}, [name], name))).encode()


def topics_case(rng: random.Random, place: Place) -> str:
    """A taxonomy, named as people name files."""
    import duckdb

    from adstool.content.taxonomy import load_taxonomy
    from adstool.errors import AdstoolError

    suffix, content = _topics(rng)
    path: Any = str(place.write(f"topics{suffix}", content))
    odd = (
        "\x00.toml",
        "~nobody-here/x.toml",
        str(place.files),
        str(place.files / "nowhere.json"),
        "x" * 300 + ".toml",
        "\udcff.toml",
        "-.toml",
    )
    path = rng.choice((path,) * 8 + odd)
    try:
        topics = load_taxonomy(path, duckdb.connect())
    except AdstoolError as error:
        expect(error.hint and len(error.message) < 6000, f"{error.message[:300]!r} / {error.hint!r}")
        return f"topics{suffix} refused"
    expect(topics, "no topic and no message")
    for topic in topics:
        expect(topic.ancestors and isinstance(topic.name, str) and topic.keys is not None, topic.path)
    return f"topics{suffix}"


def vocabulary_case(rng: random.Random, place: Place) -> str:
    """The words of `enrich --with clip`."""
    from adstool.content.enrichment.vocabulary import read_vocabulary
    from adstool.errors import AdstoolError

    good = b'[colour]\nprompts = ["a {} thing"]\nvalues = ["red", "blue"]\n[category]\nprompts = ["{}"]\n'
    content = rng.choice(
        (
            rng.choice(GARBAGE),
            mutated(rng, good, rng.choice((1, 4))),
            good,
            *(good.replace(b'"red"', json.dumps(text).encode()) for text in rng.sample(IDS, 3)),
        )
    )
    path: Any = str(place.write("words.toml", content))
    path = rng.choice((path,) * 8 + ("\x00", "~nobody-here/x", str(place.files), "x" * 300))
    try:
        found = read_vocabulary(path)
    except AdstoolError as error:
        expect(error.hint and len(error.message) < 4000, error.message[:300])
        return "words refused"
    expect(found.version, "no version")
    return "words"


def format_case(rng: random.Random, place: Place) -> str:
    """A file of `simulate --format`, and one of settings as an arm."""
    assert place.shop is not None
    from adstool.config import load_settings
    from adstool.errors import AdstoolError
    from adstool.marketplace.formats import page_of
    from adstool.simulation.arms import read_arms
    from adstool.workspace import Workspace

    lines = ["[[formats]]"]
    if rng.random() < 0.9:
        lines.append('name = "spotlight"')
    keys = ("slots", "exposure", "size", "rule", "actions", "ads", "lift", "hide_lift")
    values = (*ODD_VALUES, "[0.5]", "[1.0, 0.8]", "1", "2.0")
    lines += [f"{key} = {rng.choice(values)}" for key in rng.sample(keys, rng.randrange(4))]
    content = rng.choice(
        (rng.choice(GARBAGE), "\n".join(lines * rng.choice((1, 1, 2))).encode(), "\n".join(lines).encode())
    )
    path = place.write("new.toml", content)
    ws = Workspace(place.shop)
    settings = load_settings(ws.config, environment={})
    as_arm = rng.random() < 0.3
    chosen = rng.choice((path,) * 8 + (place.files, place.files / "nowhere.toml"))
    try:
        arms = read_arms(
            ws, settings, f"current,{chosen}" if as_arm else "current", None if as_arm else chosen
        )
        for arm in arms:
            for block in page_of(arm.settings, 6, arm.new):
                expect(len(block.exposure), "a block without a slot")
    except AdstoolError as error:
        expect(error.hint and len(error.message) < 4000, error.message[:300])
        return "format refused"
    return "format"
