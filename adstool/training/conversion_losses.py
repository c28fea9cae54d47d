"""Losses over the entire space of impressions, and weights for conversions that are yet to be reported.

Shapes: B rows, K kinds of conversion. A row is an impression as it was observed at some moment (see
adstool.training.delay): `label` [B, K] is 1, 0, or nan where the row says nothing of the kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SMALL = 1e-6


@dataclass(frozen=True)
class Observed:
    """What a batch of observations says."""

    clicked: Tensor  # [B], 1 or 0
    first: Tensor  # [B], 1: the impression itself; 0: its conversion, taken in again when reported
    entered: Tensor  # [B], 0 for impressions too recent to say anything of conversions
    label: Tensor  # [B, K]; nan where unknown, and wherever there is no click
    weight: Tensor  # [B, K], detached: p(label) in the end over p(label) as observed
    mass: Tensor  # [B, K], detached: expected observations a click; weight / mass sums to one click

    @property
    def known(self) -> Tensor:
        """[B, K]: whether the row is a click that says something of the kind."""
        return ~torch.isnan(self.label) & (self.clicked > 0).unsqueeze(1)

    @property
    def target(self) -> Tensor:
        """The label with 0 where unknown."""
        return torch.nan_to_num(self.label)

    @property
    def impressions(self) -> Tensor:
        """How many impressions the batch holds, at least 1."""
        return self.first.sum().clamp_min(1.0)


def fnw_weights(label: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and masses of fake negatives (Ktena et al. 2019, eq. 12), for labels [B, K] and p = p(y|x).

    Every click enters as a negative at once, and again as a positive when it converts, so that of 1 + p
    observations p are positive: positives weigh 1 + p, negatives (1 - p)(1 + p). `p` is detached here.
    """
    p = p.detach()
    return torch.where(label > 0, 1.0 + p, (1.0 - p) * (1.0 + p)), 1.0 + p


def es_dfm_weights(label: Tensor, p_late: Tensor, p_true_negative: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and masses under an elapsed time (Yang et al. 2021, eq. 12 to 15).

    A click enters after a wait, positive if it has converted by then, and again as a positive when it
    converts later. `p_late` = p(converts after the wait | x), `p_true_negative` = p(never converts | not
    within the wait, x): positives weigh 1 + p_late, negatives (1 + p_late) p_true_negative. Detached here.
    """
    mass = 1.0 + p_late.detach()
    return torch.where(label > 0, mass, mass * p_true_negative.detach()), mass


def delay_weights(
    method: str,
    cvr_logit: Tensor,
    late_logit: Tensor | None,
    label: Tensor,
    corrected: Tensor,
    repeat: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weights and masses [B, K] of `method` where `corrected` [B], else 1; times `repeat` [B].

    es-dfm reads p(late | converts) = sigmoid(`late_logit`) [B, K] of the auxiliary output beside the model's
    own p: p_late = p p(late | converts), and p(never | not within the wait) = (1 - p) / (1 - p + p_late).
    """
    p = torch.sigmoid(cvr_logit.detach())
    one = torch.ones_like(p)
    weight, mass = one, one
    if method == "fnw":
        weight, mass = fnw_weights(label, p)
    elif method == "es-dfm":
        assert late_logit is not None
        p_late = p * torch.sigmoid(late_logit.detach())
        weight, mass = es_dfm_weights(label, p_late, (1.0 - p) / (1.0 - p + p_late))
    applies = corrected.unsqueeze(1) > 0
    return torch.where(applies, weight, one) * repeat.unsqueeze(1), torch.where(applies, mass, one)


def seen_share(bucket_logits: Tensor, days: Tensor, edges: Tensor) -> Tensor:
    """The share [B, K] of conversions reported within `days` [B, 1] or [B, K] of a click.

    Delays have a density that is constant between the edges [N + 1] in days; bucket_logits [B, K, N].
    """
    width = edges[1:] - edges[:-1]
    part = ((days.unsqueeze(2) - edges[:-1]) / width).clamp(0.0, 1.0)
    return (torch.softmax(bucket_logits, dim=2) * part).sum(dim=2)


def elapsed_labels(cvr_logit: Tensor, seen: Tensor, label: Tensor) -> Tensor:
    """Labels [B, K] in which a click without a conversion counts as the part of one that is yet to come.

    With p of the model and the share `seen` of conversions that its age would have shown, that part is
    p (1 - seen) / (1 - p seen): the expectation step of Chapelle (2014) for any distribution of delays, so
    that the gradient is that of -ln(1 - p seen). Detached here.
    """
    p, seen = torch.sigmoid(cvr_logit.detach()), seen.detach()
    return torch.where(label == 0, p * (1.0 - seen) / (1.0 - p * seen).clamp_min(SMALL), label)


def bucket_loss(bucket_logits: Tensor, label: Tensor, days: Tensor, age: Tensor, edges: Tensor) -> Tensor:
    """Minus the mean log likelihood of the delays `days` [B, K] of conversions that were reported.

    A click of `age` [B] days can only have shown shorter delays, so each is judged among the buckets that
    have ended by then (right truncation): -ln(share of its bucket / share of those). Any click counts,
    however recent; a delay in the bucket that its click is in says nothing: its density there is not flat.
    """
    ended = (edges[1:] <= age.unsqueeze(1)).unsqueeze(1)  # [B, 1, N]
    bucket = torch.bucketize(torch.where(torch.isfinite(days), days, 0.0), edges[1:-1])
    known = (
        (label == 1)
        & torch.isfinite(days)
        & ended.expand(-1, label.shape[1], -1).gather(2, bucket.unsqueeze(2)).squeeze(2)
    )
    log_share = torch.log_softmax(bucket_logits, dim=2)
    possible = torch.logsumexp(log_share.masked_fill(~ended, -1e4), dim=2)
    log_share = log_share.gather(2, bucket.unsqueeze(2)).squeeze(2)
    return (torch.where(known, possible - log_share, 0.0)).sum() / known.sum().clamp_min(1.0)


def inverse_propensity(click_logit: Tensor, clip: float) -> Tensor:
    """1 / p(click), at most `clip`, detached (Wang et al. 2022, section 3.2)."""
    return (1.0 / torch.sigmoid(click_logit.detach()).clamp_min(SMALL)).clamp_max(clip)


def click_loss(click_logit: Tensor, seen: Observed) -> Tensor:
    """Cross entropy of clicks over the impressions."""
    loss = functional.binary_cross_entropy_with_logits(click_logit, seen.clicked, reduction="none")
    return (loss * seen.first).sum() / seen.impressions


def ips_loss(click_logit: Tensor, cvr_logit: Tensor, seen: Observed, clip: float) -> Tensor:
    """mean over impressions of o e / p(click) (ESCM2-IPS, Wang et al. 2022, eq. 8), summed over kinds.

    The propensity enters once; o is the click.
    """
    error = functional.binary_cross_entropy_with_logits(cvr_logit, seen.target, reduction="none")
    weight = seen.weight * seen.known * inverse_propensity(click_logit, clip).unsqueeze(1)
    return (error * weight).sum() / seen.impressions


def plain_loss(cvr_logit: Tensor, seen: Observed) -> Tensor:
    """Cross entropy of conversions over the clicks of the batch, summed over kinds."""
    error = functional.binary_cross_entropy_with_logits(cvr_logit, seen.target, reduction="none")
    return (error * seen.weight * seen.known).sum() / (seen.first * seen.clicked).sum().clamp_min(1.0)


@torch.no_grad()
def entire_loss(click: Tensor, cvr: Tensor, seen: Observed, share: Tensor | None) -> Tensor:
    """Summed log loss of clicks over impressions and of conversions over clicks: minus the log likelihood.

    With the share [B, K] of conversions that a click's age would have shown, none by now is -ln(1 - p share).
    """
    clicked = functional.binary_cross_entropy_with_logits(click, seen.clicked, reduction="none")
    if share is None:
        error = functional.binary_cross_entropy_with_logits(cvr, seen.target, reduction="none")
    else:
        waiting = -torch.log1p(-(torch.sigmoid(cvr) * share).clamp_max(1.0 - SMALL))
        error = torch.where(seen.target == 1, -functional.logsigmoid(cvr), waiting)
    return (clicked * seen.first).sum() + (error * seen.weight / seen.mass * seen.known).sum()


def late_loss(late_logit: Tensor, late: Tensor, repeat: Tensor) -> Tensor:
    """Cross entropy of coming after the wait [B, K], nan where not known, weighed by `repeat` [B]; a mean."""
    known = ~torch.isnan(late)
    target = torch.nan_to_num(late)
    error = functional.binary_cross_entropy_with_logits(late_logit, target, reduction="none")
    return (error * known * repeat.unsqueeze(1)).sum() / known.sum().clamp_min(1.0)


def value_loss(logit: Tensor, value: Tensor, kind: str) -> Tensor:
    """Loss of money [B, K] a conversion, nan where there is none, in units of its scale, as exp(`logit`).

    tweedie: the deviance of compound Poisson-gamma of power 1.5 (Jorgensen 1987), up to a constant; money may
    be 0, and its mean is learned as it is. lognormal: squared error of logarithms, of money above 0.
    """
    known = ~torch.isnan(value)
    money = torch.nan_to_num(value)
    if kind == "lognormal":
        known = known & (money > 0)
        error = 0.5 * (logit - money.clamp_min(SMALL).log()) ** 2
    else:
        error = 2.0 * money * torch.exp(-0.5 * logit) + 2.0 * torch.exp(0.5 * logit)
    return torch.where(known, error, 0.0).sum() / known.sum().clamp_min(1.0)


def dr_loss(
    click_logit: Tensor, cvr_logit: Tensor, imputed_logit: Tensor, seen: Observed, clip: float
) -> Tensor:
    """Doubly robust: mean of e^ + o (e - e^) / p, and the imputation's o (e - e^)^2 / p.

    Wang et al. 2022, eq. 11. e^ is the cross entropy against an imputed probability of converting,
    sigmoid(`imputed_logit`) (joint learning, Wang et al. 2019, eq. 8): so it moves the estimate of
    impressions without a click, too.
    """
    inverse = inverse_propensity(click_logit, clip).unsqueeze(1)
    weight = seen.weight / seen.mass * seen.known * inverse
    error = functional.binary_cross_entropy_with_logits(cvr_logit, seen.target, reduction="none")
    imputed = torch.sigmoid(imputed_logit)
    guess = functional.binary_cross_entropy_with_logits(cvr_logit, imputed.detach(), reduction="none")
    first = (seen.first * seen.entered).unsqueeze(1)
    robust = guess * first + weight * (error - guess)
    learned = functional.binary_cross_entropy_with_logits(cvr_logit.detach(), imputed, reduction="none")
    imputation = weight * (error.detach() - learned) ** 2
    return (robust + imputation).sum() / seen.impressions


def global_loss(click_logit: Tensor, cvr_logit: Tensor, seen: Observed) -> Tensor:
    """Cross entropy of click and conversion over all impressions (ESMM, Ma et al. 2018, eq. 3), over kinds.

    Clicks weigh weight / mass, so that all observations of a click count as one beside the other impressions.
    """
    log_p = functional.logsigmoid(click_logit).unsqueeze(1) + functional.logsigmoid(cvr_logit)
    log_not = torch.log1p(-log_p.exp().clamp_max(1.0 - SMALL))
    unclicked = ((1.0 - seen.clicked) * seen.first * seen.entered).unsqueeze(1)
    weight = seen.weight / seen.mass * seen.known + unclicked
    loss = -(seen.target * log_p + (1.0 - seen.target) * log_not)
    return (loss * weight).sum() / seen.impressions


def dfm_loss(cvr_logit: Tensor, rate: Tensor, seen: Observed, days: Tensor) -> Tensor:
    """Exponential delays (Chapelle 2014, eq. 5 and 6), mean over impressions, summed over kinds.

    `days` [B, K]: until the report where there is one, else since the click, inf where no conversion can come
    any more. lambda = softplus(`rate`) a day; -ln p - ln lambda + lambda d, or -ln(1 - p + p exp(-lambda e)).
    """
    hazard = functional.softplus(rate) + SMALL
    log_p, log_not = functional.logsigmoid(cvr_logit), functional.logsigmoid(-cvr_logit)
    reported = -(log_p + hazard.log() - hazard * torch.where(seen.target > 0, days, 0.0))
    waiting = -torch.logaddexp(log_not, log_p - hazard * days.clamp_max(1e4))
    loss = torch.where(seen.target > 0, reported, waiting)
    return (loss * seen.known).sum() / seen.impressions
