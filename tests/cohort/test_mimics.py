"""Mimics: where they lie, how they change voxels, and that nothing but age, hypertension and difficulty drives them."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.bright_mimics import (
    draw_hyperintensities,
    draw_infarcts,
    draw_lacunes,
    draw_perivascular_spaces,
)
from mhsev_monai.cohort.clinical import Clinical
from mhsev_monai.cohort.dark_mimics import Calcification, Vessel, draw_calcifications, draw_flow_voids, draw_veins
from mhsev_monai.cohort.disease import DIFFICULTIES
from mhsev_monai.cohort.lesions import Ellipsoid, Tube
from mhsev_monai.cohort.mimics import Mimics, draw_mimics, paint_mimics
from mhsev_monai.cohort.placement import nearest_to_template
from mhsev_monai.cohort.smooth_fields import VoxelGrid

OLD = Clinical(84, "F", True, False, 0.5)
YOUNG = Clinical(50, "F", False, False, 0.5)
HARD, EASY = DIFFICULTIES["hard"], DIFFICULTIES["easy"]
GRID = VoxelGrid((20, 20, 10), (2.0, 2.0, 3.0))


def value_at(values, place, grid):
    index = [round((place[a] - grid.axis(a)[0]) / grid.spacing[a]) for a in range(3)]
    return values[tuple(np.clip(index, 0, np.array(grid.shape) - 1))]


def mean_number(draw, clinical, head, difficulty, n=10):
    grid, anatomy = head
    return np.mean([len(draw(np.random.default_rng(seed), clinical, anatomy, grid, difficulty)) for seed in range(n)])


@pytest.mark.parametrize("draw", [draw_lacunes, draw_perivascular_spaces, draw_hyperintensities])
def test_bright_findings_come_with_age_and_hypertension(head, draw):
    assert mean_number(draw, OLD, head, HARD) > 1.5 * mean_number(draw, YOUNG, head, HARD)


def test_calcifications_are_commoner_with_age(head):
    assert mean_number(draw_calcifications, OLD, head, HARD, 60) > mean_number(
        draw_calcifications, YOUNG, head, HARD, 60
    )


def test_a_few_of_a_hundred_have_a_recent_infarct(head):
    grid, anatomy = head
    realistic = DIFFICULTIES["realistic"]
    for clinical, share in ((YOUNG, 0.03), (OLD, 0.06)):
        found = [len(draw_infarcts(np.random.default_rng(s), clinical, anatomy, grid, realistic)) for s in range(1500)]
        assert set(found) == {0, 1}
        assert np.mean(found) == pytest.approx(share, abs=4 * np.sqrt(share / 1500))


@pytest.mark.parametrize("draw", [draw_flow_voids, draw_veins])
def test_the_difficulty_multiplies_the_number_of_vessels(head, draw):
    grid, anatomy = head
    hard, easy = (
        np.mean([len(draw(np.random.default_rng(seed), anatomy, grid, difficulty)) for seed in range(25)])
        for difficulty in (HARD, EASY)
    )
    # Poisson numbers of mean 2 to 9: the ratio of means of 25 is known to about a quarter.
    assert hard / easy == pytest.approx(HARD.mimics / EASY.mimics, rel=0.5)


def test_veins_stand_in_sulci_across_more_slices_than_a_bleed(head):
    grid, anatomy = head
    veins = [vein for seed in range(8) for vein in draw_veins(np.random.default_rng(seed), anatomy, grid, HARD)]
    assert len(veins) > 20
    for vein in veins:
        first, last = vein.body.curve[0], vein.body.curve[-1]
        assert 2.0 < (last[2] - first[2]) / grid.spacing[2] < 4.5
        assert np.linalg.norm((last - first)[:2]) < 0.6 * (last[2] - first[2])
        middle = vein.body.curve[len(vein.body.curve) // 2]
        assert anatomy.fractions[0][index_near(middle, grid)].max() > 0.25


def index_near(place, grid):
    """The voxel of a place and its neighbours."""
    index = [round((place[a] - grid.axis(a)[0]) / grid.spacing[a]) for a in range(3)]
    return tuple(slice(max(i - 1, 0), i + 2) for i in index)


def test_calcifications_are_diamagnetic_and_on_both_sides(head):
    grid, anatomy = head
    for seed in range(12):
        found = draw_calcifications(np.random.default_rng(seed), OLD, anatomy, grid, HARD)
        assert all(-1.5 <= calcification.susceptibility_ppm <= -0.5 for calcification in found)
        places = [anatomy_position(anatomy, grid, calcification.body.centre) for calcification in found]
        lateral = [place[0] for place in places if abs(place[0]) > 10]
        assert sum(x > 0 for x in lateral) == sum(x < 0 for x in lateral)


def anatomy_position(anatomy, grid, place):
    return value_at(anatomy.template_position, place, grid)


def test_hyperintensities_lie_in_white_matter(head):
    grid, anatomy = head
    found = [
        body
        for seed in range(4)
        for body in draw_hyperintensities(np.random.default_rng(seed), OLD, anatomy, grid, HARD)
    ]
    assert len(found) > 20
    assert min(value_at(anatomy.fractions[2], body.centre, grid) for body in found) > 0.8


def test_the_same_numbers_give_the_same_mimics_and_other_kinds_stay(head):
    grid, anatomy = head
    young, old = (draw_mimics(np.random.default_rng(4), clinical, anatomy, grid, HARD) for clinical in (YOUNG, OLD))
    assert len(old.hyperintensities) > len(young.hyperintensities)
    for one, same in zip(young.veins, old.veins, strict=True):
        np.testing.assert_array_equal(one.body.curve, same.body.curve)


def test_a_place_of_the_template_is_found_as_by_looking_at_every_voxel(head):
    grid, anatomy = head
    for target in np.random.default_rng(0).uniform((-40, -60, -20), (40, 40, 50), size=(20, 3)):
        squared = ((anatomy.template_position - target.astype(np.float32)) ** 2).sum(axis=-1)
        voxel = np.unravel_index(squared.argmin(), grid.shape)
        place = [grid.axis(axis)[voxel[axis]] for axis in range(3)]
        np.testing.assert_array_equal(nearest_to_template(anatomy, grid, target), place)


def test_a_vessel_or_calcification_leaves_the_rest_of_the_signal():
    tube = Tube(np.array([(0.0, 0.0, z) for z in np.arange(-6.0, 7.0)]), 3.0)
    inside = (10, 10, 5)
    effects = paint_mimics(Mimics(flow_voids=(Vessel(tube, 0.8),)), GRID)
    assert effects.kept[inside] == pytest.approx(0.2)
    body = Ellipsoid(np.zeros(3), np.full(3, 6.0))
    assert paint_mimics(Mimics(calcifications=(Calcification(body, 0.4, -1.0),)), GRID).kept[inside] == pytest.approx(
        0.6
    )
    assert not effects.fluid.any()


@pytest.mark.parametrize(
    ("kind", "effect", "share"),
    [("lacunes", "fluid", 0.9), ("infarcts", "restricted", 1.0), ("hyperintensities", "hyperintense", 0.8)],
)
def test_each_bright_finding_takes_its_share_and_no_signal(kind, effect, share):
    effects = paint_mimics(Mimics(**{kind: (Ellipsoid(np.zeros(3), np.full(3, 6.0)),)}), GRID)
    changed = getattr(effects, effect)
    assert changed[10, 10, 5] == pytest.approx(share, abs=1e-6)
    # By hand: 4/3 pi 6^3 mm^3, of which a share is taken.
    assert changed.sum() * 12.0 == pytest.approx(share * 904.8, rel=0.03)
    assert effects.kept.min() == 1
    others = {"fluid", "restricted", "hyperintense"} - {effect}
    assert not any(getattr(effects, other).any() for other in others)
