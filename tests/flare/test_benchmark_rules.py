"""The benchmark's rules without a network: against plain loops, and numbers that can be counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from mhsev_flare.benchmark.rules import LOG_COUNTS, CalibratedCount, MajorityBySite, NaiveCount, best_cuts
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures

VECTOR = DSDInputs(features=LOG_COUNTS)


def labelled(counts, columns=4) -> LabelledFeatures:
    """Cases whose every feature is log(1 + count)."""
    values = torch.tensor(counts, dtype=torch.float32)
    return LabelledFeatures(torch.log1p(values)[:, None].repeat(1, columns), values)


@pytest.mark.parametrize("seed", range(3))
def test_no_cut_points_are_better_than_those_found(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 40)
    spots = np.maximum(0, 2 * truth + rng.integers(-3, 4, 40)).astype(float)
    cuts, kappa = best_cuts(spots, truth)
    positions = np.arange(-0.5, spots.max() + 1)
    every = [
        cohen_kappa_score(truth, np.searchsorted(triple, spots, side="right"), weights="quadratic")
        for triple in itertools.combinations_with_replacement(positions, 3)
    ]
    assert kappa == pytest.approx(np.nanmax(every), abs=1e-12)
    own = cohen_kappa_score(truth, np.searchsorted(cuts, spots, side="right"), weights="quadratic")
    assert own == pytest.approx(kappa, abs=1e-12)


def test_cut_points_of_a_single_number_of_spots_are_worth_nothing():
    assert best_cuts(np.full(5, 2.0), np.array([0, 1, 2, 3, 3]))[1] == 0.0


def test_the_naive_count_takes_the_depth_that_counts_right():
    counts = np.arange(0, 20)
    features = torch.log1p(
        torch.tensor(np.stack([counts + 9, counts, counts // 3, 0 * counts], 1), dtype=torch.float32)
    )
    data = LabelledFeatures(features, torch.tensor(counts, dtype=torch.float32))
    grading = NaiveCount(VECTOR).fit({"a": data}, PAPER_SCALE).grade("b", data)
    assert grading.grades.tolist() == data.grades(PAPER_SCALE).tolist()
    assert grading.counts.tolist() == counts.tolist()


def test_calibration_repairs_a_count_that_is_off_by_a_constant():
    data = labelled(range(20))
    shifted = LabelledFeatures(torch.log1p(torch.expm1(data.features) + 7), data.counts)
    grading = CalibratedCount(VECTOR).fit({"a": shifted}, PAPER_SCALE).grade("a", shifted)
    assert grading.grades.tolist() == data.grades(PAPER_SCALE).tolist()
    assert sorted(set(grading.counts.tolist())) == [0.0, 3.0, 8.0, 15.0]


def test_the_majority_is_that_of_the_site_and_of_all_where_the_site_is_new():
    training = {"a": labelled([0, 0, 0, 2, 30]), "b": labelled([7, 8, 9, 0])}
    fitted = MajorityBySite(VECTOR).fit(training, PAPER_SCALE)
    test = labelled([1, 1])
    for site, grade, given, count in (("a", 0, 1, 0), ("b", 2, 2, 8), ("new", 0, 2, 0)):
        grading = fitted.grade(site, test)
        assert grading.grades.tolist() == [grade] * 2
        assert grading.grades_given_bleed.tolist() == [given] * 2
        assert grading.counts.tolist() == [count] * 2
