"""Who and which study: the elements that results share with their source, copied as they are."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from pydicom.dataset import Dataset

from mhsev_monai.ingest.dicom.headers import quiet_parser

# The modules of patient, study and clinical trial (PS3.3, C.7.1 and C.7.2).
PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID"),
    *("PatientBirthDate", "PatientBirthTime", "PatientSex", "OtherPatientIDs", "OtherPatientIDsSequence"),
    *("OtherPatientNames", "EthnicGroup", "PatientComments", "QualityControlSubject", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "DeidentificationMethodCodeSequence", "ReferencedPatientSequence"),
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "ResponsiblePerson", "ResponsibleOrganization"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    *("ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "ConsentForClinicalTrialUseSequence"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber"),
    *("IssuerOfAccessionNumberSequence", "ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    *("ConsultingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "ReferencedStudySequence"),
    *("ProcedureCodeSequence", "ReasonForPerformedProcedureCodeSequence", "RequestingServiceCodeSequence"),
    *("PatientAge", "PatientSize", "PatientWeight", "PatientBodyMassIndex", "MedicalAlerts", "Allergies"),
    *("SmokingStatus", "PregnancyStatus", "LastMenstrualDate", "PatientState", "Occupation"),
    *("AdmissionID", "IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "ServiceEpisodeDescription"),
    *(
        "AdditionalPatientHistory",
        "AdmittingDiagnosesDescription",
        "AdmittingDiagnosesCodeSequence",
        "PatientSexNeutered",
    ),
)
# Present in every result, empty where the source has none (type 2).
_ALWAYS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
_SHAPES = {
    "PatientBirthDate": re.compile(r"\d{8}"),
    "StudyDate": re.compile(r"\d{8}"),
    "StudyTime": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "PatientSex": re.compile(r"[MFO]"),
}


@contextmanager
def quiet_library() -> Iterator[None]:
    """Keep pydicom and highdicom from logging or warning: they quote names."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with quiet_parser():
            yield
    finally:
        logger.setLevel(level)


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Copy what the study shares, word for word; an element that cannot be read is left empty or out."""
    for name in PATIENT_AND_STUDY:
        try:
            copied = deepcopy(source.get_item(name) and source[name])
        except Exception:
            # A ruined element can raise anything, see ingest.dicom.tags.raw_value.
            copied = None
        if copied is not None:
            target[name] = copied
        elif name in _ALWAYS:
            setattr(target, name, "")
        elif name in target:
            delattr(target, name)


def plain_identity(source: Dataset) -> Dataset:
    """The elements that highdicom's classes ask for, with values that they accept.

    They stand in only until :func:`copy_patient_and_study` has put the source's own in their place.
    """
    plain = Dataset()
    for name in _ALWAYS:
        setattr(plain, name, "")
    for name, shape in _SHAPES.items():
        try:
            value = str(source.get(name, "") or "")
        except Exception:
            continue
        setattr(plain, name, value if shape.fullmatch(value) else "")
    return plain
