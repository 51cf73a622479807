"""What of a network's answer is attributed: the probability of each grade, the expected grade, the expected count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mhsev_monai.networks import split_output
from mhsev_monai.ordinal import corn_cumulative
from mhsev_monai.severity import Severity

GRADE_OUTPUTS = (*(grade.label for grade in Severity), "expected severity")
"""Probabilities of the grades, then the sum of grade times probability, 0 for none to 3 for severe."""
COUNT_OUTPUTS = (*GRADE_OUTPUTS, "expected count")
"""Of a network that knows the distribution of the count; its last bin, 100 and more, counts as 100."""


def grade_outputs(network: nn.Module, features: Tensor) -> Tensor:
    """``(n, len(GRADE_OUTPUTS))`` of any severity network, float64; ``features`` lie on its device.

    In the network's own precision, also on CUDA, where grading computes with bfloat16: values are small differences.
    """
    return cumulative_outputs(corn_cumulative(split_output(network(features)).ordinal_logits).double())


def count_outputs(pmf: Tensor, lower_bounds: list[int]) -> Tensor:
    """``(n, len(COUNT_OUTPUTS))`` of distributions of the count ``(n, M)``, float64.

    Args:
        pmf: from ``CandidateMLP.count_distribution``.
        lower_bounds: least count of each grade above none.
    """
    pmf = pmf.double()
    # Of the larger numbers of what is left: rows of pmf sum to 1 in single precision only.
    above = torch.stack([1 - pmf[:, :bound].sum(dim=1) for bound in lower_bounds], dim=1)
    count = pmf @ torch.arange(pmf.shape[1], dtype=torch.float64, device=pmf.device)
    return torch.cat([cumulative_outputs(above), count[:, None]], dim=1)


def cumulative_outputs(above: Tensor) -> Tensor:
    """``(..., K + 1)`` from P(grade > k), ``(..., K - 1)``: probabilities of ``K`` grades, and the expected grade."""
    from_one = torch.cat([torch.ones_like(above[..., :1]), above], dim=-1)
    return torch.cat([from_one[..., :-1] - above, above[..., -1:], above.sum(dim=-1, keepdim=True)], dim=-1)
