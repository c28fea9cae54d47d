"""What each verb takes on the sample world, one after the other as a newcomer meets them."""

from __future__ import annotations

import os
import shlex
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from adstool.bench.figure import Figure
from adstool.bench.process import Spent, spend
from adstool.progress import log

if TYPE_CHECKING:
    import subprocess

START_SECONDS = 60.0  # a server may take to load

# Name -> words, {shop}, {world} and {spare} being folders: the workspace, the sample world and a scratch one.
# `init` comes first; `demo` does most of the others over again in a workspace of its own.
VERBS: dict[str, str] = {
    "init": "init {spare}/other",
    "sample": "sample {spare}/world",
    "ingest": "ingest {world}",
    "rejects": "rejects",
    "status": "status",
    "sql": "sql 'select count(*) from events'",
    "embed": "embed all",
    "search": "search lamp",
    "enrich": "enrich --with clip",
    "train semantic": "train semantic",
    "interests": "interests --refresh",
    "train clip": "train clip --epochs 1",
    "train retrieval": "train retrieval",
    "train lightweight": "train lightweight",
    "train engagement": "train engagement",
    "train conversion": "train conversion",
    "train users": "train users",
    "calibrate": "calibrate engagement",
    "quantize": "quantize engagement",
    "index": "index",
    "quota": "quota",
    "rank": "rank --user u1",
    "evaluate": "evaluate",
    "evaluate utility": "evaluate utility",
    "simulate": "simulate",
    "report": "report",
    "serve": "serve --port 0",
    "run": "run",
    "demo": "demo {spare}/demo",
    "bench": "bench --only startup",
    "doctor": "doctor",
    "config": "config",
    "models": "models",
}


def measure_verbs(folder: Path, names: Sequence[str] = tuple(VERBS)) -> Iterator[tuple[str, Spent]]:
    """Each of the verbs on the sample world, in a new workspace in `folder`.

    Raises AdstoolError when one fails. `serve` answers one request; where signals cannot end it, or what it
    needs is not installed, it is left out with a note.
    """
    shop = folder / "shop"
    spend(("init", shop))
    with as_file(files("adstool.sample_data").joinpath("world")) as world:
        places = {"shop": shop, "world": world, "spare": folder}
        for name in names:
            if name == "serve" and os.name == "nt":
                log.info("serve is not measured on Windows: another process cannot ask it to stop.")
                continue
            if name == "serve" and find_spec("uvicorn") is None:
                log.info("serve is not measured: it needs pip install 'adstool[serve]'.")
                continue
            words = [word.format(**places) for word in shlex.split(VERBS[name])]
            meanwhile = _ask if name == "serve" else None
            spent = spend(("--workspace", shop, "--json", *words), meanwhile=meanwhile)
            log.info("%s: %.1f s", name, spent.seconds)
            yield name, spent


def figures(folder: Path) -> list[Figure]:
    """A figure a verb, beside the least that any of them takes."""
    least = spend(("--help",))
    floor_is = "adstool --help" + (f", {least.peak_mb:.0f} MB" if least.peak_mb else "")
    found = []
    for name, spent in measure_verbs(folder):
        beside = {"cpu_seconds": spent.cpu_seconds, "peak_mb": spent.peak_mb}
        title = f"verbs_{name.replace(' ', '_')}"
        found.append(Figure(title, "s", spent.seconds, least.seconds, floor_is, beside))
    return found


def _ask(server: subprocess.Popen[bytes], notes: Callable[[], str]) -> None:
    """One request, once the server says where it is; then it is asked to stop."""
    deadline = time.monotonic() + START_SECONDS
    try:
        while "Serving at " not in notes() and time.monotonic() < deadline:
            time.sleep(0.05)
        address = notes().partition("Serving at ")[2].partition(";")[0]
        request = urllib.request.Request(f"{address}/rank", b'{"user_id": "u1"}', method="POST")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
            answer.read()
    except ValueError:
        return  # its notes are closed: it has ended by itself, which the caller tells
    finally:
        server.terminate()
