"""Notes and progress of long work: the library logs, the command line decides what is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger("adstool")
_bars_shown = False


def show_bars(shown: bool) -> None:
    """Turn progress bars on stderr on or off; off unless the command line turns them on."""
    global _bars_shown
    _bars_shown = shown


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield `items` while a bar with rate and time left follows them."""
    if not _bars_shown:
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=label, total=total, unit=unit, leave=False)


@contextmanager
def bar(label: str, total: int | None = None, unit: str = "it") -> Iterator[Any]:
    """A bar whose `.update(n)` and `.set_postfix(**figures)` the caller drives."""
    from tqdm import tqdm

    with tqdm(desc=label, total=total, unit=unit, leave=False, disable=not _bars_shown) as shown:
        yield shown
