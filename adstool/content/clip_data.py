"""What a CLIP learns from: a catalogue's pictures, cached as it takes them, with texts true of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from adstool.content.images import ImageProblem, is_url, load_image
from adstool.errors import DataError
from adstool.progress import log, track
from adstool.warehouse import load_sql
from adstool.workspace import Workspace, mapped_array, read_json, write_json

if TYPE_CHECKING:
    import duckdb
    import torch

WORD = re.compile(r"\w+")
SPLITS = {"valid": 0.05, "test": 0.10}  # the rest is trained on


def item_text(title: str | None, description: str | None) -> str:
    """The text of an item that CLIP reads: title and description; empty when it has neither."""
    return ". ".join(part.strip() for part in (title, description) if part and part.strip())


def singular(word: str) -> str:
    """An English noun without its plural ending: dresses to dress, shoes to shoe; other words unharmed.

    Catalogues name categories in the plural and people search in the singular.
    """
    if re.search(r"(ss|sh|ch|x)es$", word, re.IGNORECASE):
        return word[:-2]
    return word[:-1] if re.search(r"[^su\d]s$", word, re.IGNORECASE) and len(word) > 3 else word


@lru_cache(maxsize=2**17)  # asked of the same texts every epoch
def words_of(text: str) -> frozenset[str]:
    """The words of a text, in lower case and singular."""
    return frozenset(singular(word) for word in WORD.findall(text.lower()))


@dataclass(frozen=True)
class Pair:
    """A picture and what the catalogue says of it."""

    image: str  # path
    title: str
    description: str
    category: str

    @property
    def text(self) -> str:
        """Title and description, as `embed` reads them."""
        return item_text(self.title, self.description)

    @property
    def words(self) -> frozenset[str]:
        """All words said of the picture, in lower case and singular."""
        return words_of(f"{self.text} {self.category}")


class Shaper(Protocol):
    """What shapes a picture as a model takes it; a ClipModel does."""

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width."""
        ...

    @property
    def preparation(self) -> str:
        """How it is done, in words that change when the result does."""
        ...

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """uint8 [height, width, 3]."""
        ...


@dataclass(frozen=True)
class ClipData:
    """Pairs and their pictures: uint8 [n, 3, height, width], memory-mapped; `splits` are row numbers.

    `items` says which row an item (type, id) is: items of the same picture and texts share one.
    """

    pairs: list[Pair]
    pictures: np.ndarray
    splits: dict[str, np.ndarray]
    fingerprint: str
    items: dict[tuple[str, str], int]


def catalogue_pairs(con: duckdb.DuckDBPyConnection) -> list[Pair]:
    """One pair a picture and text of the catalogue, ads and pins alike. Raises DataError if none."""
    return sorted(set(_paired_items(con).values()), key=lambda pair: (pair.image, pair.text, pair.category))


def _paired_items(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], Pair]:
    """The pair of every item (type, id) that has a picture file and a text."""
    rows = con.execute(load_sql("content_items"), {"kinds": ["ad", "pin"]}).fetchall()
    found = {
        (kind, item_id): Pair(image, title or "", description or "", category or "")
        for kind, item_id, title, description, image, category in rows
        if image and not is_url(image) and item_text(title, description)
    }
    if not found:
        raise DataError(
            f"None of the {len(rows):,} items in the catalogue has both a picture file and a text.",
            "Ingest a catalogue whose column image names files, with --images DIR if they lie elsewhere.",
        )
    return found


def split_of(image: str) -> str:
    """train, valid or test, by a hash of the picture's file name: a picture is never on two sides."""
    share = int(hashlib.blake2b(Path(image).name.encode(), digest_size=8).hexdigest(), 16) / 2**64
    for name, width in SPLITS.items():
        if share < width:
            return name
        share -= width
    return "train"


def load_clip_data(ws: Workspace, con: duckdb.DuckDBPyConnection, shaper: Shaper) -> ClipData:
    """The catalogue's pairs with pictures shaped for a model, decoded once and cached.

    Pictures that cannot be read are left out and counted in a warning. Raises DataError when fewer than two
    pairs are left to train on.
    """
    pairs = catalogue_pairs(con)
    stamps = [f"{pair.image}|{_stamp(pair.image)}" for pair in pairs]
    texts = [[pair.title, pair.description, pair.category] for pair in pairs]
    inputs = json.dumps([shaper.preparation, stamps, texts])
    fingerprint = hashlib.blake2b(inputs.encode(), digest_size=8).hexdigest()
    folder = ws.cache / "clip" / fingerprint
    if not folder.is_dir():
        _decode_all(pairs, shaper, folder)
    pairs = [pairs[row] for row in read_json(folder / "kept.json")]
    names = np.array([split_of(pair.image) for pair in pairs])
    splits = {name: np.flatnonzero(names == name) for name in ("train", *SPLITS)}
    if len(splits["train"]) < 2:
        raise DataError(
            f"Only {len(pairs)} pictures with a text can be read; too few to train on.",
            "Ingest a larger catalogue.",
        )
    row_of = {pair: row for row, pair in enumerate(pairs)}
    items = {item: row_of[pair] for item, pair in _paired_items(con).items() if pair in row_of}
    return ClipData(pairs, np.load(folder / "pictures.npy", mmap_mode="r"), splits, fingerprint, items)


def _stamp(image: str) -> str:
    try:
        status = os.stat(image)
    except OSError:
        return "missing"
    return f"{status.st_size}:{status.st_mtime_ns}"


def _decode_all(pairs: Sequence[Pair], shaper: Shaper, folder: Path) -> None:
    """Decode into a temporary folder, then rename: a kill leaves nothing that could be taken for whole."""
    shutil.rmtree(folder.parent, ignore_errors=True)  # caches of an earlier catalogue
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    pictures = mapped_array(partial / "pictures.npy", np.uint8, (len(pairs), 3, *shaper.pixels))
    kept: list[int] = []
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        decoded = pool.map(lambda pair: _shaped(pair.image, shaper), pairs)
        for row, picture in enumerate(track(decoded, "pictures", total=len(pairs), unit="pic")):
            if isinstance(picture, str):
                problems.append(f"{pairs[row].image} {picture}")
                continue
            pictures[len(kept)] = picture
            kept.append(row)
    if problems:
        log.warning("%d pictures left out, the first: %s", len(problems), problems[0])
    pictures.flush()
    write_json(partial / "kept.json", kept)
    os.replace(partial, folder)


def _shaped(image: str, shaper: Shaper) -> np.ndarray | str:
    try:
        picture = load_image(image, None)
    except ImageProblem as problem:
        return str(problem)
    return np.asarray(shaper.prepare(picture).numpy(), np.uint8).transpose(2, 0, 1)


def batches_of(
    rows: np.ndarray, categories: Sequence[str] | None, batch: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Rows of one epoch in batches, each row at most once.

    With `categories`, those of `rows`, the first batch // 2 rows of a batch come from one category (or two
    where one runs out): among them only colour, style and shape tell pictures apart, not what they are.
    """
    order = rng.permutation(len(rows))
    alike_size = batch // 2
    count = len(rows) // batch
    alike, other = order[: count * alike_size], order[count * alike_size :]
    if categories is not None:
        alike = alike[np.argsort(np.array([categories[row] for row in alike]), kind="stable")]
    chunks = rng.permutation(alike.reshape(count, alike_size))
    rest = other[: count * (batch - alike_size)].reshape(count, batch - alike_size)
    return [rows[np.concatenate(pair)] for pair in zip(chunks, rest, strict=True)]


def draw_text(pair: Pair, rng: np.random.Generator) -> str:
    """A text true of the picture: all of it, the title, the category, or a few of its words.

    The short ones make the model answer what people type; a title alone teaches it titles.
    """
    kind = rng.random()
    if kind < 0.4:
        return pair.text
    if kind < 0.55 and pair.title:
        return pair.title
    if kind < 0.75 and pair.category:
        return singular(pair.category) if rng.random() < 0.5 else pair.category
    words = WORD.findall(f"{pair.title or pair.text} {pair.category}")
    count = min(len(words), int(rng.integers(1, 5)))
    chosen = np.sort(rng.permutation(len(words))[:count])
    return " ".join(singular(words[index]) if rng.random() < 0.5 else words[index] for index in chosen)


def closed_texts(pair: Pair) -> list[str]:
    """Texts of a picture that a frozen tower is asked for: whole, title, category in both numbers."""
    texts = [pair.text, pair.title or pair.text]
    return texts + ([pair.category, singular(pair.category)] if pair.category else [])


def true_of(texts: Sequence[str], pairs: Sequence[Pair]) -> np.ndarray:
    """Which text is true of which picture: bool [texts, pairs], by all words of the text being said of it.

    So a title is no negative of another picture with the same title, and "red shoes" none of any red shoes.
    """
    said = [words_of(text) for text in texts]
    of_pair = [pair.words for pair in pairs]
    index = {word: column for column, word in enumerate(sorted(frozenset().union(*said)))}
    text_words = np.zeros((len(texts), len(index)), np.float32)
    pair_words = np.zeros((len(pairs), len(index)), np.float32)
    for row, words in enumerate(said):
        text_words[row, [index[word] for word in words]] = 1.0
    for row, words in enumerate(of_pair):
        pair_words[row, [index[word] for word in words if word in index]] = 1.0
    matched = text_words @ pair_words.T
    true: np.ndarray = matched == text_words.sum(axis=1, keepdims=True)
    return true
