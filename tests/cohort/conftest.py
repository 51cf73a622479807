"""One small cohort on disk and one subject a hospital, made once for all tests of the room."""

from __future__ import annotations

import pytest

from mhsev_monai.cohort import HOSPITALS, make_cohort, simulate_subject

SEED = 11


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Root and summary of a cohort of twelve."""
    root = tmp_path_factory.mktemp("cohort") / "out"
    calls = []
    summary = make_cohort(root, 12, SEED, progress=lambda done, total: calls.append((done, total)))
    return root, summary, calls


@pytest.fixture(scope="session", params=HOSPITALS, ids=lambda hospital: hospital.name)
def scanned(request):
    """A hospital and one of its subjects with six bleeds."""
    return request.param, simulate_subject(request.param, SEED, 1, count=6)
