"""--dry-run: every verb that writes says what it would do, and writes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adstool.workspace import Workspace

FLAT = ("engagement", "--train", "flat.csv", "--test", "flat.csv", "--label", "y")
WRITING = (
    ("init", "new"),
    ("sample", "new", "--users", "50"),
    ("ingest", "WORLD"),
    ("embed",),
    ("interests", "--refresh"),
    ("enrich",),
    *(("train", model) for model in ("clip", "semantic", "retrieval", "lightweight", "conversion", "users")),
    ("train", *FLAT),
    ("calibrate", "engagement"),
    ("quantize", "engagement"),
    ("index",),
    ("quota",),
    ("evaluate", "utility", "--write"),
    ("simulate", "--days", "2"),
    ("report", "-o", "new.html"),
    ("run",),
    ("demo", "."),
)


def fingerprint(root: Path) -> dict[str, str]:
    """Every file and folder below `root`, with the hash of its bytes and the time of its change."""
    found = {}
    for path in sorted(root.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(root))] = f"{content} {path.stat().st_mtime_ns}"
    return found


def test_a_dry_run_of_every_verb_that_writes_changes_no_file(
    shop: Workspace, shop_copy: Workspace, verb_json: Callable[..., tuple[int, Any]]
) -> None:
    root = shop_copy.root
    (root / "flat.csv").write_text("a,b,y\n1,x,0\n2,y,1\n")
    before = fingerprint(root)
    said = {}
    for words in WRITING:
        filled = [str(shop.root.parent / "world") if word == "WORLD" else word for word in words]
        code, payload = verb_json(*filled, "--dry-run", cwd=root)
        assert code == 0, f"{words}: {payload}"
        assert payload["dry_run"] is True, words
        changed = dict(fingerprint(root).items() ^ before.items())
        assert not changed, f"{words} changed {changed}"
        said[" ".join(words)] = payload
    assert said["embed"]["counts"]["new"] == 100
    assert said["embed"]["writes"] == [str(shop_copy.vectors)]
    assert said["train retrieval"]["writes"] == [str(shop_copy.models / "retrieval" / "r2")]
    assert said["train retrieval"]["reason"] == "never done"
    assert said["train " + " ".join(FLAT)]["counts"] == {"train": 2, "test": 2}
    assert said["index"]["parts"] == ["retrieval@r1", "lightweight@r1"]
    assert "two_tower" in said["quota"]["parts"]
    assert said["simulate --days 2"]["counts"]["days"] == 2
    assert said["report -o new.html"]["writes"] == [str(root / "new.html")]
    assert "train engagement" in said["demo ."]["parts"]


def test_a_dry_run_refuses_what_the_verb_would_refuse(
    shop: Workspace, verb_json: Callable[..., tuple[int, Any]]
) -> None:
    for words, code in (
        (("simulate", "--arms", "nonsense"), 2),
        (("calibrate", "flat"), 1),
        (("evaluate", "nonsense"), 2),
        (("train", "engagement", "--train", "criteo"), 1),
        (("interests",), 2),
        (("evaluate", "ope"), 2),
    ):
        found, payload = verb_json(*words, "--dry-run", cwd=shop.root)
        assert (found, payload["error"]["exit_code"]) == (code, code), f"{words}: {payload}"


def test_what_a_dry_run_counts_is_what_the_verb_then_does(
    shop_copy: Workspace, verb_json: Callable[..., tuple[int, Any]], tmp_path: Path
) -> None:
    users = tmp_path / "users.jsonl"
    users.write_text("".join(json.dumps({"user_id": name}) + "\n" for name in ("u1", "new", "newer")))
    _, planned = verb_json("ingest", users, "--dry-run", cwd=shop_copy.root)
    _, done = verb_json("ingest", users, cwd=shop_copy.root)
    assert planned["tables"] == done["tables"]
    event = {"event_id": "e-new", "ts": "2030-01-01T00:00:00Z", "user_id": "u1", "item_type": "ad"}
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps({**event, "item_id": "a1", "action": "click"}) + "\n")
    verb_json("interests", "--refresh", cwd=shop_copy.root)
    assert verb_json("interests", "--refresh", "--dry-run", cwd=shop_copy.root)[1]["counts"] == {"users": 0}
    verb_json("ingest", events, cwd=shop_copy.root)
    again = verb_json("interests", "--refresh", "--dry-run", cwd=shop_copy.root)[1]
    assert (again["counts"], again["stale"]) == ({"users": 1}, True)
