"""Headers as archives deliver them: odd, empty, of other scripts. Results come all the same, and repeat what came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from dicom_heads import read_all, write_head
from pydicom.dataset import Dataset
from test_result_objects import Graded, grade, loaded
from validators import VALIDATORS, standard_errors

from mhsev_monai.ingest.dicom.series import convert_series, group_series
from mhsev_monai.ingest.source import look_through
from mhsev_monai.pacs.patient_study import quiet_library
from mhsev_monai.pacs.result_folder import write_results
from mhsev_monai.pacs.results import result_objects
from mhsev_monai.pacs.source_series import source_series
from mhsev_monai.pacs.structured_report import ReportForm

__all__ = ["loaded"]

pytestmark = pytest.mark.slow


def setting(**elements: object) -> Callable[[Dataset], Dataset]:
    def change(dataset: Dataset) -> Dataset:
        with pydicom.config.disable_value_validation():
            for name, value in elements.items():
                setattr(dataset, name, value)
        return dataset

    return change


def dropping(*names: str) -> Callable[[Dataset], Dataset]:
    def change(dataset: Dataset) -> Dataset:
        for name in names:
            delattr(dataset, name)
        return dataset

    return change


SOUND = {
    "nobody": setting(PatientName="", PatientID="", PatientSex="", PatientBirthDate="", StudyID="", AccessionNumber=""),
    "elements absent": dropping("AccessionNumber", "StudyID", "ReferringPhysicianName", "PatientBirthDate"),
    "no maker": dropping("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"),
    "Latin": setting(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë", InstitutionName="Spital Zürich"),
    "Japanese": setting(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎", InstitutionName="病院"
    ),
    "several issuers": setting(
        OtherPatientIDsSequence=[setting(PatientID="2", IssuerOfPatientID="B", TypeOfPatientID="TEXT")(Dataset())]
    ),
    "no thickness": dropping("SliceThickness"),
}
ODD = {
    "a name of one part": setting(PatientName="ANON"),
    "a maker of many words": setting(Manufacturer="SIEMENS " + "x" * 80, InstitutionName="a\\b", StationName="y" * 40),
    "dates that are none": setting(PatientBirthDate="unknown", StudyDate="2020-01-01", StudyTime="12:00:00"),
    "a sex that is none": setting(PatientSex="male", PatientAge="70"),
    "an unknown character set": setting(SpecificCharacterSet="UTF-8"),
}


@pytest.fixture(scope="module")
def graded(loaded, tmp_path_factory) -> Graded:
    folder = tmp_path_factory.mktemp("head")
    return grade(write_head(folder / "in"), loaded, folder / "out")


def results_of(graded: Graded, change: Callable[[Dataset], Dataset], folder: Path) -> Dataset:
    """The source of a series of other headers; its results are written. The pipeline itself looks at none of them."""
    series = write_head(folder / "in", change=change)
    (only,) = group_series(look_through(series.folder).dicom)
    source = source_series(only, convert_series(only)[0])
    made = result_objects(replace(graded.context, source=source), ReportForm.COMPREHENSIVE_3D)
    write_results(folder / "out", made, {})
    return pydicom.dcmread(next(series.folder.glob("*.dcm")))


@pytest.mark.parametrize("name", [*SOUND, *ODD])
def test_results_repeat_who_and_which_study_word_for_word(name, graded, tmp_path):
    with quiet_library():
        source = results_of(graded, (SOUND | ODD)[name], tmp_path)
        objects = read_all(tmp_path / "out")
        assert set(objects) == {"capture-001", "map", "marks", "report", "seg", "sr"}
        for made in objects.values():
            for each in ("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "StudyDate", "AccessionNumber"):
                assert str(made[each].value or "") == str(source.get(each, "") or "")
            assert made.StudyInstanceUID == source.StudyInstanceUID
    if name in SOUND and VALIDATORS:
        assert standard_errors(sorted((tmp_path / "out").glob("*.dcm"))) == []
