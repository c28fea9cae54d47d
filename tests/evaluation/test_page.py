"""Pieces of the report's page: escaping, the policy in its head, thumbnails."""

from __future__ import annotations

import base64
import hashlib
import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from adstool.evaluation import page
from adstool.evaluation.thumbnails import Thumbnails

NASTY = '<img src=x onerror="alert(1)">'


def test_text_of_data_is_escaped_and_html_is_not() -> None:
    assert page.text(NASTY) == "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;"
    assert page.text(page.Html("<b>1</b>")) == "<b>1</b>"
    assert page.text(None) == "–"
    assert page.text(12345) == "12,345"
    made = page.table(["name", ">figure"], [(NASTY, 0.25), ("b", None)], NASTY)
    made += page.figure("<svg></svg>", NASTY, NASTY) + page.section("a", NASTY, NASTY)
    made += page.key_figures([(NASTY, NASTY, NASTY)]) + page.picture("data:,", NASTY)
    made += page.definitions({NASTY: NASTY}) + page.paragraph(NASTY) + page.folded(NASTY, "<p></p>")
    assert "<img src=x" not in made


def test_figures_are_on_the_right_with_their_interval() -> None:
    made = page.table(["name", ">auc"], [("click", page.ranged(0.7123, [0.69, 0.73]))])
    assert '<td class="num">0.712<span class="range">0.690–0.730</span></td>' in made
    assert page.ranged(None, None) == "–"
    assert page.ranged(0.5, [float("nan"), 1.0]) == "0.500"


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    document = page.document("t & t", "<h1>x</h1>", [("a", "A", "<section id=a></section>")], "end")
    style = re.search(r"<style>(.*?)</style>", document, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', document)
    assert policy is not None
    assert f"style-src &#x27;sha256-{digest}&#x27;" in policy.group(1)
    assert policy.group(1).startswith("default-src &#x27;none&#x27;")
    assert "<script" not in document
    assert "http://" not in document
    assert "https://" not in document
    assert "style=" not in document  # the policy would block it
    assert "<title>t &amp; t</title>" in document


def _picture(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    Image.new(mode, size, (200, 30, 30, 128) if mode == "RGBA" else (200, 30, 30)).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_thumbnail_is_a_small_new_picture(tmp_path: Path, mode: str) -> None:
    path = _picture(tmp_path.resolve() / "a.png", (900, 600), mode)
    with open(path, "ab") as handle:
        handle.write(b"</svg><script>alert(1)</script>")  # what is behind the picture must not come along
    data = Thumbnails(side=120).get(str(path))
    assert data is not None
    assert data.startswith("data:image/webp;base64,")
    content = base64.b64decode(data.partition(",")[2])
    assert b"script" not in content
    with Image.open(BytesIO(content)) as made:
        assert made.size == (120, 80)


def test_no_picture_where_there_is_none_to_use(tmp_path: Path) -> None:
    thumbnails = Thumbnails()
    broken = tmp_path.resolve() / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    link = tmp_path.resolve() / "link.png"
    link.symlink_to(_picture(tmp_path.resolve() / "real.png", (5, 5)))
    assert thumbnails.get(None) is None
    assert thumbnails.get("https://example.org/a.png") is None
    assert thumbnails.get(str(broken)) is None
    assert thumbnails.get(str(tmp_path / "missing.png")) is None
    assert (
        thumbnails.get(str(link)) is None
    )  # ingestion checked where a file lies, not where a link leads later
