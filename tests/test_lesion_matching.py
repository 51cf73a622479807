"""Which spot is which on two dates: hand-made cases, an exhaustive search as oracle, and laws."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhsev_monai.lesion_matching import Change, Spots, change_of, match_spots
from mhsev_monai.prediction import FINDING_PROBABILITY, Finding

Place = tuple[float, float, float]


def finding(place: Place, probability: float) -> Finding:
    return Finding((0.0, 0.0, 0.0), place, 0.4, probability)


def spots(*marked: tuple[Place, float]) -> Spots:
    likely = [finding(place, p) for place, p in marked if p >= FINDING_PROBABILITY]
    less = [finding(place, p) for place, p in marked if p < FINDING_PROBABILITY]
    places = np.array([spot.position_mm for spot in (*likely, *less)], dtype=float).reshape(-1, 3)
    return Spots(likely, less, places)


def changes(before: Spots, after: Spots, **options: float) -> list[Change]:
    return sorted(
        change_of(
            None if pair.baseline is None else before.spot(pair.baseline),
            None if pair.followup is None else after.spot(pair.followup),
            covered=True,
        )
        for pair in match_spots(before, after, **options)
    )


A, B = (0.0, 0.0, 0.0), (30.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [], []),
        ([(A, 0.9)], [(A, 0.9)], [Change.STABLE]),
        ([(A, 0.9)], [(A, 0.55)], [Change.STABLE]),  # twice a finding
        ([(A, 0.49)], [(A, 0.51)], [Change.STABLE]),  # on either side of the operating point, and yet the same
        ([(A, 0.51)], [(A, 0.49)], [Change.STABLE]),
        ([(A, 0.21)], [(A, 0.95)], [Change.UNSURE]),  # a faint spot that became clear
        ([], [(A, 0.95)], [Change.NEW]),
        ([(A, 0.95)], [], [Change.GONE]),
        ([(A, 0.3)], [(A, 0.4)], []),  # possible twice is no finding
        ([(A, 0.3)], [], []),
        ([(A, 0.9)], [(B, 0.9)], [Change.GONE, Change.NEW]),
        ([(A, 0.9)], [((5.9, 0.0, 0.0), 0.9)], [Change.STABLE]),
        ([(A, 0.9)], [((6.1, 0.0, 0.0), 0.9)], [Change.GONE, Change.NEW]),
        # The nearer possible spot does not take the partner of a finding.
        ([(A, 0.9), ((4.0, 0.0, 0.0), 0.3)], [((4.0, 0.0, 0.0), 0.9)], [Change.STABLE]),
    ],
)
def test_what_became_of_a_spot(before, after, expected):
    assert changes(spots(*before), spots(*after)) == sorted(expected)


def test_a_place_that_the_other_scan_did_not_show_is_neither_new_nor_gone():
    spot = finding(A, 0.9)
    assert change_of(None, spot, covered=False) is Change.NOT_COVERED
    assert change_of(spot, None, covered=False) is Change.NOT_COVERED
    with pytest.raises(ValueError, match="one date at least"):
        change_of(None, None, covered=True)


def test_a_tolerance_must_be_positive():
    with pytest.raises(ValueError, match="tolerance_mm must be positive, got 0"):
        match_spots(spots(), spots(), tolerance_mm=0)


coordinates = st.floats(-12, 12, allow_nan=False, width=32)
marks = st.lists(st.tuples(st.tuples(coordinates, coordinates, coordinates), st.floats(0.2, 1.0)), max_size=5)


@settings(max_examples=200, deadline=None)
@given(marks, marks)
def test_each_finding_is_in_one_pair_and_no_pair_is_wider_than_the_tolerance(before, after):
    first, second = spots(*before), spots(*after)
    pairs = match_spots(first, second)
    for side, name in ((first, "baseline"), (second, "followup")):
        taken = [getattr(pair, name) for pair in pairs if getattr(pair, name) is not None]
        assert len(taken) == len(set(taken))
        assert set(range(len(side.findings))) <= set(taken)
    for pair in pairs:
        if pair.baseline is not None and pair.followup is not None:
            assert pair.distance_mm <= 6.0
            assert min(pair.baseline - len(first.findings), pair.followup - len(second.findings)) < 0


@settings(max_examples=200, deadline=None)
@given(marks, marks)
def test_swapping_the_dates_swaps_new_and_gone(before, after):
    there, back = (changes(spots(*one), spots(*other)) for one, other in ((before, after), (after, before)))
    assert sorted(change.reversed for change in there) == back


@settings(max_examples=100, deadline=None)
@given(marks)
def test_a_scan_compared_with_itself_has_nothing_new_and_nothing_gone(marked):
    assert set(changes(spots(*marked), spots(*marked))) <= {Change.STABLE}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=1, max_size=4), st.data())
def test_the_sum_of_distances_is_the_least_of_all_pairings(first, data):
    second = data.draw(st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=len(first), max_size=4))
    before, after = (spots(*((place, 0.9) for place in places)) for places in (first, second))
    distance = np.linalg.norm(before.places[:, None] - after.places[None], axis=-1)
    least = min(
        sum(min(distance[i, j], 6.0) for i, j in enumerate(order))
        for order in permutations(range(len(second)), len(first))
    )
    paired = [pair for pair in match_spots(before, after) if pair.distance_mm is not None]
    found = sum(pair.distance_mm for pair in paired) + 6.0 * (len(first) - len(paired))
    assert found == pytest.approx(least, abs=1e-6)
