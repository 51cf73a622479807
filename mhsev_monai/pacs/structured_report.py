"""Count, grade and findings as a structured report (PS3.16, TID 1500), preliminary and unverified."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from highdicom import sr
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from mhsev_monai.pacs import codes
from mhsev_monai.pacs.context import MANUFACTURER, MODEL_NAME, ObjectKind, ResultContext, own_equipment
from mhsev_monai.pacs.findings import MarkedFinding


class ReportForm(StrEnum):
    """Which class of structured report is written; some archives refuse the first, and get the other of ``BOTH``."""

    COMPREHENSIVE_3D = "comprehensive3d"
    ENHANCED = "enhanced"
    BOTH = "both"
    NONE = "none"


def structured_report(context: ResultContext, form: ReportForm = ReportForm.COMPREHENSIVE_3D) -> Dataset:
    """The report.

    Args:
        context: of the results.
        form: ``COMPREHENSIVE_3D`` tells places in the patient's coordinates, ``ENHANCED`` in pixels of the source.
    """
    groups: list[sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations]
    groups = [_of_scan(context), *(_of_finding(context, finding, form) for finding in context.findings)]
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=context.identity.uid("device"),
        name=MODEL_NAME,
        manufacturer_name=MANUFACTURER,
        model_name=f"mhsev {context.identity.version}",
        serial_number=context.identity.model,
    )
    observer = sr.ObserverContext(observer_type=_dcm("121007", "Device"), observer_identifying_attributes=device)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.PROCEDURE,
        imaging_measurements=groups,
        title=_dcm("126000", "Imaging Measurement Report"),
    )
    made = sr.Comprehensive3DSR if form is ReportForm.COMPREHENSIVE_3D else sr.EnhancedSR
    report = made(
        evidence=context.source.references,
        content=content,
        is_complete=True,
        is_final=False,
        is_verified=False,
        contributing_equipment=[own_equipment(context)],
        **context.content_times(),
        # One UID must not stand for objects of two classes.
        **context.common(ObjectKind.SR, form),
    )
    return context.finish(report)


def _dcm(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "DCM", meaning)


def _algorithm(context: ResultContext) -> sr.AlgorithmIdentification:
    parameters = [f"model SHA-256 {context.identity.model[:32]}", context.identity.model[32:]]
    return sr.AlgorithmIdentification(name=MODEL_NAME, version=context.identity.version, parameters=parameters)


def _measurement(name: CodedConcept, value: float, unit: CodedConcept) -> sr.Measurement:
    # A decimal string holds 16 characters.
    return sr.Measurement(name=name, value=round(float(value), 6), unit=unit)


def _of_scan(context: ResultContext) -> sr.MeasurementsAndQualitativeEvaluations:
    """Count, interval, grade and its probabilities, and whether the model stands by it."""
    grade = context.grade
    measurements = [_measurement(codes.COUNT, grade.count, codes.NUMBER)]
    if grade.count_interval is not None:
        ends = zip((codes.COUNT_LOW, codes.COUNT_HIGH), grade.count_interval, strict=True)
        measurements += [_measurement(name, value, codes.NUMBER) for name, value in ends]
    measurements += [
        _measurement(codes.grade_probability(label), p, codes.NO_UNITS) for label, p in grade.probabilities.items()
    ]
    evaluations = [sr.QualitativeEvaluation(codes.SEVERITY, codes.GRADES[grade.grade])]
    if grade.abstains is not None:
        evaluations.append(sr.QualitativeEvaluation(codes.ABSTENTION, codes.abstention(grade.abstains)))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=context.identity.uid("scan"), identifier="whole scan"),
        finding_type=codes.MICROBLEED,
        algorithm_id=_algorithm(context),
        finding_sites=[sr.FindingSite(anatomic_location=codes.BRAIN)],
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _of_finding(
    context: ResultContext, finding: MarkedFinding, form: ReportForm
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """Place, probability and size of one finding."""
    measurements = [
        _measurement(codes.PROBABILITY, finding.probability, codes.NO_UNITS),
        _measurement(codes.DEPTH, finding.depth, codes.NO_UNITS),
    ]
    if finding.volume_mm3 is not None:
        measurements.append(_measurement(codes.VOLUME, finding.volume_mm3, codes.MM3))
    if finding.diameter_mm is not None:
        measurements.append(_measurement(codes.DIAMETER, finding.diameter_mm, codes.MM))
    in_space = form is ReportForm.COMPREHENSIVE_3D
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=context.tracking_uid(finding), identifier=finding.label),
        referenced_region=_in_space(context, finding.point) if in_space else _in_picture(context, finding),
        finding_type=codes.MICROBLEED,
        algorithm_id=_algorithm(context),
        finding_sites=[sr.FindingSite(anatomic_location=codes.BRAIN)],
        measurements=measurements,
        qualitative_evaluations=_part(finding),
    )


def _part(finding: MarkedFinding) -> list[sr.QualitativeEvaluation] | None:
    if finding.part is None:
        return None
    return [sr.QualitativeEvaluation(codes.PART, codes.part_of_brain(finding.part))]


def _in_space(context: ResultContext, point: Sequence[float]) -> sr.ImageRegion3D:
    return sr.ImageRegion3D(
        graphic_type=sr.GraphicTypeValues3D.POINT,
        graphic_data=np.array([point]),
        frame_of_reference_uid=context.source.frame_of_reference,
    )


def _in_picture(context: ResultContext, finding: MarkedFinding) -> sr.ImageRegion:
    marked = context.source.slices[finding.slice_index]
    image = sr.SourceImageForRegion(
        referenced_sop_class_uid=marked.reference.SOPClassUID,
        referenced_sop_instance_uid=marked.reference.SOPInstanceUID,
        referenced_frame_numbers=None if marked.frame is None else [marked.frame],
    )
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POINT,
        graphic_data=np.array([marked.in_picture(finding.pixel)]),
        source_image=image,
    )
