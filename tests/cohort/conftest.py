"""One small cohort on disk and one subject a hospital, made once for all tests of the room."""

from __future__ import annotations

import pytest

from mhsev_monai.cohort import HOSPITALS, make_cohort, simulate_subject
from mhsev_monai.cohort.settings import CohortSettings

SEED = 11
SMALL = CohortSettings(size="small")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Root and summary of a cohort of twelve, in coarse voxels."""
    root = tmp_path_factory.mktemp("cohort") / "out"
    calls = []
    summary = make_cohort(root, 12, SEED, settings=SMALL, progress=lambda done, total: calls.append((done, total)))
    return root, summary, calls


@pytest.fixture(scope="session", params=HOSPITALS, ids=lambda hospital: hospital.name)
def scanned(request):
    """A hospital and one of its subjects with six bleeds."""
    return request.param, simulate_subject(request.param, SEED, 1, count=6)


@pytest.fixture(scope="session")
def head():
    """Coarse voxels of a hospital and the tissues of a head on them, for tests of what is put into it."""
    hospital = HOSPITALS[1]
    return hospital.scaled("small").grid, simulate_subject(hospital, SEED, 1, settings=SMALL, count=0).anatomy
