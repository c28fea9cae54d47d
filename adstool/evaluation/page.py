"""Pieces of the report's HTML. What comes from data is escaped here; `Html` marks text that already is."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from adstool.evaluation.charts import number

# Controls that no page may hold, and marks that turn the direction of text, written out: \\x1b.
_UNSEEN = [
    *range(9),
    11,
    12,
    *range(14, 32),
    *range(127, 160),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]
_WRITTEN_OUT = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _UNSEEN}


class Html(str):
    """Text that is HTML already and is not escaped again."""


def text(value: Any) -> Html:
    """A value as escaped text: figures shortened, None as a dash, Html as it is."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("–")
    if isinstance(value, bool):
        return Html("yes" if value else "no")
    if isinstance(value, int):
        return Html(f"{value:,}")
    if isinstance(value, float):
        return Html(number(value))
    return Html(escape(str(value), quote=True))


def ranged(value: float | None, interval: Sequence[float | None] | None, digits: int = 3) -> Html:
    """A figure and its interval, fine print after it."""
    if value is None or not math.isfinite(value):
        return Html("–")
    shown = f"{value:.{digits}f}"
    if not interval or any(edge is None or not math.isfinite(edge) for edge in interval):
        return Html(shown)
    low, high = (float(edge) for edge in interval if edge is not None)
    return Html(f'{shown}<span class="range">{low:.{digits}f}–{high:.{digits}f}</span>')


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Html:
    """A table that scrolls sideways on its own; columns named ">..." hold figures and are right-aligned."""
    listed = [list(row) for row in rows]
    if not listed:
        return Html("")
    style = [' class="num"' if name.startswith(">") else ' class="text"' for name in columns]
    columns = [name.removeprefix(">") for name in columns]
    head = "".join(f"<th{style[i]} scope=col>{escape(name)}</th>" for i, name in enumerate(columns))
    body = []
    for row in listed:
        cells = [f"<th scope=row{style[0]}>{text(row[0])}</th>"]
        cells += [f"<td{style[i]}>{text(cell)}</td>" for i, cell in enumerate(row) if i]
        # A row without a name belongs to the one above it.
        body.append(f"<tr{'' if row[0] != '' else ' class=same'}>{''.join(cells)}</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll" tabindex="0"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def figure(svg: str, caption: str = "", title: str = "") -> Html:
    """A chart on a card; nothing when the chart is empty."""
    if not svg:
        return Html("")
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f'<figure class="card">{heading}{svg}{under}</figure>')


def grid(parts: Iterable[str], *, pairs: bool = False) -> Html:
    """Cards side by side where there is room; two and four in pairs, so that none stands alone."""
    shown = [part for part in parts if part]
    style = "grid pairs" if pairs or len(shown) in (2, 4) else "grid"
    return Html(f'<div class="{style}">{"".join(shown)}</div>') if shown else Html("")


def folded(summary: str, inner: str) -> Html:
    """Something that opens on a click."""
    return Html(f"<details><summary>{escape(summary)}</summary>{inner}</details>") if inner else Html("")


def paragraph(words: str, style: str = "") -> Html:
    """An escaped paragraph; Html is taken as it is."""
    return Html(f"<p{f' class={style}' if style else ''}>{text(words)}</p>")


def section(anchor: str, title: str, lead: str, *parts: str) -> Html:
    """A section of the page with its heading and one sentence of what it says."""
    inner = "".join(part for part in parts if part)
    opening = f'<p class="lead">{text(lead)}</p>' if lead else ""
    return Html(f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>{opening}{inner}</section>')


def key_figures(figures: Sequence[tuple[str, str, str]]) -> Html:
    """The few figures to look at first: (name, figure, what stands under it)."""
    cells = [
        f'<div><dt>{text(name)}</dt><dd class="big">{text(value)}</dd>'
        f'<dd class="under">{text(under)}</dd></div>'
        for name, value, under in figures
    ]
    return Html(f'<dl class="key">{"".join(cells)}</dl>') if cells else Html("")


def picture(data: str | None, alt: str) -> Html:
    """An inlined picture (a data: URI made by `thumbnails`), or an empty field of its size."""
    if data is None:
        return Html('<div class="blank"></div>')
    return Html(f'<img src="{escape(data, quote=True)}" alt="{escape(alt, quote=True)}">')


def definitions(pairs: Mapping[str, Any]) -> Html:
    """A short list of names and values."""
    return Html("<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in pairs.items()) + "</dl>")


def document(title: str, header: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """The whole page; sections are (anchor, name in the contents, html).

    The policy in its head allows this style sheet and inlined pictures, and nothing else: no script and no
    network.
    """
    css = files("adstool.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    contents = "".join(f'<a href="#{escape(anchor)}">{escape(name)}</a>' for anchor, name, _ in sections)
    body = "".join(html for _, _, html in sections)
    whole = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=True)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body>"
        f'<header>{header}<nav aria-label="Contents">{contents}</nav></header>'
        f"<main>{body}</main><footer>{footer}</footer></body></html>\n"
    )
    return whole.translate(_WRITTEN_OUT)
