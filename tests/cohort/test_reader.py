"""The second reader against the agreement of experts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from mhsev_monai.cohort.counts import MAX_COUNT, count_probabilities
from mhsev_monai.cohort.disease import DIFFICULTIES, VISIBLE_CONTRAST_TO_NOISE, draw_contrasts
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.reader import FALSE_BLEEDS, HALF_FOUND_CONTRAST, detection_probability, read_count
from mhsev_monai.cohort.subject import bleed_imaging
from mhsev_monai.severity import severity_from_count

N = 3000


@pytest.fixture(scope="module")
def readings():
    """Counts of two readers in realistic scans: real counts, and as many scans without a microbleed.

    Contrasts come from a pool of bleeds at random places of each hospital's voxels; no image is made.
    """
    rng, difficulty = np.random.default_rng(7), DIFFICULTIES["realistic"]
    first, second = [], []
    for hospital in HOSPITALS:
        pool = draw_contrasts(
            rng, 300, difficulty, hospital.spacing, hospital.snr * difficulty.snr_factor, bleed_imaging(hospital)
        )
        visible = np.flatnonzero(pool >= VISIBLE_CONTRAST_TO_NOISE)
        counts = rng.choice(MAX_COUNT + 1, p=count_probabilities(hospital, "lognormal", 0.5), size=N // len(HOSPITALS))
        for count in counts:
            # Occult bleeds before the last visible one: a negative binomial number.
            n_occult = rng.negative_binomial(count, visible.size / pool.size) if count else 0
            occult = pool[pool < VISIBLE_CONTRAST_TO_NOISE]
            contrasts = np.concatenate([rng.choice(pool[visible], count), rng.choice(occult, n_occult)])
            first.append(read_count(rng, contrasts))
            second.append(read_count(rng, contrasts))
    return np.array(first), np.array(second)


def test_readers_agree_on_presence_as_experts_do(readings):
    """0.68 between raters by Gregoire et al. 2009; the standard error of kappa here is 0.013."""
    first, second = readings
    assert 0.62 < cohen_kappa_score(first > 0, second > 0) < 0.74


def test_readers_agree_on_the_grade_no_better_than_experts_do(readings):
    grades = [[severity_from_count(int(count)) for count in reader] for reader in readings]
    assert 0.60 < cohen_kappa_score(*grades) < 0.76


def test_readers_counts_correlate_as_experts_counts_do(readings):
    """An intraclass correlation of 0.93 by the same authors; misses are independent here, so it is a little higher."""
    first, second = readings
    differences, sums = (first - second).var(), (first + second).var()
    assert 0.90 < (sums - differences) / (sums + differences) < 1.0


def test_a_bleed_of_half_found_contrast_is_found_half_of_the_time():
    found = detection_probability([0.0, HALF_FOUND_CONTRAST / 2, HALF_FOUND_CONTRAST, 2 * HALF_FOUND_CONTRAST])
    # By hand: 1 / (1 + 2^4) on either side.
    np.testing.assert_allclose(found, [0.0, 1 / 17, 0.5, 16 / 17])


def test_findings_without_bleeds_have_the_stated_mean():
    rng = np.random.default_rng(0)
    found = [read_count(rng, ()) for _ in range(5000)]
    assert np.mean(found) == pytest.approx(FALSE_BLEEDS, abs=4 * np.sqrt(FALSE_BLEEDS / 5000))
