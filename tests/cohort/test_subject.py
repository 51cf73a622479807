"""A scanned subject: tissues, noise and bleeds as the protocol and the truth say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mhsev_monai.cohort import HOSPITALS, simulate_subject
from mhsev_monai.cohort.disease import MIN_DISTANCE
from mhsev_monai.cohort.signal import coil_shading
from mhsev_monai.cohort.subject import random_streams

SEED = 11
EVERY_NEIGHBOUR = np.ones((3, 3, 3))


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
    white = ndimage.binary_erosion(subject.anatomy.fractions[2] > 0.98) & (subject.labels == 0)
    shading = coil_shading(random_streams(SEED, hospital.name, 1)["shading"], hospital.grid, hospital.shading)
    # Two directions share everything but the noise.
    first, second = (subject.images[..., volume].astype(float)[white] for volume in (1, 2))
    noise = (first - second).std() / np.sqrt(2)
    snr = np.median(subject.images[..., 0][white] / shading[white]) / noise
    # Rounding and the Rician floor of the weighted volumes stay within a few per cent.
    assert snr == pytest.approx(hospital.snr, rel=0.07)


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


def test_bleeds_are_darker_than_their_surroundings_on_b0_and_trace(scanned):
    hospital, subject = scanned
    b0, trace, _ = contrasts(hospital, subject)
    for number in range(1, 7):
        bleed = subject.labels == number
        near, far = (ndimage.binary_dilation(bleed, np.ones((3, 3, 1)), iterations=n) for n in (1, 3))
        ring = far & ~near & (subject.anatomy.parenchyma > 0.9)
        for image in (b0, trace):
            assert image[bleed].min() < 0.75 * np.median(image[ring])


def test_a_subjects_label_changes_nothing_but_its_bleeds():
    hospital = HOSPITALS[1]
    without, with_five = (simulate_subject(hospital, SEED, 2, count=count) for count in (0, 5))
    touched = ndimage.binary_dilation(with_five.labels > 0, EVERY_NEIGHBOUR)
    different = (without.images != with_five.images).any(axis=-1)
    assert different.any()
    assert not (different & ~touched).any()
    assert without.labels.max() == 0


def test_many_bleeds_keep_their_distance_and_stay_out_of_csf():
    subject = simulate_subject(HOSPITALS[2], SEED, 3, difficulty="moderate", count=25)
    centres = np.array([bleed.body.centre for bleed in subject.bleeds])
    between = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(25, 1)]
    assert between.min() >= MIN_DISTANCE
    assert ndimage.label(subject.labels > 0, EVERY_NEIGHBOUR)[1] == 25
    middle = [subject.anatomy.fractions[0][subject.labels == number].min() for number in range(1, 26)]
    assert max(middle) < 0.2


def test_older_brains_hold_more_csf():
    from mhsev_monai.cohort.anatomy import draw_head_shape, head_anatomy

    grid = HOSPITALS[2].grid
    share = []
    for age in (55, 85):
        anatomy = head_anatomy(draw_head_shape(np.random.default_rng(0), age, grid), grid)
        inside = anatomy.brain_depth > 3
        share.append(anatomy.fractions[0][inside].mean())
    assert share[1] > 1.15 * share[0]
