"""A whole world into a folder: all of it or nothing, the same settings the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adstool.errors import AdstoolError
from adstool.progress import log, track
from adstool.world import behaviour, catalogue, pictures, population
from adstool.world.behaviour import Behaviour, State
from adstool.world.catalogue import DAY, Catalogue, RawItems
from adstool.world.config import GENERATOR, GENERATOR_VERSION, PRESETS, TRADE_RATES, WorldConfig, preset
from adstool.world.conversions import Conversions, OffSite, joined
from adstool.world.log import action_lags, assemble, number_requests
from adstool.world.policies import POLICIES, SHARES, Shop
from adstool.world.population import Population
from adstool.world.real import read_catalogue
from adstool.world.rhythm import Requests, requests_of_day
from adstool.world.truth import ImpressionTruth, write_conversion_truth, write_static
from adstool.world.writers import write_catalogues, write_conversions, write_events

WORLD_FILE = "world.json"
PILOT_USERS = 1500  # users are in no order, so the first ones are a fair sample
_OURS = (
    "images", "truth", WORLD_FILE, "users.csv", "pins.csv", "advertisers.csv", "campaigns.csv", "ads.csv",
    "conversions.jsonl.gz",
)  # fmt: skip


@dataclass(frozen=True)
class WorldSummary:
    """Rows by table, how long it took, and whether the world was there already."""

    tables: dict[str, int]
    seconds: float
    unchanged: bool = False


def generate(
    config: WorldConfig, out: Path, catalog: Path | None = None, images: Path | None = None
) -> WorldSummary:
    """Write the world of `config` to `out`; with `catalog`, activity over that catalogue's items.

    The folder appears whole, by a rename. One that a former call made is replaced when the settings differ
    and left alone when they are the same; any other folder with something in it raises AdstoolError.
    """
    began = time.perf_counter()
    raw, settings = _planned(config, catalog, images)
    if (there := _the_same(out, settings)) is not None:
        return there
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    tables = _write(config, raw, partial)
    _write_settings(partial, settings, tables)
    _publish(partial, out)
    return WorldSummary(tables, round(time.perf_counter() - began, 2))


def is_made(config: WorldConfig, out: Path, catalog: Path | None, images: Path | None) -> bool:
    """Whether `generate` would find its world there already; raises what it would raise before writing."""
    return _the_same(out, _planned(config, catalog, images)[1]) is not None


def _planned(
    config: WorldConfig, catalog: Path | None, images: Path | None
) -> tuple[RawItems, dict[str, Any]]:
    """The items of the world, and all that decides what becomes of them."""
    raw, source = (
        (catalogue.synthetic_items(config), None)
        if catalog is None
        else read_catalogue(catalog, images, config)
    )
    return raw, {**config.to_json(), "catalog": source}


def _the_same(out: Path, settings: dict[str, Any]) -> WorldSummary | None:
    """The world in `out` if it was made by the same settings; AdstoolError when the folder is not ours."""
    existing = _existing(out)
    if existing is not None and all(existing.get(k) == v for k, v in _identity(settings).items()):
        return WorldSummary(dict(existing["tables"]), 0.0, unchanged=True)
    return None


def _write(config: WorldConfig, raw: RawItems, folder: Path) -> dict[str, int]:
    ads = config.ads
    market = catalogue.build(config, raw, ads)
    people = population.build(config, market)
    shop = Shop(config, market, people)
    laws, off_site = Behaviour(config, market, people, shop), OffSite(config, market, people)
    off_site.solve(laws.solve_intercepts(_pilot(config, people)))
    tables = write_catalogues(folder, config, market, people)
    write_pictures(folder, config, raw, market)
    tables["events"], made = _simulate(config, folder, market, people, laws, off_site)
    end = config.days * DAY
    known = np.flatnonzero((made.reported < end) & ~made.lost)
    tables["conversions"] = write_conversions(folder, config, people, made, known)
    write_static(folder / "truth", laws, off_site, market, people)
    write_conversion_truth(folder / "truth", config, market, people, made, known)
    return tables


def _pilot(config: WorldConfig, people: Population) -> list[tuple[int, Requests]]:
    """The requests of some users over all days: enough to solve the intercepts by."""
    days = [(day, requests_of_day(config, people, day)) for day in range(config.days)]
    return [(day, requests.of_users_below(PILOT_USERS)) for day, requests in days]


def _simulate(
    config: WorldConfig,
    folder: Path,
    market: Catalogue,
    people: Population,
    laws: Behaviour,
    off_site: OffSite,
) -> tuple[int, Conversions]:
    """Day after day: only what users carry over and the conversions stay in memory."""
    state = State.new(config.users, len(market.words.categories))
    truth = ImpressionTruth(folder / "truth", market, people)
    events = requests = 0
    made = []
    for number in track(range(config.days), "days", unit="day"):
        day = laws.simulate(requests_of_day(config, people, number), number, state)
        shown = day.shown
        laws.shop.learn(shown.item, shown.acted[:, 0])
        ids = number_requests(day, requests)
        lags, dwell = action_lags(config, number, day)
        written = assemble(config, number, day, market.words, ids, lags, dwell)
        events += write_events(folder, config, market, people, written, number, events)
        truth.write(day, ids[shown.request], *off_site.probabilities(shown))
        user, seconds = day.requests.user[shown.request], day.requests.seconds[shown.request]
        made.append(off_site.of_day(number, shown, user, seconds, lags[:, 0], ids[shown.request]))
        requests += len(ids)
    truth.close()
    return events, joined(made)


def write_pictures(folder: Path, config: WorldConfig, raw: RawItems, market: Catalogue) -> None:
    """images/: drawn for a synthetic catalogue, copied for a real one."""
    target = folder / "images"
    if raw.drawn:
        names = [Path(path).name for path in market.items.images]
        pictures.draw_all(
            target,
            names,
            raw.words,
            raw.category,
            raw.style,
            raw.attributes[:, 0],
            config.picture_size,
            config.seed,
        )
        return
    target.mkdir()
    missing = 0
    for picture in track(raw.pictures, "pictures", unit="picture"):
        if picture is None:
            missing += 1
        elif not (target / picture.name).exists():
            shutil.copyfile(picture, target / picture.name)
    if missing:
        log.warning(f"{missing:,} of {len(raw.pictures):,} items of the catalogue have no picture.")


def _existing(out: Path) -> dict[str, Any] | None:
    """The settings of the world in `out`, None when there is nothing; AdstoolError when it is not ours."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise AdstoolError(f"{out} is a file.", "Name a folder.")
    names = [entry.name for entry in out.iterdir()]
    if not names:
        return None
    refusal = AdstoolError(
        f"{out} is not empty and was not made by adstool sample; nothing was written.",
        "Name a new folder, or remove what is in this one.",
    )
    try:
        found = json.loads((out / WORLD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise refusal from None
    if not isinstance(found, dict) or found.get("generator") != GENERATOR:
        raise refusal
    strange = sorted(name for name in names if name not in _OURS and not name.startswith("events-"))
    if strange:
        raise AdstoolError(
            f"{out} holds a world and also {', '.join(strange[:3])}, which adstool sample did not write.",
            "Move those away, or name another folder.",
        )
    return found


def _command(settings: dict[str, Any]) -> str | None:
    """The command line that makes this world, None when only Python can (settings of no preset)."""
    sizes = ("users", "ads", "pins", "days", "seed")
    catalog = f" --catalog {settings['catalog']['file']} --images DIR" if settings["catalog"] else ""
    for name in PRESETS:
        made = preset(name, **{size: settings[size] for size in sizes}).to_json()
        if all(settings[key] == value for key, value in made.items()):
            words = " ".join(f"--{size} {settings[size]}" for size in sizes)
            return f"adstool sample DIR --preset {name} {words}{catalog}"
    return None


def _identity(settings: dict[str, Any]) -> dict[str, Any]:
    """All that decides the bytes of a world."""
    return {
        "generator": GENERATOR,
        "version": GENERATOR_VERSION,
        "settings": settings,
        "policies": dict(zip(POLICIES, SHARES, strict=True)),
        "signal_weights": behaviour.WEIGHTS,
    }


def _write_settings(folder: Path, settings: dict[str, Any], tables: dict[str, int]) -> None:
    trade, rates = TRADE_RATES, settings["rates"]
    raised = rates["click"] > 0.05
    note = (
        "Rates are raised so that a small log holds enough actions to learn from: clicks"
        f" {rates['click']:.1%} of impressions and conversions {rates['conversion']:.1%} of clicks, where the"
        f" trade sees 2-5 % and 1-4 %. The preset full has {trade.click:.1%} and {trade.conversion:.1%}."
        if raised
        else "Rates are those of the trade."
    )
    settings_file = {
        "note": "A synthetic world: no person, shop or click in it is real. " + note,
        "command": _command(settings),
        **_identity(settings),
        "tables": tables,
    }
    text = json.dumps(settings_file, indent=2, ensure_ascii=False) + "\n"
    (folder / WORLD_FILE).write_text(text, encoding="utf-8")


def _publish(partial: Path, out: Path) -> None:
    """Put the finished folder in place; a former world moves aside first and goes last."""
    old = out.parent / f".{out.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)
