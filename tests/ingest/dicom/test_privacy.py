"""A DICOM file with names in every corner leaves no trace outside of the site's own folder."""

from __future__ import annotations

import gzip
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from dicom_files import write_enhanced, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

# One token for names, one for numbers that identify, one for dates, one for times.
NAME, NUMBER, DATE, TIME = "Vorname^Zuname", "4711081547110815", "19500203", "134502"
TOKENS = (NAME, "Vorname", "Zuname", NUMBER, DATE, TIME, "13:45:02")
FREE_TEXT = (
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "ReferringPhysicianName"),
    *("OperatorsName", "PerformingPhysicianName", "PatientComments", "ImageComments", "StudyDescription"),
    *("SeriesDescription", "ProtocolName", "RequestedProcedureDescription", "AccessionNumber", "StudyID"),
    *("DeviceSerialNumber", "SoftwareVersions", "PerformedProcedureStepDescription", "OtherPatientIDs"),
    *("AdditionalPatientHistory", "PatientAddress", "RetrieveAETitle", "SequenceName", "CountryOfResidence"),
    *("DerivationDescription", "AcquisitionComments", "ReceiveCoilName", "ContrastBolusAgent", "MilitaryRank"),
)


def poisoned(dataset: Dataset) -> Dataset:
    """The data set with tokens in all free text, in dates and times, in private blocks and in nested sequences."""
    for name in FREE_TEXT:
        setattr(dataset, name, NAME if name not in ("RetrieveAETitle",) else "Zuname")
    dataset.Manufacturer = f"SIEMENS {NAME}"
    dataset.ManufacturerModelName, dataset.PatientID, dataset.IssuerOfPatientID = NAME, NUMBER, NAME
    dataset.PatientName, dataset.PatientBirthDate, dataset.StudyDate = NAME, DATE, "20200203"
    for element in ("SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(dataset, element, DATE)
    for element in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(dataset, element, f"{TIME}.837500")
    for group in (0x0009, 0x0019, 0x0029, 0x0043, 0x0051, 0x2001, 0x7FE1):
        block = dataset.private_block(group, f"{NAME} {group:x}", create=True)
        block.add_new(0x01, "LO", NAME)
        block.add_new(0x02, "OB", f"{NAME} {NUMBER} {DATE}".encode())
        block.add_new(0x03, "SQ", Sequence([nested(3)]))
    dataset.RequestAttributesSequence = Sequence([nested(3)])
    dataset.ReferencedStudySequence = Sequence([nested(2)])
    return dataset


def nested(depth: int) -> Dataset:
    item = Dataset()
    item.ScheduledProcedureStepDescription, item.TextValue, item.PersonName = NAME, NAME, NAME
    item.PatientID, item.Date, item.CodeMeaning = NUMBER, DATE, NAME
    if depth:
        item.ContentSequence = Sequence([nested(depth - 1)])
    return item


def everything_written(folder: Path) -> dict[str, bytes]:
    """Names and contents below a folder, compressed ones also unpacked."""
    found = {}
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".gz":
            content += gzip.decompress(content)
        found[str(path.relative_to(folder))] = content
    return found


def leaks(text: bytes) -> list[str]:
    return [token for token in TOKENS if token.encode() in text or token.encode("utf-16-le") in text]


def damaged(path: Path) -> None:
    """Cut within the pixels, so that reading fails after all the names."""
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.rfind(b"\xe0\x7f\x10\x00") + 60])


def unreadable(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[140:150] = b"\xff" * 10
    path.write_bytes(bytes(raw))


def nothing(path: Path) -> None:
    """Leave the file whole."""


@pytest.mark.parametrize("harm", [nothing, damaged, unreadable])
@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_a_poisoned_series_leaves_no_trace(form: str, harm: Callable[[Path], None], tmp_path):
    source = tmp_path / f"{NAME} {NUMBER}" / DATE
    if form == "classic":
        files = write_series(source, change=poisoned)
    else:
        dataset = poisoned(pydicom.dcmread(write_enhanced(source)))
        dataset.save_as(source / "enhanced.dcm", enforce_file_format=True)
        files = [source / "enhanced.dcm"]
    files = [file.rename(file.with_name(f"{NAME} {file.name}")) for file in files]
    harm(files[0])
    command = [sys.executable, "-m", "mhsev_flare.cli", "ingest", str(source), str(tmp_path / "bids")]
    # Everything as loud as it gets.
    environment = {**os.environ, "PYTHONWARNINGS": "always", "MHSEV_SITE_FOLDER": str(tmp_path / "site")}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    done = subprocess.run(command, env=environment, capture_output=True, check=False, cwd=tmp_path / "scratch")
    assert done.returncode == (0 if harm is nothing else 1), done.stderr.decode()
    assert leaks(done.stdout) == []
    assert leaks(done.stderr) == []
    written = everything_written(tmp_path / "bids")
    assert any(name.endswith(".nii.gz") for name in written) == (harm is nothing)
    assert {name: found for name, content in written.items() if (found := leaks(name.encode() + content))} == {}
    # What the converter and the checks left on the way is gone, and nothing went to the home folder.
    assert everything_written(tmp_path / "scratch") == {}
    assert not (tmp_path / "home").exists()


def test_the_table_that_leads_back_to_the_patient_is_the_owner_s_alone(tmp_path, bring):
    write_series(tmp_path / "src", change=poisoned)
    entry = bring(tmp_path / "src").only
    table, secret = tmp_path / "site" / "subject_keys.tsv", tmp_path / "site" / "secret"
    assert table.read_text().splitlines() == [f"{entry.subject}\t{NUMBER}"]
    assert [path.stat().st_mode & 0o077 for path in (table, secret)] == [0, 0]


def test_nothing_is_logged_about_values_that_break_the_standard(tmp_path, bring, caplog, recwarn):
    """pydicom quotes such values in warnings and in its log."""

    def change(dataset: Dataset) -> Dataset:
        dataset.add_new(0x00080060, "CS", "MR")
        with pydicom.config.disable_value_validation():
            dataset.add_new(0x00180050, "LO", NAME)
            dataset.add_new(0x00080020, "LO", NAME)
            dataset.add_new(0x00200013, "LO", NAME)
        return dataset

    write_series(tmp_path / "src", change=change)
    recwarn.clear()
    with caplog.at_level(logging.DEBUG):
        bring(tmp_path / "src")
    assert leaks(caplog.text.encode()) == []
    assert [str(warning.message) for warning in recwarn if leaks(str(warning.message).encode())] == []


def test_the_sidecar_holds_numbers_and_defined_words_only(tmp_path, bring):
    write_series(tmp_path / "src", change=poisoned)
    sidecar = bring(tmp_path / "src").sidecar()
    assert (sidecar["EchoTime"], sidecar["RepetitionTime"], sidecar["MagneticFieldStrength"]) == (0.08, 4.0, 3)
    assert sidecar["Manufacturer"] == "Siemens"
    words = {name: value for name, value in sidecar.items() if not isinstance(value, int | float | list)}
    assert set(words) <= {"Manufacturer", "MRAcquisitionType", "ScanningSequence", "PhaseEncodingDirection"}
