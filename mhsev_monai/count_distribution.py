"""The distribution of a scan's number of microbleeds, given the probability of each candidate.

If candidates are bleeds independently of each other, the number of bleeds among them is Poisson-binomial. What the
candidates miss comes on top as a Poisson number whose mean grows with the number found. The likelihood of a scan's
count under this distribution needs no lesion masks: it is learning from label proportions, in its exact form.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MOST_COUNTED = 100
"""Counts of this number and more share the last bin."""

EXACT_TRIALS = 64
"""Candidates of a scan that enter the distribution of its count exactly."""

_TINY = 1e-12


def poisson_binomial(probabilities: Tensor) -> Tensor:
    """Distribution of the number of successes among independent trials, exact.

    The generating function of the number is the product of those of the trials, 1 - p + p z; it is multiplied out
    pair by pair, in as many steps as the number of trials has binary digits.

    Args:
        probabilities: ``(n, N)`` in [0, 1]; a trial of probability 0 changes nothing.

    Returns:
        ``(n, MOST_COUNTED + 1)``, rows sum to 1; the last entry is of ``MOST_COUNTED`` and more.
    """
    missing = 2 ** max(probabilities.shape[1] - 1, 1).bit_length() - probabilities.shape[1]
    trials = functional.pad(probabilities, (0, missing))
    polynomials = torch.stack([1 - trials, trials], dim=-1)
    while polynomials.shape[1] > 1:
        polynomials = _multiply(polynomials[:, 0::2], polynomials[:, 1::2])
    pmf = functional.pad(polynomials[:, 0], (0, max(MOST_COUNTED + 1 - polynomials.shape[-1], 0)))
    return torch.cat([pmf[:, :MOST_COUNTED], pmf[:, MOST_COUNTED:].sum(dim=1, keepdim=True)], dim=1)


def _multiply(first: Tensor, second: Tensor) -> Tensor:
    """Products of polynomials ``(..., L)``, ``(..., 2 L - 1)``."""
    length = first.shape[-1]
    windows = functional.pad(second, (length - 1, length - 1)).unfold(-1, length, 1)
    return (windows @ first.flip(-1)[..., None])[..., 0]


def candidate_count(probabilities: Tensor, base: Tensor, per_found: Tensor) -> Tensor:
    """Distribution of a scan's bleeds: those among its candidates, and those that no candidate stands for.

    The ``EXACT_TRIALS`` most probable candidates enter exactly. The others, each improbable, enter as one Poisson
    number of the same mean; the error in any probability is at most the sum of their squares (Le Cam, Pacific J Math
    1960;10:1181-1197).

    Args:
        probabilities: ``(n, N)`` of the candidates.
        base: scalar, 0 or more: bleeds missed in a scan that shows none.
        per_found: scalar or ``(n,)``, 0 or more: bleeds missed for each that is found.

    Returns:
        ``(n, MOST_COUNTED + 1)``, rows sum to 1.
    """
    likely = probabilities.topk(min(EXACT_TRIALS, probabilities.shape[1]), dim=1).values
    rest = (probabilities.sum(dim=1) - likely.sum(dim=1)).clamp_min(0)
    return add_poisson(poisson_binomial(likely), base + rest, per_found)


def add_poisson(found: Tensor, base: Tensor, per_found: Tensor) -> Tensor:
    """Distribution of a sum: ``k`` found, and a Poisson number of mean ``base + k per_found`` beside them.

    Args:
        found: ``(n, MOST_COUNTED + 1)`` distribution of the number found.
        base: ``(n,)``, 0 or more.
        per_found: scalar or ``(n,)``, 0 or more.

    Returns:
        ``(n, MOST_COUNTED + 1)``, rows sum to 1.
    """
    count = torch.arange(MOST_COUNTED + 1, dtype=found.dtype, device=found.device)
    mean = (base[:, None] + per_found.reshape(-1, 1) * count).clamp_min(_TINY)[..., None]
    extra = count[None, :] - count[:, None]
    possible, extra = extra >= 0, extra.clamp_min(0)
    weight = (extra * mean.log() - mean - torch.lgamma(extra + 1)).exp() * possible
    # The rest of each row lies beyond the last bin, and belongs to it.
    last = weight[..., -1:] + (1 - weight.sum(dim=-1, keepdim=True)).clamp_min(0)
    return (found[:, None] @ torch.cat([weight[..., :-1], last], dim=-1))[:, 0]


def grade_logits(pmf: Tensor, lower_bounds: tuple[int, ...]) -> Tensor:
    """Conditional logits, as of an ordinal head (``mhsev_monai.ordinal``), of the grades that counts fall in.

    Args:
        pmf: ``(n, M)`` distribution of the count.
        lower_bounds: least count of each grade above the lowest, rising.

    Returns:
        ``(n, len(lower_bounds))``: log odds of P(count >= bound) given that the count reaches the bound before.
    """
    reached = torch.stack([pmf[:, bound:].sum(dim=1) for bound in (0, *lower_bounds)], dim=1)
    return (reached[:, 1:] + _TINY).log() - (reached[:, :-1] - reached[:, 1:]).clamp_min(_TINY).log()


def count_quantile(pmf: Tensor, share: float) -> Tensor:
    """``(n,)`` least counts at which the distribution ``(n, M)`` reaches ``share``, in (0, 1)."""
    # The last bin takes whatever rounding left over.
    return (pmf.cumsum(dim=1)[:, :-1] < share).sum(dim=1)


def count_log_likelihood(pmf: Tensor, counts: Tensor) -> Tensor:
    """``(n,)`` natural logarithms of the probability of each scan's count; counts above the last bin fall in it."""
    index = counts.long().clamp(0, MOST_COUNTED)
    return pmf.gather(1, index[:, None])[:, 0].clamp_min(_TINY).log()
