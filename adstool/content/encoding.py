"""Items through the model: decoding in threads ahead of the forward, equal pictures and texts once."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from adstool.content.clip import ClipModel
from adstool.content.images import ImageProblem, load_image
from adstool.content.vectors import ItemVectors, VectorTable

if TYPE_CHECKING:
    import torch

AHEAD = 3  # batches decoded before they are needed


class Encodable(Protocol):
    """What the encoder needs to know of an item."""

    @property
    def item_id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def image(self) -> str | None: ...
    @property
    def text_hash(self) -> str | None: ...
    @property
    def image_hash(self) -> str | None: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def content_hash(self) -> str: ...


class Encoder:
    """Vectors for `items`, which must then be asked for in the same order."""

    def __init__(self, clip: ClipModel, items: Sequence[Encodable], images: Path | None, batch: int) -> None:
        self._clip, self._images, self._batch = clip, images, batch
        self._uses = {
            "text": Counter(item.text_hash for item in items if item.text_hash),
            "image": Counter(item.image_hash for item in items if item.image_hash and not item.problem),
        }
        self._known: dict[str, dict[str, Any]] = {"text": {}, "image": {}}  # hash -> vector or problem
        self._items = items
        self._stream: Iterator[tuple[str, Any]] | None = None

    def reuse(self, table: VectorTable) -> None:
        """Take over vectors that a table holds already, of pictures or texts that did not change."""
        for side, uses in self._uses.items():
            self._known[side] |= table.sides(side, set(uses) - self._known[side].keys())

    def rows(self, items: Sequence[Encodable]) -> list[ItemVectors]:
        """Rows to store of the next items."""
        self._encode_texts(items)
        if self._stream is None:
            self._stream = self._image_stream()
        for item in items:
            while item.image_hash and not item.problem and item.image_hash not in self._known["image"]:
                image_hash, vector = next(self._stream)
                self._known["image"][image_hash] = vector
        return [self._row(item) for item in items]

    def decode_some(self, items: Sequence[Encodable], limit: int) -> list[torch.Tensor]:
        """Up to `limit` prepared pictures of the first items that have one which can be used."""
        found: list[torch.Tensor] = []
        for item in items:
            if len(found) == limit:
                break
            if item.image and not item.problem:
                picture = self._decode(item.image)
                if not isinstance(picture, str):
                    found.append(picture)
        return found

    def _encode_texts(self, items: Sequence[Encodable]) -> None:
        known = self._known["text"]
        fresh = {
            item.text_hash: item.text for item in items if item.text_hash and item.text_hash not in known
        }
        hashes, texts = list(fresh), list(fresh.values())
        for start in range(0, len(texts), self._batch):
            vectors = self._clip.encode_texts(texts[start : start + self._batch])
            known.update(zip(hashes[start : start + self._batch], vectors, strict=True))

    def _image_stream(self) -> Iterator[tuple[str, Any]]:
        """(hash, vector or the problem) of every picture not known, in the order of the items."""
        fresh: dict[str, str] = {}
        for item in self._items:
            usable = item.image and item.image_hash and not item.problem
            if usable and item.image_hash not in self._known["image"]:
                fresh.setdefault(str(item.image_hash), str(item.image))
        hashes: list[str] = []
        batch: list[torch.Tensor] = []
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for image_hash, picture in self._decoded(pool, fresh):
                if isinstance(picture, str):
                    yield image_hash, picture
                    continue
                hashes.append(image_hash)
                batch.append(picture)
                if len(batch) == self._batch:
                    yield from zip(hashes, self._clip.encode_images(batch), strict=True)
                    hashes, batch = [], []
            if batch:
                yield from zip(hashes, self._clip.encode_images(batch), strict=True)

    def _decoded(self, pool: ThreadPoolExecutor, fresh: dict[str, str]) -> Iterator[tuple[str, Any]]:
        waiting: deque[tuple[str, Future[Any]]] = deque()
        for image_hash, image in fresh.items():
            waiting.append((image_hash, pool.submit(self._decode, image)))
            if len(waiting) >= AHEAD * self._batch:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()

    def _decode(self, image: str) -> torch.Tensor | str:
        try:
            return self._clip.prepare(load_image(image, self._images))
        except ImageProblem as problem:
            return str(problem)

    def _take(self, side: str, digest: str | None) -> Any:
        """What is known for a hash, forgotten once no further item needs it."""
        if digest is None:
            return None
        self._uses[side][digest] -= 1
        known = self._known[side]
        return known.pop(digest) if self._uses[side][digest] <= 0 else known[digest]

    def _row(self, item: Encodable) -> ItemVectors:
        text = self._take("text", item.text_hash)
        image = None if item.problem else self._take("image", item.image_hash)
        problem = item.problem
        if isinstance(image, str):
            problem, image = f"image {item.image} {image}", None
        return ItemVectors(
            item.item_id,
            item.content_hash,
            item.text_hash,
            item.image_hash,
            problem,
            image,
            text,
            joint(image, text),
        )


def joint(image: np.ndarray | None, text: np.ndarray | None) -> np.ndarray | None:
    """The unit vector of an item: the mean of its unit image and text vectors, or the one it has; [dim]."""
    if image is None or text is None:
        return text if image is None else image
    mean = image + text
    norm = float(np.linalg.norm(mean))
    return np.asarray(mean / norm if norm > 0 else image, np.float32)
