"""When training ends for want of improvement: against plain loops, and sequences that can be read by eye."""

from __future__ import annotations

import itertools
import math

import pytest

from mhsev_flare.convergence import has_converged


def ends_after(losses, patience, least_improvement=0.0) -> int | None:
    """The number of losses after which training ends first; None if never."""
    for n in range(len(losses) + 1):
        if has_converged(losses[:n], patience, least_improvement):
            return n
    return None


def no_better_than_before(losses: list[float], patience: int) -> bool:
    """The definition for known losses and any improvement: the last ``patience`` hold none below the earlier best."""
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_it_is_the_definition_for_every_short_sequence(patience):
    outcomes = set()
    for losses in itertools.product([-1.0, 0.0, 1.0], repeat=5):
        for n in range(1, 6):
            expected = no_better_than_before(list(losses[:n]), patience)
            assert has_converged(losses[:n], patience, 0.0) is expected, losses[:n]
            outcomes.add(expected)
    assert outcomes == {True, False}


@pytest.mark.parametrize("shift", [-100.0, -2.5, 3.0])
def test_losses_below_zero_count_like_any_others(shift):
    losses = [2.0, 1.5, 1.75, 1.5, 1.25, 1.5, 1.75]
    assert ends_after([loss + shift for loss in losses], patience=2) == ends_after(losses, patience=2) == 4
    assert ends_after([loss + shift for loss in losses], patience=3) is None


@pytest.mark.parametrize(
    ("losses", "least_improvement", "end"),
    [
        ([1.0, 0.95, 0.92], 0.1, 3),  # 8 % in all is less than 10 %
        ([1.0, 0.95, 0.89], 0.1, None),  # 11 %, against the best and not against the loss before
        ([1.0, 0.89, 0.88, 0.87], 0.1, 4),  # the mark moves with the best: 0.801 would be needed
        ([-1.0, -1.05, -1.08], 0.1, 3),
        ([-1.0, -1.05, -1.11], 0.1, None),  # lower by 11 % of its size
        ([-1.0, -0.9, -0.8], 0.1, 3),  # closer to zero is worse, not better
        ([0.0, -1e-9, -2e-9], 0.1, None),  # a tenth of nothing is nothing: any improvement counts
        ([0.5, -0.5, -0.54], 0.1, None),  # across zero; one loss is not yet two
        ([0.5, -0.5, -0.54, -0.54], 0.1, 4),
        ([1.0, 0.5, 0.25], 1.0, 3),  # only a loss below zero would be lower by all of it
    ],
)
def test_an_improvement_is_measured_against_the_size_of_the_best(losses, least_improvement, end):
    assert ends_after(losses, 2, least_improvement) == end


def test_an_equal_loss_is_no_improvement():
    assert ends_after([0.5, 0.5], patience=1) == 2


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
@pytest.mark.parametrize(
    ("losses", "end"),
    [
        (["?", "?"], 2),  # a run whose losses vanish ends
        ([1.0, "?", "?"], 3),
        ([1.0, "?", 0.9, "?", 0.8], None),
        (["?", 1.0, "?", 1.0], 4),  # 1.0 is better than nothing known
        ([1.0, "?", 1.0], 3),
    ],
)
def test_a_loss_that_is_not_known_counts_as_no_improvement(losses, end, unknown):
    assert ends_after([unknown if loss == "?" else loss for loss in losses], patience=2) == end


@pytest.mark.parametrize("losses", [[], [1.0] * 50, [None] * 50, [1.0, 2.0, 3.0]])
def test_patience_of_zero_never_ends(losses):
    assert has_converged(losses, 0, 0.0) is False


@pytest.mark.parametrize("patience", [1, 5])
def test_nothing_has_converged_before_it_began(patience):
    assert has_converged([], patience, 0.0) is False
    assert has_converged([1.0], patience, 0.5) is False


def test_more_patience_never_ends_earlier():
    losses = [1.0, 1.2, 0.9, 1.0, 1.1, 0.8, 0.9, 0.9, 0.9]
    ends = [ends_after(losses, patience) or math.inf for patience in range(1, 6)]
    assert ends == sorted(ends)
    assert ends == [2, 5, 9, math.inf, math.inf]
