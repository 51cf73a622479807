"""The ordinal head: conditional logits to grade probabilities, and its loss (CORN; Shi, Cao, Raschka 2021, section 3).

A head of ``K - 1`` logits answers, for k = 0 ... K - 2: given that the grade is at least k, is it above k? The chain
rule turns the answers into P(grade > k), which can never rise with k.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def corn_cumulative(logits: Tensor) -> Tensor:
    """P(grade > k) for k = 0 ... K - 2.

    Args:
        logits: ``(n, K - 1)`` conditional logits.

    Returns:
        ``(n, K - 1)``, each row falling, in [0, 1].
    """
    return F.logsigmoid(logits).cumsum(dim=-1).exp()


def corn_probabilities(logits: Tensor) -> Tensor:
    """Probability of each grade.

    Args:
        logits: ``(n, K - 1)`` conditional logits.

    Returns:
        ``(n, K)``, rows sum to 1.
    """
    cumulative = corn_cumulative(logits)
    one, zero = torch.ones_like(cumulative[..., :1]), torch.zeros_like(cumulative[..., :1])
    return torch.cat([one, cumulative], dim=-1) - torch.cat([cumulative, zero], dim=-1)


def corn_grade(logits: Tensor) -> Tensor:
    """The median grade of each row: how many of the P(grade > k) exceed one half (``(n,)`` integers)."""
    return (corn_cumulative(logits) > 0.5).sum(dim=-1)


def corn_loss(logits: Tensor, grades: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of the conditional questions that apply to each case.

    Args:
        logits: ``(n, K - 1)`` conditional logits.
        grades: ``(n,)`` integers from 0 to K - 1.
        class_weights: ``(K,)`` weight of a case by its grade; all 1 by default. The paper of the method has none.

    Returns:
        Scalar: weighted sum over cases and the questions that apply, over the sum of these weights; 0 for no case.
    """
    steps = torch.arange(logits.shape[-1], device=logits.device)
    # Question k is asked only of cases whose grade is at least k: CORN trains each on its own subset.
    asked = (grades[:, None] >= steps).to(logits.dtype)
    above = (grades[:, None] > steps).to(logits.dtype)
    weights = asked if class_weights is None else asked * class_weights.to(logits.dtype)[grades][:, None]
    losses = F.binary_cross_entropy_with_logits(logits, above, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(logits.dtype).tiny)
