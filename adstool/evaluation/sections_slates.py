"""Report section with slates of a few users: what they did last and what they would be shown."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.evaluation.page import Html, definitions, paragraph, picture, section, text
from adstool.evaluation.thumbnails import Thumbnails
from adstool.progress import log
from adstool.warehouse import load_sql
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

USERS = 3
RECENT = 8  # engaged items shown a user
SLATE = 6


def slates_section(ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection) -> Html:
    """Three users sampled by a hash of their id; empty when the funnel cannot rank yet."""
    actions = [action.name for action in settings.actions if action.positive]
    users = con.execute(load_sql("evaluation_users"), {"actions": actions, "limit": USERS}).fetchall()
    if not users or ws.current_run("index") is None or ws.current_run("engagement") is None:
        return Html("")
    try:
        slates = _rank(ws, settings, con, users)
    except AdstoolError as error:
        log.warning("No slates in the report: %s", error.message)
        return Html("")
    names = [user for user, *_ in users]
    recent: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    query = {"users": names, "actions": actions, "limit": RECENT}
    for user, *row in con.execute(load_sql("evaluation_recent"), query).fetchall():
        recent[user].append(tuple(row))
    shown = [ad["ad_id"] for slate in slates for ad in slate["ads"]]
    about = {
        item_id: (title, image, category)
        for item_id, title, image, category in con.execute(
            load_sql("evaluation_shown"), {"ids": shown}
        ).fetchall()
    }
    pictures = Thumbnails()
    blocks = [_user(slate, recent[slate["user_id"]], about, pictures) for slate in slates]
    return section(
        "slates",
        "Slates",
        f"{len(blocks)} sampled users: what they engaged with last, and what the funnel would show them now.",
        *blocks,
    )


def _rank(
    ws: Workspace, settings: Settings, con: duckdb.DuckDBPyConnection, users: list[tuple[Any, ...]]
) -> list[dict[str, Any]]:
    from adstool.funnel.rank import Ranker

    ranker = Ranker(ws, settings, con, strict=True)
    found = []
    for user, surface, query, _ in users:
        # Exploration draws by the request's id: the same report twice shows the same slates.
        request = {"user_id": user, "surface": surface, "query": query, "request_id": f"report-{user}"}
        slate = ranker.rank(request, k=SLATE, explain=True)
        found.append({**slate, "surface": surface, "query": query})
    return found


def _user(
    slate: dict[str, Any],
    recent: list[tuple[Any, ...]],
    about: dict[str, tuple[str | None, str | None, str | None]],
    pictures: Thumbnails,
) -> Html:
    strip = "".join(
        f"<figure>{picture(pictures.get(image), title or item_id)}"
        f"<figcaption>{text(action)}<br>{text(category)}</figcaption></figure>"
        for item_id, title, image, category, action, _ in recent
    )
    cards = "".join(_ad(rank, ad, about, pictures) for rank, ad in enumerate(slate["ads"], start=1))
    where = " · ".join(str(part) for part in (slate.get("surface"), slate.get("query")) if part)
    return Html(
        f'<div class="user"><h3>{text(slate["user_id"])} <span class="meta">{text(where)}</span></h3>'
        + (f'<div class="strip" tabindex="0">{strip}</div>' if strip else "")
        + (f'<div class="slate">{cards}</div>' if cards else paragraph("Nothing could be shown.", "note"))
        + "</div>"
    )


def _ad(
    rank: int,
    ad: dict[str, Any],
    about: dict[str, tuple[str | None, str | None, str | None]],
    pictures: Thumbnails,
) -> Html:
    title, image, category = about.get(ad["ad_id"], (None, None, None))
    facts: dict[str, Any] = {
        name: f"{100 * float(p):.2f} %" for name, p in (ad.get("predictions") or {}).items()
    }
    facts["bid"] = None if ad.get("bid") is None else f"{float(ad['bid']):.2f}"
    facts["price"] = None if ad.get("price") is None else f"{float(ad['price']):.2f}"
    facts["found by"] = ad.get("source")
    why = f'<div class="why">{text(ad["why"])}</div>' if ad.get("why") else ""
    return Html(
        f'<article class="ad">{picture(pictures.get(image), title or ad["ad_id"])}<div class="about">'
        f'<div class="title"><span class="rank">{rank}</span>{text(title or ad["ad_id"])}</div>'
        f'<div class="meta">{text(ad["ad_id"])} · {text(category)}</div>{definitions(facts)}{why}'
        "</div></article>"
    )
