"""A scanned subject: tissues, noise and bleeds as the protocol and the truth say."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from scipy import ndimage

from mhsev_monai.cohort import HOSPITALS, simulate_subject
from mhsev_monai.cohort.anatomy import draw_head_shape, head_anatomy
from mhsev_monai.cohort.disease import MIN_DISTANCE, label_bleeds
from mhsev_monai.cohort.mimics import MimicEffects
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.signal import coil_shading
from mhsev_monai.cohort.subject import diseased_fractions, draw_record, placed_head, random_streams, subject_protocol

SEED = 11
EVERY_NEIGHBOUR = np.ones((3, 3, 3))
SMALL = CohortSettings(size="small")


def contrasts(hospital, subject):
    """b0, trace (geometric mean) and ADC in mm^2/s."""
    images = np.maximum(subject.images.astype(np.float64), 1.0)
    b0, trace = images[..., 0], np.exp(np.log(images[..., 1:]).mean(axis=-1))
    return b0, trace, np.log(b0 / trace) / (hospital.b_values[1] - hospital.b_values[0])


def test_csf_is_as_bright_against_the_brain_as_on_real_scans(scanned):
    hospital, subject = scanned
    b0, trace, _ = contrasts(hospital, subject)
    csf, brain = subject.anatomy.fractions[0] > 0.95, subject.anatomy.parenchyma > 0.95
    # Real scans of five vendors: 1.8 to 3.4; under diffusion weighting CSF is the darker one.
    assert 1.8 < np.median(b0[csf]) / np.median(b0[brain]) < 3.4
    assert np.median(trace[csf]) < 0.6 * np.median(trace[brain])


def test_parenchyma_diffuses_as_in_the_literature(scanned):
    hospital, subject = scanned
    *_, adc = contrasts(hospital, subject)
    assert 0.65e-3 < np.median(adc[subject.anatomy.parenchyma > 0.95]) < 0.90e-3


def test_signal_to_noise_is_the_protocols(scanned):
    hospital, subject = scanned
    if hospital.masked_background:
        pytest.skip("the scanner has set the air to zero")
    streams = random_streams(SEED, hospital.name, 1)
    protocol = subject_protocol(hospital, CohortSettings(), streams["protocol"])
    white = ndimage.binary_erosion(subject.anatomy.fractions[2] > 0.98) & (subject.labels == 0)
    shading = coil_shading(streams["shading"], protocol.grid, protocol.shading)
    air = subject.images[:5, :5, 8:-8, 1:].astype(float)
    # Rayleigh: the mean of air is sigma sqrt(pi / 2). No ghost falls into the corners.
    noise = air.mean() / np.sqrt(np.pi / 2)
    snr = np.median(subject.images[..., 0][white] / shading[white]) / noise
    # About 10000 values of air; white matter is taken down by iron and up by neighbouring CSF a little.
    assert snr == pytest.approx(protocol.snr, rel=0.08)


def test_the_background_is_zero_only_where_the_scanner_masks_it(scanned):
    hospital, subject = scanned
    corner = subject.images[:4, :4, :, 0]
    assert (corner == 0).all() == hospital.masked_background


def test_brain_volume_is_a_humans(scanned):
    hospital, subject = scanned
    volume_ml = (subject.anatomy.brain_depth > 0).sum() * np.prod(hospital.spacing) / 1000
    assert 1000 < volume_ml < 1900


def test_planted_bleeds_are_separate_components_of_the_truth(scanned):
    _, subject = scanned
    assert len(subject.bleeds) == subject.record.n_microbleeds == 6
    assert ndimage.label(subject.labels > 0, EVERY_NEIGHBOUR)[1] == 6
    assert set(np.unique(subject.labels)) == set(range(7))


def test_most_bleeds_are_darker_than_their_surroundings_on_b0_and_trace(scanned):
    hospital, subject = scanned
    b0, trace, _ = contrasts(hospital, subject)
    darkest = []
    for number in range(1, 7):
        bleed = subject.labels == number
        near, far = (ndimage.binary_dilation(bleed, np.ones((3, 3, 1)), iterations=n) for n in (1, 3))
        ring = far & ~near & (subject.anatomy.parenchyma > 0.9)
        darkest.append([image[bleed].min() / np.median(image[ring]) for image in (b0, trace)])
    # The field displaces signal into some, and the slice above shares in others.
    assert np.median(darkest) < 0.6
    assert (np.array(darkest)[:, 0] < 0.8).sum() >= 5


@pytest.mark.parametrize("contrast", ["dwi", "swi"])
def test_a_subjects_label_changes_nothing_but_its_bleeds(contrast):
    hospital, settings = HOSPITALS[1], CohortSettings(size="small", contrast=contrast)
    without, with_five = (simulate_subject(hospital, SEED, 2, settings=settings, count=count) for count in (0, 5))
    change = (with_five.images[..., 0].astype(float) - without.images[..., 0]) ** 2
    hidden = label_bleeds(with_five.bleeds, hospital.scaled("small").grid, counted=False)
    near = ndimage.binary_dilation((with_five.labels + hidden) > 0, EVERY_NEIGHBOUR, iterations=3)
    assert near.mean() < 0.1
    # Edges ring through the whole slice, by a per cent or two of the energy.
    assert change[near].sum() > 0.97 * change.sum() > 0
    assert without.labels.max() == 0
    np.testing.assert_array_equal(without.anatomy.fractions, with_five.anatomy.fractions)
    np.testing.assert_array_equal(without.affine, with_five.affine)


def test_many_bleeds_keep_their_distance_and_stay_out_of_csf():
    subject = simulate_subject(HOSPITALS[2], SEED, 3, settings=CohortSettings(difficulty="moderate"), count=25)
    centres = np.array([bleed.body.centre for bleed in subject.bleeds])
    between = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(len(centres), 1)]
    assert between.min() >= MIN_DISTANCE
    assert ndimage.label(subject.labels > 0, EVERY_NEIGHBOUR)[1] == 25
    middle = [subject.anatomy.fractions[0][subject.labels == number].min() for number in range(1, 26)]
    assert max(middle) < 0.2


def test_older_brains_hold_more_csf():
    grid = HOSPITALS[2].scaled("small").grid
    share = []
    for age in (55, 85):
        anatomy = head_anatomy(draw_head_shape(np.random.default_rng(0), age, grid), grid)
        inside = anatomy.brain_depth > 3
        share.append(anatomy.fractions[0][inside].mean())
    assert share[1] > 1.15 * share[0]


def test_lesions_replace_tissue_and_nothing_else():
    fractions = np.zeros((6, 2, 1, 1), dtype=np.float32)
    fractions[2, 0], fractions[0, 0] = 0.8, 0.2  # white matter beside CSF
    fractions[4, 1] = 0.5  # scalp beside bone
    half, none = np.full((2, 1, 1), 0.5, dtype=np.float32), np.zeros((2, 1, 1), dtype=np.float32)
    scanned = diseased_fractions(fractions, MimicEffects(1 - none, half, half, none))
    # First the infarct takes half of the white matter, then fluid half of both.
    np.testing.assert_allclose(scanned[:, 0, 0, 0], [0.6, 0, 0.2, 0, 0, 0, 0.2, 0], atol=1e-6)
    np.testing.assert_array_equal(scanned[:6, 1], fractions[:, 1])


def test_the_head_stays_upright_in_the_world_however_oblique_the_slices():
    """Eyes are in front and at the height of the lower brain, by the affine of the image."""
    hospital = dataclasses.replace(HOSPITALS[0], oblique_degrees=(25.0, 0.0, 0.0))
    subject = simulate_subject(hospital, SEED, 1, settings=SMALL, count=0)
    eyes = np.argwhere(subject.anatomy.fractions[5] > 0.5)
    brain = np.argwhere(subject.anatomy.brain_depth > 10)
    to_world = subject.affine[:3, :3].T
    forwards, upwards = ((eyes.mean(axis=0) - brain.mean(axis=0)) @ to_world)[1:]
    # In the template they are 79 mm in front of and 50 mm below the brain's middle; heads are a tenth smaller.
    assert np.degrees(np.arctan2(-upwards, forwards)) == pytest.approx(np.degrees(np.arctan2(50, 79)), abs=12)


def test_the_slices_cover_the_brain():
    for hospital in HOSPITALS:
        streams = random_streams(SEED, hospital.name, 4)
        protocol = subject_protocol(hospital, SMALL, streams["protocol"])
        shape = draw_head_shape(streams["anatomy"], 75, protocol.grid)
        depth = head_anatomy(placed_head(shape, protocol), protocol.grid, 5.0).brain_depth
        pixel_cm2 = np.prod(protocol.spacing[:2]) / 100
        # Only the cord leaves the box, and below.
        assert (depth[:, :, 0] > 0).sum() * pixel_cm2 < 4.0
        assert (depth[:, :, -1] > 0).sum() * pixel_cm2 < 8.0


def test_a_gradient_echo_shows_bleeds_larger_than_a_spin_echo():
    hospital, dark = HOSPITALS[0], {}
    for contrast in ("dwi", "swi"):
        settings = CohortSettings(size="small", contrast=contrast)
        without, planted = (simulate_subject(hospital, SEED, 5, settings=settings, count=count) for count in (0, 8))
        ratio = planted.images[..., 0] / np.maximum(without.images[..., 0].astype(float), 1)
        inside = planted.anatomy.brain_depth > 2
        dark[contrast] = (ratio[inside] < 0.7).sum()
    assert dark["swi"] > 1.5 * dark["dwi"] > 0


def test_small_subjects_are_quick():
    simulate_subject(HOSPITALS[0], SEED, 1, settings=SMALL)
    start = time.process_time()
    simulate_subject(HOSPITALS[0], SEED, 1, settings=SMALL)
    # Half a second on the machine it was written on.
    assert time.process_time() - start < 2.0


def test_a_record_is_that_of_the_scan():
    settings = CohortSettings(size="small", mix="lognormal", negatives=0.0)
    subject = simulate_subject(HOSPITALS[1], SEED, 6, settings=settings)
    assert subject.record == draw_record(HOSPITALS[1], SEED, 6, settings)
    assert sum(bleed.counted for bleed in subject.bleeds) == subject.labels.max() == subject.record.n_microbleeds > 0
