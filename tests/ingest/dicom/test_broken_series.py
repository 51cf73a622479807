"""A series that is not whole becomes a reason, never a volume of what is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import B_VALUES, N_SLICES, save, slice_dataset, truth, write_enhanced, write_series
from pydicom.uid import generate_uid

from mhsev_monai.ingest import SubjectKeys, bring_in, look_through

Change = Callable[[pydicom.Dataset], pydicom.Dataset | None]


def without(*instances: int) -> Change:
    return lambda dataset: None if dataset.InstanceNumber in instances else dataset


def without_place(place: int) -> Change:
    return lambda dataset: None if (dataset.InstanceNumber - 1) % N_SLICES == place else dataset


def altered(instance: int, **elements: object) -> Change:
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        if dataset.InstanceNumber == instance:
            for name, value in elements.items():
                setattr(dataset, name, value)
        return dataset

    return change


def every_second(dataset: pydicom.Dataset) -> pydicom.Dataset | None:
    return None if (dataset.InstanceNumber - 1) % N_SLICES % 2 else dataset


def undeclared_end(dataset: pydicom.Dataset) -> pydicom.Dataset | None:
    """The last slice missing in every b, where only the scanner's own count of slices can tell."""
    place = (dataset.InstanceNumber - 1) % N_SLICES
    dataset.NumberOfSlices, dataset.InstanceNumber = N_SLICES, None
    return None if place == N_SLICES - 1 else dataset


BROKEN: dict[str, tuple[Change, list[str]]] = {
    "one slice of b0": (without(3), ["b = 0 s/mm^2 are incomplete", "1 of 6"]),
    "one slice of one direction": (without(9), ["b = 1000 s/mm^2 are incomplete", "1 of 6", "1 to 2"]),
    "last slice of the series": (without(18), ["b = 1000 s/mm^2 are incomplete"]),
    "half of the series": (without(*range(10, 19)), ["b = 1000 s/mm^2 are incomplete", "3 of 6"]),
    "same slice in all b": (without_place(2), ["4.00 to 8.00 mm apart", "missing"]),
    "last slice in all b": (without_place(5), ["numbering gives a volume 6 slices, and 5 are there"]),
    "first slice in all b": (without_place(0), ["numbering gives a volume 6 slices, and 5 are there"]),
    "last slice in all b, declared": (undeclared_end, ["5 of 6 slices"]),
    "every second slice": (every_second, ["8.00 mm apart where the header says 4.00 mm"]),
    "one slice moved": (altered(4, ImagePositionPatient=[-10, -12, -7.0]), ["apart", "missing or belong"]),
    "one slice shifted sideways": (altered(4, ImagePositionPatient=[-4.0, -12, -8.0]), ["sideways by up to 6.0 mm"]),
    "one slice without a place": (altered(4, ImagePositionPatient=None), ["1 of 18 slices do not tell"]),
    "one slice turned": (altered(4, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), ["orientations", "one is accepted"]),
    "impossible orientation": (altered(4, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), ["orientation", "impossible"]),
    "one slice of another b": (altered(9, DiffusionBValue=700.0), ["b = 700 s/mm^2 are incomplete", "5 of 6"]),
    "one slice of another pixel size": (altered(4, PixelSpacing=[3.0, 3.0]), ["different pixel size"]),
    "one slice of another matrix": (altered(4, Rows=6, Columns=10), ["6 x 10 and 12 x 10", "different sizes"]),
    "more pixels announced": (altered(4, Rows=24), ["cut off", "240 of 480 bytes"]),
    "no pixels": (altered(4, PixelData=b""), ["no pixel data"]),
    "rows of 0": (altered(4, Rows=0), ["no pixels"]),
    "one signed slice": (altered(4, PixelRepresentation=1), ["number formats"]),
    "one inverted slice": (altered(4, PhotometricInterpretation="MONOCHROME1"), ["MONOCHROME2"]),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_a_series_that_is_not_whole_is_refused_with_the_reason(change, words, tmp_path, bring):
    write_series(tmp_path / "src", change=change)
    brought = bring(tmp_path / "src")
    assert brought.images == []
    assert brought.only.outcome == "refused"
    assert [word for word in words if word not in brought.only.reason] == []
    assert "\n" not in brought.only.reason


@pytest.mark.parametrize("order", ["exchanged", "reversed", "all equal", "absent"])
def test_the_numbering_of_instances_cannot_scramble_a_volume(order, tmp_path, bring):
    """The converter sorts by instance numbers; whatever they say, the slices stay in their places or it is refused."""
    rng = np.random.default_rng(1)
    shuffled = rng.permutation(len(B_VALUES) * N_SLICES) + 1

    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        number = int(dataset.InstanceNumber)
        dataset.InstanceNumber = {
            "exchanged": int(shuffled[number - 1]),
            "reversed": 19 - number,
            "all equal": 1,
            "absent": None,
        }[order]
        return dataset

    # The path of each file comes from the slice, so that the disk's order is another one.
    for volume, b_value in enumerate(B_VALUES):
        for place in range(N_SLICES):
            number = volume * N_SLICES + place + 1
            save(change(slice_dataset(volume, place, number, b_value)), tmp_path / "src" / f"{31 * number % 97}.dcm")
    brought = bring(tmp_path / "src")
    if brought.only.outcome == "accepted":
        found = np.asarray(brought.volume().dataobj)[:, ::-1]
        volumes = [truth()[..., index] for index in range(3)]
        order_found = [next(i for i, v in enumerate(volumes) if np.array_equal(v, found[..., t])) for t in range(3)]
        assert sorted(order_found) == [0, 1, 2]
        assert brought.b_values() == [B_VALUES[i] for i in order_found]
    else:
        assert brought.images == []
        assert brought.only.reason


def test_copies_of_files_are_taken_once(tmp_path, bring):
    files = write_series(tmp_path / "src")
    for file in files[:7]:
        shutil.copy(file, file.with_name(f"copy-{file.name}"))
    # The same image under another identity, as a second export makes it.
    again = pydicom.dcmread(files[9])
    again.SOPInstanceUID = generate_uid(entropy_srcs=["again"])
    save(again, tmp_path / "src" / "again.dcm")
    brought = bring(tmp_path / "src")
    assert brought.only.outcome == "accepted"
    assert np.array_equal(np.asarray(brought.volume().dataobj)[:, ::-1], truth())
    assert brought.only.warnings == ("8 files are copies of others and are left out",)


def test_two_images_under_one_identity_are_refused(tmp_path, bring):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        dataset.SOPInstanceUID = "1.2.3" if dataset.InstanceNumber in (4, 5) else dataset.SOPInstanceUID
        return dataset

    write_series(tmp_path / "src", change=change)
    assert "two different images have one SOP Instance UID" in bring(tmp_path / "src").only.reason


def test_series_that_share_a_folder_are_kept_apart(tmp_path, bring):
    """Two patients, two series each, every file in one folder and in no order."""
    for number, (patient, series) in enumerate((p, s) for p in ("A", "B") for s in ("1.1", "1.2")):
        b_values = (0.0, 800.0 + 100 * number)
        for file in write_series(
            tmp_path / "made",
            b_values,
            PatientID=patient,
            SeriesInstanceUID=series,
            StudyInstanceUID=f"9.{ord(patient)}",
        ):
            dataset = pydicom.dcmread(file)
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[f"{number} {file.name}"])
            save(dataset, tmp_path / "src" / f"{7919 * int(file.stem) % 101}-{number}.dcm")
    brought = bring(tmp_path / "src")
    assert [entry.outcome for entry in brought.entries] == ["accepted"] * 4
    assert len({entry.subject for entry in brought.entries}) == 2
    assert len(brought.images) == 4


def test_a_truncated_file_takes_its_series_along_and_no_other(tmp_path, bring):
    write_series(tmp_path / "src" / "good", SeriesInstanceUID="1.1")
    bad = write_series(tmp_path / "src" / "bad", SeriesInstanceUID="1.2")
    bad[8].write_bytes(bad[8].read_bytes()[:-100])
    brought = bring(tmp_path / "src")
    assert sorted(entry.outcome for entry in brought.entries) == ["accepted", "refused"]
    refused = next(entry for entry in brought.entries if entry.outcome == "refused")
    assert "cut off" in refused.reason or "cannot be read to their end" in refused.reason
    assert len(brought.images) == 1


def test_an_enhanced_image_with_a_frame_missing_is_refused(tmp_path, bring):
    path = write_enhanced(tmp_path / "src")
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[4]
    dataset.NumberOfFrames = 17
    dataset.PixelData = dataset.PixelData[: 17 * 240]
    save(dataset, path)
    assert "incomplete" in bring(tmp_path / "src").only.reason


def test_trace_weighted_series_are_taken_only_when_asked_for_and_after_originals(tmp_path):
    trace = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]
    write_series(tmp_path / "src" / "a", (0.0, 1000.0), ImageType=trace, SeriesInstanceUID="1.1", SeriesNumber=2)
    write_series(tmp_path / "src" / "b", (0.0, 1000.0), SeriesInstanceUID="1.2", SeriesNumber=3)
    found, keys = look_through(tmp_path / "src"), SubjectKeys(tmp_path / "site")
    by_kind = {entry.kind: entry for entry in bring_in(found, tmp_path / "x", keys).entries}
    assert by_kind["trace-weighted image"].outcome == "left out"
    by_kind = {entry.kind: entry for entry in bring_in(found, tmp_path / "y", keys, trace=True).entries}
    assert [entry.outcome for entry in by_kind.values()] == ["accepted", "accepted"]
    assert "run-2" in by_kind["trace-weighted image"].scan
    assert "run" not in by_kind["diffusion"].scan


def test_a_trace_without_b0_is_no_scan(tmp_path):
    write_series(tmp_path / "src", (1000.0,), ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"])
    summary = bring_in(look_through(tmp_path / "src"), tmp_path / "x", SubjectKeys(tmp_path / "site"), trace=True)
    assert "no volume has b <= 50" in summary.entries[0].reason


def test_several_people_under_one_patient_id_are_doubted(tmp_path, bring):
    for number, sex in enumerate("FM"):
        write_series(
            tmp_path / "src" / sex,
            PatientSex=sex,
            StudyInstanceUID=f"1.{number}",
            SeriesInstanceUID=f"2.{number}",
            change=lambda d, n=number: setattr(d, "SOPInstanceUID", f"3.{n}.{d.InstanceNumber}") or d,
        )
    warnings = [entry.warnings for entry in bring(tmp_path / "src").entries]
    assert all("different sexes or days of birth" in found[0] for found in warnings)


def test_what_is_no_dicom_and_no_nifti_is_counted(tmp_path, bring):
    write_series(tmp_path / "src")
    (tmp_path / "src" / "notes.txt").write_text("Roe^Jane")
    (tmp_path / "src" / "DICOMDIR").write_bytes(Path(__file__).read_bytes())
    assert bring(tmp_path / "src").only.outcome == "accepted"
