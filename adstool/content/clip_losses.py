"""The losses of CLIP training, each a softmax over a batch in both directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

VIEW_TEMPERATURE = 0.1
NEIGHBOUR_SCALE = 10.0  # one over the temperature


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor | float, true: torch.Tensor
) -> torch.Tensor:
    """Mean of both directions' cross entropy against targets spread evenly over the true pairs.

    image, text: unit vectors [n, dim]; true: bool [n texts, n images] with a true diagonal; scale: exp(t).
    """
    logits = scale * text @ image.T
    weight = true.to(logits.dtype)
    by_text = F.cross_entropy(logits, weight / weight.sum(dim=1, keepdim=True))
    by_image = F.cross_entropy(logits.T, weight.T / weight.T.sum(dim=1, keepdim=True))
    return (by_text + by_image) / 2


def view_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean of both directions' cross entropy of finding a picture's other view among the batch's.

    first, second: unit vectors [n, dim] of two views of the same n pictures, in the same order.
    """
    logits = first @ second.T / VIEW_TEMPERATURE
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def neighbour_loss(first: torch.Tensor, second: torch.Tensor, together: torch.Tensor) -> torch.Tensor:
    """Finding the item that the same users engaged with among the batch's, in both directions.

    first, second: unit vectors [n, dim] of n items and a neighbour of each; together: bool [n, n], which of
    `first` (rows) and `second` (columns) are neighbours or the same: they share the target evenly, so that
    no neighbour is a negative.
    """
    return contrastive_loss(second, first, NEIGHBOUR_SCALE, together)


def category_loss(
    vectors: torch.Tensor, names: torch.Tensor, scale: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    """Cross entropy of naming the category, as zero-shot classification does.

    vectors: unit vectors [n, dim] of pictures or titles; names: unit vectors [c, dim] of category names;
    own: int64 [n], the category of each, -1 where it has none. Zero where none has one.
    """
    known = own >= 0
    if not bool(known.any()):
        return vectors.new_zeros(())
    return F.cross_entropy(scale * vectors[known] @ names.T, own[known])


def joint(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The unit vectors of items from those of their pictures and texts, as `embed` joins them."""
    return F.normalize(image + text, dim=-1)
