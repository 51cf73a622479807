"""The report on paper as a DICOM object (PS3.3, A.45.1); highdicom has no class for it."""

from __future__ import annotations

from typing import Any

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from mhsev_monai.pacs.context import ObjectKind, ResultContext, own_equipment
from mhsev_monai.pacs.patient_study import plain_identity
from mhsev_monai.pacs.pdf_report import pdf_report


def encapsulated_report(context: ResultContext) -> Dataset:
    """The object around the PDF."""
    content = pdf_report(context.paper)
    made = SOPClass(
        study_instance_uid=str(context.source.references[0].StudyInstanceUID),
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **_identity(context),
        **context.content_times(),
        **context.common(ObjectKind.REPORT),
    )
    made.ConversionType = "SYN"
    made.BurnedInAnnotation = "NO"
    made.DocumentTitle = "Cerebral microbleeds on DWI - RESEARCH USE ONLY"
    made.ConceptNameCodeSequence = []
    made.AcquisitionDateTime = ""
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(content)
    made.EncapsulatedDocument = content + bytes(len(content) % 2)
    made.SourceInstanceSequence = [_reference(each) for each in context.source.references]
    made.ContributingEquipmentSequence = [own_equipment(context)]
    return context.finish(made)


def _identity(context: ResultContext) -> dict[str, Any]:
    plain = plain_identity(context.source.header)
    return {
        "patient_id": plain.PatientID,
        "patient_name": plain.PatientName,
        "patient_birth_date": plain.PatientBirthDate,
        "patient_sex": plain.PatientSex,
    }


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
