"""A site of its own for each test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.ingest.ledger import LedgerEntry
from mhsev_monai.ingest.site import ingest
from mhsev_monai.scan_contrast import ScanContrast


class Brought(NamedTuple):
    """What ingest made of a folder: its entries, and the images in the order of their names."""

    entries: tuple[LedgerEntry, ...]
    images: list[Path]

    @property
    def only(self) -> LedgerEntry:
        assert len(self.entries) == 1
        return self.entries[0]

    def volume(self) -> nib.Nifti1Image:
        assert len(self.images) == 1
        return nib.load(self.images[0])

    def b_values(self) -> list[float]:
        return np.loadtxt(str(self.images[0]).replace(".nii.gz", ".bval"), ndmin=1).tolist()

    def sidecar(self) -> dict:
        return json.loads(Path(str(self.images[0]).replace(".nii.gz", ".json")).read_text())


@pytest.fixture
def bring(tmp_path) -> Callable[..., Brought]:
    """A function that ingests a folder into a root of this test."""
    root, keys = tmp_path / "bids", SubjectKeys(tmp_path / "site")

    def bring_in(source: Path, contrast: ScanContrast = ScanContrast.DWI) -> Brought:
        summary = ingest(source, root, keys, contrast=contrast)
        return Brought(summary.entries, sorted(root.glob("sub-*/**/*.nii.gz")))

    return bring_in
