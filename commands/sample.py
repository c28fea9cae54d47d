"""adstool sample: a synthetic marketplace, or synthetic activity over a real catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adstool.commands import _options
from adstool.commands._help import add_verb
from adstool.commands._options import Group, argument, option
from adstool.commands._output import emit, next_verb, say, table
from adstool.commands._plan import show_plan
from adstool.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        sample,
        "adstool sample world --users 100 --ads 60 --pins 60 --days 7",
        "adstool sample world --preset full --seed 1",
    )


def _size(text: str, name: str, least: int) -> Any:
    default = "of the preset; with --catalog its items" if name in ("--ads", "--pins") else "of the preset"
    return option(Group.DATA, text, name, min=least, metavar="N", default=default)


def sample(
    context: typer.Context,
    directory: Annotated[Path, argument("The folder to write; new, empty, or a former sample.", "DIR")],
    users: Annotated[int | None, _size("People on the site.", "--users", 10)] = None,
    ads: Annotated[int | None, _size("Ads.", "--ads", 20)] = None,
    pins: Annotated[int | None, _size("Pins.", "--pins", 20)] = None,
    days: Annotated[int | None, _size("Days of traffic.", "--days", 1)] = None,
    preset: Annotated[
        str,
        option(
            Group.DATA,
            "small: rates of action raised, so that little data teaches much; full: a million events at the "
            "rates of the trade.",
            "--preset",
            metavar="small|full",
        ),
    ] = "small",
    catalog: Annotated[
        Path | None,
        option(
            Group.DATA,
            "A csv of real items, to make activity over them.",
            "--catalog",
            metavar="FILE",
            default="items are made up",
        ),
    ] = None,
    images: Annotated[Path | None, _options.images("the folder of --catalog")] = None,
    seed: Annotated[int | None, _options.seed("of the preset, 7")] = None,
    dry_run: _options.DryRun = False,
) -> None:
    """Write a synthetic world: users, ads, pins, events, conversions.

    Beside catalogues, pictures and logs stands the hidden truth in truth/: the rates from which every
    click was drawn, so that the best possible result is known. With --catalog the activity is over items
    of a real catalogue; half of them become ads, the others pins, unless --ads or --pins say otherwise.
    """
    if images is not None and catalog is None:
        raise UsageError("--images goes with --catalog.", "Name the catalogue: --catalog items.csv")
    from adstool.world import config as settings
    from adstool.world.generate import generate, is_made
    from adstool.world.real import count_items
    from adstool.world.truth import signal_table

    if catalog is not None:
        # Without numbers every item is used: half of them as ads, the others as pins.
        total = count_items(catalog)
        ads = ads if ads is not None else (total - pins if pins is not None else total // 2)
        pins = pins if pins is not None else total - ads
    world = settings.preset(preset, users=users, ads=ads, pins=pins, days=days, seed=seed)
    if dry_run:
        from adstool.planned import Planned

        unchanged = is_made(world, directory, catalog, images)
        sizes = {name: getattr(world, name) for name in ("users", "ads", "pins", "days")}
        show_plan(context, Planned([] if unchanged else [directory.resolve()], sizes))
        return
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
