"""Enhanced images come in whole however their writer orders and describes the frames."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import B_VALUES, N_SLICES, STEP, pixels, save, write_enhanced
from pydicom.sequence import Sequence as Items

Change = Callable[[pydicom.Dataset], None]
N_FRAMES = len(B_VALUES) * N_SLICES
TURNED = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
ACROSS = np.cross(TURNED[:3], TURNED[3:])


def frames_of(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    return list(dataset.PerFrameFunctionalGroupsSequence)


def ordered(dataset: pydicom.Dataset, order: list[int]) -> None:
    frames, stored = frames_of(dataset), np.frombuffer(dataset.PixelData, np.uint16).reshape(N_FRAMES, -1)
    dataset.PerFrameFunctionalGroupsSequence = Items([frames[number] for number in order])
    dataset.PixelData = stored[order].tobytes()


def shared_groups(dataset: pydicom.Dataset) -> None:
    """What is equal in all frames stands once, as most scanners write it."""
    first, shared = frames_of(dataset)[0], pydicom.Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        first.PixelMeasuresSequence,
        first.PlaneOrientationSequence,
    )
    for groups in frames_of(dataset):
        del groups.PixelMeasuresSequence, groups.PlaneOrientationSequence
    dataset.SharedFunctionalGroupsSequence = Items([shared])


def without_stacks(dataset: pydicom.Dataset) -> None:
    for groups in frames_of(dataset):
        content = groups.FrameContentSequence[0]
        del content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex


def without_content(dataset: pydicom.Dataset) -> None:
    for groups in frames_of(dataset):
        del groups.FrameContentSequence


def slice_by_slice(dataset: pydicom.Dataset) -> None:
    ordered(dataset, [v * N_SLICES + k for k in range(N_SLICES) for v in range(len(B_VALUES))])


def slice_by_slice_untold(dataset: pydicom.Dataset) -> None:
    slice_by_slice(dataset)
    without_content(dataset)


def from_above(dataset: pydicom.Dataset) -> None:
    ordered(dataset, [v * N_SLICES + k for v in range(len(B_VALUES)) for k in reversed(range(N_SLICES))])
    without_content(dataset)


def weighted_first(dataset: pydicom.Dataset) -> None:
    ordered(dataset, list(reversed(range(N_FRAMES))))
    without_stacks(dataset)


def turned(dataset: pydicom.Dataset) -> None:
    """Oblique, and pixels that are not square."""
    for number, groups in enumerate(frames_of(dataset)):
        groups.PlaneOrientationSequence[0].ImageOrientationPatient = TURNED
        place = STEP * (number % N_SLICES) * ACROSS + [5.0, -7.0, 40.0]
        groups.PlanePositionSequence[0].ImagePositionPatient = place.tolist()
        groups.PixelMeasuresSequence[0].PixelSpacing = [2.5, 1.5]


def turned_untold(dataset: pydicom.Dataset) -> None:
    turned(dataset)
    without_content(dataset)


def gaps(dataset: pydicom.Dataset) -> None:
    for groups in frames_of(dataset):
        groups.PixelMeasuresSequence[0].SliceThickness = 0.7 * STEP
    shared_groups(dataset)


HABITS = (shared_groups, without_stacks, without_content, slice_by_slice, slice_by_slice_untold, from_above)
HABITS += (weighted_first, turned, turned_untold, gaps)


def write_changed(folder, change: Change, vendor: str, b_values=B_VALUES) -> pydicom.Dataset:
    path = write_enhanced(folder, b_values)
    dataset = pydicom.dcmread(path)
    dataset.Manufacturer = vendor
    change(dataset)
    save(dataset, path)
    return dataset


def place_of(dataset: pydicom.Dataset, groups: pydicom.Dataset) -> tuple[list[float], list[float], list[float]]:
    """Position, orientation and spacing of a frame."""
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence", [])), pydicom.Dataset())
    plane = groups if "PlaneOrientationSequence" in groups else shared
    measures = groups if "PixelMeasuresSequence" in groups else shared
    return (
        list(groups.PlanePositionSequence[0].ImagePositionPatient),
        list(plane.PlaneOrientationSequence[0].ImageOrientationPatient),
        list(measures.PixelMeasuresSequence[0].PixelSpacing),
    )


@pytest.mark.parametrize("vendor", ["Philips Medical Systems", "CANON_MEC", "Somebody Else"])
@pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.__name__)
def test_every_pixel_lies_where_its_frame_says(habit, vendor, tmp_path, bring):
    dataset = write_changed(tmp_path / "src", habit, vendor)
    brought = bring(tmp_path / "src")
    assert brought.only.outcome == "accepted", brought.only.reason
    image = brought.volume()
    assert sorted(brought.b_values()) == sorted(B_VALUES)
    values, to_voxel = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    stored = np.frombuffer(dataset.PixelData, np.uint16).reshape(N_FRAMES, dataset.Rows, dataset.Columns)
    found = np.zeros(values.shape, dtype=int)
    for groups, picture in zip(frames_of(dataset), stored, strict=True):
        position, orientation, spacing = place_of(dataset, groups)
        rows, columns = np.mgrid[: dataset.Rows, : dataset.Columns]
        world = (
            np.asarray(position)[:, None]
            + np.outer(orientation[:3], columns.ravel() * spacing[1])
            + np.outer(orientation[3:], rows.ravel() * spacing[0])
        )
        at = np.rint(to_voxel @ np.vstack([world * [[-1.0], [-1.0], [1.0]], np.ones(rows.size)]))[:3].astype(int)
        b_value = float(groups.MRDiffusionSequence[0].DiffusionBValue)
        here = [v for v, b in enumerate(brought.b_values()) if b == b_value]
        equal = [v for v in here if np.array_equal(values[(*at, v)], picture.ravel())]
        assert len(equal) == 1
        found[(*at, equal[0])] += 1
    assert (found == 1).all()


def test_a_map_and_slopes_of_frames_that_nobody_numbered(tmp_path, bring):
    """Philips: a rescale of its own on every frame, and an ADC map behind the originals."""

    def change(dataset: pydicom.Dataset) -> None:
        for number, groups in enumerate(frames_of(dataset)):
            kind, scale = pydicom.Dataset(), pydicom.Dataset()
            kind.FrameType = ["DERIVED" if number >= 3 * N_SLICES else "ORIGINAL", "PRIMARY", "DIFFUSION"]
            kind.FrameType += ["ADC" if number >= 3 * N_SLICES else "NONE"]
            scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 0.5 + number // N_SLICES, 3, "US"
            groups.MRImageFrameTypeSequence, groups.PixelValueTransformationSequence = Items([kind]), Items([scale])
        without_content(dataset)

    write_changed(tmp_path / "src", change, "Philips Medical Systems", (0.0, 1000.0, 1000.0, 0.0))
    brought = bring(tmp_path / "src")
    assert brought.only.outcome == "accepted", brought.only.reason
    assert brought.b_values() == [0.0, 1000.0, 1000.0]
    real = np.stack(
        [np.stack([pixels(v, k).T * (0.5 + v) + 3 for k in range(N_SLICES)], axis=-1) for v in range(3)], axis=-1
    )
    assert np.allclose(brought.volume().get_fdata()[:, ::-1], real, rtol=1e-6)


@pytest.mark.parametrize("place", [lambda dataset: None, turned], ids=["straight", "oblique"])
def test_directions_are_those_that_the_converter_makes_of_a_file_in_its_order(place, tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> None:
        place(dataset)
        for number, groups in enumerate(frames_of(dataset)):
            if number >= N_SLICES:
                direction = pydicom.Dataset()
                direction.DiffusionGradientOrientation = (
                    [0.48, 0.6, 0.64] if number < 2 * N_SLICES else [0.0, -0.6, 0.8]
                )
                groups.MRDiffusionSequence[0].DiffusionGradientDirectionSequence = Items([direction])

    def told(folder: str, change: Change) -> np.ndarray:
        write_changed(tmp_path / folder, change, "Philips Medical Systems")
        brought = bring(tmp_path / folder)
        assert brought.only.outcome == "accepted", brought.only.reason
        image = nib.load(brought.images[-1])
        directions = np.loadtxt(str(brought.images[-1]).replace(".nii.gz", ".bvec"))
        # Back to the patient's coordinates, whichever way round the converter laid the slices.
        axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
        axes[:, 0] *= -1 if np.linalg.det(axes) > 0 else 1
        return np.array([-1.0, -1.0, 1.0])[:, None] * (axes @ directions)

    expected = np.array([[0, 0.48, 0], [0, 0.6, -0.6], [0, 0.64, 0.8]])
    assert np.allclose(told("in order", change), expected, atol=1e-5)
    disordered = told("untold", lambda dataset: (change(dataset), slice_by_slice_untold(dataset)))
    assert np.allclose(disordered, expected, atol=1e-5)


def test_a_missing_frame_is_refused_whatever_the_order(tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> None:
        slice_by_slice_untold(dataset)
        dataset.PerFrameFunctionalGroupsSequence = Items(frames_of(dataset)[:-1])
        dataset.NumberOfFrames = N_FRAMES - 1
        dataset.PixelData = dataset.PixelData[: -2 * dataset.Rows * dataset.Columns]

    write_changed(tmp_path / "src", change, "Philips Medical Systems")
    brought = bring(tmp_path / "src")
    assert (brought.only.outcome, brought.images) == ("refused", [])
    assert "incomplete" in brought.only.reason


def test_ge_s_frames_are_not_taken_apart(tmp_path, bring):
    """Nothing but the converter knows which of GE's pictures lie upside down."""
    write_changed(tmp_path / "src", without_content, "GE MEDICAL SYSTEMS")
    brought = bring(tmp_path / "src")
    assert (brought.only.outcome, brought.images) == ("refused", [])


def kinds_of_frames(dataset: pydicom.Dataset, kind_of: Callable[[int], tuple[str, str]]) -> None:
    """Each frame's own Frame Type and Complex Image Component."""
    for number, groups in enumerate(frames_of(dataset)):
        kind, own = pydicom.Dataset(), kind_of(number)
        kind.FrameType, kind.ComplexImageComponent = ["ORIGINAL", "PRIMARY", own[0], "NONE"], own[1]
        groups.MRImageFrameTypeSequence = Items([kind])


@pytest.mark.parametrize("told", [without_content, lambda dataset: None], ids=["untold", "told"])
@pytest.mark.parametrize("own", [("DIFFUSION", "PHASE"), ("PHASE_MAP", "MAGNITUDE"), ("PHASE_MAP", "PHASE")])
def test_phases_never_become_volumes(own, told, tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> None:
        dataset.ComplexImageComponent = "MIXED"
        kinds_of_frames(dataset, lambda n: own if n // N_SLICES % 2 else ("DIFFUSION", "MAGNITUDE"))
        told(dataset)

    write_changed(tmp_path / "src", change, "Philips Medical Systems", (0.0, 0.0, 1000.0, 1000.0))
    brought = bring(tmp_path / "src")
    assert (brought.only.outcome, brought.images) == ("refused", [])


def test_volumes_of_two_files_are_not_mixed(tmp_path, bring):
    """One file upwards, one downwards, and nothing that numbers them; even values in one, odd ones in the other."""
    for odd, change in enumerate((without_content, from_above)):
        path = write_enhanced(tmp_path / "src")
        dataset = pydicom.dcmread(path)
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) // 2 * 2 + odd).astype(np.uint16).tobytes()
        dataset.SOPInstanceUID = f"1.2.3.4.7.{odd}"
        change(dataset)
        save(dataset, path.rename(path.with_name(f"{odd}.dcm")))
    brought = bring(tmp_path / "src")
    assert brought.only.outcome == "accepted", brought.only.reason
    odd_values = np.asarray(brought.volume().dataobj) % 2
    assert odd_values.shape[3] == 2 * len(B_VALUES)
    assert sorted(odd_values.mean(axis=(0, 1, 2)).tolist()) == [0.0] * len(B_VALUES) + [1.0] * len(B_VALUES)


def test_an_order_that_changes_from_place_to_place_is_refused(tmp_path, bring):
    """Half of the places one by one, the others volume by volume: who numbers like that may number in any way."""

    def change(dataset: pydicom.Dataset) -> None:
        half, volumes = N_SLICES // 2, range(len(B_VALUES))
        first = [v * N_SLICES + k for k in range(half) for v in volumes]
        ordered(dataset, first + [v * N_SLICES + k for v in volumes for k in range(half, N_SLICES)])
        without_content(dataset)

    write_changed(tmp_path / "src", change, "Philips Medical Systems")
    brought = bring(tmp_path / "src")
    assert (brought.only.outcome, brought.images) == ("refused", [])
