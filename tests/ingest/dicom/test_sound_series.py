"""A sound series comes in whole, however its scanner or archive writes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from dicom_files import B_VALUES, N_SLICES, save, truth, write_enhanced, write_series

from mhsev_monai.ingest.dicom.headers import read_header
from mhsev_monai.ingest.dicom.preflight import check_series
from mhsev_monai.ingest.dicom.renumber import renumbered_copies

Change = Callable[[pydicom.Dataset], pydicom.Dataset | None]


def test_an_enhanced_image_holds_the_same_volumes_as_classic_ones(tmp_path, bring):
    write_enhanced(tmp_path / "src")
    brought = bring(tmp_path / "src")
    assert np.array_equal(np.asarray(brought.volume().dataobj)[:, ::-1], truth())
    assert brought.b_values() == list(B_VALUES)


def test_a_map_among_the_frames_is_left_out_of_the_volume(tmp_path, bring):
    """Philips appends an ADC map to the frames of its enhanced images."""
    path = write_enhanced(tmp_path / "src", (0.0, 1000.0, 1000.0))
    dataset = pydicom.dcmread(path)
    for groups in dataset.PerFrameFunctionalGroupsSequence[-N_SLICES:]:
        kind = pydicom.Dataset()
        kind.FrameType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
        groups.MRImageFrameTypeSequence = pydicom.sequence.Sequence([kind])
    save(dataset, path)
    brought = bring(tmp_path / "src")
    assert np.array_equal(np.asarray(brought.volume().dataobj)[:, ::-1], truth()[..., :2])
    assert brought.b_values() == [0.0, 1000.0]


def test_each_volume_keeps_its_own_rescale_slope(tmp_path, bring):
    """dcm2niix ignores slopes that vary within a series; an image's real values are what the header makes of them."""

    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        second = N_SLICES < dataset.InstanceNumber <= 2 * N_SLICES
        dataset.RescaleSlope, dataset.RescaleIntercept = ("2.5", "-1") if second else ("0.5", "3")
        return dataset

    write_series(tmp_path / "src", change=change)
    real = truth() * np.array([0.5, 2.5, 0.5]) + np.array([3.0, -1.0, 3.0])
    assert np.allclose(bring(tmp_path / "src").volume().get_fdata()[:, ::-1], real, rtol=1e-6)


def test_compressed_pictures_are_compared_where_they_can_be_decoded(tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        # As the archive does it when it stores the file.
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.compress(pydicom.uid.RLELossless)
        return dataset

    for file in write_series(tmp_path / "plain"):
        dataset = change(pydicom.dcmread(file))
        (tmp_path / "src").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "src" / file.name, enforce_file_format=True)
    brought = bring(tmp_path / "src")
    assert np.array_equal(np.asarray(brought.volume().dataobj)[:, ::-1], truth())
    assert brought.only.warnings == ()


def numbered(how: str) -> Change:
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        volume, place = divmod(int(dataset.InstanceNumber) - 1, N_SLICES)
        dataset.InstanceNumber = {
            "slice by slice": place * len(B_VALUES) + volume + 1,
            "anew in each volume": place + 1,
            "from a hundred on in each volume": 100 * volume + place + 1,
            "with one number left out": volume * N_SLICES + place + 1 + (volume == 2),
            "backwards": volume * N_SLICES + N_SLICES - place,
        }[how]
        dataset.SliceLocation = float(place)
        return dataset

    return change


@pytest.mark.parametrize(
    "how",
    [
        "slice by slice",
        "anew in each volume",
        "from a hundred on in each volume",
        "with one number left out",
        "backwards",
    ],
)
def test_a_sound_series_is_accepted_however_it_is_numbered(how, tmp_path, bring):
    write_series(tmp_path / "src", change=numbered(how))
    brought = bring(tmp_path / "src")
    assert brought.only.outcome == "accepted", brought.only.reason
    assert np.array_equal(np.asarray(brought.volume().dataobj)[:, ::-1], truth())


def test_study_times_that_an_archive_has_changed_tear_nothing_apart(tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.StudyTime = f"1200{int(dataset.InstanceNumber):02d}"
        return dataset

    write_series(tmp_path / "src", change=change)
    assert np.array_equal(np.asarray(bring(tmp_path / "src").volume().dataobj)[:, ::-1], truth())


def test_echo_times_that_jitter_are_one_echo(tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.EchoTime = 80.04 if dataset.DiffusionBValue == 0 else 80.06
        return dataset

    write_series(tmp_path / "src", change=change)
    assert np.array_equal(np.asarray(bring(tmp_path / "src").volume().dataobj)[:, ::-1], truth())


def test_empty_slices_are_no_copies_and_stay_with_their_volume(tmp_path, bring):
    """Scanners that mask the air store slices of zeros, all alike."""

    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        if (dataset.InstanceNumber - 1) % N_SLICES == 5:
            dataset.PixelData = bytes(len(dataset.PixelData))
        return numbered("anew in each volume")(dataset)

    write_series(tmp_path / "classic", change=change)
    expected = truth()
    expected[:, :, 5] = 0
    brought = bring(tmp_path / "classic")
    assert brought.only.outcome == "accepted", brought.only.reason
    assert np.array_equal(np.asarray(brought.volume().dataobj)[:, ::-1], expected)


def test_an_empty_slice_of_an_enhanced_image_has_its_volume_s_b_value(tmp_path, bring):
    path = write_enhanced(tmp_path / "src", (1000.0, 1000.0, 0.0))
    dataset = pydicom.dcmread(path)
    pixels = np.frombuffer(dataset.PixelData, np.uint16).reshape(18, 12, 10).copy()
    pixels[[5, 11, 17]] = 0
    dataset.PixelData = pixels.tobytes()
    save(dataset, path)
    brought = bring(tmp_path / "src")
    assert brought.only.outcome == "accepted", brought.only.reason
    assert sorted(brought.b_values()) == [0.0, 1000.0, 1000.0]


def directed(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The diffusion direction of its volume on each slice."""
    volume = (int(dataset.InstanceNumber) - 1) // N_SLICES
    dataset.DiffusionGradientOrientation = [float(axis == volume) for axis in range(3)]
    return dataset


def test_slices_of_two_directions_never_make_one_volume(tmp_path, bring):
    """Two slices of one place and b-value, exchanged by their numbers alone."""
    write_series(tmp_path / "whole", change=directed)
    assert bring(tmp_path / "whole").only.outcome == "accepted"

    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        number = int(directed(dataset).InstanceNumber)
        dataset.InstanceNumber = {9: 15, 15: 9}.get(number, number)
        dataset.AcquisitionNumber = 1
        return dataset

    write_series(tmp_path / "src", change=change)
    brought = bring(tmp_path / "src")
    # The whole one of before is still there.
    assert "mixes diffusion directions" in brought.only.reason
    assert len(brought.images) == 1


def test_numbers_without_any_plan_make_no_copies(tmp_path):
    """Within one b-value nothing else tells which slices make a volume."""
    shuffled = np.random.default_rng(2).permutation(len(B_VALUES) * N_SLICES) + 1

    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.InstanceNumber, dataset.AcquisitionNumber = int(shuffled[int(dataset.InstanceNumber) - 1]), 1
        return dataset

    plan = check_series([read_header(path) for path in write_series(tmp_path / "src", change=change)])
    (tmp_path / "copies").mkdir()
    assert renumbered_copies(plan, tmp_path / "copies") is None
