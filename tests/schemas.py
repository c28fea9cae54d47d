"""What verbs print with --json, held to the schemas of commands/schemas: every run of a test is a case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

from adstool.commands import VERBS, _verb_of, hoist_globals

OWN_PLAN = {"ingest", "enrich", "run"}  # their --dry-run counts in the form of the verb


@cache
def schemas() -> dict[str, Any]:
    """Every schema by its name, such as evaluate.ope."""
    folder = files("adstool.commands").joinpath("schemas")
    found = [path for path in folder.iterdir() if path.name.endswith(".json")]
    return {path.name.removesuffix(".json"): json.loads(path.read_text(encoding="utf-8")) for path in found}


@cache
def validator(name: str) -> Draft202012Validator:
    """The validator of one schema, which finds the others that it refers to."""
    known = [(f"{key}.json", Resource.from_contents(schema)) for key, schema in schemas().items()]
    registry: Registry[Any] = Registry().with_resources(known)
    return Draft202012Validator(schemas()[name], registry=registry)


def name_of(words: Sequence[str]) -> str | None:
    """The schema of what `adstool WORDS` prints when it is done; None when that is no JSON of a verb."""
    verb = _verb_of(hoist_globals(list(words)))
    if verb not in VERBS or {"--help", "-h"} & set(words):
        return None
    if "--dry-run" in words and verb not in OWN_PLAN:
        return "plan"
    forms = {
        "evaluate": {"ope": "evaluate.ope", "--compare": "evaluate.compare"},
        "simulate": {"--replay": "simulate.replay"},
        "train": {"clip": "train.clip", "semantic": "train.semantic"},
    }
    return next((name for word, name in forms.get(verb, {}).items() if word in words), verb)


def check_output(words: Sequence[str], stdout: str, code: int) -> None:
    """Fail unless `stdout` of `adstool --json WORDS` keeps its schema, with `error` only if it failed."""
    name = name_of(words)
    if name is None:
        return
    lines = stdout.splitlines()
    assert name == "rank" or len(lines) == 1, f"{name}: not exactly one JSON object: {stdout[:300]!r}"
    for line in lines:
        payload = json.loads(line)
        failed = payload.keys() == {"error"}
        problem = best_match(validator("error" if failed else name).iter_errors(payload))
        if problem is not None:
            shown = f"{problem.json_path}: {problem.message[:500]}"
            raise AssertionError(f"commands/schemas/{'error' if failed else name}.json is not kept: {shown}")
        if name != "rank":
            assert ("error" in payload) == (code != 0), f"exit code {code}: {line[:300]}"
