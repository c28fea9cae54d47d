"""Training on sequences: what a batch asks for, the loss by hand, learning of order, exact resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adstool.errors import DataError
from adstool.models.inputs import Batch
from adstool.models.user_sequence import UserSequence, UserSequenceConfig
from adstool.training.co_engagement import CoEngagement
from adstool.training.loop import fit
from adstool.training.loop_config import LoopConfig
from adstool.training.record import training_device
from adstool.training.user_sequence import (
    Held,
    SequenceTask,
    SequenceTaskConfig,
    build_user_sequence,
    padded,
    scores_of,
)

ITEMS = 40
NOBODY = Held([], np.zeros(0, dtype=np.int64))
LOOP = LoopConfig(epochs=6, batch_size=64, learning_rate=5e-3, precision="fp32")


def walks(count: int, seed: int = 0) -> list[np.ndarray]:
    """Sequences in which the item after a is a + 1 three times in four, and any other else."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        one = [int(random.integers(1, ITEMS))]
        while len(one) < 8:
            after = one[-1] % (ITEMS - 1) + 1
            one.append(after if random.random() < 0.75 else int(random.integers(1, ITEMS)))
        made.append(np.array(one))
    return made


def task_of(
    sequences: list[np.ndarray],
    held: Held = NOBODY,
    model: dict[str, object] | None = None,
    **settings: object,
) -> SequenceTask:
    config = SequenceTaskConfig(**{"negatives": 16, **settings})  # type: ignore[arg-type]
    sizes = UserSequenceConfig(items=ITEMS, **{"dim": 16, "length": 10, **(model or {})})  # type: ignore[arg-type]
    built = build_user_sequence(sizes, config, CoEngagement(sequences, ITEMS), seed=0)
    return SequenceTask(built, sequences, held, config)


def asked(batch: Batch) -> list[tuple[int, int, int]]:
    """(row, place, code of the target) of every position."""
    codes = batch["candidates"][batch["target"]]
    return [tuple(one) for one in torch.stack([batch["row"], batch["place"], codes], dim=1).tolist()]


def test_every_position_asks_for_what_follows() -> None:
    task = task_of([np.array([5, 7, 7, 3]), np.array([8]), np.array([2, 9])])
    batch = task.load(np.arange(task.rows), np.random.default_rng(0))
    assert task.rows == 2  # who engaged once says nothing about order
    assert sorted(asked(batch)) == [(0, 0, 7), (0, 1, 7), (0, 2, 3), (1, 0, 9)]
    np.testing.assert_array_equal(batch["items"], [[5, 7, 7], [2, 9, 0]])
    assert torch.unique(batch["candidates"]).tolist() == batch["candidates"].tolist()
    share = np.array([0, 0, 1, 1, 0, 1, 0, 2, 1, 1] + [0] * 30) / 7
    np.testing.assert_allclose(batch["share"], share[batch["candidates"]], rtol=1e-6)


def test_a_long_sequence_is_cut_so_that_every_step_is_asked_for_once() -> None:
    long = np.random.default_rng(2).permutation(np.arange(1, 36))
    task = task_of([long])
    steps = []
    for row in range(task.rows):
        batch = task.load(np.array([row]), np.random.default_rng(0))
        assert batch["items"].shape[1] <= 10
        steps += [(int(batch["items"][0, place]), code) for _, place, code in asked(batch)]
    assert sorted(steps) == sorted(zip(long[:-1].tolist(), long[1:].tolist(), strict=True))


def test_a_horizon_draws_evenly_from_what_follows() -> None:
    task = task_of([np.array([1, 2, 3, 4])], horizon=2)
    seen = {0: [], 1: [], 2: []}  # type: dict[int, list[int]]
    for step in range(400):
        for _, place, code in asked(task.load(np.array([0]), np.random.default_rng(step))):
            seen[place].append(code)
    assert [set(seen[place]) for place in range(3)] == [{2, 3}, {3, 4}, {4}]
    assert abs(np.mean(np.array(seen[0]) == 2) - 0.5) < 0.1


@pytest.mark.parametrize("repeats", [True, False])
def test_the_loss_by_hand(repeats: bool) -> None:
    sequences = [np.array([5, 7, 5, 3]), np.array([2, 9, 4]), np.array([7, 3, 9, 5, 8])]
    task = task_of(sequences, repeats=repeats)
    model = task.model.eval()
    batch = task.load(np.arange(3), np.random.default_rng(1))
    candidates = batch["candidates"].tolist()
    count = np.bincount(np.concatenate(sequences), minlength=ITEMS)
    losses = []
    for row, place, wanted in asked(batch):
        past = sequences[row][: place + 1]
        state = model.states(torch.from_numpy(past)[None], torch.tensor([0]), torch.tensor([place]))
        logit = model.logits(state, batch["candidates"])[0].detach().double().numpy()
        for column, code in enumerate(candidates):
            outside = (1 - count[code] / count.sum()) ** 9 * (1 - 1 / (ITEMS - 1)) ** 16
            logit[column] -= np.log(1 - outside)
            if not repeats and code in past and code != wanted:
                logit[column] = -np.inf
        losses.append(np.log(np.exp(logit).sum()) - logit[candidates.index(wanted)])
    assert float(task.loss(batch).detach()) == pytest.approx(np.mean(losses), rel=1e-4)


def test_what_was_engaged_with_is_left_out_where_nothing_repeats() -> None:
    model = task_of(walks(30)).model.eval()
    histories = [np.array([3, 4]), np.array([7])]
    scores, without = scores_of(model, histories), scores_of(model, histories, repeats=False)
    assert np.isneginf(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1:]).all()
    assert np.flatnonzero(np.isneginf(without[0])).tolist() == [0, 3, 4]
    assert np.flatnonzero(np.isneginf(without[1])).tolist() == [0, 7]


def recall(model: UserSequence, held: Held) -> float:
    scores = scores_of(model, held.histories)
    return float(np.mean(scores.argmax(axis=1) == held.wanted))


@pytest.mark.parametrize("layers", [0, 1])
def test_it_learns_the_order_which_a_plain_mean_cannot(layers: int, tmp_path: Path) -> None:
    fresh = walks(300, seed=9)
    held = Held([one[:-1] for one in fresh], np.array([one[-1] for one in fresh]))
    found = {}
    for ordered in (True, False):
        model = {"ordered": ordered, "layers": layers if ordered else 0, "dropout": 0.0, "event_dropout": 0.0}
        task = task_of(walks(1500), held, model)
        started = task.validate()
        result = fit(task, LOOP, training_device(), tmp_path, f"ordered {ordered}")
        assert result.best_loss < started
        found[ordered] = recall(task.model.eval(), held)
    assert found[True] > 0.6  # of the .75 that can be known
    assert found[True] > found[False] + 0.2


def test_cut_off_and_gone_on_with_ends_like_undisturbed(tmp_path: Path) -> None:
    loop = LoopConfig(epochs=3, batch_size=32, precision="fp32", checkpoint_seconds=0.0)
    calm = task_of(walks(200))
    for name in ("calm", "cut"):
        (tmp_path / name).mkdir()
    fit(calm, loop, training_device(), tmp_path / "calm", "mark")

    class Cut(SequenceTask):
        steps = 0

        def loss(self, batch: Batch) -> torch.Tensor:
            self.steps += 1
            if self.steps == 11:  # in the second epoch
                raise KeyboardInterrupt
            return super().loss(batch)

    first = task_of(walks(200))
    cut = Cut(first.model, walks(200), NOBODY, first.config)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, loop, training_device(), tmp_path / "cut", "mark")
    again = task_of(walks(200))
    assert fit(again, loop, training_device(), tmp_path / "cut", "mark").resumed
    left, right = calm.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_nobody_engaged_twice() -> None:
    with pytest.raises(DataError, match="engaged twice"):
        task_of([np.array([1]), np.array([2])])


def test_padding_keeps_the_newest() -> None:
    np.testing.assert_array_equal(padded([np.array([1, 2, 3]), np.array([4])], 2), [[2, 3], [4, 0]])
    assert padded([np.zeros(0, dtype=np.int64)], 5).tolist() == [[0]]
