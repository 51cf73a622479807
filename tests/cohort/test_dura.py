"""Falx and tentorium of the simulated heads, at places that anatomy names."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.dura import dura_map

SHAPE, ORIGIN = (141, 181, 141), (-70.0, -105.0, -60.0)


@pytest.fixture(scope="module")
def dura():
    return dura_map(SHAPE, ORIGIN)


def at(dura, place):
    return dura[tuple(int(p - o) for p, o in zip(place, ORIGIN, strict=True))]


@pytest.mark.parametrize("place", [(0, 0, 60), (0, 55, 10), (0, -70, 30), (0, 62, -10)])
def test_the_falx_parts_the_hemispheres(dura, place):
    assert at(dura, place) > 0.5


@pytest.mark.parametrize("place", [(0, 0, 22), (0, -10, 8), (0, -30, -10), (0, 20, -20), (0, -55, -35), (20, 0, 60)])
def test_there_is_none_in_callosum_ventricle_brainstem_cerebellum_or_a_hemisphere(dura, place):
    assert at(dura, place) == 0


def test_the_tentorium_lies_between_occipital_lobe_and_cerebellum(dura):
    column = dura[int(30 - ORIGIN[0]), int(-65 - ORIGIN[1])]
    heights = ORIGIN[2] + np.flatnonzero(column > 0)
    assert heights.size
    assert np.all((heights > -30) & (heights < -5))


def test_the_notch_is_free(dura):
    notch = dura[
        int(-15 - ORIGIN[0]) : int(16 - ORIGIN[0]), int(-45 - ORIGIN[1]) : int(-10 - ORIGIN[1]), : int(-ORIGIN[2])
    ]
    assert notch.max() == 0


def test_it_is_symmetric_and_about_a_millimetre_thick(dura):
    np.testing.assert_array_equal(dura, dura[::-1])
    across_the_falx = dura[:, int(-ORIGIN[1]), int(65 - ORIGIN[2])]
    assert 0.5 < across_the_falx.sum() < 1.5
