"""The conversion model over every trunk: what is served of it, and what training reads beside."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from models.specs import SPEC, stirred

from adstool.errors import UsageError
from adstool.models.conversion import ConversionConfig, ConversionModel
from adstool.models.inputs import config_to_json
from adstool.models.registry import build_model, load_model, save_model
from adstool.models.trunks import TRUNKS
from adstool.serving.export import export_run, random_inputs
from adstool.serving.scorer import Scorer

OUTPUTS = ("click", "purchase", "signup", "cart")
CONFIG = ConversionConfig(SPEC, history_used=4, outputs=OUTPUTS, aside=("rate:purchase", "imputed:purchase"))


def model_of(**changes: object) -> ConversionModel:
    """A model all of whose weights matter: those that start at zero are moved."""
    torch.manual_seed(0)
    model = ConversionModel(dataclasses.replace(CONFIG, **changes)).eval()
    return stirred(model)


@pytest.mark.parametrize("changes", [*({"trunk": name} for name in TRUNKS), {"multitask": "mmoe"}], ids=str)
def test_the_served_outputs_are_those_trained(changes: dict[str, object], tmp_path: Path) -> None:
    model = model_of(**changes)
    assert build_model("conversion", config_to_json(model.config)).config == model.config
    save_model(tmp_path, "conversion", model, outputs=list(model.output_names))
    export_run(tmp_path)
    inputs = random_inputs(SPEC, 65, 0, seed=3)
    with torch.no_grad():
        wanted = torch.sigmoid(model(inputs)).numpy()
        assert torch.equal(load_model(tmp_path)(inputs), model(inputs))
    exact = Scorer(tmp_path).predict({name: value.numpy() for name, value in inputs.items()})
    assert exact.shape == (65, len(OUTPUTS))
    np.testing.assert_allclose(exact, wanted, atol=1e-5)
    assert exact.std(axis=0).min() > 0.001


def test_training_reads_the_outputs_aside_too() -> None:
    model = model_of()
    inputs = random_inputs(SPEC, 5, 4, seed=1)
    every, _ = model.with_penalty(inputs)
    assert every.shape == (5, 6)
    torch.testing.assert_close(model(inputs), every[:, :4])


def test_a_kind_has_a_tower_of_its_own_over_one_trunk() -> None:
    model = model_of()
    model(random_inputs(SPEC, 8, 4, seed=1))[:, 2].sum().backward()
    assert model.heads.towers is not None
    moved = [
        any(p.grad is not None and bool(p.grad.any()) for p in t.parameters()) for t in model.heads.towers
    ]
    assert moved == [False, False, True, False]
    assert all(p.grad is not None for p in model.trunk.parameters())


def test_biases_start_at_the_rates() -> None:
    model = model_of()
    with torch.no_grad():
        model.heads.weight.zero_()
        model.heads.aside.weight.zero_()
    model.set_biases(torch.tensor([0.04, 0.02, 0.3, 0.1, 0.6, 0.2]))
    inputs = random_inputs(SPEC, 3, 4, seed=1)
    inputs["position"] = torch.ones_like(inputs["position"])
    want = torch.tensor([[0.04, 0.02, 0.3, 0.1, 0.6, 0.2]]).expand(3, 6)
    torch.testing.assert_close(torch.sigmoid(model.with_penalty(inputs)[0]), want)


def test_what_cannot_be_built_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="kind of conversion"):
        ConversionModel(dataclasses.replace(CONFIG, outputs=("click",)))
    with pytest.raises(UsageError, match="surface_towers"):
        ConversionModel(dataclasses.replace(CONFIG, surface_towers=True))
