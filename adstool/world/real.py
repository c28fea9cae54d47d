"""A real catalogue as the items of a world: any CSV with ids, titles, categories and maybe pictures."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adstool.errors import AdstoolError, DataError
from adstool.progress import log
from adstool.world.catalogue import RawItems
from adstool.world.config import WorldConfig
from adstool.world.vocabulary import Ints, Taxonomy

# Column names people use, best first; compared without case, spaces and underscores.
ROLES: dict[str, tuple[str, ...]] = {
    "id": ("id", "itemid", "productid", "sku", "adid", "pinid", "uid"),
    "title": ("title", "name", "productdisplayname", "productname", "itemname"),
    "image": ("image", "imagepath", "imagefile", "filename", "picture", "img"),
    "category": ("articletype", "category", "producttype", "subcategory", "type", "class"),
    "vertical": ("mastercategory", "department", "vertical", "topcategory"),
    "style": ("style", "pattern", "basecolour", "basecolor", "colour", "color"),
    "price": ("price", "saleprice", "listprice", "amount"),
    "description": ("description", "text", "body", "details"),
}
MAX_CATEGORIES = 64  # the rarer ones count as one when interests are made
MAX_STYLES = 12
MAX_WORDS = 120
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_STOP = {
    "and",
    "for",
    "the",
    "with",
    "from",
    "of",
    "in",
    "on",
    "to",
    "by",
    "a",
    "an",
    "as",
    "men",
    "women",
    "unisex",
}


def read_catalogue(path: Path, images: Path | None, config: WorldConfig) -> tuple[RawItems, dict[str, Any]]:
    """The items of a CSV, shuffled, the first `config.ads` to be ads and the next `config.pins` pins.

    Also what identifies the source, for the world's settings. Raises DataError when the file cannot be read,
    has no column for titles or categories, has an empty or repeated id, or too few items.
    """
    rows = _rows(path)
    columns = guess_columns(list(rows[0]))
    log.info(
        "Columns taken from %s: %s",
        path.name,
        ", ".join(f"{role} = {name}" for role, name in columns.items()),
    )
    ids = _ids(rows, columns, path)
    if len(rows) < config.ads + config.pins:
        raise DataError(
            f"{path} has {len(rows):,} items; {config.ads:,} ads and {config.pins:,} pins were asked for.",
            "Give smaller --ads and --pins, or leave them out to use every item.",
        )
    rng = np.random.default_rng([config.seed, 11])
    chosen = rng.permutation(len(rows))[: config.ads + config.pins]
    rows, ids = [rows[i] for i in chosen], [ids[i] for i in chosen]
    pictures = _pictures(rows, ids, columns, images, path)
    category, categories = _folded(_column(rows, columns["category"]), MAX_CATEGORIES, "other")
    style, styles = _styles(rows, columns, pictures, ids)
    titles = _column(rows, columns["title"])
    attributes, words = _attributes(titles)
    vertical_of, verticals = _verticals(rows, columns, category, len(categories))
    nouns = tuple((re.sub(r"[_/-]+", " ", name).lower(),) for name in categories)
    taxonomy = Taxonomy(categories, vertical_of, verticals, nouns, words, styles)
    raw = RawItems(
        taxonomy, ids, titles, _descriptions(rows, columns), category, style, attributes,
        _prices(rng, rows, columns, category, len(categories)), pictures, drawn=False,
    )  # fmt: skip
    source = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "columns": columns,
        "pictures": sum(picture is not None for picture in pictures),
    }
    return raw, source


def count_items(path: Path) -> int:
    """Rows of a catalogue; raises DataError when it cannot be read."""
    return len(_rows(path))


def guess_columns(names: Sequence[str]) -> dict[str, str]:
    """Role -> column, by name; raises DataError when there is none for titles or categories."""
    plain = {re.sub(r"[\s_]+", "", name).lower(): name for name in names}
    found = {role: next((plain[n] for n in options if n in plain), "") for role, options in ROLES.items()}
    for role in ("title", "category"):
        if not found[role]:
            raise DataError(
                f"The catalogue has no column for the {role}; it has {', '.join(names)}.",
                f"Call it one of: {', '.join(ROLES[role])}.",
            )
    return {role: name for role, name in found.items() if name}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(handle)]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", "Check the path given to --catalog."
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8: {error}", "Save it as CSV, UTF-8.") from None
    if not rows:
        raise DataError(f"{path} has no rows.", "Give a CSV with a header and one item a row.")
    return rows


def _column(rows: list[dict[str, str]], name: str) -> list[str]:
    return [row.get(name, "") for row in rows]


def _ids(rows: list[dict[str, str]], columns: dict[str, str], path: Path) -> list[str]:
    if "id" not in columns:
        return [f"i{i + 1}" for i in range(len(rows))]
    ids = _column(rows, columns["id"])
    repeated = [name for name, times in Counter(ids).items() if times > 1 or not name]
    if repeated:
        shown = ", ".join(repr(name) for name in repeated[:3])
        raise DataError(
            f"{path}: ids must be there and differ; look at {shown}.", f"Mend column {columns['id']}."
        )
    return ids


def _pictures(
    rows: list[dict[str, str]], ids: list[str], columns: dict[str, str], images: Path | None, path: Path
) -> list[Path | None]:
    """The picture of each item inside the images folder (else beside the catalogue), None without one.

    Files are known by name; where two folders hold the same name, later items of it have no picture.
    """
    root = (images or path.parent).resolve()
    if not root.is_dir():
        raise AdstoolError(f"{root} is not a folder.", "Name the folder of the pictures: --images DIR.")
    named = _column(rows, columns["image"]) if "image" in columns else [""] * len(rows)
    taken: dict[str, Path] = {}
    found: list[Path | None] = []
    for name, item in zip(named, ids, strict=True):
        options = [root / name, root / Path(name).name] if name and "://" not in name else []
        options += [root / f"{item}{suffix}" for suffix in _PICTURES]
        picture = next((real for option in options if (real := _inside(option, root))), None)
        if picture is not None and taken.setdefault(picture.name, picture) != picture:
            picture = None
        found.append(picture)
    return found


def _inside(option: Path, root: Path) -> Path | None:
    """The picture itself, if it is a file below `root`; None for what leads elsewhere or is no path."""
    try:
        real = option.resolve()
        return real if real.is_relative_to(root) and real.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL, links in a circle
        return None


def _folded(values: list[str], most: int, rest: str) -> tuple[Ints, tuple[str, ...]]:
    """Codes and names, commonest first; empty values and all beyond `most` become `rest`."""
    counts = Counter(value for value in values if value)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    kept = ranked if len(ranked) <= most and all(values) else ranked[: most - 1]
    names = (*kept, rest) if len(kept) < len(ranked) or not all(values) else tuple(kept)
    if rest in kept:
        names = tuple(kept)
    place = {name: i for i, name in enumerate(names)}
    return np.array([place.get(value, place.get(rest, 0)) for value in values], dtype=np.int64), names


def _styles(
    rows: list[dict[str, str]], columns: dict[str, str], pictures: list[Path | None], ids: list[str]
) -> tuple[Ints, tuple[str, ...]]:
    """The style column, else the picture's dominant hue, else a hash of the id."""
    if "style" in columns:
        return _folded(_column(rows, columns["style"]), MAX_STYLES, "other style")
    names = ("dark", "pale", "red", "yellow", "green", "cyan", "blue", "magenta")
    codes = [_hue(p) if p is not None else None for p in pictures]
    hashed = [hashlib.sha256(item.encode()).digest()[0] % len(names) for item in ids]
    return np.array(
        [h if c is None else c for c, h in zip(codes, hashed, strict=True)], dtype=np.int64
    ), names


def _hue(path: Path) -> int | None:
    """0 dark, 1 pale, else 2 + the sixth of the colour circle of the picture's middle; None if unreadable."""
    try:
        with Image.open(path) as image:
            small = (
                np.asarray(image.convert("HSV").resize((8, 8)))[2:6, 2:6].reshape(-1, 3).astype(np.float64)
            )
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if small[:, 1].mean() < 40:
        return 0 if small[:, 2].mean() < 110 else 1
    weight = small[:, 1] * small[:, 2]
    angle = small[:, 0] / 256 * 2 * np.pi
    mean = np.arctan2((weight * np.sin(angle)).sum(), (weight * np.cos(angle)).sum())
    return 2 + int(np.rint(mean / (2 * np.pi) * 6)) % 6


def _attributes(titles: list[str]) -> tuple[Ints, tuple[str, ...]]:
    """[n, 3] rarest listed words of each title, -1 for none; listed are those in 3 titles to 30 % of them."""
    split = [
        sorted({w for w in re.findall(r"[a-z]{3,}", title.lower()) if w not in _STOP}) for title in titles
    ]
    counts = Counter(word for words in split for word in words)
    common = [w for w in counts if 3 <= counts[w] <= max(3, 0.3 * len(titles))]
    kept = tuple(sorted(common, key=lambda w: (-counts[w], w))[:MAX_WORDS]) or ("new",)
    place = {word: i for i, word in enumerate(kept)}
    codes = np.full((len(titles), 3), -1, dtype=np.int64)
    for i, words in enumerate(split):
        listed = sorted((word for word in words if word in place), key=lambda w: (counts[w], w))[:3]
        codes[i, : len(listed)] = [place[word] for word in listed]
    return codes, kept


def _verticals(
    rows: list[dict[str, str]], columns: dict[str, str], category: Ints, count: int
) -> tuple[Ints, tuple[str, ...]]:
    """The vertical that most items of each category have; one vertical for all without a column."""
    if "vertical" not in columns:
        return np.zeros(count, dtype=np.int64), ("shop",)
    code, names = _folded(_column(rows, columns["vertical"]), 16, "other")
    votes = np.zeros((count, len(names)), dtype=np.int64)
    np.add.at(votes, (category, code), 1)
    return votes.argmax(axis=1), names


def _prices(
    rng: np.random.Generator, rows: list[dict[str, str]], columns: dict[str, str], category: Ints, count: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Prices of the catalogue; drawn around a level of the category where there is none."""
    level = np.exp(rng.normal(np.log(45), 0.7, count))
    drawn = level[category] * np.exp(rng.normal(0, 0.6, len(rows)))
    given = (
        [_amount(text) for text in _column(rows, columns["price"])]
        if "price" in columns
        else [np.nan] * len(rows)
    )
    known = np.array(given, dtype=np.float64)
    return np.where(known > 0, known, drawn)


def _amount(text: str) -> float:
    found = re.search(r"\d+(?:[.]\d+)?", text.replace(",", ""))
    return float(found.group()) if found else float("nan")


def _descriptions(rows: list[dict[str, str]], columns: dict[str, str]) -> list[str]:
    """The description column, else the other columns' words, without the style."""
    if "description" in columns:
        return _column(rows, columns["description"])
    hidden = {columns.get(role) for role in ("id", "image", "title", "style", "price")}
    shown = [name for name in rows[0] if name not in hidden]
    return [", ".join(row[name] for name in shown if row.get(name)) for row in rows]
