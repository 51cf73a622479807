"""The ordinal head against sums written out by hand, and its laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mhsev_monai.ordinal import corn_cumulative, corn_grade, corn_loss, corn_probabilities


def test_probabilities_follow_the_chain_rule():
    # P(>0) = 1/2, P(>1 | >0) = 1/4: so P(>1) = 1/8.
    logits = torch.tensor([[0.0, math.log(1 / 3)]], dtype=torch.float64)
    assert corn_cumulative(logits).tolist()[0] == pytest.approx([0.5, 0.125])
    assert corn_probabilities(logits).tolist()[0] == pytest.approx([0.5, 0.375, 0.125])


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=5))
def test_probabilities_sum_to_one_and_cumulative_ones_fall(row):
    logits = torch.tensor([row], dtype=torch.float64)
    probabilities = corn_probabilities(logits)
    assert (probabilities >= 0).all()
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-12)
    assert (corn_cumulative(logits).diff(dim=-1) <= 0).all()


@pytest.mark.parametrize(("logits", "grade"), [([-1, 9, 9], 0), ([9, -1, 9], 1), ([9, 9, -1], 2), ([9, 9, 9], 3)])
def test_grade_is_the_median(logits, grade):
    assert int(corn_grade(torch.tensor([logits], dtype=torch.float32))) == grade


def test_loss_asks_only_the_questions_that_apply():
    """Grade 0 is asked "above 0?"; grade 1 that and "above 1?"; by hand with the logistic function."""
    logits = torch.tensor([[0.3, 5.0], [0.7, -0.2]], dtype=torch.float64)
    grades = torch.tensor([0, 1])

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    expected = -(log_sigmoid(-0.3) + log_sigmoid(0.7) + log_sigmoid(0.2)) / 3
    assert float(corn_loss(logits, grades)) == pytest.approx(expected, rel=1e-12)


def test_weights_repeat_cases():
    """A case of weight 2 counts as two cases."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    grades = torch.tensor([0, 1, 2, 3])
    weights = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    repeated = torch.tensor([0, 1, 1, 2, 3])
    assert float(corn_loss(logits, grades, weights)) == pytest.approx(float(corn_loss(logits[repeated], repeated)))


def test_loss_of_no_case_is_zero():
    assert float(corn_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))) == 0.0
