"""Clinical variables, and that the severity mix holds whatever they are."""

from __future__ import annotations

import numpy as np
import pytest

from mhsev_monai.cohort.clinical import draw_clinical, draw_count, severity_at
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.subject import draw_record
from mhsev_monai.severity import Severity, severity_from_count

N = 3000


@pytest.fixture(scope="module")
def clinicals():
    rng = np.random.default_rng(5)
    return [draw_clinical(rng) for _ in range(N)]


def test_risk_percentiles_are_uniform(clinicals):
    shares = np.histogram([c.risk_percentile for c in clinicals], bins=10, range=(0, 1))[0] / N
    # Four standard errors of a share of 0.1.
    assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.09 / N)


def test_age_and_hypertension_raise_the_severity(clinicals):
    graver = [c for c in clinicals if severity_at(c.risk_percentile, (0.15, 0.35, 0.30, 0.20)) >= Severity.MODERATE]
    milder = [c for c in clinicals if c not in graver]
    for variable in ("age", "hypertension", "anticoagulant"):
        means = [np.mean([getattr(c, variable) for c in group]) for group in (milder, graver)]
        assert means[1] > means[0], variable


@pytest.mark.parametrize(
    ("percentile", "severity"),
    [(0.0, Severity.NONE), (0.2, Severity.MILD), (0.69, Severity.MODERATE), (0.99, Severity.SEVERE)],
)
def test_the_mix_cuts_the_percentiles(percentile, severity):
    assert severity_at(percentile, (0.1, 0.4, 0.2, 0.3)) == severity


@pytest.mark.parametrize("severity", list(Severity))
def test_counts_stay_in_their_class_and_few_are_commoner(severity):
    rng = np.random.default_rng(2)
    counts = [draw_count(rng, severity) for _ in range(2000)]
    assert {severity_from_count(count) for count in counts} == {severity}
    if severity is not Severity.NONE:
        assert counts.count(min(counts)) > counts.count(max(counts)) > 0


def test_each_hospital_has_its_own_mix():
    observed = {}
    for hospital in HOSPITALS:
        grades = [severity_from_count(draw_record(hospital, 3, index).n_microbleeds) for index in range(1, 1201)]
        observed[hospital.name] = np.array([grades.count(severity) for severity in Severity]) / len(grades)
        # Four standard errors of a share near one half.
        np.testing.assert_allclose(observed[hospital.name], hospital.severity_mix, atol=4 * 0.5 / np.sqrt(1200))
    severe = [mix[Severity.SEVERE] for mix in observed.values()]
    assert severe[2] - severe[0] > 0.1
