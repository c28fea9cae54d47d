"""What the heavy ranker teaches the light one: candidates, moments, scores, and a ranker trained by them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from adstool.config import Settings
from adstool.errors import UsageError
from adstool.funnel.index import build_index
from adstool.funnel.rank import Ranker
from adstool.funnel.teaching import Teacher
from adstool.serving.export import export_run
from adstool.serving.scorer import Scorer
from adstool.training.data import load_training_data
from adstool.training.lists import CandidateLists, list_scores
from adstool.training.train import TrainOptions, train_model
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace


def inputs_of(lists: CandidateLists, content: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """One list as a ranker reads it."""
    rows = lists.item_row[number]
    return {
        "categorical": lists.categorical[number],
        "numeric": lists.numeric[number],
        "item_content": content[rows],
        "position": np.ones(len(rows), dtype=np.int64),
        **{name: values[number][None] for name, values in lists.shared.items()},
    }


def test_lists_are_candidates_as_they_were_and_scores_those_of_the_funnel(
    shop: Workspace, settings: Settings
) -> None:
    with open_warehouse(shop, settings, read_only=True) as con:
        dataset = load_training_data(shop, settings, con)
        lessons = Teacher(shop, settings, con)(dataset, 40, 12, 0)
    heavy = Scorer(shop.require_run("engagement", ""))
    assert lessons.teacher == "r1"
    assert lessons.cuts == (0.5, 0.125)
    for lists in (lessons.train, lessons.valid):
        assert lists.score.shape[1] == 12
        assert lists.bids is not None
        for number in range(0, len(lists), 7):
            rows = lists.item_row[number]
            assert len(set(rows.tolist())) == 12
            assert all(dataset.items.types[row] == "ad" for row in rows)
            wanted = heavy.predict(inputs_of(lists, dataset.items.content, number))
            assert lists.probability[number] == pytest.approx(wanted, abs=1e-5)
            utility = wanted @ [action.weight for action in settings.actions]
            bids = dataset.items.numbers("bid")[rows]
            assert lists.bids[number] == pytest.approx(bids)
            money = bids * wanted[:, 0] + settings.auction.utility_weight * utility
            assert lists.score[number] == pytest.approx(money, abs=1e-5)
        batch = {"bids": torch.from_numpy(lists.bids)}
        scores = list_scores(torch.logit(torch.from_numpy(lists.probability)), batch, lessons.value)
        assert scores.numpy() == pytest.approx(lists.score, abs=1e-4)
    shown = set(zip(dataset.user.tolist(), dataset.item_row.tolist(), strict=True))
    by_user = {user for user, _ in shown}
    rows = set(lessons.train.item_row.ravel().tolist())
    assert len(rows) > 50  # nearly all of the 60 ads
    assert len(lessons.train) == 40
    assert len(shown) < len(by_user) * len(rows)  # so that candidates nobody was shown are among them


def test_what_the_funnel_logged_comes_first_and_the_test_split_is_not_touched(
    shop_copy: Workspace, settings: Settings
) -> None:
    with open_warehouse(shop_copy, settings) as con:
        dataset = load_training_data(shop_copy, settings, con)
        train, test = dataset.splits["train"], dataset.splits["test"]

        def moment(row: int) -> datetime:
            return datetime.fromtimestamp(int(dataset.ts[row]) / 1e6, UTC)

        def log(request: str, at: datetime) -> list[int]:
            """Let the funnel have found ten ads for u1 at a moment, as `rank` logs them."""
            with Ranker(shop_copy, settings, con) as ranker:
                ranker.rank({"user_id": "u1", "request_id": request, "ts": at.isoformat()}, at=at)
                ranker.flush()
            ids = [r[0] for r in con.execute(
                "select item_id from funnel where request_id = ? and stage = 'retrieval'", [request]
            ).fetchall()]  # fmt: skip
            return sorted(dataset.items.rows(ids, "ad").tolist())

        before = log("before", moment(int(train.stop * 0.9)))
        later = log("later", moment(int((test.start + test.stop) // 2)))
        lessons = Teacher(shop_copy, settings, con)(dataset, 16, min(len(before), len(later)), 0)
    lists = [sorted(rows) for rows in lessons.train.item_row.tolist()]
    assert lessons.train.logged == 1
    assert sum(set(one) <= set(before) for one in lists) >= 1
    assert lessons.valid.logged == 0


def test_a_taught_and_aligned_ranker_serves(shop_copy: Workspace, settings: Settings) -> None:
    """It agrees better with the heavy ranker than one that was not taught, and the funnel asks it alike."""

    def agreement() -> float:
        """Kendall's tau of both rankers' click probabilities, over users: bids would make any two agree."""
        with Ranker(shop_copy, settings) as ranker:
            state, light, heavy = ranker.index.state, ranker.light, ranker.heavy
            items = np.asarray(ranker.index.corpus.lightweight)
            rows = np.arange(len(items)) + ranker.index.corpus.first_row
            found = []
            for user in range(1, 30):
                ctx = state.request(f"u{user}", None, "home")
                row = light.user(state.inputs(light.encoder, ctx, rows[:1]))
                ours = light.score(state, ctx, row, items, rows)[:, 0]
                theirs = heavy.predict(state.inputs(heavy.encoder, ctx, rows))[:, 0]
                found.append(kendalltau(ours, theirs).statistic)
            return float(np.mean(found))

    before = agreement()
    options = {
        "distill": "3",
        "worth": "1",
        "align": "true",
        "lists": "60",
        "candidates": "24",
    }
    with open_warehouse(shop_copy, settings) as con:
        wanted = TrainOptions("cold", options, 3, 256, 0, None)
        with pytest.raises(UsageError, match="heavy ranker"):
            train_model(shop_copy, settings, con, "lightweight", wanted, export=export_run)
        taught = TrainOptions("cold", options, 6, 256, 0, None, teach=Teacher(shop_copy, settings, con))
        result = train_model(shop_copy, settings, con, "lightweight", taught, export=export_run)
        assert result.run_id == "r2"
        with shop_copy.new_run("index") as run:
            build_index(shop_copy, settings, con, run)
    assert agreement() > before + 0.05
