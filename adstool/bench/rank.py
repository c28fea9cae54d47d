"""Time of a whole request, in the catalogue as it is and in one grown to a size of one's choice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from adstool.bench.figure import Figure, alternate
from adstool.bench.workbench import Workbench
from adstool.config import Settings
from adstool.device import limit_threads
from adstool.workspace import Workspace

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from adstool.funnel.rank import Ranker

REQUESTS = 100  # slates of a latency figure
NOISE = 0.5  # standard deviation of a copied vector's noise, in those of its own coordinates
BLOCK = 100_000  # vectors written at once
SKIPPED = ("reports", "cache", "index", ".lock")  # of a workspace, what ranking does without


def rank(bench: Workbench) -> Figure:
    """A whole request, beside the same arithmetic written by hand: two products and the heavy ranker."""
    import numpy as np

    from adstool.funnel.rank import Ranker
    from adstool.serving.scorer import Scorer

    limit_threads(bench.settings.funnel.threads)  # as `rank` and `serve` do; the floor has as many
    users = bench.users
    with Ranker(bench.workspace, bench.settings) as ranker:
        heavy = Scorer(bench.workspace.require_run("engagement", "train engagement"))
        inputs = bench.inputs
        rng = np.random.default_rng(0)
        items = rng.standard_normal((ranker.items, 64), dtype=np.float32)
        query = rng.standard_normal(64, dtype=np.float32)

        def by_hand() -> None:
            found = np.argpartition(-(items @ query), min(2000, len(items) - 1))[:2000]
            np.argpartition(-(items[found] @ query), min(200, len(found) - 1))[:200]
            heavy.predict(inputs)

        turn = iter(users * (REQUESTS // len(users) + 2))
        value, floor = alternate(lambda: ranker.rank({"user_id": next(turn)}), by_hand, REQUESTS)
    return Figure("rank", "ms", value * 1e3, floor * 1e3, "ANN by product, dot products, heavy ranker")


def rank_among(ads: int, name: str) -> Callable[[Workbench], list[Figure]]:
    """A whole request, its share of the funnel log included, among so many ads."""

    def measured(bench: Workbench) -> list[Figure]:
        import numpy as np

        from adstool.funnel.rank import Ranker

        limit_threads(bench.settings.funnel.threads)
        inputs, users = bench.inputs, bench.users
        grown = grow(bench.workspace, bench.settings, bench.folder / name, ads)
        with Ranker(grown, bench.settings) as ranker:
            by_hand = bare_request(ranker, inputs, bench.folder / f"{name}-bare")
            taken = time_requests(ranker, users, by_hand, 6 * REQUESTS)
        floor_is = "LanceDB's 2,000 nearest, dot products, the heavy ranker's session"
        return [
            Figure(f"{name}_{label}", "ms", value, floor, floor_is)
            for label, part in (("p50", 0.5), ("p99", 0.99))
            for value, floor in [np.quantile(taken, part, axis=1).tolist()]
        ]

    return measured


def grow(made: Workspace, settings: Settings, folder: Path, ads: int) -> Workspace:
    """A copy of a finished workspace in `folder` with at least so many ads, and their index.

    Ads of the catalogue are copied under new ids, their vectors stirred, until there are enough; nobody has
    seen the copies yet.
    """
    from adstool.funnel.index import build_index
    from adstool.warehouse import open_warehouse

    shutil.copytree(made.root, folder, ignore=shutil.ignore_patterns(*SKIPPED))
    grown = Workspace(folder)
    with open_warehouse(grown, settings) as connection:
        _copy_vectors(grown, _copy_ads(connection, ads))
        with grown.new_run("index") as run_dir:
            build_index(grown, settings, connection, run_dir)
    return grown


def _copy_ads(connection: duckdb.DuckDBPyConnection, ads: int) -> int:
    """Copy every ad as often as it takes to have so many; returns how many copies of each were made."""
    row = connection.execute("select count(*) from ads").fetchone()
    assert row is not None
    copies = max(0, -(-ads // max(int(row[0]), 1)) - 1)
    connection.execute(
        "insert into ads select ads.* replace (ad_id || '~' || n as ad_id)"
        " from ads, range(1, $copies + 1) as copies(n)",
        {"copies": copies},
    )
    return copies


def _copy_vectors(workspace: Workspace, copies: int) -> None:
    """Stirred copies of the ads' content vectors, under the ids of the copied ads."""
    import numpy as np

    from adstool.content.vectors import ItemVectors, VectorTable, active_model

    model = active_model(workspace)
    table = VectorTable.open(workspace, "ad", model.slug) if model is not None else None
    if table is None:
        return
    ids, vectors = table.vectors("joint")
    rng = np.random.default_rng(0)
    block = max(BLOCK // max(len(ids), 1), 1)
    for first in range(1, copies + 1, block):
        rows = []
        for copy in range(first, min(first + block, copies + 1)):
            noise = NOISE * vectors.std() * rng.standard_normal(vectors.shape, dtype=np.float32)
            stirred = vectors + noise
            stirred /= np.linalg.norm(stirred, axis=1, keepdims=True)
            for one, vector in zip(ids, stirred, strict=True):
                name = f"{one}~{copy}"
                rows.append(ItemVectors(name, name, None, None, None, None, None, vector))
        table.write(rows, replacing=False)


def time_requests(ranker: Ranker, users: list[str], by_hand: Callable[[], object], turns: int) -> np.ndarray:
    """Milliseconds of `turns` whole requests and of as many calls by hand, made in turn: float64 [2, turns].

    A request's time is that of its slate and its share of writing the funnel log.
    """
    import numpy as np

    taken = np.zeros((2, turns))
    for warm in users:
        ranker.rank({"user_id": warm})
        by_hand()
    ranker.flush()
    for turn in range(turns):
        begun = time.perf_counter()
        ranker.rank({"user_id": users[turn % len(users)]})
        ranked = time.perf_counter()
        by_hand()
        taken[:, turn] = ranked - begun, time.perf_counter() - ranked
    begun = time.perf_counter()
    ranker.flush()
    taken[0] += (time.perf_counter() - begun) / turns
    return 1e3 * taken


def bare_request(ranker: Ranker, inputs: dict[str, np.ndarray], folder: Path) -> Callable[[], object]:
    """The least that a request could be, written by hand: the nearest `retrieve` of one source through
    LanceDB's IVF_FLAT, with the recall asked of our own index, dot products of the lightweight ranker, and
    the heavy ranker's session on inputs that are ready."""
    import numpy as np

    from adstool.funnel.ann import AnnChoice, build_ann, open_ann
    from adstool.funnel.index import real_queries
    from adstool.funnel.tuning import fewest_probes

    corpus, funnel = ranker.index.corpus, ranker.settings.funnel
    vectors = np.asarray(corpus.two_tower)
    drawn = real_queries(ranker.index.state, corpus, ranker.towers)["two_tower"]
    choice = AnnChoice("ivf_flat", min(int(len(vectors) ** 0.5), 1024))
    build_ann(vectors, folder, "bare", choice)
    least = ranker.settings.index.min_recall
    choice = fewest_probes(choice, vectors, folder, "bare", drawn, least)
    search = open_ann(choice, vectors, folder, "bare")
    allowed = np.ones(len(vectors), dtype=bool)
    rng = np.random.default_rng(0)
    light = np.asarray(corpus.lightweight)
    asked = rng.standard_normal((len(drawn), light.shape[1]), dtype=np.float32)
    turn = iter(range(10**9))

    def by_hand() -> object:
        place = next(turn) % len(drawn)
        found, _ = search.search(drawn[place], funnel.retrieve, allowed)
        scores = light[found] @ asked[place]
        kept = np.argpartition(-scores, min(funnel.lightweight, len(scores) - 1))[: funnel.lightweight]
        return kept, ranker.heavy.raw(inputs)

    return by_hand
