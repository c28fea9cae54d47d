"""A world's tables as files: CSV catalogues, the log as jsonl.gz or parquet; same rows, same bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adstool.world.catalogue import FORMATS, KINDS, OBJECTIVES, Catalogue
from adstool.world.config import WorldConfig
from adstool.world.conversions import Conversions
from adstool.world.log import EVENT_ACTIONS, QUERY, Events
from adstool.world.policies import POLICIES
from adstool.world.population import AGES, COUNTRIES, GENDERS, LANGUAGES, Population
from adstool.world.rhythm import SURFACES
from adstool.world.vocabulary import Ints


def write_catalogues(
    folder: Path, config: WorldConfig, catalogue: Catalogue, people: Population
) -> dict[str, int]:
    """users.csv, pins.csv, advertisers.csv, campaigns.csv and ads.csv; returns their row counts."""
    items, ads, words = catalogue.items, catalogue.items.ads, catalogue.words
    created, who, camps = iso(config, items.created), catalogue.advertisers, catalogue.campaigns
    names = [words.categories[c] for c in items.category]
    signup, starts, ends = iso(config, people.signup), iso(config, camps.starts), iso(config, camps.ends)
    count = len(items.ids)
    tables: dict[str, tuple[str, Iterable[Sequence[Any]]]] = {
        "users": (
            "user_id signup_at country language age_bucket gender",
            ((uid, signup[i], COUNTRIES[people.country[i]], LANGUAGES[people.country[i]], AGES[people.age[i]],
              GENDERS[people.gender[i]]) for i, uid in enumerate(people.ids)),
        ),
        "pins": (
            "pin_id title description image board_id category created_at",
            ((items.ids[i], items.titles[i], items.descriptions[i], items.images[i], f"b{items.owner[i] + 1}",
              names[i], created[i]) for i in range(ads, count)),
        ),
        "advertisers": (
            "advertiser_id name vertical",
            ((f"adv{i + 1}", name, words.verticals[who.vertical[i]]) for i, name in enumerate(who.names)),
        ),
        "campaigns": (
            "campaign_id advertiser_id objective bid_strategy bid target daily_budget starts_at ends_at",
            ((f"c{i + 1}", f"adv{camps.advertiser[i] + 1}", OBJECTIVES[camps.objective[i]],
              camps.strategy[i], _number(camps.bid[i]), _number(camps.target[i]),
              _number(camps.daily_budget[i]), starts[i], ends[i]) for i in range(len(camps.bid))),
        ),
        "ads": (
            "ad_id campaign_id title description image landing_url price category format created_at",
            ((items.ids[i], f"c{items.campaign[i] + 1}", items.titles[i], items.descriptions[i],
              items.images[i], f"https://shop.example/{quote(items.ids[i])}", _number(items.price[i]),
              names[i], FORMATS[items.format[i]], created[i]) for i in range(ads)),
        ),
    }  # fmt: skip
    return {
        name: _write_csv(folder / f"{name}.csv", header.split(), rows)
        for name, (header, rows) in tables.items()
    }


def write_events(
    folder: Path,
    config: WorldConfig,
    catalogue: Catalogue,
    people: Population,
    events: Events,
    day: int,
    before: int,
) -> int:
    """The log of one day, numbered on from `before`; returns its row count."""
    date = datetime.fromtimestamp(config.started_at.timestamp() + day * 86_400, UTC).strftime("%Y-%m-%d")
    if config.writes_parquet:
        table = _events_table(config, catalogue, people, events, before)
        write_parquet(folder / f"events-{date}.parquet", table)
    else:
        lines = _event_lines(config, catalogue, people, events, before)
        _write_gzip(folder / f"events-{date}.jsonl.gz", lines)
    return len(events.seconds)


def write_conversions(
    folder: Path, config: WorldConfig, people: Population, table: Conversions, known: Ints
) -> int:
    """The conversions in rows `known`, those the site has heard of; returns their count."""
    times, reported = iso(config, table.seconds), iso(config, table.reported)

    def lines() -> Iterable[str]:
        for i in known.tolist():
            row = {
                "conversion_id": f"k{i + 1}",
                "ts": times[i],
                "reported_at": reported[i],
                "user_id": people.ids[table.user[i]],
                "advertiser_id": f"adv{table.advertiser[i] + 1}",
                "kind": KINDS[table.kind[i]],
                "value": None if np.isnan(table.value[i]) else float(table.value[i]),
                "quantity": int(table.quantity[i]) or None,
                "channel": "offline" if table.offline[i] else "online",
            }
            yield json.dumps({key: value for key, value in row.items() if value is not None})

    _write_gzip(folder / "conversions.jsonl.gz", lines())
    return len(known)


def iso(config: WorldConfig, seconds: Ints) -> list[str]:
    """Seconds from the world's start as ISO 8601 in UTC, e.g. 2026-11-02T09:30:00Z."""
    start = np.datetime64(config.start, "s")
    texts: list[str] = np.char.add(
        np.datetime_as_string(start + seconds.astype("timedelta64[s]")), "Z"
    ).tolist()
    return texts


def timestamps(config: WorldConfig, seconds: Ints) -> pa.Array:
    """Seconds from the world's start as UTC timestamps."""
    start = int(config.started_at.timestamp())
    return pa.array((seconds + start) * 1_000_000, pa.timestamp("us", tz="UTC"))


def named(codes: Ints, names: Sequence[str]) -> pa.Array:
    """Codes as a dictionary column of their names; negative codes are null."""
    mask = codes < 0
    return pa.DictionaryArray.from_arrays(
        pa.array(np.where(mask, 0, codes).astype(np.int32), mask=mask), pa.array(list(names), pa.string())
    )


def numbered(prefix: str, numbers: Ints) -> pa.Array:
    """Ids such as e17."""
    return pc.binary_join_element_wise(prefix, pc.cast(pa.array(numbers), pa.string()), "")


def significant(values: NDArray[np.float64], digits: int = 6) -> NDArray[np.float64]:
    """Values rounded to that many significant decimal digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(values))))
    rounded: NDArray[np.float64] = np.where(np.isfinite(scale), np.rint(values * scale) / scale, values)
    return rounded


def write_parquet(path: Path, table: pa.Table) -> None:
    """A table as zstd parquet."""
    pq.write_table(table, path, compression="zstd", compression_level=9)


def _events_table(
    config: WorldConfig, catalogue: Catalogue, people: Population, events: Events, before: int
) -> pa.Table:
    count = len(events.seconds)
    kind = np.where(events.action == QUERY, 2, np.where(events.item < catalogue.items.ads, 0, 1))
    return pa.table({
        "event_id": numbered("e", before + 1 + np.arange(count)),
        "ts": timestamps(config, events.seconds),
        "user_id": named(events.user, people.ids),
        "request_id": numbered("r", events.request),
        "surface": named(events.surface, SURFACES),
        "item_type": named(kind, ("ad", "pin", "query")),
        "item_id": named(events.item, catalogue.items.ids),
        "position": pa.array(events.position.astype(np.int32), mask=events.position < 0),
        "action": named(events.action, EVENT_ACTIONS),
        "value": pa.array(events.value, mask=np.isnan(events.value)),
        "propensity": pa.array(significant(events.propensity), mask=np.isnan(events.propensity)),
        "source": named(events.policy, POLICIES),
        "query": named(events.query, events.texts or ("",)),
    })  # fmt: skip


def _event_lines(
    config: WorldConfig, catalogue: Catalogue, people: Population, events: Events, before: int
) -> Iterable[str]:
    """One JSON object an event, without the keys that have no value; ids may hold anything: quoted."""
    ids = [json.dumps(text) for text in catalogue.items.ids]
    users = [json.dumps(text) for text in people.ids]
    texts = [json.dumps(text, ensure_ascii=False) for text in events.texts]
    ads, times = catalogue.items.ads, iso(config, events.seconds)
    propensity = significant(events.propensity).tolist()
    columns = (
        events.request,
        events.user,
        events.surface,
        events.item,
        events.position,
        events.action,
        events.policy,
        events.query,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    dwell = events.value.tolist()
    for i, (request, user, surface, item, position, action, policy, query) in enumerate(rows):
        parts = [
            f'{{"event_id": "e{before + i + 1}", "ts": "{times[i]}"',
            f'"user_id": {users[user]}, "request_id": "r{request}"',
            f'"surface": "{SURFACES[surface]}"',
        ]
        if action == QUERY:
            parts.append('"item_type": "query"')
        else:
            kind = "ad" if item < ads else "pin"
            parts.append(f'"item_type": "{kind}", "item_id": {ids[item]}, "position": {position}')
        parts.append(f'"action": "{EVENT_ACTIONS[action]}"')
        if action == 2:
            parts.append(f'"value": {dwell[i]:g}')
        if policy >= 0:
            parts.append(f'"propensity": {propensity[i]!r}, "source": "{POLICIES[policy]}"')
        if query >= 0:
            parts.append(f'"query": {texts[query]}')
        yield ", ".join(parts) + "}"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def _write_gzip(path: Path, lines: Iterable[str]) -> None:
    """Lines, compressed; name and time stay out of the header so that equal lines give equal bytes."""
    with (
        open(path, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=9) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as handle,
    ):
        handle.writelines(line + "\n" for line in lines)
