"""The b-values of a series are those of its headers, and what was lost is not taken for b = 0."""

from __future__ import annotations

import numpy as np
import pydicom
from dicom_files import B_VALUES, write_series

from mhsev_monai.scan_contrast import ScanContrast


def lost(dataset: pydicom.Dataset) -> pydicom.Dataset:
    del dataset.DiffusionBValue
    return dataset


def test_b_values_that_were_lost_are_not_taken_for_zero(tmp_path, bring):
    """Archives that remove private elements leave diffusion series without any; the converter then writes 0 for all."""
    write_series(tmp_path / "src", change=lost)
    brought = bring(tmp_path / "src")
    assert brought.images == []
    assert "no b-value was found in the headers" in brought.only.reason


def test_one_volume_whose_b_value_was_lost_is_not_b0(tmp_path, bring):
    write_series(tmp_path / "src", change=lambda d: lost(d) if d.InstanceNumber > 12 else d)
    brought = bring(tmp_path / "src")
    assert "1 of 3 volumes have no b-value" in brought.only.reason


def test_volumes_of_b0_that_look_diffusion_weighted_are_refused(tmp_path, bring):
    """A vendor whose b0 has no element, and whose other volumes lost theirs."""

    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        if dataset.InstanceNumber <= 12:
            lost(dataset)
        if dataset.InstanceNumber > 6:
            dim = np.frombuffer(dataset.PixelData, np.uint16) // 4
            dataset.PixelData = dim.astype(np.uint16).tobytes()
        return dataset

    write_series(tmp_path / "src", change=change, Manufacturer="CANON_MEC")
    assert "differ in signal" in bring(tmp_path / "src").only.reason


def test_siemens_b_values_are_found_in_the_name_of_the_sequence(tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.SequenceName = f"*ep_b{int(dataset.DiffusionBValue)}#1"
        return lost(dataset)

    write_series(tmp_path / "src", change=change)
    assert bring(tmp_path / "src").b_values() == list(B_VALUES)


def test_a_combined_volume_of_ge_keeps_its_b_value(tmp_path, bring):
    """b0 and one combined volume without a direction, which dcm2niix calls b = 0."""
    write_series(tmp_path / "src", (0.0, 1000.0), Manufacturer="GE MEDICAL SYSTEMS", ImageType=["ORIGINAL", "PRIMARY"])
    assert bring(tmp_path / "src").b_values() == [0.0, 1000.0]


def test_a_trace_beside_its_directions_is_left_out(tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.DiffusionDirectionality = "ISOTROPIC" if dataset.InstanceNumber > 18 else "DIRECTIONAL"
        return dataset

    write_series(tmp_path / "src", (0.0, 1000.0, 1000.0, 1000.0), change=change, Manufacturer="Philips")
    outcomes = {entry.kind: entry.outcome for entry in bring(tmp_path / "src").entries}
    assert outcomes == {"diffusion": "accepted", "trace-weighted image": "left out"}


def test_a_diffusion_series_without_any_sign_of_it_is_no_b0(tmp_path, bring):
    """It looks like spin-echo EPI, all of whose volumes count as b = 0."""

    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        if dataset.InstanceNumber > 6:
            dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) // 4).astype(np.uint16).tobytes()
        return lost(dataset)

    write_series(tmp_path / "src", change=change, ImageType=["ORIGINAL", "PRIMARY", "M"], ScanningSequence=["SE", "EP"])
    assert bring(tmp_path / "src").only.kind == "spin-echo EPI"
    assert "differ in signal" in bring(tmp_path / "src", ScanContrast.SE_EPI).only.reason
