"""Sidecars are cut to an allow-list of numbers and defined words."""

from __future__ import annotations

import json

import pytest

from mhsev_monai.ingest.sidecar import age_group, allowed_sidecar

NAME = "Roe^Jane"


def test_numbers_and_defined_words_stay():
    found = {
        "EchoTime": 0.08,
        "RepetitionTime": 4,
        "MagneticFieldStrength": 3,
        "SliceTiming": [0, 1.5, 0.5],
        "PhaseEncodingDirection": "j-",
        "ScanningSequence": "EP\\SE",
        "MRAcquisitionType": "2D",
        "Manufacturer": "GE MEDICAL SYSTEMS",
    }
    assert allowed_sidecar(found) == {**found, "Manufacturer": "GE"}


@pytest.mark.parametrize(
    "name",
    [
        *("InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber", "AcquisitionTime"),
        *("ProcedureStepDescription", "ImageComments", "SeriesDescription", "ProtocolName", "PatientName"),
        *("ManufacturersModelName", "SoftwareVersions", "ReceiveCoilName", "WipMemBlock", "ImageType", "NewInNextYear"),
    ],
)
@pytest.mark.parametrize("value", [NAME, 19500203, [NAME]])
def test_every_other_element_goes(name, value):
    assert allowed_sidecar({name: value}) == {}


@pytest.mark.parametrize(
    "found",
    [
        {"EchoTime": NAME},
        {"EchoTime": [0.08, NAME]},
        {"EchoTime": True},
        {"EchoTime": float("nan")},
        {"EchoTime": {"value": NAME}},
        {"SliceTiming": [0, NAME]},
        {"SliceTiming": []},
        {"PhaseEncodingDirection": f"j {NAME}"},
        {"ScanningSequence": f"EP\\{NAME}"},
        {"MRAcquisitionType": f"2D{NAME}"},
        {"Manufacturer": NAME},
    ],
    ids=json.dumps,
)
def test_a_name_in_an_allowed_element_goes_too(found):
    assert allowed_sidecar(found) == {}


@pytest.mark.parametrize(
    ("age", "group"), [(None, "n/a"), (0, "0-9"), (9, "0-9"), (60, "60-69"), (89, "80-89"), (90, "90+"), (104, "90+")]
)
def test_ages_are_kept_by_decade(age, group):
    assert age_group(age) == group
