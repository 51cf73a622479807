"""Real series of five vendors: what they are, and that their volumes are those of the pixels, read without dcm2niix."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from mhsev_monai.cases import read_cases
from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom.convert import convert
from mhsev_monai.ingest.dicom.headers import read_header
from mhsev_monai.ingest.dicom.preflight import SeriesPlan, check_series
from mhsev_monai.ingest.dicom.verify import open_image, verify
from mhsev_monai.preprocessing import Preprocessing, process
from mhsev_monai.scan_contrast import ScanContrast

DIFFUSION = {
    "canon_classic_dwi": [0, 1500],
    "canon_enhanced_dwi": [0] + [1500] * 12,
    "ge_classic_dwi_phantom": [0] + [1000] * 6,
    "philips_classic_dwi": [0, 1000, 1000, 1000, 0.001],
    "siemens_ve11_classic_dwi": [0, 2000],
    "siemens_ve11_mosaic_dwi": [0, 2000, 2000, 2000],
    "siemens_xa30_enhanced_dwi": [0] + [2500] * 4,
}
OTHERS = {
    "ge_classic_seepi_human": ("spin-echo EPI", ScanContrast.SE_EPI),
    "ge_classic_t2star_epi_human": ("T2*-weighted EPI (fMRI)", ScanContrast.T2STAR),
}
DERIVED = {
    "siemens_xa30_enhanced_adc": "ADC map",
    "siemens_xa30_enhanced_tracew": "trace-weighted image",
    "siemens_xa30_enhanced_b0": "derived b = 0 image",
}
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def slice_affine(position, orientation, spacing) -> np.ndarray:
    """DICOM PS3.3, C.7.6.2.1.1: from (column, row) of a slice to the patient's coordinates, LPS in mm."""
    cosines = np.asarray(orientation, dtype=float)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = cosines[:3] * float(spacing[1]), cosines[3:] * float(spacing[0])
    affine[:3, 3] = np.asarray(position, dtype=float)
    return affine


def read_by_hand(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """``(slice_affine, values (rows, columns))`` of every slice of every file, in the order of instance numbers."""
    found = []
    for file in sorted((pydicom.dcmread(path) for path in folder.glob("*.dcm")), key=lambda f: int(f.InstanceNumber)):
        if "PerFrameFunctionalGroupsSequence" not in file:
            values = file.pixel_array * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0))
            place = slice_affine(file.ImagePositionPatient, file.ImageOrientationPatient, file.PixelSpacing)
            found.append((place, values))
            continue
        shared = file.SharedFunctionalGroupsSequence[0]
        for groups, values in zip(file.PerFrameFunctionalGroupsSequence, file.pixel_array, strict=True):
            names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            position, orientation, measures = ((groups if name in groups else shared)[name][0] for name in names)
            place = slice_affine(
                position.ImagePositionPatient, orientation.ImageOrientationPatient, measures.PixelSpacing
            )
            found.append((place, values.astype(float)))
    return found


def at_world(image: nib.Nifti1Image, place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The image's voxels at the places of a slice's pixels, ``(volumes, rows, columns)``."""
    row, column = np.meshgrid(*map(np.arange, shape), indexing="ij")
    pixels = np.stack([column.ravel(), row.ravel(), np.zeros(row.size), np.ones(row.size)])
    voxels = (np.linalg.inv(image.affine) @ LPS_TO_RAS @ place @ pixels)[:3]
    nearest = np.rint(voxels).astype(int)
    assert np.abs(voxels - nearest).max() < 0.02, "the grids do not meet"
    data = image.get_fdata().reshape(*image.shape[:3], -1)
    return np.moveaxis(data[tuple(nearest)], -1, 0).reshape(-1, *shape)


@pytest.mark.parametrize("name", [name for name in DIFFUSION if "mosaic" not in name])
def test_every_voxel_is_the_pixel_of_its_place(name, shared_data, bring):
    brought = bring(shared_data / "dicom" / name)
    assert (brought.only.kind, brought.only.outcome) == ("diffusion", "accepted")
    assert brought.b_values() == pytest.approx(DIFFUSION[name], abs=1e-9)
    image = brought.volume()
    n_volumes = image.shape[3]
    seen = np.zeros((n_volumes, image.shape[2]), dtype=int)
    for place, values in read_by_hand(shared_data / "dicom" / name):
        equal = [np.allclose(volume, values, atol=1e-3) for volume in at_world(image, place, values.shape)]
        assert any(equal), "a slice is not in its place"
        k = round(float((np.linalg.inv(image.affine) @ LPS_TO_RAS @ place)[2, 3]))
        seen[equal, k] += 1
    assert (seen >= 1).all(), "a voxel comes from no pixel"


def test_a_mosaic_is_the_volume_that_nibabel_reads(shared_data, bring):
    # Its module warns at import that it is experimental; it is an oracle here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import dicomwrappers

    folder = shared_data / "dicom" / "siemens_ve11_mosaic_dwi"
    image = bring(folder).volume()
    files = sorted(folder.glob("*.dcm"), key=lambda path: int(pydicom.dcmread(path).InstanceNumber))
    for t, path in enumerate(files):
        wrapper = dicomwrappers.wrapper_from_file(path)
        assert isinstance(wrapper, dicomwrappers.MosaicWrapper)
        theirs = np.asarray(wrapper.get_data())
        corners = np.array([[i, j, k, 1] for i in (0, 81) for j in (0, 81) for k in (0, 47)], dtype=float).T
        voxels = (np.linalg.inv(image.affine) @ LPS_TO_RAS @ wrapper.affine @ corners)[:3]
        assert np.abs(voxels - np.rint(voxels)).max() < 0.02
        to_ours = np.linalg.inv(image.affine) @ LPS_TO_RAS @ wrapper.affine
        i, j, k = np.meshgrid(*[np.arange(n) for n in theirs.shape], indexing="ij")
        index = np.rint(to_ours @ np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)]))[:3].astype(int)
        assert np.array_equal(np.asarray(image.dataobj)[(*index, t)].reshape(theirs.shape), theirs)


def test_mosaic_and_classic_files_of_one_head_show_the_same_anatomy_at_the_same_place(shared_data, bring):
    """Two acquisitions 26 mm apart: with a wrong place or direction of either, nothing would meet."""
    mosaic = bring(shared_data / "dicom" / "siemens_ve11_mosaic_dwi").images[0]
    classic = next(p for p in bring(shared_data / "dicom" / "siemens_ve11_classic_dwi").images if p.name != mosaic.name)
    first, second = nib.load(mosaic), nib.load(classic)
    i, j, k = np.meshgrid(*[np.arange(n) for n in first.shape[:3]], indexing="ij")
    to_second = np.linalg.inv(second.affine) @ first.affine
    index = np.rint(to_second @ np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)]))[:3].astype(int)
    inside = ((index >= 0) & (index < np.array(second.shape[:3])[:, None])).all(0)
    ours = first.get_fdata()[..., 0].ravel()[inside]
    theirs = second.get_fdata()[..., 0][tuple(index[:, inside])]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.92  # measured .937; one voxel beside, .82 to .89; flipped, .64


def test_enhanced_and_classic_forms_of_one_series_are_equal(shared_data, bring):
    enhanced = bring(shared_data / "dicom" / "canon_enhanced_dwi").images[0]
    classic = next(p for p in bring(shared_data / "dicom" / "canon_classic_dwi").images if p.name != enhanced.name)
    first, second = nib.load(enhanced), nib.load(classic)
    assert np.array_equal(first.get_fdata()[..., :2], second.get_fdata())
    assert np.allclose(first.affine, second.affine, atol=1e-4)


@pytest.mark.parametrize("name", ["canon_enhanced_dwi", "siemens_xa30_enhanced_dwi"])
def test_frames_in_another_order_and_without_numbers_make_the_same_volumes(name, shared_data, bring, tmp_path):
    source = shared_data / "dicom" / name
    for path in source.glob("*.dcm"):
        file = pydicom.dcmread(path)
        frames, stored = list(file.PerFrameFunctionalGroupsSequence), file.pixel_array
        # Place by place, and from one volume to the next within.
        order = sorted(
            range(len(frames)), key=lambda n: (list(frames[n].PlanePositionSequence[0].ImagePositionPatient), n)
        )
        for groups in frames:
            del groups.FrameContentSequence
        file.PerFrameFunctionalGroupsSequence = [frames[number] for number in order]
        file.PixelData = stored[order].tobytes()
        file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        # Another series for the ledger: the same one would be told as there already.
        file.SeriesInstanceUID += ".1"
        (tmp_path / "src").mkdir(exist_ok=True)
        file.save_as(tmp_path / "src" / path.name, enforce_file_format=True)
    disordered = bring(tmp_path / "src")
    assert disordered.only.outcome == "accepted", disordered.only.reason
    second = nib.load(disordered.images[0])
    first = nib.load(next(path for path in bring(source).images if path != disordered.images[0]))
    assert np.array_equal(first.get_fdata(), second.get_fdata())
    assert np.allclose(first.affine, second.affine, atol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_images_without_diffusion_are_taken_under_their_own_contrast(name, shared_data, bring):
    kind, contrast = OTHERS[name]
    left_out = bring(shared_data / "dicom" / name)
    assert (left_out.only.kind, left_out.only.outcome, left_out.images) == (kind, "left out", [])
    assert f"--contrast {contrast}" in left_out.only.reason
    taken = bring(shared_data / "dicom" / name, contrast)
    assert taken.only.outcome == "accepted"
    values = np.sort(np.concatenate([slice_.ravel() for _, slice_ in read_by_hand(shared_data / "dicom" / name)]))
    assert np.array_equal(np.sort(taken.volume().get_fdata().ravel()), values)


def test_pictures_that_lie_upside_down_under_their_header_are_turned(shared_data, bring):
    """GE's EPI of reversed polarity: the header puts the nose where the cerebellum is."""
    taken = bring(shared_data / "dicom" / "ge_classic_seepi_human", ScanContrast.SE_EPI)
    assert any("upside down" in warning for warning in taken.only.warnings)
    for place, values in read_by_hand(shared_data / "dicom" / "ge_classic_seepi_human"):
        assert np.array_equal(at_world(taken.volume(), place, values.shape)[0], values[::-1])


@pytest.mark.parametrize("name", DERIVED)
def test_derived_images_are_told_and_not_graded(name, shared_data, bring):
    brought = bring(shared_data / "dicom" / name)
    assert (brought.only.kind, brought.only.outcome, brought.images) == (DERIVED[name], "left out", [])


def test_a_phantom_is_refused_by_the_mask_with_its_volume(shared_data, bring, tmp_path):
    bring(shared_data / "dicom" / "ge_classic_dwi_phantom")
    case = read_cases(tmp_path / "bids", require_counts=False).cases[0]
    with pytest.raises(ScanError, match=r"the brain mask holds \d+ ml"):
        process(Preprocessing().transforms(), case.image, case.bvals)


def test_every_series_of_a_mixed_folder_is_accounted_for(shared_data, bring):
    brought = bring(shared_data / "dicom")
    counts = {entry.kind: 0 for entry in brought.entries} | {"accepted": 0, "left out": 0}
    for entry in brought.entries:
        counts[entry.kind] += 1
        counts[entry.outcome] += 1
    assert counts == {
        "diffusion": 7,
        "ADC map": 1,
        "trace-weighted image": 1,
        "derived b = 0 image": 1,
        "spin-echo EPI": 1,
        "T2*-weighted EPI (fMRI)": 1,
        "accepted": 7,
        "left out": 5,
    }
    assert len(brought.images) == 7


@pytest.mark.parametrize("backwards", [False, True])
def test_a_mosaic_of_another_vendor_is_compared_in_either_order(backwards, shared_data, tmp_path):
    """No such file of UIH is at hand: a Siemens mosaic under its name, and the converter's image in both orders."""
    files = [read_header(path) for path in sorted((shared_data / "dicom" / "siemens_ve11_mosaic_dwi").glob("*.dcm"))]
    plan = check_series(files)
    image = open_image(convert([file.path for file in files], tmp_path).image)
    other = SeriesPlan(
        tuple(replace(file, vendor="UIH") for file in files), plan.n_slices, plan.n_volumes, plan.warnings
    )
    data = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(data[:, :, ::-1] if backwards else data, image.affine), tmp_path / "x.nii")
    assert verify(open_image(tmp_path / "x.nii"), other).volumes == (0, 1, 2, 3)
    mixed = data.copy()
    mixed[:, :, [3, 4]] = mixed[:, :, [4, 3]]
    nib.save(nib.Nifti1Image(mixed, image.affine), tmp_path / "y.nii")
    with pytest.raises(ScanError, match="pixels of the series in their places"):
        verify(open_image(tmp_path / "y.nii"), other)


def test_a_mosaic_without_its_private_header_is_not_guessed_which_way_round_it_is(shared_data, tmp_path, bring):
    for path in (shared_data / "dicom" / "siemens_ve11_mosaic_dwi").glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        for element in [element for element in dataset if element.tag.group == 0x0029]:
            del dataset[element.tag]
        (tmp_path / "src").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "src" / path.name)
    brought = bring(tmp_path / "src")
    assert brought.images == []
    assert "in which direction the slices of the mosaic follow" in brought.only.reason


def test_a_series_whose_private_elements_were_removed_keeps_its_b_values(shared_data, tmp_path, bring):
    """As de-identifying archives deliver it: the name of the sequence still tells."""
    for path in (shared_data / "dicom" / "siemens_ve11_classic_dwi").glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.remove_private_tags()
        (tmp_path / "src").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "src" / path.name)
    assert bring(tmp_path / "src").b_values() == [0, 2000]
