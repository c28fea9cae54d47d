"""Rules: no id, title or path from data reaches SQL, HTML, the file system or a terminal unescaped; no row
is lost; nothing synthetic is shown as real; no metric stands without its count."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest
from security import hostile
from security.hostile_run import STRANGER, USER, Ran, run_hostile

from adstool.config import load_settings
from adstool.warehouse import open_warehouse

ALIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # what a terminal obeys
TAGS = {"html", "head", "meta", "title", "style", "body", "header", "nav", "main", "footer", "section"} | {
    *("h1", "h2", "h3", "p", "a", "div", "span", "br", "dl", "dt", "dd", "details", "summary", "article"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "b"),
    *("svg", "line", "text", "path", "polyline", "rect", "circle", "g", "tspan"),
}
ATTRIBUTES = {"class", "id", "href", "src", "alt", "lang", "charset", "http-equiv", "content", "name"} | {
    *("scope", "tabindex", "aria-label", "role", "open", "viewbox", "points", "d", "x", "y", "x1", "x2"),
    *("y1", "y2", "cx", "cy", "r", "rx", "width", "height", "transform", "colspan"),
}


@pytest.fixture(scope="module")
def hostile_shop(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The shop after every verb; do not change it."""
    return run_hostile(tmp_path_factory.mktemp("hostile"))


class Page(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_hostile_data_goes_through_every_verb(hostile_shop: Ran) -> None:
    failed = [(one["words"][2:], one["error"]) for one in hostile_shop.ran if one["code"]]
    assert not failed
    assert not any("Traceback" in one["error"] for one in hostile_shop.ran)


def test_no_row_is_lost_without_a_reject(hostile_shop: Ran) -> None:
    status = json.loads(hostile_shop.said("status", "--json"))
    assert status["rejects"] == 0
    assert {table: status["tables"][table] for table in hostile_shop.rows} == hostile_shop.rows


def test_no_text_of_data_reaches_sql_unescaped(hostile_shop: Ran) -> None:
    """What was written is what is there, byte for byte: nothing was cut at a quote and nothing dropped."""
    settings = load_settings(hostile_shop.ws.config, environment={})
    with open_warehouse(hostile_shop.ws, settings, read_only=True) as con:
        assert set(_column(con, "users", "user_id")) == {hostile.attacked(f"u{n}") for n in range(1, 61)}
        assert set(_column(con, "ads", "ad_id")) == {hostile.attacked(f"a{n}") for n in range(1, 37)}
        assert set(_column(con, "events", "action")) == {
            "impression",
            "query",
            *map(hostile.action_of, hostile.ACTIONS),
        }
        kept = [json.loads(text) for text in _column(con, "ads", "attributes::varchar")]
        assert kept == [{hostile.ATTACKS[2]: hostile.ATTACKS[1]}]


def _column(con: duckdb.DuckDBPyConnection, table: str, column: str) -> list[str]:
    return [row[0] for row in con.execute(f"select distinct {column} from {table}").fetchall()]


def test_no_text_of_data_reaches_html_unescaped(hostile_shop: Ran) -> None:
    (report,) = hostile_shop.ws.reports.glob("*.html")
    document = report.read_text(encoding="utf-8")
    page = Page()
    page.feed(document)
    assert page.tags <= TAGS
    assert {name for name, _ in page.attributes} <= ATTRIBUTES
    links = {value for name, value in page.attributes if name in ("href", "src")}
    assert all(value.startswith(("#", "data:image/webp;base64,")) for value in links)
    told = "".join(page.words)
    for attack in (0, 1, 2, 7, 8):  # they are in it, as words
        assert hostile.ATTACKS[attack].split()[0] in told, attack
    assert not ALIVE.search(document)


def test_a_report_forbids_scripts_and_the_network(hostile_shop: Ran) -> None:
    (report,) = hostile_shop.ws.reports.glob("*.html")
    head = report.read_text(encoding="utf-8").partition("<style>")[0]
    assert "Content-Security-Policy" in head
    assert "default-src &#x27;none&#x27;" in head
    assert "script-src" not in head


def test_no_text_of_data_leads_a_terminal(hostile_shop: Ran) -> None:
    for one in hostile_shop.ran:
        assert not ALIVE.search(one["out"] + one["error"]), one["words"][2:]
    assert "\\x1b" in hostile_shop.said("sql")  # written out


def test_json_keeps_what_a_terminal_must_not_see(hostile_shop: Ran) -> None:
    answers = [json.loads(one["out"]) for one in hostile_shop.ran if one["words"][2:4] == ["rank", "--user"]
               and one["words"][-1] == "--json"]  # fmt: skip
    assert [answer["user_id"] for answer in answers] == [USER, STRANGER]
    known = {hostile.attacked(f"a{n}") for n in range(1, 37)}
    for answer in answers:
        assert {ad["ad_id"] for ad in answer["ads"]} <= known
        assert len(answer["ads"]) == 4
        assert set(answer["ads"][0]["predictions"]) == {hostile.action_of(name) for name in hostile.ACTIONS}


def test_no_text_of_data_names_a_file(hostile_shop: Ran) -> None:
    """Ids and names from data never become names of files: those of the workspace are ours alone."""
    names = {part for path in hostile_shop.ws.root.rglob("*") for part in path.parts[-1:]}
    assert not [name for name in names if re.search(r"[^\w.@=-]", name) or len(name) > 100]
    assert not [
        name for name in names if any(word in name for word in ("owned", "script", "escaped", "drop"))
    ]
    assert not Path("/tmp/adstool-escaped").exists()


def test_no_synthetic_result_is_shown_as_real(demo: Path) -> None:
    """A synthetic world is told as such where its figures are; a world without its truth is taken as real."""
    (report,) = demo.joinpath("reports").glob("*.html")
    assert "This is a synthetic world" in report.read_text(encoding="utf-8")
    assert json.loads((demo / "reports" / "evaluation.json").read_text(encoding="utf-8"))["synthetic"] is True


def test_no_metric_stands_without_its_count(hostile_shop: Ran) -> None:
    results = json.loads((hostile_shop.ws.reports / "evaluation.json").read_text(encoding="utf-8"))
    counted: list[str] = []
    for stage in ("engagement", "retrieval", "lightweight", "funnel"):
        counted += _uncounted(results[stage], stage, False)
    assert not counted


def test_nothing_is_asked_of_the_network(hostile_shop: Ran) -> None:
    """Neither by Python nor by a library's own code, which would have gone through the proxy."""
    loopback = ("'127.0.0.1'", "'::1'", "'localhost'")  # whether a port is free is asked there
    outside = [event for event in hostile_shop.seen["network"] if not any(host in event for host in loopback)]
    assert outside == []
    assert not [event for event in hostile_shop.seen["network"] if "connect" in event or "sendto" in event]
    assert hostile_shop.connections == 0


def test_nothing_is_written_outside_the_workspace(hostile_shop: Ran) -> None:
    temporary = hostile_shop.folder / "tmp"
    ours = (str(hostile_shop.ws.root), str(temporary), "/dev/null", "nul")
    assert [path for path in hostile_shop.seen["write"] if not path.startswith(ours)] == []
    for name in ("home", "cwd", "tmp"):  # written by a library's own code, or left lying about
        left = [path for path in (hostile_shop.folder / name).rglob("*") if path.is_file()]
        assert left == []


def test_nothing_is_unpickled_and_no_shell_is_started(hostile_shop: Ran) -> None:
    assert hostile_shop.seen["pickle"] == []
    asked = ("/sbin/ldconfig", "uname")  # by Python's own ctypes and platform, about the machine
    started = [
        event for event in hostile_shop.seen["process"] if not any(f"'{one}'" in event for one in asked)
    ]
    assert started == []


COUNTS = {"rows", "requests", "users", "impressions", "n", "count", "positives", "pairs", "items", "clicks"}
METRICS = {"auc", "ne", "recall", "ndcg@10", "recall@100", "logloss", "calibration"}


def _uncounted(value: Any, place: str, counted: bool) -> list[str]:
    """Metrics with no count beside or above them."""
    if not isinstance(value, dict):
        return []
    counted = counted or bool(COUNTS & set(value))
    found = [f"{place}.{name}" for name in METRICS & set(value) if not counted]
    return found + [
        lost for name, inner in value.items() for lost in _uncounted(inner, f"{place}.{name}", counted)
    ]
