"""The losses of the rankers and of retrieval."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_bce(logits: Tensor, labels: Tensor, weight: Tensor, gamma: float = 0.0) -> Tensor:
    """Binary cross entropy summed over heads and averaged over rows; heads whose label is nan are left out.

    logits and labels [B, A], weight [B]. With gamma > 0 it is the focal loss (Lin et al. 2017, eq. 4 without
    alpha), (1 - p_t)^gamma times the cross entropy: easy rows count less, and probabilities lose calibration.
    """
    known = ~torch.isnan(labels)
    target = torch.where(known, labels, 0.0)
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    if gamma > 0:
        probability = torch.sigmoid(logits.float())
        missed = target + probability - 2.0 * target * probability  # 1 - p_t
        loss = loss * missed.clamp_min(1e-6).pow(gamma)
    loss = loss * known * weight.unsqueeze(1)
    return loss.sum() / weight.sum().clamp_min(1e-6)


def keep_out_log(share: Tensor, drawn: int) -> Tensor:
    """ln of the chance, float64 [C], that none of `drawn` is the item of which `share` [C] of them are."""
    return drawn * torch.log1p(-share.double().clamp(0.0, 1.0 - 1e-9))


def inclusion_log_q(
    share: Tensor, drawn: int, uniform: int, items: int, others: Tensor | None = None
) -> Tensor:
    """ln of the chance that an item is among a batch's candidates.

    `share` [C]: the item's share of the positives, of which `drawn` are in the batch; besides, `uniform`
    items are drawn uniformly from `items`. q = 1 - (1 - share)^drawn (1 - 1/items)^uniform, so that the sum
    over candidates of exp(s) / q estimates the sum over all items without bias (Horvitz-Thompson).
    others: `keep_out_log` of what else is drawn.
    """
    keep_out = keep_out_log(share, drawn)
    if others is not None:
        keep_out = keep_out + others
    if uniform:
        keep_out = keep_out + uniform * torch.log1p(torch.tensor(-1.0 / max(items, 2), dtype=torch.float64))
    return torch.log(-torch.expm1(keep_out)).clamp_min(-30.0).float()


def sampled_softmax(logits: Tensor, target: Tensor, log_q: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Cross entropy of the target among sampled candidates, ln q subtracted from every logit.

    logits [B, C], target [B] (column of the positive), log_q [C]. The positive is corrected like the others:
    subtracting makes a candidate that is seldom sampled stand for the many that were not (Bengio and Senecal
    2008; Yi et al. 2019, eq. 4). `hidden` [B, C] marks accidental hits, which are left out.
    """
    corrected = logits.float() - log_q
    if hidden is not None:
        corrected = corrected.masked_fill(hidden, -1e9)
    return functional.cross_entropy(corrected, target)


def group_softmax(logits: Tensor, target: Tensor, log_q: Tensor, group: Tensor) -> Tensor:
    """Cross entropy of the target's group among sampled candidates, ln q subtracted from every logit.

    P(group) is the sum of its candidates' probabilities. logits [B, C], target [B] (column of the positive),
    log_q [C], group [C]: equal numbers are of one group.
    """
    corrected = logits.float() - log_q
    own = group.unsqueeze(0) == group[target].unsqueeze(1)
    inside = torch.logsumexp(corrected.masked_fill(~own, -1e9), dim=1)
    return (torch.logsumexp(corrected, dim=1) - inside).mean()


def same_user_hits(users: Tensor, target: Tensor, candidates: int) -> Tensor:
    """[B, C]: candidates that the row's user engaged with elsewhere in the batch; never the row's own target.

    users [B], target [B] in 0 .. candidates - 1.
    """
    row, other = torch.nonzero(users.unsqueeze(1) == users.unsqueeze(0), as_tuple=True)
    hidden = torch.zeros(len(users), candidates, dtype=torch.bool, device=users.device)
    hidden[row, target[other]] = True
    hidden[torch.arange(len(users), device=users.device), target] = False
    return hidden
