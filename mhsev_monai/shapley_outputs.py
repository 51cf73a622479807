"""What of a network's answer is attributed: the probability of each grade, the expected grade, the expected count."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from mhsev_monai.networks import split_output
from mhsev_monai.ordinal import corn_probabilities
from mhsev_monai.severity import Severity

GRADE_OUTPUTS = (*(grade.label for grade in Severity), "expected severity")
"""Probabilities of the grades, then the sum of grade times probability, 0 for none to 3 for severe."""
COUNT_OUTPUTS = (*GRADE_OUTPUTS, "expected count")
"""Of a network that knows the distribution of the count; its last bin, 100 and more, counts as 100."""


def grade_outputs(network: nn.Module, features: Tensor) -> Tensor:
    """``(n, len(GRADE_OUTPUTS))`` of any severity network, float64; ``features`` lie on its device.

    In the network's own precision, also on CUDA, where grading computes with bfloat16: values are small differences.
    """
    return with_expectation(corn_probabilities(split_output(network(features)).ordinal_logits.double()))


def count_outputs(pmf: Tensor, lower_bounds: list[int]) -> Tensor:
    """``(n, len(COUNT_OUTPUTS))`` of distributions of the count ``(n, M)``, float64.

    Args:
        pmf: from ``CandidateMLP.count_distribution``.
        lower_bounds: least count of each grade above none.
    """
    pmf = pmf.double()
    edges = [0, *lower_bounds, pmf.shape[1]]
    probabilities = torch.stack([pmf[:, a:b].sum(dim=1) for a, b in itertools.pairwise(edges)], dim=1)
    count = pmf @ torch.arange(pmf.shape[1], dtype=torch.float64, device=pmf.device)
    return torch.cat([with_expectation(probabilities), count[:, None]], dim=1)


def with_expectation(probabilities: Tensor) -> Tensor:
    """``(n, K + 1)``: the probabilities of ``K`` grades and the expected grade."""
    grades = torch.arange(probabilities.shape[1], dtype=probabilities.dtype, device=probabilities.device)
    return torch.cat([probabilities, (probabilities @ grades)[:, None]], dim=1)
