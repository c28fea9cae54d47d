"""MovieLens 100k, as GroupLens publishes it (u.data u.item u.user) or as RecBole's atomic files.

A movie is a pin, its first genre its category. A rating is an impression on the surface `home`, and from 4
stars on a click as well, at the same time and under the same request; the stars stand in `attributes`.
GroupLens: https://grouplens.org/datasets/movielens/100k/, RecBole: https://recbole.io/docs/user_guide/data.
"""

from __future__ import annotations

from pathlib import Path

from adstool.errors import DataError
from adstool.ingestion.sources.base import Feed

# The flags of u.item, one a genre; their order is that of u.genre and stands in source_movielens_flags.sql.
FLAGS = tuple(f"genre{index}" for index in range(19))

USER = ("user_id", "age", "gender", "occupation", "zip_code")
RATING = ("user_id", "item_id", "rating", "timestamp")
ITEM = ("item_id", "movie_title", "release_date", "video_release_date", "imdb_url", *FLAGS)
FLAGGED = ("item_id", "movie_title", "release_date", *FLAGS)
ATOMIC_ITEM = ("item_id", "movie_title", "release_year", "class")


def feeds(folder: Path) -> list[Feed]:
    """The files of `folder` and what each becomes. Raises DataError when it holds neither format."""
    if (folder / "u.data").is_file():
        return [
            Feed("u.user", "users", "source_movielens_users", USER, USER, "|", "latin-1", quoted=False),
            Feed("u.item", "pins", "source_movielens_flags", FLAGGED, ITEM, "|", "latin-1", quoted=False),
            Feed("u.data", "events", "source_movielens_events", RATING, RATING, "\t", quoted=False),
        ]
    found = sorted(folder.glob("*.inter"))
    if not found:
        raise DataError(
            f"{folder} holds neither u.data nor a .inter file.", "Give the folder of MovieLens 100k."
        )
    name = found[0].stem
    return [
        Feed(f"{name}.user", "users", "source_movielens_users", USER, delimiter="\t", quoted=False),
        Feed(f"{name}.item", "pins", "source_movielens_pins", ATOMIC_ITEM, delimiter="\t", quoted=False),
        Feed(f"{name}.inter", "events", "source_movielens_events", RATING, delimiter="\t", quoted=False),
    ]
