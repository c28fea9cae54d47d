"""`embed --engine ray`: the same work by several workers of a Ray cluster, each with a model of its own.

The plan is made here, as for the local engine: what is new, changed or gone. Workers take parts of what is
pending, read and decode the pictures, and write their rows into the vector table themselves; a table takes
writes of several processes at once. All of them must see the workspace and the pictures under the same paths.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adstool.content.embedding import Engine, Item, Work, Written, write_items
from adstool.errors import AdstoolError, UsageError
from adstool.progress import log
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from adstool.content.clip import ClipSource

AHEAD = 2  # parts given to a worker before it has returned the first


class EmbedWorker:
    """Embeds parts of the work with a model loaded once; Ray runs it in a process of its own."""

    def __init__(self, root: Path, source: ClipSource, precision: str, batch: int, threads: int) -> None:
        import torch

        from adstool.content.clip import load_clip

        torch.set_num_threads(threads)
        clip = load_clip(source)
        self._clip = clip.in_bf16() if precision == "bf16" else clip
        self._ws, self._source, self._batch = Workspace(root), source, batch

    def embed(
        self, kind: str, items: list[Item], replaced: set[str], attributes: pa.Table, images: Path | None
    ) -> Written:
        """Embed these items and write their rows into the table of their type."""
        from adstool.content.encoding import Encoder
        from adstool.content.vectors import VectorTable

        table = VectorTable.create(self._ws, kind, self._source.slug, self._clip.dim)
        encoder = Encoder(self._clip, items, images, self._batch)
        encoder.reuse(table)
        return write_items(table, encoder, items, replaced, attributes)


def ray_engine(workers: int | None = None) -> Engine:
    """The engine that embeds with Ray, on the cluster of RAY_ADDRESS or on this machine.

    `workers` is their number, a CPU each; as many as there are CPUs when None. Raises AdstoolError when Ray
    is not installed.
    """
    try:
        ray: Any = importlib.import_module("ray")  # an extra: nothing else of adstool knows of it
    except ImportError:
        raise AdstoolError(
            "--engine ray needs Ray, which is not installed.", "Install it: pip install 'adstool[ray]'"
        ) from None
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers} can do nothing.", "Give a number from 1.")

    def engine(work: Work) -> Iterator[Written]:
        ours = not ray.is_initialized()
        if ours:
            local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
        try:
            yield from _spread(ray, work, workers or int(ray.cluster_resources().get("CPU", 1)))
        finally:
            if ours:
                ray.shutdown()

    return engine


def _spread(ray: Any, work: Work, workers: int) -> Iterator[Written]:
    """Parts to workers as these become free; what they wrote, as they report it."""
    parts = [(plan, items) for plan in work.plans for items in work.parts(plan)]
    workers = min(workers, len(parts))
    threads = max(1, (os.cpu_count() or 1) // workers)
    log.info("ray: %d parts for %d workers", len(parts), workers)
    remote = ray.remote(num_cpus=1)(EmbedWorker)
    made = [
        remote.remote(work.ws.root, work.source, work.clip.precision, work.batch, threads)
        for _ in range(workers)
    ]
    waiting = iter(parts)
    busy: dict[Any, Any] = {}

    def give(worker: Any) -> None:
        part = next(waiting, None)
        if part is not None:
            plan, items = part
            ids = {item.item_id for item in items}
            task = worker.embed.remote(
                plan.kind, items, plan.replaced & ids, _of(plan.attributes, ids), work.images
            )
            busy[task] = worker

    for _ in range(AHEAD):
        for worker in made:
            give(worker)
    while busy:
        done, _ = ray.wait(list(busy))
        for task in done:
            give(busy.pop(task))
            yield _result(ray, task)


def _of(attributes: pa.Table, ids: set[str]) -> pa.Table:
    """The attributes of these items: all that a worker needs of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return attributes.filter(pc.is_in(attributes["item_id"], value_set=pa.array(sorted(ids))))


def _result(ray: Any, task: Any) -> Written:
    try:
        written: Written = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise AdstoolError(
            f"A worker failed: {type(cause).__name__}: {cause}",
            "What the workers had written stays; embed again does the rest, --engine local shows more.",
        ) from error
    except ray.exceptions.RayActorError as error:
        raise AdstoolError(
            f"A worker died: {error}",
            "It may have run out of memory: give fewer --workers. Embed again does the rest.",
        ) from error
    return written
