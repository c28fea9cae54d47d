"""What the stages made of a request: as rows of the funnel log, and as the slate line that is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adstool.features.state import RequestContext
from adstool.funnel.ann import best
from adstool.funnel.candidates import Candidates
from adstool.funnel.explain import Reasons
from adstool.funnel.fallback import Fallback
from adstool.funnel.index import Index
from adstool.funnel.log import FunnelLog, Sold, StageRows
from adstool.funnel.request import Request


@dataclass(frozen=True)
class Ranked:
    """What the stages made of one request; arrays of a stage are over its candidates."""

    request: Request
    ctx: RequestContext
    candidates: Candidates
    light: np.ndarray  # float64 [m], the lightweight ranker's score of every candidate
    kept: np.ndarray  # int64 [n], indices of the candidates it kept, best first
    heads: tuple[str, ...]  # A names of the columns of what follows
    probability: np.ndarray  # float64 [n, A], the heavy ranker's calibrated predictions for those
    worth: np.ndarray  # float64 [n, A], what the utility weighs: see Scorer.predict_worth
    score: np.ndarray  # float64 [n], what they are worth
    chosen: np.ndarray  # int64 [slots], indices into `kept`, first slot first
    prices: np.ndarray | None  # float64 [slots], a click; None for a corpus without bids
    bids: np.ndarray | None  # float64 [n]; None for a corpus without bids
    fallbacks: list[Fallback]  # stages that failed, and what stands here instead of theirs
    trimmed: Mapping[str, object]  # what there was no time for: see Deadline.trimmed
    latency_ms: dict[str, float]

    def rows(self, index: Index) -> np.ndarray:
        """The rows of the item table of every candidate, int64 [m]."""
        return np.asarray(self.candidates.positions + index.corpus.first_row)


def log_stages(log: FunnelLog, ranked: Ranked, index: Index, paid: int) -> None:
    """Put every candidate of every stage, and the slots sold, into the log.

    paid: the column of the predictions that prices are paid for.
    A stage that failed has no rows: what stood in for it is not what it would have said.
    """
    found, rows = ranked.candidates, ranked.rows(index)
    order = best(ranked.light, len(ranked.light))
    in_kept = np.zeros(len(rows), dtype=bool)
    in_kept[ranked.kept] = True
    heavy = best(ranked.score, len(ranked.score))
    in_slate = np.zeros(len(ranked.kept), dtype=bool)
    in_slate[ranked.chosen] = True
    kept, shown = ranked.kept[heavy], ranked.kept[ranked.chosen]
    scores = ranked.score[ranked.chosen]
    stages = (
        StageRows("retrieval", rows, found.source, found.score, np.ones(len(rows), dtype=bool)),
        StageRows("lightweight", rows[order], found.source[order], ranked.light[order], in_kept[order]),
        StageRows("heavy", rows[kept], found.source[kept], ranked.score[heavy], in_slate[heavy]),
        StageRows("auction", rows[shown], found.source[shown], scores, np.ones(len(shown), dtype=bool)),
    )
    failed = {fallback.stage for fallback in ranked.fallbacks}
    said = tuple(one for one in stages if one.stage not in failed)
    sold = None
    if ranked.prices is not None and ranked.bids is not None:
        # Where no ranker answered, nobody knows how probable a click is: such slots are not charged.
        clicks = ranked.probability[ranked.chosen, paid] if ranked.heads else np.zeros(len(shown))
        sold = Sold(rows[shown], ranked.bids[ranked.chosen], scores, ranked.prices, ranked.prices * clicks)
    request, ctx = ranked.request, ranked.ctx
    log.add(request.request_id, ctx.ts, ctx.user_id, ctx.surface, index.state.items, found.names, said, sold)


def slate_of(ranked: Ranked, index: Index, typical: Mapping[str, float], explain: bool) -> dict[str, Any]:
    """The slate line; `typical`: the amount that counts as one of the actions that are counted or timed. A
    note says what was out of the ordinary, `fallbacks` which stages failed, why, and what was served instead,
    `trimmed` what there was no time for.

    explain: with the title of every item and the reasons for it, and the counts of every stage.
    """
    slate: dict[str, Any] = {
        "request_id": ranked.request.request_id,
        "user_id": ranked.request.user_id,
        "ads": [_ad(ranked, index, typical, slot) for slot in range(len(ranked.chosen))],
        "latency_ms": {name: round(ms, 3) for name, ms in ranked.latency_ms.items()},
    }
    notes = []
    if not ranked.ctx.known:
        notes.append("unknown user: served from content, popularity and exploration")
    if not slate["ads"]:
        notes.append(_why_empty(ranked))
    if notes:
        slate["note"] = "; ".join(notes)
    if ranked.trimmed:
        slate["trimmed"] = dict(ranked.trimmed)
    if ranked.fallbacks:
        slate["fallbacks"] = [asdict(fallback) for fallback in ranked.fallbacks]
    if explain:
        _explain(slate, ranked, index)
    return slate


def _ad(ranked: Ranked, index: Index, typical: Mapping[str, float], slot: int) -> dict[str, Any]:
    place = int(ranked.chosen[slot])
    candidate = int(ranked.kept[place])
    row = int(ranked.rows(index)[candidate])
    expected = dict(zip(ranked.heads, ranked.worth[place].tolist(), strict=True))
    heavy = all(fallback.stage != "heavy" for fallback in ranked.fallbacks)
    amounts = {name: expected[name] * one for name, one in typical.items()} if heavy else {}
    return {
        "ad_id": index.state.items.column("item_id")[row].as_py(),
        "score": float(ranked.score[place]),
        "predictions": dict(zip(ranked.heads, ranked.probability[place].tolist(), strict=True)),
        **({"amounts": amounts} if amounts else {}),
        "bid": None if ranked.bids is None else float(ranked.bids[place]),
        "price": None if ranked.prices is None else float(ranked.prices[slot]),
        "source": ranked.candidates.names[int(ranked.candidates.source[candidate])],
    }


def _explain(slate: dict[str, Any], ranked: Ranked, index: Index) -> None:
    reasons = Reasons(index.state, ranked.ctx)
    shown = ranked.rows(index)[ranked.kept[ranked.chosen]]
    chosen = ranked.kept[ranked.chosen].tolist()
    for ad, row, candidate in zip(slate["ads"], shown.tolist(), chosen, strict=True):
        ad["sources"] = ranked.candidates.sources_of(candidate)
        ad["title"] = index.state.items.column("title")[row].as_py()
        ad["why"] = reasons.of(row, ad["source"])
    slate["funnel"] = {
        "sources": {name: len(found.positions) for name, found in ranked.candidates.found.items()},
        "retrieval": len(ranked.candidates),
        "lightweight": len(ranked.kept),
        "slate": len(ranked.chosen),
    }


def _why_empty(ranked: Ranked) -> str:
    if not len(ranked.candidates):
        return "no item can be shown at that time: none exists yet, or no campaign runs"
    return "no bid reaches the reserve"
