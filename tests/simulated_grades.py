"""Graded cases without a network or a scan: grades, over-confident probabilities and counts of several sites."""

from __future__ import annotations

import numpy as np

from mhsev_monai.evaluation import JudgedCases

COUNT_OF_GRADE = np.array([0.0, 3.0, 8.0, 20.0])


def judged_cases(seed: int, n: int, sharpness: float = 2.5) -> JudgedCases:
    """``n`` cases whose probabilities would be right at the temperature ``sharpness``."""
    random = np.random.default_rng(seed)
    true = random.dirichlet([0.8, 1.2, 0.7, 0.5], n)
    grades = (true.cumsum(axis=1) < random.random((n, 1))).sum(axis=1).clip(0, 3)
    powers = (true + 1e-4) ** sharpness
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    predicted = (probabilities[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:] > 0.5).sum(axis=1)
    counts = COUNT_OF_GRADE[predicted] + random.integers(0, 2, n)
    odd = random.gamma(4.0, 0.2, n)
    return JudgedCases(probabilities, predicted, counts, grades, COUNT_OF_GRADE[grades], odd)


def pooled(sites: list[JudgedCases]) -> JudgedCases:
    """All sites' cases as one site's."""
    return JudgedCases(**{k: np.concatenate([vars(site)[k] for site in sites]) for k in vars(sites[0])})
