"""What every verb shares: the global options, and the workspace and settings they lead to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from adstool.config import Settings, load_settings
from adstool.errors import UsageError
from adstool.workspace import Workspace, find_workspace


@dataclass
class Globals:
    """The global options of one invocation."""

    workspace: Path | None = None
    config: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    result: Mapping[str, Any] | None = None  # what emit was given: with --json printed at the end
    printed: bool = False  # lines of JSON were printed already, by rank


def globals_of(context: typer.Context) -> Globals:
    """The global options of this invocation."""
    found = context.find_root().obj
    assert isinstance(found, Globals)
    return found


def open_workspace(
    context: typer.Context, flags: Mapping[str, Any] | None = None
) -> tuple[Workspace, Settings]:
    """The workspace and its settings, with `flags` ("section.key": value, None left out) on top."""
    options = globals_of(context)
    workspace = find_workspace(options.workspace)
    named = options.config  # typer reads ADSTOOL_CONFIG where the option is not given
    if named is not None and not named.is_file():
        raise UsageError(f"The settings {named} are no file.", "Mend --config or ADSTOOL_CONFIG.")
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    settings = load_settings(named or workspace.config, given)
    return workspace, settings


Register = Callable[[typer.Typer], None]
