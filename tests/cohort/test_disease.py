"""Microbleeds: sizes, places, and which of them the image shows."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from mhsev_monai.cohort.acquisition import acquired_image
from mhsev_monai.cohort.disease import (
    DIFFICULTIES,
    MIN_DISTANCE,
    VISIBLE_CONTRAST_TO_NOISE,
    Bleed,
    Core,
    Imaging,
    contrast_to_noise,
    draw_bleeds,
    draw_contrasts,
    draw_core,
    label_bleeds,
    share_visible,
)
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.lesions import Ellipsoid
from mhsev_monai.cohort.placement import obstacles_of
from mhsev_monai.cohort.settings import DIFFICULTY_NAMES
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.subject import bleed_imaging, epi_readout, sampling_of
from mhsev_monai.cohort.susceptibility import EpiReadout, spin_echo_epi_factor
from mhsev_monai.regions import Region

REALISTIC = DIFFICULTIES["realistic"]


def ball(diameter, centre=(0.0, 0.0, 0.0)):
    return Ellipsoid(np.array(centre), np.full(3, diameter / 2))


def bleeds_in(head, n, *, seed=0, difficulty=REALISTIC, avoid=(), snr=18.0, label="visible", imaging=None):
    grid, anatomy = head
    return draw_bleeds(np.random.default_rng(seed), n, anatomy, grid, difficulty, avoid, snr, label, imaging)


def test_there_is_a_difficulty_of_every_name():
    assert tuple(DIFFICULTIES) == DIFFICULTY_NAMES


@pytest.mark.parametrize("name", DIFFICULTY_NAMES)
def test_cores_have_the_stated_median_and_spread(name):
    difficulty, rng = DIFFICULTIES[name], np.random.default_rng(1)
    cores = [draw_core(rng, difficulty) for _ in range(4000)]
    logarithms = np.log([core.diameter for core in cores])
    assert np.exp(np.median(logarithms)) == pytest.approx(difficulty.median_diameter, rel=0.03)
    # Clipping takes a few per cent of the spread; the middle half is not clipped.
    middle_half = np.subtract(*np.quantile(logarithms, (0.75, 0.25)))
    assert middle_half == pytest.approx(1.349 * difficulty.log_sd, rel=0.08)
    assert {core.loss >= difficulty.loss[0] and core.loss <= difficulty.loss[1] for core in cores} == {True}


def test_a_core_that_fills_a_voxel_has_the_contrast_of_its_loss():
    grid = VoxelGrid((5, 5, 5), (2.0, 2.0, 2.0))
    assert contrast_to_noise(ball(4.0), Core(4.0, 0.75, 0.5), grid, 20.0) == pytest.approx(15.0)


def test_a_small_core_has_the_contrast_of_its_volume():
    grid, rng = VoxelGrid((5, 5, 5), (2.0, 2.0, 4.0)), np.random.default_rng(0)
    # Anywhere inside one voxel. By hand: pi/6 * 1.6^3 = 2.145 mm^3 of 16 mm^3.
    centres = rng.uniform((-0.2, -0.2, -1.2), (0.2, 0.2, 1.2), size=(200, 3))
    contrasts = [contrast_to_noise(ball(1.6, centre), Core(1.6, 1.0, 0.5), grid, 20.0) for centre in centres]
    # A share is known to about 0.01 from 216 samples, and their mean over 200 places much better.
    assert np.mean(contrasts) == pytest.approx(20 * 2.145 / 16, rel=0.02)


def test_a_core_outside_the_scan_has_no_contrast():
    assert (
        contrast_to_noise(ball(4.0, (90.0, 0.0, 0.0)), Core(4.0, 1.0, 0.5), VoxelGrid((5, 5, 5), (2.0, 2.0, 2.0)), 20.0)
        == 0
    )


def test_a_readout_that_moves_nothing_leaves_the_contrast_of_the_core():
    grid, rng = VoxelGrid((9, 9, 9), (2.0, 2.0, 3.0)), np.random.default_rng(4)
    for core in (Core(3.0, 0.8, 1.0), Core(4.5, 0.6, 1.0)):
        body = ball(core.diameter, rng.uniform(-1, 1, size=3))
        still = contrast_to_noise(body, core, grid, 20.0, Imaging(EpiReadout(1e6)))
        # Two samplings of one sphere: each knows a share to about 0.03.
        assert still == pytest.approx(contrast_to_noise(body, core, grid, 20.0), abs=20 * 0.04)


def test_a_slower_readout_shows_bleeds_darker():
    """The narrower a voxel's bandwidth, the more signal leaves the bleed's own voxels."""
    contrasts = [
        draw_contrasts(
            np.random.default_rng(2), 60, REALISTIC, (2.0, 2.0, 3.0), 20.0, Imaging(EpiReadout(bandwidth))
        ).mean()
        for bandwidth in (1e4, 40.0, 15.0)
    ]
    assert contrasts[0] < contrasts[1] < contrasts[2]


def test_what_counts_is_what_the_readouts_image_shows(head):
    """The same effect on the voxels of the whole scan instead of those around the bleed."""
    epi, spread = EpiReadout(32.0, 3.0, (0.0, 0.6, 0.8)), partial(ndimage.gaussian_filter, sigma=0.42)
    bleeds = bleeds_in(head, 6, difficulty=DIFFICULTIES["hard"], imaging=Imaging(epi, spread))
    shown = [18.0 * float(spread(1 - spin_echo_epi_factor([bleed], head[0], epi)).max()) for bleed in bleeds]
    assert [bleed.counted for bleed in bleeds] == [contrast >= VISIBLE_CONTRAST_TO_NOISE for contrast in shown]
    np.testing.assert_allclose([bleed.contrast_to_noise for bleed in bleeds], shown, rtol=1e-3)
    assert len(bleeds) > 6


@pytest.mark.parametrize("hospital", HOSPITALS, ids=lambda hospital: hospital.name)
def test_the_contrast_is_that_of_the_scan_itself(hospital):
    """A bleed in even tissue, scanned as a subject is; the noise is left out."""
    rng, core = np.random.default_rng(5), Core(3.0, 0.8, 0.7)
    grid = hospital.grid
    centre = np.array(grid.centre) + rng.uniform(-0.5, 0.5, size=3) * hospital.spacing
    bleed = Bleed(Ellipsoid(centre, np.full(3, 1.5)), 0.8, 0.7, Region.LOBAR, counted=True)
    tissue = spin_echo_epi_factor([bleed], grid, epi_readout(hospital))
    image = acquired_image(tissue, sampling_of(hospital)._replace(ghost=0.0), 0.0, rng)
    expected = contrast_to_noise(bleed.body, core, grid, 20.0, bleed_imaging(hospital))
    # Even tissue rings at the border of the box, a little, as far as the middle.
    middle = image[tuple(slice(n // 2 - 6, n // 2 + 7) for n in grid.shape)]
    assert 20 * (float(np.median(middle)) - float(middle.min())) == pytest.approx(expected, rel=0.03)


def test_harder_difficulties_show_a_smaller_share():
    rng = np.random.default_rng(0)
    shares = [
        share_visible(
            draw_contrasts(
                rng, 100, difficulty, (2.0, 2.0, 3.2), 18.0 * difficulty.snr_factor, Imaging(EpiReadout(32.0))
            )
        )
        for difficulty in DIFFICULTIES.values()
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.98
    assert 0.1 < shares[-1] < 0.6


def test_as_many_as_asked_are_visible_and_the_others_occult(head):
    bleeds = bleeds_in(head, 12)
    counted = [bleed for bleed in bleeds if bleed.counted]
    assert len(counted) == 12
    assert len(bleeds) > 12
    assert bleeds[-1].counted
    for bleed in bleeds:
        core = Core(2 * bleed.body.half_axes[0], bleed.loss, bleed.susceptibility_ppm)
        assert bleed.contrast_to_noise == contrast_to_noise(bleed.body, core, head[0], 18.0)
        assert bleed.counted == (bleed.contrast_to_noise >= VISIBLE_CONTRAST_TO_NOISE)


def test_every_planted_bleed_counts_where_the_label_says_all(head):
    bleeds = bleeds_in(head, 12, difficulty=DIFFICULTIES["hard"], label="all")
    assert len(bleeds) == 12
    assert all(bleed.counted for bleed in bleeds)
    assert min(bleed.contrast_to_noise for bleed in bleeds) < VISIBLE_CONTRAST_TO_NOISE


def test_the_first_bleeds_do_not_depend_on_how_many_there_are(head):
    few, many = bleeds_in(head, 3), bleeds_in(head, 9)
    assert len(few) < len(many)
    for one, same in zip(few, many, strict=False):
        np.testing.assert_array_equal(one.body.centre, same.body.centre)
        assert one[1:] == same[1:]


def test_the_largest_real_count_finds_room_in_one_head(head):
    bleeds = bleeds_in(head, 83, seed=3, difficulty=DIFFICULTIES["moderate"])
    centres = np.array([bleed.body.centre for bleed in bleeds])
    between = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(len(centres), 1)]
    assert sum(bleed.counted for bleed in bleeds) == 83
    assert between.min() >= MIN_DISTANCE


def test_noise_that_hides_everything_ends_all_the_same(head):
    bleeds = bleeds_in(head, 3, snr=0.5)
    assert sum(bleed.counted for bleed in bleeds) == 3


def test_bleeds_lie_where_real_ones_do(head):
    regions = [bleed.region for seed in range(4) for bleed in bleeds_in(head, 60, seed=seed, label="all")]
    # Four standard errors of shares of 240.
    for region, share in ((Region.LOBAR, 0.74), (Region.DEEP, 0.135), (Region.INFRATENTORIAL, 0.126)):
        assert regions.count(region) / 240 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 240)), region


def test_in_the_lobes_bleeds_lie_in_white_matter_or_at_its_junction_with_the_cortex(head):
    grid, anatomy = head
    first = np.array([grid.axis(axis)[0] for axis in range(3)])
    lobar = [b for seed in range(4) for b in bleeds_in(head, 60, seed=seed, label="all") if b.region == Region.LOBAR]
    voxels = np.rint((np.array([bleed.body.centre for bleed in lobar]) - first) / grid.spacing).astype(int)
    white = anatomy.fractions[2][tuple(voxels.T)]
    # 39.8 of 73.2 % are subcortical; four standard errors of a share of about 180, and voxels on the border of both.
    assert np.mean(white > 0.8) == pytest.approx(0.398 / 0.732, abs=0.16)
    assert anatomy.parenchyma[tuple(voxels.T)].min() > 0.9


def test_bleeds_stay_clear_of_what_does_not_count(head):
    grid, _ = head
    wall = [Ellipsoid(np.array((side * 25.0, y, 25.0)), np.full(3, 9.0)) for side in (-1, 1) for y in (-40, -10, 20)]
    obstacles = obstacles_of(wall)
    bleeds = bleeds_in((grid, head[1]), 40, avoid=wall, label="all")
    for bleed in bleeds:
        # For balls the gap is the distance to the surface.
        nearest = min(np.linalg.norm(bleed.body.centre - body.centre) - 9.0 for body in wall)
        assert obstacles.gap(bleed.body.centre) == pytest.approx(nearest)
        assert nearest > 4.0


def test_masks_number_the_counted_and_the_occult_apart():
    grid = VoxelGrid((20, 20, 10), (2.0, 2.0, 3.0))
    places = ((-10.0, 0.0, 0.0), (0.0, 0.0, 0.0), (10.0, 0.0, 0.0))
    bleeds = [
        Bleed(ball(4.0, place), 1.0, 0.5, Region.LOBAR, counted)
        for place, counted in zip(places, (True, False, True), strict=True)
    ]
    counted, occult = label_bleeds(bleeds, grid), label_bleeds(bleeds, grid, counted=False)
    at = [(round((x + 19) / 2), 10, 5) for x, *_ in places]
    assert [counted[voxel] for voxel in at] == [1, 0, 2]
    assert [occult[voxel] for voxel in at] == [0, 1, 0]
