"""The process behind POST /search: a line of JSON for every line of JSON, with CLIP loaded once.

    python -m adstool.server.search_process WORKSPACE SETTINGS

SETTINGS is JSON of the sections `content` and `warehouse`. The first line says whether it is ready.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from adstool.config import ContentSettings, Settings, WarehouseSettings
from adstool.content.search import load_active_clip, require_active, search_items
from adstool.errors import AdstoolError, WorkspaceLocked
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


class _Searcher:
    def __init__(self, ws: Workspace, settings: Settings) -> None:
        self._ws, self._settings = ws, settings
        self._model = require_active(ws)
        self._clip = load_active_clip(ws, settings)
        self._clip.encode_texts(["ready"])

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The items found, as `adstool search` lists them."""
        model = require_active(self._ws)
        if model != self._model:  # items were embedded anew
            self._clip, self._model = load_active_clip(self._ws, self._settings), model
        image = None if asked["image"] is None else base64.b64decode(asked["image"])
        with open_warehouse(self._ws, self._settings, read_only=True) as con:
            hits = search_items(
                self._ws,
                self._settings,
                con,
                text=asked["text"],
                image=image,
                kinds=asked["kinds"],
                k=asked["k"],
                clip=self._clip,
            )
        found = [(hit.item_id, hit.score, hit.title, hit.item_type) for hit in hits]
        return {
            "results": [
                dict(zip(("item_id", "score", "title", "item_type"), hit, strict=True)) for hit in found
            ]
        }


def main() -> None:
    """Answer until stdin ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing a library prints may come between the answers

    def say(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    sections = json.loads(sys.argv[2])
    settings = Settings(
        content=ContentSettings(**sections["content"]), warehouse=WarehouseSettings(**sections["warehouse"])
    )
    try:
        searcher = _Searcher(Workspace(Path(sys.argv[1])), settings)
        say({"ready": True})
    except AdstoolError as error:
        say({"error": error.message, "try": error.hint})
        return
    for line in sys.stdin:
        try:
            say(searcher.answer(json.loads(line)))
        except WorkspaceLocked as error:
            say({"error": error.message, "try": error.hint, "status": 503})
        except AdstoolError as error:
            say({"error": error.message, "try": error.hint})
        except Exception as error:
            say({"error": f"Search failed: {type(error).__name__}: {error}", "try": "", "status": 500})


if __name__ == "__main__":
    main()
