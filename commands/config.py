"""adstool config: every setting, its value and where it came from."""

from __future__ import annotations

from typing import Any

import typer

from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._output import emit, next_verb, table


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        config,
        "adstool config",
        "ADSTOOL_FUNNEL_SLATE=5 adstool config --json",
    )


def config(
    context: typer.Context,
) -> None:
    """Show every setting, its value and where it came from.

    A flag goes before the environment (ADSTOOL_<SECTION>_<KEY>), that before adstool.toml, that before the
    default.
    """
    from dataclasses import asdict

    from adstool.config import SECTIONS

    workspace, settings = open_workspace(context)
    rows: list[tuple[str, Any, str]] = []
    for section in SECTIONS:
        for key, value in asdict(getattr(settings, section)).items():
            name = f"{section}.{key}"
            rows.append((name, value, settings.origins.get(name, "default")))
    for name in ("actions", "formats"):
        origin = settings.origins.get(name, "default")
        rows += [(f"{name}.{entry.name}", asdict(entry), origin) for entry in getattr(settings, name)]
    listed = {name: {"value": value, "origin": origin} for name, value, origin in rows}
    if emit(context, {"workspace": str(workspace.root), "settings": listed}):
        return
    table(context, ["setting", "value", "from"], [(n, str(v), o) for n, v, o in rows])
    next_verb(context, f"edit {workspace.config}")
