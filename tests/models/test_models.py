"""The towers and the heavy ranker: shapes, arithmetic, gradients, and coming back from a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from training.synthetic import make_examples

from adstool.errors import AdstoolError
from adstool.models.engagement import EngagementConfig, EngagementModel
from adstool.models.inputs import Batch, InputSpec
from adstool.models.registry import count_parameters, load_model, save_model
from adstool.models.two_tower import TwoTower, TwoTowerConfig
from adstool.training.predict import gather

EXAMPLES = make_examples(300)
SPEC = EXAMPLES.spec()


def batch_of(model: torch.nn.Module, rows: slice = slice(0, 16)) -> Batch:
    return gather(EXAMPLES, model.input_names, rows)


def tower(**changes: object) -> TwoTower:
    torch.manual_seed(0)
    return TwoTower(TwoTowerConfig(SPEC, **{"heads": ("click", "save"), **changes})).eval()


def ranker(spec: InputSpec = SPEC, **changes: object) -> EngagementModel:
    torch.manual_seed(0)
    return EngagementModel(EngagementConfig(spec, **changes)).eval()


def test_tower_logits_are_scaled_dot_products_of_unit_vectors() -> None:
    model = tower()
    with torch.no_grad():
        model.log_scale.copy_(torch.tensor([1.0, 9.0]))  # the second is beyond the clamp
        model.bias.copy_(torch.tensor([0.3, -0.2]))
    batch = batch_of(model)
    with torch.no_grad():
        user, item, logits = model.encode_user(batch).numpy(), model.encode_item(batch).numpy(), model(batch)
    assert user.shape == item.shape == (16, 2, 32)
    np.testing.assert_allclose(np.linalg.norm(user, axis=2), 1.0, atol=1e-5)
    expected = (user * item).sum(2) * np.array([np.e, 100.0]) + np.array([0.3, -0.2])
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("blocks", [0, 3])
def test_user_vectors_do_not_depend_on_the_item_nor_item_vectors_on_the_user(blocks: int) -> None:
    model = tower(mask_blocks=blocks)
    batch = batch_of(model)
    changed = {k: v.clone() for k, v in batch.items()}
    changed["categorical"][:, [1, 2]] += 1  # the item's columns
    changed["numeric"][:, 1] += 1.0
    changed["item_content"] += 1.0
    assert torch.equal(model.encode_user(batch), model.encode_user(changed))
    assert not torch.equal(model.encode_item(batch), model.encode_item(changed))
    other = {k: v.clone() for k, v in batch.items()}
    other["categorical"][:, [0, 3]] += 1
    other["numeric"][:, [0, 2]] += 1.0  # the user's column, and the cross column that no tower may read
    assert torch.equal(model.encode_item(batch), model.encode_item(other))
    crossed = {**batch, "numeric": batch["numeric"] + torch.tensor([0.0, 0.0, 5.0])}
    assert torch.equal(model(batch), model(crossed))


def test_towers_need_only_the_inputs_they_name() -> None:
    model = tower()
    batch = batch_of(model)
    user = {name: batch[name] for name in model.user_inputs}
    item = {name: batch[name] for name in model.item_inputs}
    assert torch.equal(model.encode_user(user), model.encode_user(batch))
    assert torch.equal(model.encode_item(item), model.encode_item(batch))
    assert "position" not in model.input_names


def test_engagement_reads_every_input_it_names() -> None:
    model = ranker()
    batch = batch_of(model)
    for name in model.input_names:
        batch[name].requires_grad_(batch[name].is_floating_point())
    model(batch).sum().backward()
    for name, values in batch.items():
        if values.is_floating_point():
            assert values.grad is not None
            assert values.grad.abs().sum() > 0, name
    for name in ("categorical", "history_item", "history_category", "history_action"):
        changed = {**batch, name: (batch[name] + 1) % 3}
        assert not torch.equal(model(batch), model(changed)), name


def test_embedding_gradients_are_sparse_and_only_of_the_rows_read() -> None:
    model = ranker()
    batch = batch_of(model, slice(0, 4))
    model(batch).sum().backward()
    gradient = model.embedding.table.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    touched = set(gradient.coalesce().indices()[0].tolist())
    offsets = np.cumsum([0, *SPEC.cardinalities[:-1]])
    read = set((batch["categorical"].numpy() + offsets).ravel().tolist())
    read |= set((batch["history_item"].numpy() + offsets[1]).ravel().tolist())
    read |= set((batch["history_category"].numpy() + offsets[2]).ravel().tolist())
    assert touched == read


def test_an_item_has_one_vector_in_the_history_and_as_candidate() -> None:
    model = ranker()
    batch = {**batch_of(model), "categorical": torch.full((16, 4), 3), "history_item": torch.full((16, 5), 3)}
    fields, history = model.embedding(batch)
    table, start = model.embedding.table.weight, model.embedding.offsets
    assert history.shape == (16, 5, 16)
    torch.testing.assert_close(fields[:, 1], table[start[1] + 3].expand(16, -1))
    categories = table[start[2] + batch["history_category"]]
    torch.testing.assert_close(history, fields[:, 1:2] + categories)


def test_position_shifts_logits_and_the_first_and_an_unknown_one_do_not() -> None:
    model = ranker()
    assert model.position_bias is not None
    with torch.no_grad():
        model.position_bias.weight.normal_()
    batch = batch_of(model)
    at = {place: model({**batch, "position": torch.full((16,), place)}) for place in (0, 1, 4, 63, 500)}
    assert torch.equal(at[0], at[1])
    shift = (at[4] - at[1]).detach()
    torch.testing.assert_close(shift, model.position_bias.weight[4].detach().expand(16, 2))
    assert torch.equal(at[63], at[500])  # far positions share the last bias


def test_a_flat_table_needs_no_content_history_or_position() -> None:
    flat = InputSpec(("a",), ("context",), (7,), ("x",), ("context",), ("label",))
    model = ranker(flat)
    assert model.input_names == ("categorical", "numeric")
    batch = {"categorical": torch.tensor([[1], [6]]), "numeric": torch.zeros(2, 1)}
    assert model(batch).shape == (2, 1)
    only_numbers = ranker(dataclasses.replace(flat, categorical=(), categorical_sides=(), cardinalities=()))
    empty = {"categorical": torch.zeros(2, 0, dtype=torch.int64), "numeric": torch.zeros(2, 1)}
    assert only_numbers(empty).shape == (2, 1)


def test_id_dropout_hides_large_columns_behind_unknown_buckets() -> None:
    model = ranker(id_dropout=1.0).train()
    seen: list[torch.Tensor] = []
    model.embedding.table.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    batch = batch_of(model)
    model.embedding(batch)
    rows = seen[0][:, :4] - model.embedding.offsets
    assert set(rows[:, 0].tolist()) <= {1, 2}  # 68 codes: an id
    assert torch.equal(rows[:, 3], batch["categorical"][:, 3])  # 4 codes: no id
    model.eval()
    model.embedding(batch)
    assert torch.equal(seen[1][:, :4] - model.embedding.offsets, batch["categorical"])


@pytest.mark.parametrize("kind", ["two_tower", "engagement"])
def test_a_run_folder_gives_the_same_model_back(kind: str, tmp_path: Path) -> None:
    model = tower(mask_blocks=2) if kind == "two_tower" else ranker()
    if isinstance(model, EngagementModel) and model.bins is not None:
        model.bins.set_edges(torch.linspace(-1, 1, 9).repeat(3, 1))
    save_model(tmp_path, kind, model, name="test", outputs=list(model.output_names))
    again = load_model(tmp_path)
    batch = batch_of(model)
    assert torch.equal(again(batch), model(batch))
    assert again.config == model.config
    assert count_parameters(again) == count_parameters(model)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    save_model(tmp_path, "two_tower", tower(), name="test")
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(AdstoolError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_batch_rows_do_not_influence_each_other() -> None:
    model = ranker()
    together = model(batch_of(model, slice(0, 16)))
    alone = model(batch_of(model, slice(5, 6)))
    torch.testing.assert_close(together[5:6], alone, rtol=1e-4, atol=1e-5)
