"""Fixtures that several rooms share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_MISSING = [name for name in ("dcm2niix", "pydicom", "gdcm") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["ingest/dicom/test_*.py"] if _MISSING else []


def pytest_report_header() -> str:
    """Say which tests are left out, and why."""
    return f"ingest/dicom is left out: it needs {', '.join(_MISSING)} of the extra dicom" if _MISSING else ""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the checkout; the tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the folder of real scans ../shared/data beside the checkout")
    return folder
