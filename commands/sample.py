"""adstool sample: a synthetic marketplace, or synthetic activity over a real catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adstool.commands._output import emit, next_verb, say, table
from adstool.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("sample")(sample)


def sample(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="The folder to write; new, empty, or a former sample.")],
    users: Annotated[int | None, typer.Option(help="How many people use the site.")] = None,
    ads: Annotated[int | None, typer.Option(help="How many ads there are.")] = None,
    pins: Annotated[int | None, typer.Option(help="How many pins there are.")] = None,
    days: Annotated[int | None, typer.Option(help="How many days the log covers.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same bytes.")] = None,
    preset: Annotated[
        str, typer.Option(help="small: raised rates; full: a million events at the rates of the trade.")
    ] = "small",
    catalog: Annotated[
        Path | None, typer.Option(help="A CSV of real items, to make activity over them instead.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of the catalogue's pictures.")] = None,
) -> None:
    """Write a synthetic world: catalogues, pictures, events, conversions, and its hidden truth in truth/."""
    if images is not None and catalog is None:
        raise UsageError("--images goes with --catalog.", "Name the catalogue: --catalog items.csv")
    from adstool.world import config as settings
    from adstool.world.generate import generate
    from adstool.world.real import count_items
    from adstool.world.truth import signal_table

    if catalog is not None:
        # Without numbers every item is used: half of them as ads, the others as pins.
        total = count_items(catalog)
        ads = ads if ads is not None else (total - pins if pins is not None else total // 2)
        pins = pins if pins is not None else total - ads
    world = settings.preset(preset, users=users, ads=ads, pins=pins, days=days, seed=seed)
    made = generate(world, directory, catalog, images)
    signals = signal_table(directory / "truth")
    payload = {
        "tables": made.tables,
        "seconds": made.seconds,
        "directory": str(directory),
        "unchanged": made.unchanged,
        "signals": {"floor": signals.floor, **{row.signal: row.ne for row in signals.rows}},
    }
    if emit(context, payload):
        return
    if made.unchanged:
        say(context, f"{directory} holds this world already: nothing to do.")
    else:
        table(context, ["table", "rows"], [[name, count] for name, count in made.tables.items()])
        table(
            context,
            ["without", "NE of true click rates", "worse by"],
            [("nothing", f"{signals.floor:.4f}", "")]
            + [(row.signal, f"{row.ne:.4f}", f"{row.cost:.2%}") for row in signals.rows],
            f"What the truth of {signals.impressions:,} ad impressions loses without one of its signals",
        )
        say(
            context,
            f"Synthetic world {directory}, {made.seconds:.1f} s. No person, shop or click in it is real.",
        )
    next_verb(context, f"adstool ingest {directory}")
