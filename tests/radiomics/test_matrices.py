"""The texture matrices are those of plain loops, and grey levels lie where their definition puts them."""

from __future__ import annotations

from collections import Counter

import loop_matrices as loops
import numpy as np
import pytest

from mhsev_monai.radiomics.discretise import discretise
from mhsev_monai.radiomics.glcm import cooccurrence
from mhsev_monai.radiomics.gldm import dependence_matrix
from mhsev_monai.radiomics.glrlm import run_length_matrix
from mhsev_monai.radiomics.glszm import zone_size_matrix
from mhsev_monai.radiomics.ngtdm import tone_differences
from mhsev_monai.radiomics.region import DIRECTIONS, gray_level_region
from mhsev_monai.radiomics.size_matrix import SizeMatrix


def blotches(seed: int) -> np.ndarray:
    """A ragged region of levels 1, 2, 4 and 7 with holes, lonely voxels and a full border, 0 outside."""
    rng = np.random.default_rng(seed)
    levels = np.array([1, 2, 4, 7])[rng.integers(0, 4, (5, 6, 7))]
    levels[:, :3] = levels[:, :1]  # runs and zones longer than chance makes them
    levels[rng.random(levels.shape) < 0.35] = 0
    return levels


def region_of(levels):
    return gray_level_region(levels[levels > 0], levels > 0)


def counted(matrix: SizeMatrix, index: int) -> Counter[tuple[int, int]]:
    """One matrix as numbers of things by level and size."""
    numbers = matrix.counts[index]
    where = zip(*np.nonzero(numbers), strict=True)
    return Counter({(int(matrix.levels[r]), int(matrix.sizes[c])): int(numbers[r, c]) for r, c in where})


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_are_those_of_loops_in_each_direction(seed):
    levels = blotches(seed)
    region = region_of(levels)
    shares = cooccurrence(region)
    for direction, found in zip(DIRECTIONS, shares, strict=True):
        expected = loops.pairs(levels, direction)
        whole = [[expected[int(i), int(j)] for j in region.levels] for i in region.levels]
        np.testing.assert_allclose(found, np.array(whole) / expected.total(), rtol=1e-14)


def test_merged_pairs_weigh_directions_by_their_pairs():
    levels = blotches(2)
    region = region_of(levels)
    expected = sum((loops.pairs(levels, d) for d in loops.HALF), Counter())
    whole = [[expected[int(i), int(j)] for j in region.levels] for i in region.levels]
    np.testing.assert_allclose(cooccurrence(region, merged=True)[0], np.array(whole) / expected.total(), rtol=1e-14)


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_are_those_of_loops_in_each_direction(seed):
    levels = blotches(seed)
    matrix = run_length_matrix(region_of(levels))
    assert [counted(matrix, k) for k in range(13)] == [loops.runs(levels, d) for d in DIRECTIONS]


@pytest.mark.parametrize("seed", [0, 1])
def test_zones_are_those_of_flooding(seed):
    levels = blotches(seed)
    assert counted(zone_size_matrix(region_of(levels)), 0) == loops.zones(levels)


@pytest.mark.parametrize("seed", [0, 1])
def test_dependences_are_those_of_loops(seed):
    levels = blotches(seed)
    assert counted(dependence_matrix(region_of(levels)), 0) == loops.dependences(levels)


@pytest.mark.parametrize("seed", [0, 1])
def test_tone_differences_are_those_of_loops(seed):
    levels = blotches(seed)
    tones = tone_differences(region_of(levels))
    expected = loops.differences(levels)
    assert tones.levels.tolist() == sorted(expected)
    np.testing.assert_allclose(tones.shares * tones.n_voxels, [expected[k][0] for k in sorted(expected)], rtol=1e-14)
    np.testing.assert_allclose(tones.differences, [expected[k][1] for k in sorted(expected)], rtol=1e-13)


def test_no_two_directions_are_the_same_line():
    both_ways = {*DIRECTIONS, *(tuple(-d for d in direction) for direction in DIRECTIONS)}
    assert both_ways == set(loops.NEIGHBOURS)
    assert len(DIRECTIONS) == 13


def test_a_fixed_number_of_bins_shares_the_range_equally_and_edges_belong_above():
    values = np.array([0.0, 0.24, 0.25, 0.5, 0.99, 1.0])
    assert discretise(values, bin_count=4).tolist() == [1, 1, 2, 3, 4, 4]


def test_bins_of_fixed_width_have_their_edges_at_multiples_of_the_width():
    """From -7 with width 5 the first bin is -10 to -5."""
    assert discretise(np.array([-7.0, -5.0, -0.1, 0.0, 12.0]), bin_width=5.0).tolist() == [1, 2, 2, 3, 5]


@pytest.mark.parametrize("width", [None, 3.0])
def test_equal_values_share_level_one(width):
    assert discretise(np.full(5, 8.0), bin_width=width).tolist() == [1] * 5


def test_a_width_that_would_need_too_many_levels_is_refused():
    with pytest.raises(ValueError, match="gives 10001 grey levels, at most 1024"):
        discretise(np.array([0.0, 1.0]), bin_width=1e-4)
