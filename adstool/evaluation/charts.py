"""Charts as inline SVG text: no script, no plotting library, colours from the page's CSS classes.

Every chart is 360 units wide, so that its text is readable at the width of a phone; a page shows several side
by side. All text that goes in is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 360
Point = tuple[float, float]


class Series(NamedTuple):
    """A line: its name, its points in order of x and the CSS class that colours it."""

    label: str
    points: Sequence[Point]
    style: str = "a"


class Bar(NamedTuple):
    """A figure with its interval (nan where there is none), its text and the CSS class that colours it."""

    label: str
    value: float
    low: float
    high: float
    text: str
    style: str = "a"


class Dots(NamedTuple):
    """Points of a scatter, each with the words that stand beside it when pointed at, and their CSS class."""

    points: Sequence[tuple[float, float, str]]
    style: str = "a"


def number(value: float, digits: int = 4) -> str:
    """A figure as people read it: about `digits` significant digits, thousands with commas, nan as a dash."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"


def percent(value: float) -> str:
    """A share as a percentage with one decimal, nan as a dash."""
    return f"{value:.1%}" if math.isfinite(value) else "–"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from low to high, both ends inside."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _tick_text(value: float) -> str:
    if value and abs(value) >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:.6f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


class Frame:
    """A plotting area: turns data into places on the page and draws axes."""

    def __init__(self, x: Point, y: Point, *, height: int = 220, left: int = 46, bottom: int = 36) -> None:
        self.x, self.y = _spread(x), _spread(y)
        self.left, self.right, self.top, self.bottom = left, WIDTH - 10, 16, height - bottom
        self.height = height

    def place(self, x: float, y: float) -> Point:
        """Where the point (x, y) of the data lies on the page."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def axes(
        self,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[float],
        y_ticks: Sequence[float | tuple[float, str]],
    ) -> str:
        """Grid lines, numbers and names of both axes; a tick of y may bring its own words."""
        parts = []
        for tick in y_ticks:
            value, words = tick if isinstance(tick, tuple) else (tick, _tick_text(tick))
            _, y = self.place(self.x[0], value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_text(self.left - 6, y + 3.5, words, "tick end"))
        for value in x_ticks:
            x, _ = self.place(value, self.y[0])
            parts.append(_text(x, self.bottom + 15, _tick_text(value), "tick mid"))
        parts.append(
            f'<line class="axis" x1="{self.left}" x2="{self.right}" y1="{self.bottom}" y2="{self.bottom}"/>'
        )
        parts.append(_text((self.left + self.right) / 2, self.height - 4, x_label, "name mid"))
        parts.append(_text(self.left, self.top - 3, y_label, "name"))
        return "".join(parts)


def _spread(span: Point) -> Point:
    low, high = span
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(height: float, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] | None = None,
    y_marks: Sequence[tuple[float, str]] | None = None,
) -> str:
    """Lines over a common x, named above the plot; `marks` (place, name) replace the numbers below it, and
    `y_marks` those beside it."""
    points = [p for one in series for p in one.points if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not points:
        return ""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    pad = (max(ys) - min(ys)) * 0.08 or abs(max(ys)) * 0.05
    frame = Frame((min(xs), max(xs)), (min(ys) - pad, max(ys) + pad))
    whole = [t for t in ticks(*frame.x, 5) if t == int(t)] or ticks(*frame.x, 5)
    body = [frame.axes(x_label, y_label, [] if marks else whole, y_marks or ticks(*frame.y))]
    for place, name in marks or []:
        body.append(_text(frame.place(place, 0)[0], frame.bottom + 15, name, "tick mid"))
    body.append(_legend(series, frame))
    for one in series:
        placed = [frame.place(*p) for p in one.points if math.isfinite(p[0]) and math.isfinite(p[1])]
        if not placed:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        body.append(f'<polyline class="line {one.style}" points="{path}"/>')
        body += [f'<circle class="dot {one.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in placed]
    return _svg(frame.height, title, "".join(body))


def _legend(series: Sequence[Series], frame: Frame) -> str:
    """The names of the lines above the plot, from the right; a letter is taken as 7 units wide."""
    parts, x = [], float(frame.right)
    for one in reversed(series):
        parts.append(_text(x, frame.top - 3, f"● {one.label}", f"label end {one.style}"))
        x -= 7.0 * (len(one.label) + 2) + 8
    return "".join(parts)


def reliability_chart(title: str, bins: Sequence[dict[str, float]]) -> str:
    """Observed against predicted rate by bin, with the interval of each, on square-root axes.

    bins: dicts with predicted, observed, low, high. Rates of actions are small and skewed, so a linear axis
    would put most bins into one corner.
    """
    bins = [one for one in bins if all(math.isfinite(value) for value in one.values())]
    if not bins:
        return ""
    top = max(max(b["predicted"], b["observed"]) for b in bins) * 1.15 or 1.0
    top = min(top, 1.0)
    root = math.sqrt(top)
    frame = Frame((0, root), (0, root), height=260)
    marks = [v for v in (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if v <= top]
    # Marks too close to each other at this scale are left out from the left.
    spaced: list[float] = []
    for mark in reversed(marks):
        clear = math.sqrt(mark) / root > 0.1
        if clear and (not spaced or (math.sqrt(spaced[-1]) - math.sqrt(mark)) / root > 0.11):
            spaced.append(mark)
    body = [_root_axes(frame, [0.0, *reversed(spaced)])]
    (x0, y0), (x1, y1) = frame.place(0, 0), frame.place(root, root)
    body.append(f'<line class="ideal" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    path = []
    for one in bins:
        x, y = frame.place(math.sqrt(one["predicted"]), math.sqrt(one["observed"]))
        _, low = frame.place(0, math.sqrt(max(one["low"], 0.0)))
        _, high = frame.place(0, math.sqrt(min(one["high"], top)))
        body.append(f'<line class="whisker a" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        body.append(f'<circle class="dot a" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
        path.append(f"{x:.1f},{y:.1f}")
    body.append(f'<polyline class="line thin a" points="{" ".join(path)}"/>')
    return _svg(frame.height, title, "".join(body))


def _root_axes(frame: Frame, marks: Sequence[float]) -> str:
    parts = []
    for mark in marks:
        x, y = frame.place(math.sqrt(mark), math.sqrt(mark))
        parts.append(f'<line class="grid" x1="{frame.left}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = f"{mark:.1%}" if 0 < mark < 0.01 else f"{mark:.0%}"
        parts.append(_text(frame.left - 6, y + 3.5, text, "tick end"))
        parts.append(_text(x, frame.bottom + 15, text, "tick mid"))
    parts.append(
        f'<line class="axis" x1="{frame.left}" x2="{frame.right}" y1="{frame.bottom}" y2="{frame.bottom}"/>'
    )
    parts.append(_text((frame.left + frame.right) / 2, frame.height - 4, "predicted", "name mid"))
    parts.append(_text(frame.left, frame.top - 3, "observed", "name"))
    return "".join(parts)


def interval_chart(title: str, bars: Sequence[Bar], *, start: float | None = None, zero: bool = False) -> str:
    """A dot with its interval a row, all on one axis; `start` fixes the left end (0 draws bars from it).

    zero: the axis reaches 0, and a line stands there.
    """
    known = [bar for bar in bars if math.isfinite(bar.value)]
    if not known:
        return ""
    edges = [v for bar in known for v in (bar.value, bar.low, bar.high) if math.isfinite(v)]
    edges += [0.0] if zero else []
    low = start if start is not None else min(edges) - (max(edges) - min(edges)) * 0.05
    high = max(edges) + (max(edges) - low) * 0.02
    row, top = 34, 4
    frame = Frame((low, high), (0, 1), height=top + row * len(known) + 22, left=2, bottom=22)
    body = []
    for mark in ticks(*frame.x, 4):
        x, _ = frame.place(mark, 0)
        style = "ideal" if zero and mark == 0 else "grid"
        body.append(f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{frame.bottom}"/>')
        body.append(_text(x, frame.bottom + 15, _tick_text(mark), "tick " + _edge(x)))
    for index, bar in enumerate(known):
        y = top + index * row + 24
        x, _ = frame.place(bar.value, 0)
        body.append(_text(2, y - 9, bar.label, "label"))
        body.append(_text(WIDTH - 4, y - 9, bar.text, "figure end"))
        if start is not None:
            x0, _ = frame.place(low, 0)
            body.append(
                f'<rect class="bar {bar.style}" x="{x0:.1f}" y="{y - 3}" width="{max(x - x0, 0.5):.1f}"'
                f' height="6" rx="1"/>'
            )
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            (a, _), (b, _) = frame.place(bar.low, 0), frame.place(bar.high, 0)
            body.append(f'<line class="whisker {bar.style}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>')
        body.append(f'<circle class="dot {bar.style}" cx="{x:.1f}" cy="{y}" r="3.6"/>')
    return _svg(frame.height, title, "".join(body))


def _edge(x: float) -> str:
    return "" if x < 20 else "end" if x > WIDTH - 24 else "mid"


def column_chart(title: str, columns: Sequence[tuple[str, float]], y_label: str) -> str:
    """One column a label (a day); the first, middle and last labels are written."""
    if not columns:
        return ""
    top = max(value for _, value in columns) or 1.0
    frame = Frame((0, len(columns)), (0, top), height=180)
    body = [frame.axes("", y_label, [], ticks(0, top, 3))]
    step = (frame.right - frame.left) / len(columns)
    named = {0, len(columns) // 2, len(columns) - 1}
    for index, (label, value) in enumerate(columns):
        _, y = frame.place(0, value)
        x = frame.left + index * step
        body.append(
            f'<rect class="bar a" x="{x + step * 0.12:.1f}" y="{y:.1f}" width="{step * 0.76:.1f}"'
            f' height="{max(frame.bottom - y, 0):.1f}"><title>{escape(label)}: {value:,.0f}</title></rect>'
        )
        if index in named:
            body.append(_text(x + step / 2, frame.bottom + 15, label, "tick " + _edge(x + step / 2)))
    return _svg(frame.height, title, "".join(body))


def flow_chart(title: str, stages: Sequence[tuple[str, float, str]]) -> str:
    """What is left after each stage, as a band that narrows with the logarithm of the count.

    stages: (name, count, note) from the first to the last; counts above 0.
    """
    if not stages:
        return ""
    row, middle, widest = 52, WIDTH / 2, WIDTH * 0.94
    largest = max(count for _, count, _ in stages)
    scale = [max(math.log1p(count) / math.log1p(largest), 0.04) * widest / 2 for _, count, _ in stages]
    body = []
    for index, (name, count, note) in enumerate(stages):
        y, half = index * row, scale[index]
        after = scale[index + 1] if index + 1 < len(stages) else half * 0.82
        shape = f"M{middle - half:.1f} {y} H{middle + half:.1f} L{middle + after:.1f} {y + row - 3} "
        body.append(f'<path class="flow" d="{shape}H{middle - after:.1f} Z"/>')
        body.append(_text(middle, y + 22, f"{number(count, 3)}  {name}", "flow-name mid"))
        body.append(_text(middle, y + 38, note, "tick mid"))
    return _svg(row * len(stages), title, "".join(body))


def share_bar(title: str, parts: Sequence[tuple[str, float]]) -> str:
    """One bar cut into parts, each named below with its figure in ms."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return ""
    body, x = [], 0.0
    for index, (label, value) in enumerate(parts):
        width = value / total * WIDTH
        body.append(
            f'<rect class="part p{index % 5}" x="{x:.1f}" y="0" width="{max(width - 1.5, 0.5):.1f}"'
            f' height="18" rx="1"><title>{escape(label)} {number(value, 3)} ms</title></rect>'
        )
        x += width
        y = 40 + index * 20
        body.append(f'<rect class="part p{index % 5}" x="0" y="{y - 9}" width="10" height="10" rx="1"/>')
        body.append(_text(18, y, label, "label"))
        body.append(_text(WIDTH, y, f"{number(value, 3)} ms", "figure end"))
    return _svg(34 + 20 * len(parts), title, "".join(body))


def scatter_chart(
    title: str,
    groups: Sequence[Dots],
    x_label: str,
    y_label: str,
    y: Point,
    y_marks: Sequence[tuple[float, str]],
) -> str:
    """Dots over shares from 0 to 1, with a line at y = 0; `y_marks` are (place, text) of the other axis."""
    if not any(group.points for group in groups):
        return ""
    frame = Frame((0.0, 1.0), y, height=240)
    body = []
    for value, text in y_marks:
        _, up = frame.place(0, value)
        style = "ideal" if value == 0 else "grid"
        body.append(
            f'<line class="{style}" x1="{frame.left}" x2="{frame.right}" y1="{up:.1f}" y2="{up:.1f}"/>'
        )
        body.append(_text(frame.left - 6, up + 3.5, text, "tick end"))
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        across, _ = frame.place(value, y[0])
        body.append(_text(across, frame.bottom + 15, f"{value:.0%}", "tick " + _edge(across)))
    body.append(_text((frame.left + frame.right) / 2, frame.height - 4, x_label, "name mid"))
    body.append(_text(frame.left, frame.top - 3, y_label, "name"))
    body += _dots(frame, groups, 3.2)
    return _svg(frame.height, title, "".join(body))


def plane_chart(title: str, groups: Sequence[Dots], x_label: str, y_label: str) -> str:
    """Dots over two figures of any range; later groups lie above earlier ones."""
    points = [point for group in groups for point in group.points]
    if not points:
        return ""
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    frame = Frame((min(xs), max(xs)), (min(ys), max(ys)), height=260)
    body = [frame.axes(x_label, y_label, ticks(*frame.x, 4), ticks(*frame.y, 4))]
    body += _dots(frame, groups, 3.4)
    return _svg(frame.height, title, "".join(body))


def _dots(frame: Frame, groups: Sequence[Dots], radius: float) -> Iterator[str]:
    """A circle a point, with its words to be read at it."""
    for group in groups:
        for x, y, words in group.points:
            across, up = frame.place(x, y)
            yield (
                f'<circle class="dot {group.style}" cx="{across:.1f}" cy="{up:.1f}" r="{radius}">'
                f"<title>{escape(words)}</title></circle>"
            )
