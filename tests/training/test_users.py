"""`train users` on a warehouse: sequences end where they must, figures against a count by hand, its run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from adstool.config import Settings
from adstool.errors import AdstoolError, UsageError
from adstool.features.engagements import Engagements
from adstool.features.item_codes import ItemCodes, code_sequence
from adstool.models.registry import load_model
from adstool.serving.export import export_run
from adstool.training.co_engagement import CoEngagement
from adstool.training.data import load_training_data
from adstool.training.train import TrainOptions, train_model
from adstool.training.user_sequence import scores_of
from adstool.training.users import SequenceLog
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, read_json


@pytest.fixture(scope="module")
def log(shop: Workspace, settings: Settings) -> SequenceLog:
    with open_warehouse(shop, settings, read_only=True) as con:
        return SequenceLog(load_training_data(shop, settings, con))


def test_codes_leave_out_what_is_not_known_and_what_repeats() -> None:
    engagements = Engagements.of(
        np.zeros(6, dtype=int), np.arange(6), np.array([3, 3, 1, 0, 1, 3]), np.ones(6), 1
    )
    codes = np.array([0, 5, 0, 7])
    assert code_sequence(engagements, codes, 0, 6).tolist() == [7, 5, 7]
    assert code_sequence(engagements, codes, 2, 4).tolist() == [5]
    assert code_sequence(engagements, codes, 3, 3).tolist() == []


def test_codes_are_kept_by_key(shop: Workspace, log: SequenceLog, tmp_path) -> None:  # type: ignore[no-untyped-def]
    items = log.dataset.items
    codes = ItemCodes.engaged_with(items, np.array([4, 2, 4]))
    assert len(codes) == 3
    assert np.flatnonzero(codes.of_rows(items)).tolist() == [2, 4]
    codes.save(tmp_path)
    assert ItemCodes.load(tmp_path).of_rows(items)[4] == 2
    (tmp_path / "items.parquet").write_bytes(b"no parquet")
    with pytest.raises(AdstoolError, match="cannot be read"):
        ItemCodes.load(tmp_path)
    assert codes.keys.type == pa.string()


def test_training_sees_nothing_of_the_validation_split(
    shop: Workspace, settings: Settings, log: SequenceLog
) -> None:
    dataset = log.dataset
    until = int(dataset.ts[dataset.splits["valid"].start])
    with open_warehouse(shop, settings, read_only=True) as con:
        rows = con.execute(
            "select user_id, item_type || ':' || item_id from events "
            "where epoch_us(ts) < $until and action in $actions order by user_id, ts",
            {"until": until, "actions": [a.name for a in settings.actions if a.positive]},
        ).fetchall()
    engaged = {key for _, key in rows} & set(dataset.items.keys.to_pylist())
    assert set(log.codes.keys.to_pylist()) == engaged
    assert {key.split(":")[0] for key in engaged} == {"ad", "pin"}
    counted = {user for user, key in rows if key in engaged}
    assert len(log.sequences) == len(counted)
    steps = sum(len(one) for one in log.sequences)
    assert len(counted) < steps <= len(rows)


def test_repeats_are_counted(log: SequenceLog) -> None:
    again = steps = 0
    for one in log.sequences:
        seen: set[int] = set()
        for place, code in enumerate(one.tolist()):
            steps += place > 0
            again += code in seen
            seen.add(code)
    assert log.repeated() == pytest.approx(again / steps)
    assert again > 0


def test_a_question_knows_what_lay_before_it(log: SequenceLog) -> None:
    dataset, judged = log.dataset, log.judged("test")
    assert len(judged.held.histories) == len(judged.chosen) > 20
    items = judged.choices[judged.chosen]
    assert (log.of_row[items] == judged.held.wanted).all()
    labels = np.asarray(dataset.labels[dataset.splits["test"]])
    positive = [i for i, action in enumerate(dataset.actions) if action.positive]
    first = dataset.splits["test"].start + np.flatnonzero((labels[:, positive] > 0).any(axis=1))[0]
    assert items[0] == dataset.item_row[first]
    moments = dataset.engagements.ts
    start, end = int(dataset.history_start[first]), int(dataset.history_end[first])
    known = moments[start:end] < dataset.ts[first]
    assert known.all()
    np.testing.assert_array_equal(
        judged.held.histories[0], code_sequence(dataset.engagements, log.of_row, start, end)
    )


def test_the_run_and_its_figures(shop_copy: Workspace, settings: Settings) -> None:
    options = TrainOptions("actions", {"dim": "16", "layers": "1", "repeats": "false"}, 2, 64, 0, None)
    with open_warehouse(shop_copy, settings) as con:
        result = train_model(shop_copy, settings, con, "users", options, export=export_run)
        log = SequenceLog(load_training_data(shop_copy, settings, con))
        bad = TrainOptions("", {"layer": "1"})
        with pytest.raises(UsageError, match="layer"):
            train_model(shop_copy, settings, con, "users", bad, export=export_run)
    run = shop_copy.require_run("users", "train users")
    for name in ("model.safetensors", "items.parquet", "metrics.json", "run.json", "user.onnx", "item.onnx"):
        assert (run / name).is_file(), name
    assert read_json(run / "config.json")["config"]["items"] == len(log.codes)
    model, judged = load_model(run), log.judged("test")
    alike = CoEngagement(log.sequences, len(log.codes))
    hits = {"": 0, "popular_": 0, "item_item_": 0}
    codes = log.of_row[judged.choices]
    for history, chosen in zip(judged.held.histories, judged.chosen, strict=True):
        tables = {
            "": scores_of(model, [history])[0],  # type: ignore[arg-type]
            "popular_": alike.counts,
            "item_item_": alike.scores([history], 0.7)[0],
        }
        for name, scores in tables.items():
            able = np.asarray(scores, dtype=np.float64).copy()
            able[history] = -np.inf
            offered = able[codes]
            above, level = (offered > offered[chosen]).sum(), (offered == offered[chosen]).sum() - 1
            hits[name] += above + level // 2 < 10
    figures = result.metrics["test"]
    assert figures["rows"] == len(judged.chosen)
    for name, count in hits.items():
        assert figures[f"{name}recall@10"] == pytest.approx(count / len(judged.chosen))
