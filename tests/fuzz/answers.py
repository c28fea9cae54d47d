"""What language models and strangers hand over: answers, bodies of endpoints, checkpoints of CLIP."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from io import BytesIO
from typing import Any

from adstool.errors import AdstoolError
from fuzz.containers import mutated
from fuzz.harness import Place, expect
from fuzz.values import IDS, TEXTS

LISTS = ("colour", "material", "style", "occasion", "intents", "audience")


def _answer(rng: random.Random) -> str:
    """The text of an answer, often nearly right."""
    value: dict[str, Any] = {name: ["red"] for name in LISTS} | {"category": "shoes"}
    odd = (*IDS, "", "x" * 61, "<b>x</b>", "http://x", None, 5, 1e400, [], {}, ["a"], True, "\ud800")
    how = rng.randrange(8)
    if how == 0:
        value[rng.choice(LISTS)] = rng.choice((odd, [rng.choice(odd)], ["a"] * 6, "red", None, {"0": "a"}))
    elif how == 1:
        value[rng.choice((*IDS, "extra"))] = "x"
    elif how == 2:
        value.pop(rng.choice(LISTS))
    elif how == 3:
        value["category"] = rng.choice(odd)
    text = json.dumps(value)
    if how == 4:
        text = mutated(rng, text.encode(), 3).decode("utf-8", "replace")
    elif how == 5:
        text = rng.choice(
            (f"```json\n{text}\n```", f"Sure! {text}", f"{text}\n{text}", "```" * 5000, " " * 100_000 + text)
        )
    elif how == 6:
        text = rng.choice(
            (
                "",
                "[" * 100_000,
                '{"a":' * 50_000,
                "NaN",
                "null",
                "9" * 5000,
                '{"grade": 1' + "0" * 5000 + "}",
                *map(str, TEXTS),
            )
        )
    return text


def answer_case(rng: random.Random, place: Place) -> str:
    """An answer: attributes of plain words, or said to be unfit."""
    from adstool.content.enrichment.schema import Attributes, SchemaProblem, parse_attributes, parse_grade

    text = _answer(rng)
    try:
        found = parse_attributes(text)
    except SchemaProblem as problem:
        expect(0 < len(str(problem)) < 300, f"{str(problem)[:300]}")
        try:
            expect(
                1
                <= parse_grade(
                    rng.choice((text, '{"grade": 3}', '{"grade": 6}', '{"grade": "3"}', '{"grade": 3.0}'))
                )
                <= 5,
                "grade",
            )
        except SchemaProblem as other:
            expect(len(str(other)) < 300, str(other)[:300])
        return "answer unfit"
    again = Attributes.from_json(found.to_json())
    expect(again == found, f"{found} became {again}")
    said = found.sentence()
    expect(not any(mark in said for mark in '<>{}"\n\x00\x1b'), f"not plain: {said!r}")
    found.to_json().encode()
    return "answer"


def body_case(rng: random.Random, place: Place) -> str:
    """The body of an endpoint: an answer with sane counts, or a failure that is asked again."""
    from adstool.content.enrichment.chat import PassingFailure
    from adstool.content.enrichment.http_chat import _read_answer, retry_after

    odd = (None, -1, 1e400, "5", True, [], 10**400, 7)
    value: Any = {
        "choices": [{"message": {"content": _answer(rng)}}],
        "usage": {"prompt_tokens": rng.choice(odd), "completion_tokens": rng.choice(odd)},
    }
    how = rng.randrange(6)
    if how == 0:
        value = rng.choice(
            (
                None,
                [],
                5,
                {"choices": []},
                {"choices": {}},
                {"choices": [None]},
                {"error": "x"},
                {"choices": [{"message": {"content": [1]}}]},
            )
        )
    elif how == 1:
        value["usage"] = rng.choice((None, [], "x", 5))
    body = json.dumps(value).encode()
    if how == 2:
        body = mutated(rng, body, 4)
    elif how == 3:
        body = rng.choice(
            (b"", b"\xff", b"[" * 100_000, b"<html>502</html>", b"data: {}\n\n", bytes(100), b"9" * 5000)
        )
    wait = retry_after(
        rng.choice(
            (
                None,
                "",
                "5",
                "-5",
                "1e3",
                "nan",
                "9" * 400,
                "soon",
                "Wed, 21 Oct 2015 07:28:00 GMT",
                "Fri, 31 Dec 9999 23:59:59 GMT",
                "Wed, 21 Oct 99999 07:28:00 GMT",
                "\u0665",
                "0, 0",
            )
        )
    )
    expect(wait is None or wait >= 0, f"wait {wait}")
    try:
        answer = _read_answer(body, [{"role": "user", "content": "x"}])
    except PassingFailure as failure:
        expect(len(str(failure)) < 300, str(failure)[:300])
        return "body unfit"
    expect(answer.tokens_in >= 0 and answer.tokens_out >= 0 and isinstance(answer.text, str), f"{answer}")
    return "body"


def _checkpoint(rng: random.Random) -> bytes:
    """A file that is said to hold the weights of a CLIP."""
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    how = rng.randrange(8)
    if how == 0:
        header["w"]["shape"] = [2**40]
    elif how == 1:
        header["w"]["data_offsets"] = [0, 2**60]
    elif how == 2:
        header["w"]["dtype"] = "X9"
    text = json.dumps(header).encode()
    good = struct.pack("<Q", len(text)) + text + bytes(8)
    if how == 3:
        return struct.pack("<Q", 2**62) + text
    if how == 4:
        return mutated(rng, good, 4)
    if how == 5:
        target = BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch /tmp/fuzz-owned'\ntR.")
            archive.writestr("archive/version", "3")
        return target.getvalue()
    if how == 6:
        return rng.choice(
            (
                b"",
                bytes(100),
                b"cos\nsystem\n(S'touch /tmp/fuzz-owned'\ntR.",
                b"\x80\x02.",
                b"PK\x03\x04",
                b"version https://git-lfs.github.com/spec/v1\n",
            )
        )
    return good


def weights_case(rng: random.Random, place: Place) -> str:
    """A checkpoint of --pretrained, or a model folder, that is none: refused by name, nothing run."""
    from dataclasses import replace
    from pathlib import Path

    from adstool.config import load_settings
    from adstool.content.clip import CONFIG, WEIGHTS, load_clip, resolve_source, shipped_folder
    from adstool.workspace import Workspace

    settings = load_settings(None, environment={})
    owned = Path("/tmp/fuzz-owned")
    expect(not owned.exists(), "code of a file was run")
    config = (shipped_folder() / CONFIG).read_bytes()
    if rng.random() < 0.5:
        path = place.write(rng.choice(("w.pt", "w.bin", "w.safetensors", "w")), _checkpoint(rng))
        content = replace(settings.content, model="ViT-B-32", pretrained=str(path))
    else:
        odd = rng.choice(
            (
                config,
                mutated(rng, config, 3),
                b"{}",
                b"[]",
                b"null",
                b"[" * 100_000,
                b"\xff",
                b'{"model_cfg": {"text_cfg": 5}}',
                b'{"model_cfg": []}',
            )
        )
        place.write(f"clip/{CONFIG}", odd)
        path = place.write(f"clip/{WEIGHTS}", _checkpoint(rng))
        content = replace(settings.content, model=f"local-dir:{path.parent}", pretrained="")
    try:
        load_clip(resolve_source(Workspace(place.root), replace(settings, content=content)))
    except AdstoolError as error:
        expect(error.hint and len(error.message) < 4000, f"{error.message[:300]} / {error.hint}")
        expect(path.name in error.message or path.parent.name in error.message, error.message[:300])
        expect(not owned.exists(), "code of a file was run")
        return "weights refused"
    raise AssertionError("weights that are none were loaded")
