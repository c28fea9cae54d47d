"""The user's vector from a sequence: what it may see, and what it is before any training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adstool.models.user_sequence import UserSequence, UserSequenceConfig


def made(**changes: object) -> UserSequence:
    torch.manual_seed(1)
    model = UserSequence(UserSequenceConfig(items=30, dim=8, length=6, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter is not model.table.weight:
                parameter.normal_(std=0.3)  # no layer is left as the nothing it starts as
    return model.eval()


def test_the_state_is_the_decayed_mean_through_the_matrix() -> None:
    model = made()
    table, matrix = model.table.weight.detach().numpy(), model.project.weight.detach().numpy()
    weight = np.exp(-0.35 * np.arange(3)[::-1])
    mean = weight @ table[[4, 9, 2]] / weight.sum()
    state = model.states(torch.tensor([[4, 9, 2, 0, 0]]), torch.tensor([0]), torch.tensor([2]))
    np.testing.assert_allclose(state.detach().numpy()[0], matrix @ mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layers", [0, 2])
def test_a_position_sees_nothing_after_it(layers: int) -> None:
    model = made(layers=layers)
    row, place = torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2])
    short = model.states(torch.tensor([[4, 9, 2]]), row, place)
    longer = model.states(torch.tensor([[4, 9, 2, 7, 7, 5]]), row, place)
    torch.testing.assert_close(short, longer)
    other = model.states(torch.tensor([[5, 9, 2]]), row, place)
    assert (short - other).abs().amax(dim=1).min() > 1e-3  # and everything before it


def test_order_counts_unless_it_is_not_asked_for() -> None:
    there, back = torch.tensor([[4, 9, 2]]), torch.tensor([[2, 9, 4]])
    ordered, plain = made(), made(ordered=False)
    assert (ordered.user_vectors(there) - ordered.user_vectors(back)).abs().max() > 1e-2
    torch.testing.assert_close(plain.user_vectors(there), plain.user_vectors(back))


@pytest.mark.parametrize("layers", [0, 1])
def test_the_product_of_the_vectors_is_the_logit(layers: int) -> None:
    model = made(layers=layers)
    items = torch.tensor([[4, 9, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
    codes = torch.tensor([1, 5, 29])
    product = model.user_vectors(items) @ model.item_vectors(codes).T
    states = model.states(items, torch.arange(3), torch.tensor([2, 0, 0]))
    torch.testing.assert_close(product, model.logits(states, codes))
    if layers == 0:  # who has no past is shown what is popular
        torch.testing.assert_close(product[2], model.bias(codes)[:, 0])
    assert math.isclose(float(model.scale().detach()), 10.0, rel_tol=1e-5)
