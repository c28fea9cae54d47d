"""Losses over the entire space against torch's own, hand-worked numbers and exact expectations."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adstool.training.conversion_losses import (
    Observed,
    bucket_loss,
    click_loss,
    dfm_loss,
    dr_loss,
    elapsed_labels,
    entire_loss,
    es_dfm_weights,
    fnw_weights,
    global_loss,
    inverse_propensity,
    ips_loss,
    seen_share,
    value_loss,
)


def seen_of(clicked: list[float], label: list[float]) -> Observed:
    shape = (len(label), 1)
    return Observed(
        clicked=torch.tensor(clicked),
        first=torch.ones(len(label)),
        entered=torch.ones(len(label)),
        label=torch.tensor(label).reshape(shape),
        weight=torch.ones(shape),
        mass=torch.ones(shape),
    )


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def column(*values: float) -> Tensor:
    return torch.tensor(values).unsqueeze(1)


NAN = float("nan")


def test_ips_is_the_hand_worked_number_and_counts_the_propensity_once() -> None:
    seen = seen_of([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, NAN, NAN])
    click = torch.full((4,), logit(0.25))
    cvr = torch.full((4, 1), logit(0.2))
    want = 4.0 * (-math.log(0.2) - math.log(0.8)) / 4
    assert ips_loss(click, cvr, seen, clip=15).item() == pytest.approx(want, rel=1e-5)
    assert ips_loss(click, cvr, seen, clip=2).item() == pytest.approx(want / 2, rel=1e-5)


def test_the_propensity_takes_no_gradient() -> None:
    seen = seen_of([1.0, 0.0], [1.0, NAN])
    click = torch.zeros(2, requires_grad=True)
    cvr = torch.zeros(2, 1, requires_grad=True)
    ips_loss(click, cvr, seen, clip=15).backward()
    assert click.grad is None
    assert cvr.grad is not None
    assert cvr.grad[1].item() == 0.0, "an impression without a click says nothing of conversions given one"
    assert inverse_propensity(torch.tensor([-9.0]), 15).item() == 15.0


def test_the_global_loss_is_cross_entropy_of_the_product() -> None:
    seen = seen_of([1.0, 1.0, 0.0], [1.0, 0.0, NAN])
    click, cvr = torch.tensor([0.3, -1.0, -2.0]), column(-1.0, 0.5, 1.5)
    product = torch.sigmoid(click).unsqueeze(1) * torch.sigmoid(cvr)
    want = functional.binary_cross_entropy(product, column(1.0, 0.0, 0.0))
    assert global_loss(click, cvr, seen).item() == pytest.approx(want.item(), rel=1e-5)


def test_clicks_are_counted_by_impression_not_by_observation() -> None:
    seen = seen_of([1.0, 0.0, 1.0], [0.0, NAN, 1.0])
    again = dataclasses.replace(seen, first=torch.tensor([1.0, 1.0, 0.0]))
    logits = torch.tensor([0.2, -0.7, 3.0])
    want = functional.binary_cross_entropy_with_logits(logits[:2], torch.tensor([1.0, 0.0]))
    assert click_loss(logits, again).item() == pytest.approx(want.item(), rel=1e-6)


@pytest.mark.parametrize("imputed", [0.1, 0.6])
def test_doubly_robust_gives_the_full_loss_whatever_is_imputed(imputed: float) -> None:
    """With true propensities the mean over who clicks is the loss of everyone's labels."""
    label, cvr, p = [1.0, 0.0], column(0.4, -0.3), 0.25
    click, guess = torch.full((2,), logit(p)), torch.full((2, 1), logit(imputed))
    full = functional.binary_cross_entropy_with_logits(cvr, column(*label))
    mean = torch.zeros(2, 1)
    for clicked, chance in [
        ((a, b), (p if a else 1 - p) * (p if b else 1 - p)) for a in (0, 1) for b in (0, 1)
    ]:
        seen = seen_of(
            [float(c) for c in clicked], [y if c else NAN for y, c in zip(label, clicked, strict=True)]
        )
        x = cvr.clone().requires_grad_()
        dr_loss(click, x, guess, seen, clip=15).backward()
        assert x.grad is not None
        mean += chance * x.grad
    x = cvr.clone().requires_grad_()
    functional.binary_cross_entropy_with_logits(x, column(*label)).backward()
    assert x.grad is not None
    assert full.isfinite()
    torch.testing.assert_close(mean, x.grad)


def test_the_imputation_learns_from_clicks_only() -> None:
    seen = seen_of([1.0, 0.0], [1.0, NAN])
    guess = column(-1.0, -1.0).requires_grad_()
    dr_loss(torch.zeros(2), column(-0.5, -0.5), guess, seen, clip=15).backward()
    assert guess.grad is not None
    assert guess.grad[0].item() != 0.0
    assert guess.grad[1].item() == 0.0


@pytest.mark.parametrize("early", [0.0, 0.05, 0.2])
def test_the_weights_bring_back_the_final_rate(early: float) -> None:
    """Expected observations of a click with p = .3, `early` within the wait: weighted they give p."""
    p, late = 0.3, 0.3 - early
    one, none = column(1.0), column(0.0)
    never = torch.tensor([[(1 - p) / (1 - early)]])
    positive, mass = es_dfm_weights(one, torch.tensor([[late]]), never)
    negative, _ = es_dfm_weights(none, torch.tensor([[late]]), never)
    up, down = p * positive, (1 - early) * negative
    assert (up / (up + down)).item() == pytest.approx(p, rel=1e-5)
    assert ((up + down) / mass).item() == pytest.approx(1.0, rel=1e-5)
    positive, mass = fnw_weights(one, torch.tensor([[p]]))
    negative, _ = fnw_weights(none, torch.tensor([[p]]))
    up, down = p * positive, negative
    assert (up / (up + down)).item() == pytest.approx(p, rel=1e-5)
    assert ((up + down) / mass).item() == pytest.approx(1.0, rel=1e-5)


def test_weights_take_no_gradient() -> None:
    p = torch.full((1, 1), 0.3, requires_grad=True)
    weights = [*fnw_weights(column(0.0), p), *es_dfm_weights(column(0.0), p, p)]
    assert not any(weight.requires_grad for weight in weights)


def test_exponential_delay_is_the_likelihood() -> None:
    seen = seen_of([1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, NAN])
    rate, p = 0.7, 0.2
    days = column(1.5, 2.0, math.inf, 0.0)
    raw = torch.full((4, 1), math.log(math.expm1(rate)))
    want = -(math.log(p) + math.log(rate) - rate * 1.5)
    want -= math.log(1 - p + p * math.exp(-rate * 2.0)) + math.log(1 - p)
    got = dfm_loss(torch.full((4, 1), logit(p)), raw, seen, days)
    assert got.item() == pytest.approx(want / 4, rel=1e-4)


EDGES = torch.tensor([0.0, 1.0, 3.0, 8.0])


def test_the_share_seen_by_an_age_is_linear_between_edges() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).expand(1, 1, 3)
    ages = (0.0, 0.5, 1.0, 2.0, 3.0, 5.5, 8.0, 99.0)
    found = [seen_share(logits, torch.tensor([[age]]), EDGES).item() for age in ages]
    assert found == pytest.approx([0.0, 0.25, 0.5, 0.65, 0.8, 0.9, 1.0, 1.0], abs=1e-6)


def test_a_click_without_a_conversion_counts_as_the_part_that_is_to_come() -> None:
    """p = .4, a quarter of conversions still to come: (.4 * .25) / (.6 + .4 * .25)."""
    label = column(0.0, 1.0, NAN, 0.0)
    found = elapsed_labels(torch.full((4, 1), logit(0.4)), column(0.75, 0.1, 0.1, 1.0), label)
    assert found[0].item() == pytest.approx(0.1 / 0.7, rel=1e-5)
    assert found[1].item() == 1.0
    assert found[2].isnan()
    assert found[3].item() == 0.0


def test_the_part_to_come_has_the_gradient_of_the_likelihood() -> None:
    share = column(0.3, 0.8)
    x = column(-0.4, 1.2).requires_grad_()
    label = elapsed_labels(x, share, torch.zeros(2, 1))
    functional.binary_cross_entropy_with_logits(x, label, reduction="sum").backward()
    y = column(-0.4, 1.2).requires_grad_()
    (-torch.log1p(-torch.sigmoid(y) * share)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_delays_are_learned_from_clicks_too_young_to_have_shown_all_of_them() -> None:
    """Exponential delays, mean 2 days; clicks of every age up to 16 days, more of them of late."""
    rng = torch.Generator().manual_seed(0)
    age = 16.0 * (1.0 - torch.rand(20_000, generator=rng).sqrt())
    days = -2.0 * torch.rand(20_000, generator=rng).log()
    seen = (days < age) & (days < 8.0)
    label, days = seen.float().unsqueeze(1), torch.where(seen, days, torch.inf).unsqueeze(1)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = bucket_loss(logits.expand(len(age), 1, 3), label, days, age, EDGES)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = torch.cumsum(torch.softmax(logits.detach(), 0), 0)[:2].tolist()
    want = [(1 - math.exp(-t / 2)) / (1 - math.exp(-4)) for t in (1.0, 3.0)]
    assert found == pytest.approx(want, abs=0.04)
    raw = [(days < t).sum().item() / seen.sum().item() for t in (1.0, 3.0)]
    assert raw[1] > want[1] + 0.02, "what was reported so far is faster than what will be"


def test_the_likelihood_of_a_batch_is_the_hand_worked_one() -> None:
    seen = seen_of([1.0, 1.0, 0.0], [1.0, 0.0, NAN])
    click, cvr = torch.full((3,), logit(0.5)), torch.full((3, 1), logit(0.4))
    clicks = 3 * math.log(2)
    plain = entire_loss(click, cvr, seen, None).item()
    assert plain == pytest.approx(clicks - math.log(0.4) - math.log(0.6), rel=1e-5)
    aged = entire_loss(click, cvr, seen, column(0.5, 0.5, 0.5)).item()
    assert aged == pytest.approx(clicks - math.log(0.4) - math.log(1 - 0.4 * 0.5), rel=1e-5)


def test_money_is_learned_as_its_mean_or_the_mean_of_its_logarithm() -> None:
    money = column(0.0, 2.0, 10.0, NAN)
    for kind, mean in (("tweedie", 4.0), ("lognormal", math.sqrt(20.0))):
        eta = torch.tensor(math.log(mean), requires_grad=True)
        value_loss(eta.expand(4, 1), money, kind).backward()
        assert eta.grad is not None
        assert eta.grad.item() == pytest.approx(0.0, abs=1e-6)
        above = value_loss(torch.full((4, 1), math.log(mean) + 0.5), money, kind)
        below = value_loss(torch.full((4, 1), math.log(mean) - 0.5), money, kind)
        assert value_loss(torch.full((4, 1), math.log(mean)), money, kind) < min(above, below)
