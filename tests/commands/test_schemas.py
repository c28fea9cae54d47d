"""Every verb's JSON has a schema that keeps the contract and catches a key that was renamed or retyped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemas import check_output, schemas, validator

from adstool.commands import VERBS
from adstool.workspace import Workspace

# The keys that scripts were promised; a schema may require more, never less.
CONTRACT = {
    "init": "workspace",
    "sample": "tables seconds",
    "ingest": "tables seconds",
    "rejects": "count rows",
    "status": "tables vectors models",
    "sql": "rows",
    "embed": "embedded skipped failed items_per_second model dim",
    "search": "results",
    "interests": "interests",
    "enrich": "enriched cached",
    "train": "model run_id metrics parameters rows_per_second seconds",
    "train.semantic": "model run_id metrics parameters rows_per_second seconds",
    "train.clip": "model run_id metrics parameters rows_per_second seconds",
    "calibrate": "before after",
    "quantize": "accepted size_ratio speedup delta_ne delta_calibration topk_overlap",
    "index": "sources rows seconds",
    "quota": "quotas expected_utility",
    "rank": "request_id user_id ads latency_ms",
    "evaluate": "",
    "evaluate.compare": "metrics money sentence",
    "evaluate.ope": "ips snips dr intervals ess refused",
    "simulate": "arms differences",
    "simulate.replay": "clicks spend value win_rate",
    "report": "path",
    "run": "stages seconds",
    "demo": "stages seconds",
    "bench": "figures",
}


def test_every_verb_has_a_schema_with_the_keys_of_the_contract() -> None:
    assert {name.partition(".")[0] for name in schemas()} >= set(VERBS)
    for name, keys in CONTRACT.items():
        assert set(keys.split()) <= set(schemas()[name]["required"]), name
    ad = schemas()["rank"]["properties"]["ads"]["items"]
    assert set(ad["required"]) == {"ad_id", "score", "predictions", "bid", "price", "source"}


def test_schemas_are_valid_closed_and_described() -> None:
    for name, schema in schemas().items():
        Draft202012Validator.check_schema(schema)
        validator(name).is_valid({})  # a reference that leads nowhere raises
        if name == "common":
            continue
        assert schema["additionalProperties"] is False, name
        for key, described in schema["properties"].items():
            known = {"description", "$ref", "const"} & described.keys()
            assert known or name in ("plan", "error"), f"{name}: {key} is not described"


def mutations(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Copies of an object with one of its keys renamed, and with one retyped, on its first two levels."""
    for key in value:
        renamed = {(k if k != key else f"{k}_"): v for k, v in value.items()}
        yield f"{path}{key} renamed", renamed
        other = copy.deepcopy(value)
        other[key] = [["of another type"]] if not isinstance(value[key], list) else "of another type"
        yield f"{path}{key} retyped", other


@pytest.mark.parametrize(
    "words", [("status",), ("models",), ("rank", "--user", "u1"), ("interests",), ("index", "--dry-run")]
)
def test_a_key_that_is_renamed_or_retyped_is_caught(
    words: tuple[str, ...], shop_copy: Workspace, verb_json: Callable[..., tuple[int, Any]]
) -> None:
    _, payload = verb_json(*words, cwd=shop_copy.root)
    name = "plan" if "--dry-run" in words else words[0]
    assert validator(name).is_valid(payload)
    for what, broken in mutations(payload):
        assert not validator(name).is_valid(broken), what
    for what, broken in mutations(payload["ads"][0] if name == "rank" else {}):
        assert not validator("rank").is_valid({**payload, "ads": [broken]}), what


def test_what_fails_has_the_key_error_and_what_is_done_has_not() -> None:
    error = {"kind": "DataError", "message": "m", "try": "t", "exit_code": 1}
    made = {"workspace": "/w", "created": True}
    check_output(["--json", "init"], '{"workspace": "/w", "created": true}', 0)
    for payload, code in (
        (made, 1),
        ({**made, "error": error}, 0),
        ({"error": {**error, "exit_code": 4}}, 1),
    ):
        with pytest.raises(AssertionError):
            check_output(["--json", "init"], str(payload).replace("'", '"').replace("True", "true"), code)
