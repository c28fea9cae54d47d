"""Candidates and predictions of logged requests, by the funnel as it serves: what the simulator sells.

Requests are those of the log, asked again in the last day before the index's moment, at their own hour. Every
set of models brings its own candidates, the best of the heavy ranker; whatever set found them, all models say
what they predict, so that one truth can stand behind two arms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adstool.config import Settings
from adstool.errors import AdstoolError
from adstool.evaluation.true_rates import true_outcomes
from adstool.evaluation.truth import locate_truth
from adstool.features.items import ItemTable
from adstool.features.state import RequestContext, ServingState
from adstool.funnel.ann import best
from adstool.funnel.rank import Ranker
from adstool.funnel.request import Request
from adstool.marketplace.market import FIXED, PAYS_FOR, Advertised, Market, Outcomes
from adstool.progress import track
from adstool.serving.scorer import QUANTIZATION, Scorer
from adstool.training.calibration import NAME as CALIBRATION
from adstool.training.conversion_metrics import split_outputs
from adstool.training.value import Value, bids_of, paid_head
from adstool.warehouse import load_sql
from adstool.workspace import Workspace, write_arrays

if TYPE_CHECKING:
    import duckdb

Models = tuple[str, str]  # runs of engagement and conversion, empty for those in use
DAY = 86_400_000_000  # microseconds
LEAST_BUDGET = 1e-9  # of a campaign that has none: nothing can be sold for it


@dataclass(frozen=True)
class Traffic:
    """A market for every set of models asked for, with the same requests in the same order."""

    markets: dict[Models, Market]
    campaigns: Advertised
    truth: bool  # outcomes are true rates of a synthetic world; otherwise the mean of the models'
    money: bool  # there is a conversion model
    logged: int  # requests of the log
    days: int  # of the log


def gather(
    ws: Workspace,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    models: Sequence[Models],
    *,
    requests: int,
    candidates: int,
    seed: int,
) -> Traffic:
    """Send up to `requests` logged requests through the funnel. Raises AdstoolError naming what is missing.

    What the funnel said is kept in the workspace's cache, for the next simulation of the same models.
    """
    return _Gathering(ws, settings, con, models, requests, candidates, seed).traffic()


class _Gathering:
    def __init__(
        self,
        ws: Workspace,
        settings: Settings,
        con: duckdb.DuckDBPyConnection,
        models: Sequence[Models],
        requests: int,
        candidates: int,
        seed: int,
    ) -> None:
        self.ws, self.settings, self.con, self.candidates = ws, settings, con, candidates
        self.models = list(dict.fromkeys(models))
        self.ranker = Ranker(ws, settings, con, strict=True)
        self.state: ServingState = self.ranker.index.state
        if self.state.spec.corpus != "ad":
            raise AdstoolError(
                "The index holds no ads, so nothing is sold.",
                'Ingest ads, leave features.item_type at "auto", then: adstool run',
            )
        self.engagement = {run: self._scorer("engagement", run) for run, _ in self.models}
        self.conversion = {run: self._scorer("conversion", run) for _, run in self.models}
        self.heads = self.ranker.heavy.outputs
        for run, scorer in self.engagement.items():
            if scorer is None or scorer.outputs != self.heads:
                raise AdstoolError(
                    f"engagement {run} has other actions than the run in use.",
                    "Name a run with the actions of now, or train one: adstool train engagement",
                )
        rows = self._logged(requests, seed)
        self.logged, self.days = int(rows[0][4]), int(rows[0][5])
        self.requests, self.moments = self._again(rows)
        self.key = self._fingerprint(requests, seed)

    def _scorer(self, model: str, run: str) -> Scorer | None:
        if model == "engagement" and not run:
            return self.ranker.heavy
        folder = self.ws.models / model / run if run else self.ws.current_run(model)
        return None if folder is None else Scorer(folder, threads=self.settings.funnel.threads)

    def _logged(self, limit: int, seed: int) -> list[Any]:
        rows: list[Any] = self.con.execute(
            load_sql("simulation_requests"),
            {"item_type": self.state.spec.corpus, "limit": limit, "seed": str(seed)},
        ).fetchall()
        if not rows:
            raise AdstoolError(
                "The log has no impression of an ad.",
                "Ingest events with action impression and item_type ad.",
            )
        return rows

    def _again(self, rows: list[Any]) -> tuple[list[Request], np.ndarray]:
        """The requests at their own hour of the last day that the index knows."""
        requests, moments = [], []
        today = self.state.as_of // DAY * DAY
        for number, (user, ts, surface, query, *_) in enumerate(rows):
            logged = int(ts.replace(tzinfo=UTC).timestamp() * 1e6)
            moment = today + logged % DAY
            moment -= DAY if moment > self.state.as_of else 0
            at = datetime.fromtimestamp(moment / 1e6, UTC)
            requests.append(Request(user, surface, query, at, f"simulated-{number}", 1))
            moments.append(moment)
        return requests, np.array(moments, dtype=np.int64)

    def traffic(self) -> Traffic:
        """See `gather`."""
        items = self.state.items
        campaigns, campaign_of = _advertised(items, self.ranker.settings.auction.reserve)
        user = np.unique([one.user_id for one in self.requests], return_inverse=True)[1]
        names = {action.name: action for action in self.settings.actions}
        shared: dict[str, Any] = {
            "user": user.astype(np.int64),
            "hour": self.moments % DAY / (DAY / 24),
            "actions": self.heads,
            "click": paid_head(self.settings.actions, self.heads),
            "wanted": tuple(names[head].positive if head in names else True for head in self.heads),
            "weights": np.array([names[head].weight if head in names else 0.0 for head in self.heads]),
            "campaign_of": campaign_of,
            "advertiser_of": items.advertisers[0],
            "category_of": items.categories[0],
            "format_of": np.array(items.column("format").to_pylist(), dtype=object),
        }
        said, truth = self._kept() or self._ask()
        markets = {}
        for number, models in enumerate(self.models):
            ad, predicted, true = said[number]
            markets[models] = Market(ad=ad, predicted=predicted, true=true, **shared)
        money = any(scorer is not None for scorer in self.conversion.values())
        return Traffic(markets, campaigns, truth, money, self.logged, self.days)

    def _ask(self) -> tuple[list[tuple[np.ndarray, Outcomes, Outcomes]], bool]:
        ads = [np.full((len(self.requests), self.candidates), -1, dtype=np.int32) for _ in self.models]
        shape = (len(self.requests), self.candidates)
        said = [
            {other: _blank(shape, len(self.heads)) for other in self.models} for _ in self.models
        ]  # by who found the candidates, and who predicts
        for number, request in enumerate(track(self.requests, "funnel", unit="request")):
            for place, (run, _) in enumerate(self.models):
                ctx, rows = self._candidates(request, run)
                ads[place][number, : len(rows)] = rows
                for other in self.models:
                    self._predict(said[place][other], number, ctx, rows, other)
        truth = locate_truth(self.con, self.settings)
        found, known = [], True
        for place, models in enumerate(self.models):
            items = self.state.items.ids
            listed = [[items[max(row, 0)] for row in line] for line in ads[place].tolist()]
            true = true_outcomes(self.con, truth, self.requests, self.moments, listed, self.heads)
            known &= true is not None
            mean = true if true is not None else _mean(list(said[place].values()))
            found.append((ads[place], said[place][models], mean))
        self._keep(found, known)
        return found, known

    def _candidates(self, request: Request, run: str) -> tuple[RequestContext, np.ndarray]:
        """The best of the funnel with this heavy ranker, rows of items in their order."""
        ranker, scorer = self.ranker, self.engagement[run]
        assert scorer is not None
        ranker.heavy, ranker.value = scorer, Value.of(self.settings, scorer.outputs)
        ranked = ranker.stages(request)
        chosen = ranked.kept[best(ranked.score, self.candidates)]
        return ranked.ctx, np.sort(ranked.rows(ranker.index)[chosen])

    def _predict(
        self, into: Outcomes, number: int, ctx: RequestContext, rows: np.ndarray, models: Models
    ) -> None:
        if not len(rows):
            return
        engagement, conversion = self.engagement[models[0]], self.conversion[models[1]]
        assert engagement is not None
        inputs = self.state.inputs(engagement.encoder, ctx, rows, engagement.needs)
        into.actions[number, : len(rows)] = engagement.predict(inputs)
        if conversion is not None:
            inputs = self.state.inputs(conversion.encoder, ctx, rows, conversion.needs)
            scales = np.array(conversion.config["value_scales"])
            found = split_outputs(conversion.predict(inputs), scales)
            into.conversions[number, : len(rows)] = found.conversion.sum(axis=1)
            into.value[number, : len(rows)] = found.value

    def _fingerprint(self, requests: int, seed: int) -> Path:
        digest = hashlib.sha256()
        parts: list[object] = [
            self.ranker.runs,
            self.models,
            self.state.as_of,
            requests,
            self.candidates,
            seed,
        ]
        parts.append(self.settings.fingerprint("actions", "funnel", "auction"))
        parts += [self.candidates, locate_truth(self.con, self.settings)]
        for scorer in (*self.engagement.values(), *self.conversion.values()):
            if scorer is not None:
                files = (scorer.run_dir / name for name in (CALIBRATION, QUANTIZATION))
                parts.append([(str(file), file.stat().st_mtime_ns) for file in files if file.is_file()])
                parts.append(str(scorer.run_dir))
        digest.update(repr(parts).encode())
        return self.ws.cache / "simulation" / f"{digest.hexdigest()[:16]}.npz"

    def _kept(self) -> tuple[list[tuple[np.ndarray, Outcomes, Outcomes]], bool] | None:
        if not self.key.is_file():
            return None
        with np.load(self.key, allow_pickle=False) as arrays:
            found = []
            for place in range(len(self.models)):
                sides = [
                    Outcomes(*(arrays[f"{place}/{side}/{name}"] for name in Outcomes.__dataclass_fields__))
                    for side in ("predicted", "true")
                ]
                found.append((arrays[f"{place}/ad"], sides[0], sides[1]))
            return found, bool(arrays["truth"])

    def _keep(self, found: list[tuple[np.ndarray, Outcomes, Outcomes]], truth: bool) -> None:
        arrays: dict[str, Any] = {"truth": np.array(truth)}
        for place, (ad, predicted, true) in enumerate(found):
            arrays[f"{place}/ad"] = ad
            for side, outcomes in (("predicted", predicted), ("true", true)):
                arrays |= {f"{place}/{side}/{name}": value for name, value in vars(outcomes).items()}
        self.key.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(self.key, arrays)


def _blank(shape: tuple[int, int], actions: int) -> Outcomes:
    single = (np.zeros(shape, dtype=np.float32) for _ in range(2))
    return Outcomes(np.zeros((*shape, actions), dtype=np.float32), *single)


def _mean(said: list[Outcomes]) -> Outcomes:
    names = Outcomes.__dataclass_fields__
    return Outcomes(*(np.mean([getattr(one, name) for one in said], axis=0) for name in names))


def _advertised(items: ItemTable, reserve: float) -> tuple[Advertised, np.ndarray]:
    """The campaigns of the ads, and the number of each item's; those without a campaign are one each."""
    ads = int(items.of_type("ad").sum())  # they come first
    given = items.column("campaign_id").slice(0, ads).to_pylist()
    names = [name or f"(of {item})" for name, item in zip(given, items.ids[:ads], strict=True)]
    ids, first, number = np.unique(names, return_index=True, return_inverse=True)
    strategy = np.array(items.column("bid_strategy").to_pylist(), dtype=object)[first]
    bid, target, budget = (items.numbers(name)[first] for name in ("bid", "target", "daily_budget"))
    asked = np.where(np.isfinite(target) & (target > 0), target, 0.0)
    cost = (strategy == "target_cpa") & (asked > 0)
    return Advertised(
        ids=tuple(ids.tolist()),
        bid=np.maximum(bids_of(bid, reserve), LEAST_BUDGET),
        budget=np.where(np.isfinite(budget), np.maximum(budget, LEAST_BUDGET), np.inf),
        pays_for=np.array([PAYS_FOR.get(str(name), FIXED) for name in strategy], dtype=np.int64),
        target=np.where(
            cost, 1 / np.where(cost, asked, 1.0), np.where(strategy == "target_roas", asked, 0.0)
        ),
    ), number.astype(np.int64)
