"""Outliers of a site, against scores by hand."""

from __future__ import annotations

import pytest

from mhsev_monai.qc.outliers import MEASURES, modified_z, outlier_words, site_outliers

SNR = next(m for m in MEASURES if m.name == "snr_difference")


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        ([1, 2, 3, 4, 100], [-1.349, -0.6745, 0.0, 0.6745, 65.4265]),  # median 3, median deviation 1
        ([0, 0, 0, 0, 1], [0.0, 0.0, 0.0, 0.0, 3.9895]),  # no median deviation; mean deviation 0.2
        ([7, 7, 7], [0.0, 0.0, 0.0]),
    ],
)
def test_scores_are_those_of_iglewicz_and_hoaglin(values, scores):
    assert modified_z(values) == pytest.approx(scores, abs=1e-9)


def site(name, values):
    return {f"sub-{i}": {name: value} for i, value in enumerate(values)}


@pytest.mark.parametrize(
    ("name", "values", "odd"),
    [
        ("snr_difference", [30, 31, 32, 33, 5], ["sub-4"]),
        ("snr_difference", [30, 31, 32, 33, 90], []),  # high is good
        ("snr_difference", [30.0, 30.1, 30.2, 30.3, 28.0], []),  # far in spreads, near in fact
        ("snr_difference", [30, 31, 32, 5], []),  # too few to say
        ("snr_difference", [30, 31, 32, 33, None, 5], ["sub-5"]),
        ("motion_max_mm", [0.3, 0.4, 0.5, 0.4, 4.0], ["sub-4"]),
        ("brain_mask_ml", [1400, 1420, 1450, 1430, 500], ["sub-4"]),
        ("brain_mask_ml", [1400, 1420, 1450, 1430, 2100], ["sub-4"]),
        ("unknown", [0, 0, 0, 0, 9], []),
    ],
)
def test_a_scan_stands_apart_on_the_bad_side_only(name, values, odd):
    found = site_outliers(site(name, values))
    assert [case_id for case_id, row in found.items() if row] == odd
    assert list(found) == list(site(name, values))


def test_the_words_hold_the_number_its_side_and_its_score():
    assert outlier_words(SNR, 5.04, -9.44) == (
        "SNR, repeated b0 is 5.0, far below the other scans of this site (modified z -9.4)"
    )
