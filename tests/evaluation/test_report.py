"""The report as a user makes it: from data alone, with hostile data, with results of an evaluation."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support import cli_json, run_cli

NASTY = '"><script>alert(1)</script><img src=http://evil.example/x>'
VOID = {"meta", "img", "br", "line", "circle", "rect", "path", "polyline"}


class Checker(HTMLParser):
    """Balance of tags, and everything that could reach the network."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action") and not (value or "").startswith(("data:", "#")):
                self.outside.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append((value or "").removeprefix("#"))
            assert not name.startswith("on"), f"{tag} {name}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag


def check(path: Path) -> str:
    """The page's text, after what must hold for every report."""
    document = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(document)
    assert not checker.open
    assert not checker.outside
    assert "script" not in checker.tags
    assert set(checker.links) <= set(checker.ids)
    assert len(set(checker.ids)) == len(checker.ids)
    assert "@import" not in document
    assert "url(" not in document
    return document


def _write_data(folder: Path) -> None:
    folder.mkdir()
    Image.new("RGB", (300, 200), (10, 120, 90)).save(folder / "a.png")
    with open(folder / "ads.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["ad_id", "campaign_id", "title", "image", "category", "price"])
        for n in range(6):
            writer.writerow([f"a{n}", "c1", f"Ad {n} {NASTY}", "a.png", NASTY, 3.5])
    with open(folder / "events.jsonl", "w") as handle:
        for n in range(60):
            event = {
                "event_id": f"e{n}",
                "ts": f"2026-11-0{1 + n // 20}T10:{n % 60:02d}:00Z",
                "user_id": NASTY,
            }
            event |= {"item_type": "ad", "item_id": f"a{n % 8}", "surface": NASTY}
            event["action"] = "click" if n % 5 == 4 else "impression"
            handle.write(json.dumps(event) + "\n")
        handle.write(json.dumps({"event_id": NASTY, "ts": NASTY, "user_id": "u"}) + "\n")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "shop"
    assert run_cli("init", root).returncode == 0
    data = root.parent / "data"
    _write_data(data)
    done = run_cli("--workspace", root, "ingest", data)
    assert done.returncode == 0, done.stderr
    return root


def test_a_report_of_data_alone(shop: Path) -> None:
    made = cli_json("--workspace", shop, "report")
    path = Path(made["path"])
    assert path.parent == shop / "reports"
    assert made["bytes"] == path.stat().st_size
    document = check(path)
    assert "Nothing has been evaluated yet" in document
    assert re.search(r"<th scope=row[^>]*>ads</th><td[^>]*>6</td>", document)
    assert "14 of 60 ad events name 2 items that no catalogue knows" in document  # a6 and a7
    assert "refused rows of" in document
    assert "synthetic" not in document


def test_a_report_goes_where_it_is_told(shop: Path, tmp_path: Path) -> None:
    target = tmp_path / "sub" / "r.html"
    assert cli_json("--workspace", shop, "report", "-o", target)["path"] == str(target)
    check(target)
    done = run_cli("--workspace", shop, "report", "-o", tmp_path)
    assert done.returncode == 2
    assert "is a folder" in done.stderr


def test_no_data_is_a_clear_error(tmp_path: Path) -> None:
    run_cli("init", tmp_path / "empty")
    done = run_cli("--workspace", tmp_path / "empty", "report")
    assert done.returncode == 1
    assert "adstool ingest" in done.stderr
    assert "Traceback" not in done.stderr
