"""Folds: parts of the cases, each of which is the test once, so that every case is judged exactly once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mhsev_monai.cases import Case, Split, group_by_content, split_cases
from mhsev_monai.severity import PAPER_SCALE, GradingScale, Severity

_OF_THE_REST = (0.8, 0.2, 0.0)
"""Training and validation among what is not tested: a fifth chooses the best round, as in ``split_cases``."""


def fold_cases(
    cases: Sequence[Case],
    n_folds: int,
    seed: int,
    *,
    content_hashes: Mapping[str, str] | None = None,
    scale: GradingScale = PAPER_SCALE,
) -> tuple[Split, ...]:
    """The splits of a k-fold cross-validation, by patient and stratified by severity.

    All sessions of a patient, and cases of equal content, are in one fold. Patients of one gravest grade are dealt out
    to the folds in turn, in an order that the seed draws; the next grade goes on where the last one ended, so that
    neither a grade nor all of them differ by more than one patient between folds.

    Args:
        cases: cases with counts.
        n_folds: 2 or more.
        seed: 0 or more.
        content_hashes: ``cases.content_hash`` by case id.
        scale: policy that grades a count.

    Raises:
        ValueError: if ``n_folds`` is below 2, and as ``split_cases``.
    """
    if n_folds < 2:
        raise ValueError(f"n_folds must be 2 or more, got {n_folds}")
    hashes = content_hashes or {}
    # Refuses what split_cases refuses, before anything is dealt out.
    split_cases(cases, seed, content_hashes=hashes, scale=scale)
    fold_of: dict[str, int] = {}
    strata: dict[Severity, list[tuple[Case, ...]]] = {}
    for group in group_by_content(cases, hashes):
        strata.setdefault(max(scale.grade(case.count or 0) for case in group), []).append(group)
    first = 0
    for severity, groups in sorted(strata.items()):
        for turn, index in enumerate(np.random.default_rng((seed, int(severity))).permutation(len(groups))):
            fold_of |= {case.case_id: (first + turn) % n_folds for case in groups[index]}
        first += len(groups)
    return tuple(_split(cases, fold_of, fold, seed, hashes, scale) for fold in range(n_folds))


def _split(
    cases: Sequence[Case],
    fold_of: Mapping[str, int],
    fold: int,
    seed: int,
    hashes: Mapping[str, str],
    scale: GradingScale,
) -> Split:
    tested = sorted((case for case in cases if fold_of[case.case_id] == fold), key=lambda case: case.case_id)
    others = [case for case in cases if fold_of[case.case_id] != fold]
    rest = split_cases(others, seed, _OF_THE_REST, content_hashes=hashes, scale=scale)
    return Split(rest.train, rest.validation, tuple(tested))
