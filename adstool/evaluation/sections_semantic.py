"""The report's section on semantic ids: what each level of codes keeps, and whether wants agree with it."""

from __future__ import annotations

from typing import Any

from adstool.content.codebooks import MODEL
from adstool.evaluation.page import Html, section, table
from adstool.workspace import Workspace, read_json

_COLUMNS = (
    "codes",
    ">of each",
    ">perplexity",
    ">dead",
    ">prefixes in use",
    ">share a prefix",
    ">error left",
    ">new items",
    ">co-engaged",
    ">by chance",
)


def semantic_section(ws: Workspace) -> Html:
    """The codebooks in use, a row a level; nothing when there are none."""
    run = ws.current_run(MODEL)
    if run is None or not (run / "metrics.json").is_file():
        return Html("")
    config, metrics = read_json(run / "config.json"), read_json(run / "metrics.json")
    rows = [_row(level, figures, metrics) for level, figures in metrics["train"].items()]
    lead = (
        f"{config['method']} over the vectors of {metrics['items']:,} ads and pins: an item's id is one code "
        "a level, coarse to fine. Co-engaged is the share of pairs of items that one user went for within a "
        "day and that share the codes so far; by chance is that of items drawn as often as those pairs have "
        "them."
    )
    caption = (
        f"{metrics['pairs']:,} pairs of co-engagement; the error left is a share of the vectors' variance, "
        f"that of new items over {metrics['held_out']:,} held out"
    )
    return section(MODEL, "Semantic ids", lead, table(_COLUMNS, rows, caption))


def _row(level: str, figures: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    new = metrics["test"].get(level, {}).get("relative_mse")
    return [
        "first" if level == "1" else f"first {level}",
        f"{figures['size']:,}",
        f"{figures['perplexity']:.1f}",
        f"{figures['dead']:,}",
        f"{figures['prefixes']:,}",
        f"{figures['collisions']:.0%}",
        f"{figures['relative_mse']:.1%}",
        _share(new),
        _share(figures.get("purity")),
        _share(figures.get("popularity_matched")),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
