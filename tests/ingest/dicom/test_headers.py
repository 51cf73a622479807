"""Facts of a header: b-values of each vendor, kinds of series, ages; from elements that files really hold."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom
import pytest
from dicom_files import slice_dataset, write_enhanced, write_series
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom.headers import looks_like_dicom, read_header
from mhsev_monai.ingest.dicom.kinds import SeriesKind, classify
from mhsev_monai.ingest.dicom.series import group_series


def header_of(dataset: Dataset, folder: Path, syntax: str | None = None):
    """The header after a way over the disk."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax or "1.2.840.10008.1.2.1"
    dataset.save_as(folder / "x.dcm", enforce_file_format=True)
    return read_header(folder / "x.dcm")


def private(owner: str, group: int, element: int, vr: str, value: object) -> Dataset:
    dataset = slice_dataset(0, 0, 1, None)
    dataset.private_block(group, owner, create=True).add_new(element, vr, value)
    return dataset


@pytest.mark.parametrize(
    ("dataset", "b_value"),
    [
        (slice_dataset(0, 0, 1, 929.753), 929.753),
        (slice_dataset(0, 0, 1, None), None),
        (private("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "1000"), 1000.0),
        (private("GEMS_PARM_01", 0x0043, 0x39, "IS", ["1000", "8", "0", "0"]), 1000.0),
        (private("GEMS_PARM_01", 0x0043, 0x39, "IS", ["1000000700", "8", "0", "0"]), 700.0),
        (private("GEMS_PARM_01", 0x0043, 0x39, "IS", ["0", "268435456", "0", "0"]), None),  # fMRI, field maps
        (private("Philips Imaging DD 001", 0x2001, 0x03, "FL", 0.001), pytest.approx(0.001)),
        (private("Image Private Header", 0x0065, 0x09, "FD", 1.25), 1.25),
        # As a file without value representations, or one that passed an unknowing archive, brings them.
        (private("SIEMENS MR HEADER", 0x0019, 0x0C, "UN", b"1000"), 1000.0),
        (private("GEMS_PARM_01", 0x0043, 0x39, "UN", b"800\\8\\0\\0 "), 800.0),
        (private("Philips Imaging DD 001", 0x2001, 0x03, "UN", struct.pack("<f", 1000.0)), 1000.0),
        (private("Image Private Header", 0x0065, 0x09, "UN", struct.pack("<d", 929.75)), 929.75),
        # The same element in another owner's block is something else.
        (private("ACME", 0x0019, 0x0C, "IS", "1000"), None),
        (private("SIEMENS MR HEADER", 0x0019, 0x0C, "LO", "Roe^Jane"), None),
    ],
)
def test_the_b_value_is_found_where_its_vendor_writes_it(dataset, b_value, tmp_path):
    assert header_of(dataset, tmp_path).frames[0].b_value == b_value


def test_implicit_value_representations_read_alike(tmp_path):
    explicit = header_of(slice_dataset(1, 2, 3, 800.0), tmp_path)
    implicit = header_of(slice_dataset(1, 2, 3, 800.0), tmp_path, ImplicitVRLittleEndian)
    assert implicit.frames == explicit.frames
    assert (implicit.rows, implicit.patient, implicit.sequence) == (12, "PID-17", frozenset({"EP", "SE"}))


def test_frames_take_what_is_shared_and_what_is_their_own(tmp_path):
    header = read_header(write_enhanced(tmp_path))
    assert len(header.frames) == header.n_frames == 18
    assert [frame.b_value for frame in header.frames[::6]] == [0.0, 1000.0, 1000.0]
    assert header.frames[7].position == (-10.0, -12.0, -16.0)
    assert header.frames[7].stack_position == 2


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "065Y"}, 65),
        ({"PatientAge": "018M"}, 1),
        ({"PatientAge": "065D"}, 0),
        ({}, 69),  # from the day of birth, 3 February 1950, and of the study, 1 January 2020
        ({"PatientBirthDate": ""}, None),
        ({"PatientBirthDate": "20300101"}, None),
    ],
)
def test_the_age_is_whole_years_at_the_study(elements, age, tmp_path):
    dataset = slice_dataset(0, 0, 1, 0.0)
    for name, value in elements.items():
        setattr(dataset, name, value)
    assert header_of(dataset, tmp_path).age == age


KINDS: list[tuple[SeriesKind, dict[str, object]]] = [
    (SeriesKind.DIFFUSION, {}),
    (SeriesKind.DIFFUSION, {"ImageType": ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"], "ScanningSequence": "SE"}),
    (SeriesKind.ADC, {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}),
    (SeriesKind.ADC, {"ImageType": ["DERIVED", "PRIMARY", "ADC_UNSPECIFIED", "ADC", "UNSPECIFIED"]}),
    (SeriesKind.TRACE, {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND"]}),
    (SeriesKind.FA, {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA", "ND"]}),
    (SeriesKind.EXPONENTIAL_ADC, {"ImageType": ["DERIVED", "PRIMARY", "EADC"]}),
    (SeriesKind.DERIVED_B0, {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TENSOR_B0"]}),
    (SeriesKind.DERIVED, {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}),
    (SeriesKind.LOCALISER, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    (SeriesKind.PHASE, {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"], "ScanningSequence": "GR"}),
    (SeriesKind.FIELD_MAP, {"ImageType": ["ORIGINAL", "PRIMARY", "B0 MAP", "B0", "UNSPECIFIED"]}),
    (SeriesKind.PHANTOM, {"BodyPartExamined": "PHANTOM"}),
    (SeriesKind.PHANTOM, {"ProtocolName": "ACR phantom QA"}),
    (SeriesKind.OTHER_PART, {"BodyPartExamined": "PROSTATE"}),
    (
        SeriesKind.OTHER_MR,
        {
            "Manufacturer": "Philips",
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "ScanningSequence": "GR",
            "EchoTime": 4.0,
        },
    ),
    (SeriesKind.NO_MR_IMAGE, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}),
]
PLAIN = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "DiffusionBValue": None}
UNDIFFUSED: list[tuple[SeriesKind, dict[str, object]]] = [
    (SeriesKind.SE_EPI, {"ScanningSequence": ["SE", "EP"]}),
    (SeriesKind.SE_EPI, {"ScanningSequence": ["EP", "RM"]}),  # GE
    (SeriesKind.FMRI, {"ScanningSequence": ["GR", "EP"], "NumberOfTemporalPositions": 200}),
    (SeriesKind.T2STAR, {"ScanningSequence": ["GR", "EP"]}),
    (SeriesKind.T2STAR, {"ScanningSequence": "GR", "EchoTime": 20.0}),
    (SeriesKind.OTHER_MR, {"ScanningSequence": "GR", "EchoTime": 4.6}),
    (SeriesKind.OTHER_MR, {"ScanningSequence": "SE", "EchoTime": 90.0}),
    (SeriesKind.OTHER_MR, {"ScanningSequence": ["GR", "IR"], "EchoTime": 20.0}),
    (SeriesKind.FIELD_MAP, {"ScanningSequence": "GR", "SeriesDescription": "gre_field_mapping"}),
    (SeriesKind.SWI, {"ScanningSequence": "GR", "SeriesDescription": "Ax SWAN 3D"}),
    (SeriesKind.SWI, {"ScanningSequence": "GR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "SWI"]}),
    (SeriesKind.MINIMUM_INTENSITY, {"ScanningSequence": "GR", "ImageType": ["DERIVED", "SECONDARY", "MNIP", "SWI"]}),
    (SeriesKind.PERFUSION, {"ScanningSequence": ["GR", "EP"], "SeriesDescription": "ep2d_perf"}),
]


@pytest.mark.parametrize(("kind", "elements"), [*KINDS, *((kind, {**PLAIN, **some}) for kind, some in UNDIFFUSED)])
def test_series_are_told_apart_by_their_elements(kind, elements, tmp_path):
    def change(dataset: Dataset) -> Dataset:
        if elements.get("DiffusionBValue", 0) is None:
            del dataset.DiffusionBValue
        for name, value in elements.items():
            if value is not None:
                setattr(dataset, name, value)
        return dataset

    headers = [read_header(path) for path in write_series(tmp_path, (0.0,), change=change)]
    assert classify(headers) is kind


def test_three_planes_in_one_series_are_a_localiser(tmp_path):
    def change(dataset: Dataset) -> Dataset:
        del dataset.DiffusionBValue
        dataset.ImageType, dataset.ScanningSequence = ["ORIGINAL", "PRIMARY", "M"], "GR"
        planes = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])
        dataset.ImageOrientationPatient = planes[dataset.InstanceNumber % 3]
        return dataset

    headers = [read_header(path) for path in write_series(tmp_path, (0.0,), change=change)]
    assert classify(headers) is SeriesKind.LOCALISER


def test_one_series_of_originals_and_a_map_is_taken_apart(tmp_path):
    """Philips stores its ADC map under the series of the originals."""

    def change(dataset: Dataset) -> Dataset:
        if dataset.InstanceNumber > 12:
            dataset.ImageType = ["DERIVED", "PRIMARY", "ADC_UNSPECIFIED", "ADC", "UNSPECIFIED"]
        return dataset

    series = group_series(map(read_header, write_series(tmp_path, change=change)))
    assert sorted((each.kind.value, len(each.files)) for each in series) == [("ADC map", 6), ("diffusion", 12)]


def test_b0_slices_without_any_sign_belong_to_the_diffusion_series_that_they_came_with(tmp_path):
    """Canon and GE write no b-value on them."""

    def change(dataset: Dataset) -> Dataset:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        if dataset.InstanceNumber <= 6:
            del dataset.DiffusionBValue
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER", "B"]
        return dataset

    series = group_series(map(read_header, write_series(tmp_path, (0.0, 1000.0), change=change)))
    assert [(each.kind, len(each.files)) for each in series] == [(SeriesKind.DIFFUSION, 12)]


def test_dicom_is_known_by_its_beginning(tmp_path):
    path = write_series(tmp_path, (0.0,), 2)[0]
    assert looks_like_dicom(path)
    bare = tmp_path / "bare"
    bare.write_bytes(path.read_bytes()[132:])
    assert looks_like_dicom(bare)
    for name, content in {"text": b"Roe^Jane", "empty": b"", "zip": b"PK\x03\x04" + bytes(200)}.items():
        (tmp_path / name).write_bytes(content)
        assert not looks_like_dicom(tmp_path / name)


def test_a_file_without_preamble_reads_like_one_with_it(tmp_path):
    path = write_series(tmp_path / "a", (0.0,), 2)[0]
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    bare = tmp_path / "bare.dcm"
    dataset.save_as(bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert read_header(bare).frames == read_header(path).frames


def test_a_file_that_is_deflated_as_a_whole_is_not_inflated(tmp_path):
    """It may hold gigabytes of zeros."""
    with pytest.raises(ScanError, match="deflated as a whole"):
        header_of(slice_dataset(0, 0, 1, 0.0), tmp_path, DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize("cut", [140, 200, 250])
def test_a_header_that_is_cut_off_is_a_sentence(cut, tmp_path):
    path = write_series(tmp_path, (0.0,), 2)[0]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ScanError, match=r"may be (damaged|cut off); export it again"):
        read_header(path)


def test_identifiers_are_in_no_picture_of_a_header(tmp_path):
    header = header_of(slice_dataset(0, 0, 1, 0.0), tmp_path)
    assert "PID-17" not in repr(header)
    assert str(tmp_path) not in repr(header)
