"""adstool evaluate utility: what other weights of the utility would have brought, and writing them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from adstool.commands._options import Group, option
from adstool.commands._output import say, table
from adstool.config import Settings
from adstool.workspace import Workspace

Write = Annotated[
    bool,
    option(Group.OUTPUT, "utility: write the chosen weights and the evidence to adstool.toml.", "--write"),
]
LABELS = {
    "value": "advertiser value",
    "revenue": "revenue",
    "wanted_actions": "{wanted}s",
    "unwanted_actions": "{unwanted}s",
}


def labels_of(found: dict[str, Any]) -> dict[str, str]:
    """The words for the figures of a result."""
    return {name: label.format(**found["actions"]) for name, label in LABELS.items()}


def write_chosen(workspace: Workspace, settings: Settings, found: dict[str, Any]) -> None:
    """The chosen weights into adstool.toml, with the evidence; notes it in `found`."""
    from adstool.evaluation.compare import percent
    from adstool.evaluation.utility import Weights, axes_of, with_weights
    from adstool.evaluation.utility_file import write_weights

    found["written"] = None
    if found["chosen"] == found["current"]:
        return
    weights = Weights(**found["chosen"])
    axes = axes_of(settings, tuple(action.name for action in settings.actions))
    judged, labels = found["judged"], labels_of(found)
    was = found["current"]
    evidence = [
        f"chosen on {datetime.now(UTC):%Y-%m-%d} with engagement {found['run_id']} from "
        f"{len(found['settings'])} settings, before utility_weight {was['utility_weight']:g}, "
        f"{axes.wanted.name} {was['wanted']:g}, {axes.unwanted.name} {was['unwanted']:g}",
        f"on {found['auctions']['judging']:,} auctions of users who did not choose: "
        + ", ".join(f"{labels[name]} {percent(judged[name])}" for name in labels),
    ]
    write_weights(workspace.config, with_weights(settings, axes, weights), evidence)
    found["written"] = str(workspace.config)


def show_utility(context: typer.Context, found: dict[str, Any]) -> None:
    """The settings on the Pareto front, the one in use and the chosen one, for people."""
    from adstool.evaluation.compare import percent
    from adstool.evaluation.utility import along_front

    names, actions = labels_of(found), found["actions"]
    rows = [
        (mark, *(one[key] for key in ("utility_weight", "wanted", "unwanted", *names)))
        for mark, one in along_front(found)
    ]
    columns = ["", "utility_weight", f"weight of {actions['wanted']}", f"of {actions['unwanted']}"]
    count = found["auctions"]
    table(
        context,
        [*columns, *names.values()],
        rows,
        f"Along the Pareto front of {len(found['settings'])} settings on {count['choosing']:,} auctions held "
        f"again; outcomes are {found['outcomes']}",
    )
    judged = ", ".join(f"{label} {percent(found['judged'][name])}" for name, label in names.items())
    say(context, f"Chosen against in use, on {count['judging']:,} auctions of other users: {judged}.")
    if found.get("written"):
        say(context, f"Written to {found['written']}; models and index stay as they are.")
    elif found["chosen"] == found["current"]:
        say(context, "No setting brings more at so little loss; nothing to write.")
    else:
        say(context, "Write it to adstool.toml: adstool evaluate utility --write")
