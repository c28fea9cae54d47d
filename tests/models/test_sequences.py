"""Sequence encoders against torch's own layers, numpy and brute force; what the serving path relies on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from models.specs import SPEC
from models.test_trunks import ranker
from torch import nn
from training.synthetic import make_examples

from adstool.errors import UsageError
from adstool.features.engagements import NEAREST_INPUTS, SHARED_INPUTS
from adstool.models.inputs import Batch
from adstool.models.registry import save_model
from adstool.models.sequences import (
    ENCODERS,
    EncoderLayer,
    Events,
    Hstu,
    HstuLayer,
    ItemTokens,
    SequenceConfig,
    TransAct,
    hats,
)
from adstool.serving.export import export_run, random_inputs
from adstool.serving.scorer import Scorer, as_served
from adstool.training.predict import gather
from adstool.training.sequences import HISTORY_INPUTS, forget_newest

SMALL = SequenceConfig(sequence="transact", sequence_dim=4, sequence_heads=2, sequence_latest=3)
ACTION = torch.tensor([[1, 2, 1, 3, 2], [2, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
AGE = torch.tensor([[0.1, 0.5, 1.5, 3.0, 9.0], [0.2, 2.0, 0, 0, 0], [0.0] * 5])


def torchs_layer(ours: EncoderLayer, width: int, hidden: int) -> nn.TransformerEncoderLayer:
    """torch's post-norm layer with our weights."""
    theirs = nn.TransformerEncoderLayer(width, ours.heads, hidden, 0.0, batch_first=True)
    pairs = {
        "self_attn.in_proj_weight": ours.project.weight,
        "self_attn.in_proj_bias": ours.project.bias,
        "self_attn.out_proj.weight": ours.output.weight,
        "self_attn.out_proj.bias": ours.output.bias,
        "linear1.weight": ours.mlp[0].weight,
        "linear1.bias": ours.mlp[0].bias,
        "linear2.weight": ours.mlp[2].weight,
        "linear2.bias": ours.mlp[2].bias,
        "norm1.weight": ours.first.weight,
        "norm1.bias": ours.first.bias,
        "norm2.weight": ours.second.weight,
        "norm2.bias": ours.second.bias,
    }
    theirs.load_state_dict({name: value.detach() for name, value in pairs.items()})
    return theirs


def test_transact_is_torchs_transformer_over_the_whole_tokens() -> None:
    """Every token written out as [action + age; item; candidate], padding masked, maximum and newest."""
    torch.manual_seed(0)
    model = TransAct(3, 5, SMALL, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    items, candidate = torch.randn(3, 5, 4), torch.randn(3, 4)
    x = torch.cat([model.event(Events(items, ACTION, AGE)), items, candidate[:, None].repeat(1, 5, 1)], dim=2)
    padding = ACTION == 0
    padding[2] = False  # a row of padding only: torch has no attention for it, ours is checked below
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer)
        x = torchs_layer(layer, 12, SMALL.sequence_hidden)(x, src_key_padding_mask=padding)
    got = model(Events(items, ACTION, AGE), candidate)
    assert got.shape == (3, model.width) == (3, 48)
    for row, events in ((0, 5), (1, 2)):
        newest = torch.zeros(3, 12)
        newest[: min(events, 3)] = x[row, : min(events, 3)]
        wanted = torch.cat([model.pool(x[row, :events].amax(dim=0)), newest.flatten()])
        torch.testing.assert_close(got[row], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[2], torch.cat([model.pool.bias, torch.zeros(36)]))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1.0 + np.exp(-x))


def normal(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def dense(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    out = x @ layer.weight.detach().numpy().astype(np.float64).T
    return out if layer.bias is None else out + layer.bias.detach().numpy()


def hstu_by_hand(
    layer: HstuLayer, x: np.ndarray, hours: np.ndarray, place: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """One layer over one sequence that holds the history and every candidate, pair by pair."""
    heads, dim = layer.heads, x.shape[1]
    u, v, q, k = np.split(silu(dense(layer.project, normal(x))), 4, axis=1)
    time, distance = layer.time.weight.detach().numpy(), layer.distance.detach().numpy()
    seen, size = np.zeros_like(x), dim // heads
    for i, j in zip(*np.nonzero(mask), strict=True):
        knot = np.log1p(max(hours[j] - hours[i], 0.0))
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            score = q[i, part] @ k[j, part] + distance[head, place[j] - place[i]]
            score += np.interp(knot, np.arange(9), time[head]) if i != j or place[i] else 0.0
            seen[i, part] += silu(score) / layer.size * v[j, part]
    return x + dense(layer.output, normal(seen) * u)


def test_hstu_is_one_masked_sequence_of_history_and_candidates() -> None:
    torch.manual_seed(0)
    config = SequenceConfig(sequence="hstu", sequence_dim=6, sequence_layers=3)
    model = Hstu(3, 5, config, 0.0)
    with torch.no_grad():
        for layer in model.layers:
            layer.distance.normal_()
            layer.time.weight.normal_()
    items, candidates = torch.randn(1, 5, 6), torch.randn(4, 6)
    for row, events in ((0, 5), (1, 2), (2, 0)):
        action, age = ACTION[row : row + 1], AGE[row : row + 1]
        with torch.no_grad():
            got = model(Events(items, action, age), candidates)
            past = (items[0] + model.event(action[0]))[:events].numpy().astype(np.float64)
            ends = (candidates + model.event.weight[0]).numpy().astype(np.float64)
        # Events newest first at places 1 .. events, then the candidates, all at place 0.
        x = np.concatenate([past, ends])
        place = np.array([*range(1, events + 1), 0, 0, 0, 0])
        hours = np.concatenate([np.expm1(age[0, :events].numpy().astype(np.float64)), np.zeros(4)])
        mask = (place[None, :] > place[:, None]) | np.eye(len(x), dtype=bool)
        for layer in model.layers:
            x = hstu_by_hand(layer, x, hours, place, mask)
        np.testing.assert_allclose(got.numpy(), normal(x[events:]), rtol=2e-3, atol=2e-4)


def test_ages_between_knots_are_interpolated() -> None:
    rng = np.random.default_rng(0)
    ages, values = rng.uniform(-1, 10, 200), rng.normal(size=9)
    got = hats(torch.tensor(ages), 9).numpy() @ values
    np.testing.assert_allclose(got, np.interp(ages, np.arange(9), values), atol=1e-9)


def test_an_item_nobody_has_seen_is_told_apart_by_its_content() -> None:
    torch.manual_seed(0)
    tokens = ItemTokens(8, 6, 4)
    shared = torch.randn(8)  # the rows of a shared bucket and of a category
    first, second = tokens(shared.expand(2, -1), torch.eye(6)[:2])
    assert (first - second).abs().max() > 0.05
    weight, bias = tokens.fields.weight, tokens.fields.bias
    plain = weight @ shared + bias + tokens.content.weight[:, 0]
    torch.testing.assert_close(first, (plain - plain.mean()) / (plain.var(unbiased=False) + 1e-5).sqrt())


def sequence_ranker(kind: str, **changes: object) -> nn.Module:
    model = ranker(sequence=kind, sequence_dim=8, **changes)
    nn.init.ones_(model.sequence_gain)
    return model


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_scores_depend_on_a_candidate_and_its_history_only(kind: str, tmp_path: Path) -> None:
    """The same candidate scores the same whoever is ranked with it, in torch and as served."""
    model = sequence_ranker(kind)
    save_model(tmp_path, "engagement", model, outputs=list(model.output_names))
    export_run(tmp_path)
    scorer = Scorer(tmp_path)
    inputs = random_inputs(SPEC, 40, 0, seed=3)
    for name in SHARED_INPUTS:
        inputs[name] = inputs[name][torch.argmax((inputs["history_action"] > 0).sum(dim=1))].expand_as(
            inputs[name]
        )
    with torch.no_grad():
        trained = torch.sigmoid(model(inputs)).numpy()
        one = torch.sigmoid(model(one_history(inputs))).numpy()
    served = as_served({name: value.numpy() for name, value in inputs.items()})
    assert trained.std(axis=0).min() > 0.01
    np.testing.assert_allclose(one, trained, atol=1e-5)
    np.testing.assert_allclose(scorer.predict(served), trained, atol=1e-5)
    for rows in (slice(7, 8), slice(0, 9), slice(39, None, -1)):
        some = {k: v if k in SHARED_INPUTS else np.ascontiguousarray(v[rows]) for k, v in served.items()}
        np.testing.assert_allclose(scorer.predict(some), trained[rows], atol=1e-5)


def one_history(inputs: Batch) -> Batch:
    return {name: value[:1] if name in SHARED_INPUTS else value for name, value in inputs.items()}


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_the_history_matters_and_what_lies_behind_its_end_does_not(kind: str) -> None:
    model = sequence_ranker(kind)
    inputs = random_inputs(SPEC, 30, 4, seed=5)
    wanted = model(inputs)
    behind = inputs["history_action"] == 0
    dirty = {name: value.clone() for name, value in inputs.items()}
    dirty["history_content"][behind] = 7.0
    dirty["history_item"][behind], dirty["history_age"][behind] = 5, 2.0
    torch.testing.assert_close(model(dirty), wanted)
    some = (~behind).any(dim=1)
    for name in ("history_content", "history_age"):
        other = model({**inputs, name: inputs[name] * 1.5})
        changed = (other - wanted).abs().amax(dim=1) > 1e-6
        assert changed[some].all(), name
        assert not changed[~some].any(), name


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_events_near_to_a_candidate_are_read_as_those_of_its_history(kind: str) -> None:
    """Only their content, action and age decide; padding does not; each candidate has its own."""
    model = sequence_ranker(kind, long_history=5)
    inputs = random_inputs(SPEC, 30, 4, seed=6, long_history=5)
    wanted = model(inputs)
    behind = inputs["nearest_action"] == 0
    some = (~behind).any(dim=1)
    assert 0 < int(some.sum()) < 30
    dirty = {name: value.clone() for name, value in inputs.items()}
    dirty["nearest_content"][behind] = 7.0
    dirty["nearest_item"][behind], dirty["nearest_age"][behind] = 5, 2.0
    torch.testing.assert_close(model(dirty), wanted)
    for name in NEAREST_INPUTS:
        value = inputs[name]
        other = torch.where(value > 0, value % 2 + 1, 0) if not value.is_floating_point() else value * 1.5
        changed = (model({**inputs, name: other}) - wanted).abs().amax(dim=1) > 1e-6
        assert changed[some].any(), name
        assert not changed[~some].any(), name


def test_the_newest_events_are_forgotten_as_if_they_had_not_arrived() -> None:
    examples = make_examples(400)
    names = ("history_item", "history_category", "history_action", "history_age", "history_content")
    assert set(names) == set(HISTORY_INPUTS)
    before = gather(examples, names, slice(0, 400), 5)
    for name, order in (("history_age", before["history_age"]),):  # newest first, as histories are
        order[before["history_action"] == 0] = 99.0
        place = order.argsort(dim=1, stable=True)
        for other in names:
            before[other] = before[other][torch.arange(400)[:, None], place]
        before[name][before["history_action"] == 0] = 0.0
    after = {name: value.clone() for name, value in before.items()}
    forget_newest(after, 24.0, np.random.default_rng(8))
    windows = np.random.default_rng(8).random(400) * 24.0
    forgotten = 0
    for row in range(400):
        kept = [
            place
            for place in range(5)
            if before["history_action"][row, place] > 0
            and np.expm1(float(before["history_age"][row, place])) >= windows[row]
        ]
        forgotten += int((before["history_action"][row] > 0).sum()) - len(kept)
        for name in names:
            assert torch.equal(after[name][row, : len(kept)], before[name][row, kept])
            assert not after[name][row, len(kept) :].any()
    near = {name.replace("history", "nearest"): value.clone() for name, value in before.items()}
    forget_newest(both := {**before, **near}, 24.0, np.random.default_rng(8))
    for name in names:  # the same window for the history and for the events near to the candidate
        assert torch.equal(both[name.replace("history", "nearest")], after[name])
    assert forgotten > 200
    assert (after["history_action"] > 0).sum() > 200


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(UsageError, match="no sequence encoder 'transakt'"):
        sequence_ranker("transakt")
    for kind in ENCODERS:
        with pytest.raises(UsageError, match="does not divide"):
            sequence_ranker(kind, sequence_heads=5)
    flat = dataclasses.replace(SPEC, history_length=0)
    with pytest.raises(UsageError, match="there are none to read"):
        ranker(flat, sequence="transact")
    with pytest.raises(UsageError, match="long_history needs"):
        ranker(long_history=4)
    with pytest.raises(UsageError, match="time_mask_hours"):
        sequence_ranker("transact", time_mask_hours=-1.0)
    with pytest.raises(UsageError, match="sequence_layers"):
        sequence_ranker("hstu", sequence_layers=0)
