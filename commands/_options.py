"""How verbs declare what they take: every option in a group; those of several verbs in one place."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from adstool.config import Settings


class Group(StrEnum):
    """The headings under which every verb's help lists its options, in this order."""

    DATA = "Data"
    COLUMNS = "Columns"
    MODEL = "Model"
    TRAINING = "Training"
    MARKET = "Market"
    LIMITS = "Limits"
    RUNNING = "Running"
    OUTPUT = "Output"


def option(group: Group, text: str, *names: str, default: str = "", setting: str = "", **more: Any) -> Any:
    """An option of a verb.

    text: what it says, with its unit, ending with a full stop. default: what holds without it, in words,
    where the function's own default does not tell. setting: the "section.key" that holds without it; the
    help then names it, its default and its environment variable.
    """
    shown: str | bool = default or True
    if setting:
        section, _, key = setting.partition(".")
        value = getattr(getattr(Settings(), section), key)
        shown = f"{_plain(value)}, of setting {setting}, ADSTOOL_{section.upper()}_{key.upper()}"
    return typer.Option(*names, help=text, rich_help_panel=group, show_default=shown, **more)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def argument(text: str, metavar: str, default: str = "", **more: Any) -> Any:
    """A word after the verb; text and default as those of an option."""
    return typer.Argument(help=text, metavar=metavar, show_default=default or True, **more)


# What several verbs take, in the same words; functions where only the default or the thing counted differs.


def table(default: str) -> Any:
    """--table: one table of the warehouse."""
    text = "One table: users, pins, advertisers, campaigns, ads, events or conversions."
    return option(Group.DATA, text, "--table", metavar="TABLE", default=default)


def images(default: str, **more: Any) -> Any:
    """--images: where relative paths of pictures start."""
    text = "The folder in which relative paths of pictures start."
    return option(Group.DATA, text, "--images", metavar="DIR", default=default, **more)


def seed(default: str = "", setting: str = "") -> Any:
    """--seed: of everything random."""
    text = "Decides all random numbers; the same seed gives the same result."
    more = {"default": default, "setting": setting}
    return option(Group.RUNNING, text, "--seed", min=0, metavar="N", **more)


def limit(what: str, default: str = "", least: int = 0) -> Any:
    """--limit: how many of something."""
    text = f"So many {what} at most."
    return option(Group.LIMITS, text, "--limit", min=least, metavar="N", default=default)


def only(what: str, metavar: str, default: str) -> Any:
    """--only: one thing of several."""
    text = f"This {what} alone."
    return option(Group.RUNNING, text, "--only", metavar=metavar, default=default)


def count(setting: str = "", **more: Any) -> Any:
    """-k: how many items come back."""
    return option(Group.LIMITS, "So many items at most.", "-k", min=1, metavar="N", setting=setting, **more)


def batch_size(default: str = "", setting: str = "") -> Any:
    """--batch-size: of a model's forward pass."""
    text = "Items or examples in one pass through the model."
    more = {"default": default, "setting": setting}
    return option(Group.TRAINING, text, "--batch-size", min=1, metavar="N", **more)


KIND_OF_ITEMS = "Which items: ads, pins or all."
Engine = Annotated[
    str,
    option(
        Group.RUNNING,
        "Who does the work: local is this process, ray are workers of a Ray cluster, with adstool[ray].",
        "--engine",
        metavar="local|ray",
    ),
]
Workers = Annotated[
    int | None,
    option(Group.RUNNING, "Workers of --engine ray.", "--workers", min=1, metavar="N", default="one a CPU"),
]
DryRun = Annotated[bool, option(Group.RUNNING, "Say what would be done, and write nothing.", "--dry-run")]
Output = Annotated[
    Path | None,
    option(Group.OUTPUT, "The file to write.", "--output", "-o", metavar="FILE", default="none: shown here"),
]
