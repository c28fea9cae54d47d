"""Training of conversions: what it reads at the cut-off, every loss, what it learns, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training.conversion_logs import DAYS, KINDS, make_log, write_labels

from adstool.errors import DataError, UsageError
from adstool.features.conversions import NEVER, ConversionLabels
from adstool.training.conversion import build_conversion, start_scales
from adstool.training.conversion_data import (
    ConversionData,
    conversion_data,
    held_out,
    known_outcome,
    windows_of,
)
from adstool.training.conversion_metrics import Outcome, Predicted, conversion_metrics, split_outputs
from adstool.training.conversion_task import LOSSES, ConversionTask, ConversionTaskConfig, fit_intercepts
from adstool.training.delay import DAY
from adstool.training.loop_config import LoopConfig
from adstool.training.metrics import auc, sigmoid
from adstool.training.options import Plan
from adstool.training.predict import predict_logits

Log = tuple[Any, ConversionLabels]
SMALL = {"hidden": (16,), "cross_layers": 1, "embedding_dim": 4, "id_dropout": 0.0, "dropout": 0.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return make_log(tmp_path_factory.mktemp("conversions"))


def data_of(log: Log, delay: str) -> ConversionData:
    return conversion_data(*log, windows_of(*log, 0.2, 24.0), delay, 0.1)


def task_of(log: Log, **changes: Any) -> ConversionTask:
    config = ConversionTaskConfig(**changes)
    data = data_of(log, config.delay)
    plan = Plan(LoopConfig(), SMALL, {})
    model = build_conversion(log[0].spec(), plan, log[0], data, config)
    return ConversionTask(model, log[0], data, config, start_scales(data))


def test_the_cut_off_leaves_a_matured_test_and_nothing_is_read_beyond_it(made: Log) -> None:
    dataset, labels = made
    windows = windows_of(dataset, labels, 0.2, 24.0)
    assert (windows.horizon, windows.wait) == (8 * DAY, DAY)
    assert dataset.ts[windows.train.stop - 1] < windows.cut == dataset.ts[windows.test.start]
    assert dataset.ts[windows.test.stop - 1] <= labels.end_ts - 8 * DAY
    rows = windows.test.stop
    assert windows.test.stop - windows.test.start == pytest.approx(0.2 * rows, abs=1)
    data = data_of(made, "es-dfm")
    late = ~np.isnan(data.train.label) & (data.train.first[:, None] == 0)
    assert late.any()
    reports = labels.first_reports()[data.train.row]
    assert (reports[late] <= windows.cut).all()
    assert len(np.intersect1d(data.train.row, data.valid.row)) == 0
    assert np.isin(data.test_rows, np.arange(windows.test.start, windows.test.stop)).all()


def test_a_short_log_shortens_the_horizon(made: Log, tmp_path: Path) -> None:
    dataset, _ = made
    nothing = {name: np.zeros(0) for name in ("row", "kind", "via", "credit", "value")}
    nothing |= {"reported_ts": np.zeros(0), "conversion": np.zeros(0)}
    labels = write_labels(tmp_path, np.full(len(dataset.ts), NEVER), nothing, DAYS * DAY, 30 * DAY)
    windows = windows_of(dataset, labels, 0.2, 24.0)
    assert windows.days == pytest.approx(DAYS / 4, abs=0.1)
    with pytest.raises(DataError, match="0 clicks"):
        conversion_data(dataset, labels, windows, "none", 0.1)


def test_every_impression_is_seen_once_first_and_late_conversions_again(made: Log) -> None:
    data = data_of(made, "es-dfm")
    seen = data.train
    assert (np.diff(seen.row) >= 0).all()
    assert len(np.unique(seen.row)) == int(seen.first.sum())
    again = seen.first == 0
    assert (np.nansum(seen.label[again], axis=1) == 1).all()
    assert np.isnan(seen.label[seen.clicked == 0]).all()
    assert (seen.value[seen.label == 1] >= 0).all()
    assert np.isnan(seen.value[seen.label != 1]).all()
    close = made[0].ts[seen.row] > data.windows.cut - data.windows.wait
    np.testing.assert_array_equal(seen.entered[seen.first == 1] == 0, close[seen.first == 1])
    plain = data_of(made, "none").train
    assert (plain.first == 1).all()
    assert (plain.repeat == 1).all()


def test_late_shares_rest_on_the_last_horizon(made: Log) -> None:
    data = data_of(made, "es-dfm")
    # Exponential with mean 2 days, a wait of one: exp(-1/2), less what comes after the horizon; leads never.
    assert data.late_share[0] == pytest.approx((np.exp(-0.5) - np.exp(-4)) / (1 - np.exp(-4)), abs=0.08)
    assert data.late_share[1] < 0.1
    assert np.isnan(data_of(made, "none").train.late).all()


def test_delays_start_at_those_of_matured_clicks(made: Log) -> None:
    data = data_of(made, "elapsed")
    assert data.delay_edges[0] == 0
    assert data.delay_edges[-1] == pytest.approx(8.0)
    want = np.diff(1 - np.exp(-data.delay_edges / 2)) / (1 - np.exp(-4.0))
    assert data.delay_shares[:, 0] == pytest.approx(want, abs=0.1)
    assert data.delay_shares[0, 1] > 0.7
    task = task_of(made, delay="elapsed")
    batch = task.load(np.arange(4), np.random.default_rng(0))
    buckets = task._buckets(task.model.with_penalty(batch)[0])
    assert buckets is not None
    assert torch.softmax(buckets, dim=2)[0].T.detach().numpy() == pytest.approx(data.delay_shares, abs=0.03)


def test_held_out_requests_are_a_share_and_whole() -> None:
    request = np.repeat(np.arange(20_000), 3)
    held = held_out(request, 0.1).reshape(-1, 3)
    assert (held.all(axis=1) | ~held.any(axis=1)).all()
    assert held.mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("delay", "loss"),
    [
        *(("es-dfm", loss) for loss in LOSSES),
        ("elapsed", "escm2-ips"),
        ("fnw", "escm2-ips"),
        ("dfm", "escm2-ips"),
        ("none", "esmm"),
    ],
)
def test_every_way_lowers_its_own_loss(made: Log, delay: str, loss: str) -> None:
    task = task_of(made, delay=delay, loss=loss)
    rng = np.random.default_rng(0)
    batch = task.load(np.sort(rng.permutation(task.rows)[:1024]), rng)
    optimizer = torch.optim.Adam([p for p in task.model.parameters() if not p.is_sparse], lr=0.01)
    for module in task.model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.sparse = False
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        value = task.loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < losses[0]
    layers = [task.model.heads.weight, *(p for n, p in task.model.heads.named_parameters() if "aside.w" in n)]
    for weight in layers:
        assert weight.grad is not None
        assert (weight.grad.abs().sum(dim=1) > 0).all(), "every output is learned"
    assert np.isfinite(task.validate())


def test_training_finds_rates_and_money(tmp_path: Path) -> None:
    dataset, labels = make_log(tmp_path, 12_000, 3)
    task = task_of((dataset, labels))
    model = task.model
    dense = [p for n, p in model.named_parameters() if "table" not in n]
    tables = torch.optim.SparseAdam([model.embedding.table.weight], lr=0.01)
    optimizer = torch.optim.Adam(dense, lr=0.01)
    rng = np.random.default_rng(0)
    for _ in range(6):
        order = rng.permutation(task.rows)
        for part in np.array_split(order, max(task.rows // 512, 1)):
            optimizer.zero_grad()
            tables.zero_grad()
            task.loss(task.load(part, rng)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            tables.step()
    rows = task.data.test_rows
    scales = task.calibrate()
    found = split_outputs(sigmoid(predict_logits(model, dataset, rows)), scales)
    known = known_outcome(labels, rows, task.data.windows.end, task.data.windows.horizon)
    assert auc(known.clicked.astype(float), found.click) > 0.65
    assert found.conversion[:, 0].mean() == pytest.approx(0.3, rel=0.15)
    assert found.conversion[:, 1].mean() == pytest.approx(0.1, rel=0.25)
    assert found.money[:, 0].mean() == pytest.approx(10.0, rel=0.15)


@pytest.mark.parametrize("delay", ["none", "fnw", "es-dfm", "elapsed", "oracle"])
def test_intercepts_bring_back_the_rate(made: Log, delay: str) -> None:
    """From any start, rates that are the same for all clicks end where 30 % of the clicks convert."""
    seen = data_of(made, delay).train
    clicks = np.flatnonzero(seen.clicked)
    names = ("label", "corrected", "repeat")
    known = {name: torch.from_numpy(getattr(seen, name)[clicks]) for name in names}
    if delay == "elapsed":
        age = torch.from_numpy(seen.age[clicks])
        bought = (1 - torch.exp(-age / 2)) / (1 - np.exp(-4.0))
        known["share"] = torch.stack([bought.clamp_max(1.0), torch.ones_like(age)], dim=1)
    late = torch.logit(torch.tensor([[0.596, 1e-4]])).expand(len(clicks), 2)
    for start in (-4.0, 1.0):
        shift = fit_intercepts(delay, torch.full((len(clicks), 2), start), late, known)
        rate = torch.sigmoid(start + shift)
        want = 0.26 if delay == "none" else 0.3
        assert rate[0].item() == pytest.approx(want, abs=0.035)
        assert rate[1].item() == pytest.approx(0.1, abs=0.02)


def test_figures_are_the_hand_worked_ones() -> None:
    found = Predicted(
        click=np.array([0.5, 0.5, 0.2, 0.1]),
        conversion=np.array([[0.4, 0.1], [0.2, 0.1], [0.9, 0.9], [0.9, 0.9]]),
        money=np.array([[10.0, 0.0], [20.0, 0.0], [1.0, 1.0], [1.0, 1.0]]),
    )
    known = Outcome(
        clicked=np.array([True, True, False, False]),
        converted=np.array([[True, False], [False, False], [False, False], [False, False]]),
        value=np.array([[16.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
    )
    metrics = conversion_metrics(found, known, KINDS)
    assert metrics["click"]["auc"] == 1.0
    assert (metrics["checkout"]["rows"], metrics["checkout"]["positives"]) == (2, 1)
    assert metrics["checkout"]["auc"] == 1.0, "on clicks alone: the others would rank above"
    assert metrics["checkout"]["calibration"] == pytest.approx(0.6)
    assert metrics["checkout & click"]["rows"] == 4
    assert metrics["checkout & click"]["calibration"] == pytest.approx(0.2 + 0.1 + 0.18 + 0.09)
    assert metrics["all kinds"]["calibration"] == pytest.approx(0.8)
    assert metrics["value"]["calibration"] == pytest.approx((4.0 + 4.0) / 16)


def test_money_is_the_odds_in_its_scale() -> None:
    served = np.array([[0.1, 0.2, 0.3, 0.75, 0.5]])
    found = split_outputs(served, np.array([10.0, 2.0]))
    assert found.money[0].tolist() == pytest.approx([30.0, 2.0])
    assert found.value[0] == pytest.approx(0.2 * 30 + 0.3 * 2)


def test_a_later_report_changes_what_is_known_not_who_clicked(made: Log) -> None:
    dataset, labels = made
    rows = np.arange(100, 400)
    early = known_outcome(labels, rows, int(dataset.ts[400]), 8 * DAY)
    end = known_outcome(labels, rows, labels.end_ts, 8 * DAY)
    assert early.converted.sum() < end.converted.sum()
    assert (early.clicked == end.clicked).all()
    assert known_outcome(labels, rows[:0], labels.end_ts, DAY).converted.shape == (0, 2)


@pytest.mark.parametrize(
    "wrong",
    [{"delay": "guess"}, {"loss": "hinge"}, {"value": "gamma"}, {"test_share": 1.0}, {"wait_hours": -1.0}],
)
def test_what_cannot_be_trained_with_is_a_usage_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ConversionTaskConfig(**wrong).validate()
