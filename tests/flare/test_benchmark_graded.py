"""What a benchmark keeps of a graded case, and the grade where a bleed is known."""

from __future__ import annotations

import numpy as np
import torch
from pretended_cohort import labelled

from mhsev_flare.benchmark.graded import GradedCases, Grading, Setting, given_bleed, scores
from mhsev_monai.networks import SeverityPrediction
from mhsev_monai.severity import PAPER_SCALE


def certain(probabilities, truths, counts) -> GradedCases:
    tensor = torch.tensor(probabilities)
    median = (tensor.flip(1).cumsum(1).flip(1)[:, 1:] > 0.5).sum(1)
    prediction = SeverityPrediction(median, tensor, torch.tensor(counts, dtype=torch.float32))
    return GradedCases.of("a", labelled(truths), Grading.of_network(prediction), PAPER_SCALE)


def test_with_a_bleed_known_the_grade_is_the_median_of_what_is_left():
    """(.6, .21, .14, .05) is none; of the .4 left, .21 is mild, more than half."""
    cases = certain(
        [[0.6, 0.21, 0.14, 0.05], [0.5, 0.125, 0.25, 0.125], [0.0, 0.1, 0.2, 0.7], [1.0, 0.0, 0.0, 0.0]],
        truths=[3, 7, 30, 0],
        counts=[0, 0, 20, 0],
    )
    assert cases.grading.grades.tolist() == [0, 0, 3, 0]
    assert cases.grades_in(Setting.BLEEDING).tolist() == [1, 2, 3]
    table = cases.table(Setting.BLEEDING)
    assert table.n == 3
    assert scores(table)["accuracy"] == 1.0
    assert table.count_absolute_error == (3 - 1) + (7 - 1) + (30 - 20)
    assert cases.table(Setting.ALL).count_absolute_error == 3 + 7 + 10


def test_probabilities_with_a_bleed_sum_to_one_and_all_to_mild_where_nothing_is_left():
    found = given_bleed(np.array([[0.2, 0.4, 0.2, 0.2], [1.0, 0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.0, 0.5, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
