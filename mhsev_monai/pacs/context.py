"""What all results of one series have in common: identity, equipment, times, and the words on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from highdicom import ContributingEquipment
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from mhsev_monai.pacs.findings import MarkedFinding
from mhsev_monai.pacs.geometry import Affine, FrameVolume
from mhsev_monai.pacs.identity import ResultIdentity
from mhsev_monai.pacs.patient_study import copy_patient_and_study
from mhsev_monai.pacs.source_series import SourceSeries
from mhsev_monai.prediction import ScanGrade
from mhsev_monai.report.scan_data import ScanReport

RESEARCH = "RESEARCH USE ONLY"
MANUFACTURER, MODEL_NAME = "mhsev", "mhsev microbleed grading"


class ObjectKind(StrEnum):
    """The objects, by the names of their files."""

    SR = "sr"
    SEG = "seg"
    MAP = "map"
    MARKS = "marks"
    CAPTURE = "capture"
    REPORT = "report"


_SERIES = {
    ObjectKind.SR: (9001, "mhsev findings"),
    ObjectKind.SEG: (9002, "mhsev segmentation"),
    ObjectKind.MAP: (9003, "mhsev feature map"),
    ObjectKind.MARKS: (9004, "mhsev marks"),
    ObjectKind.CAPTURE: (9005, "mhsev marked slices"),
    ObjectKind.REPORT: (9006, "mhsev report"),
}


@dataclass(frozen=True, eq=False)
class ResultContext:
    """One graded series, on the way to its results.

    Attributes:
        source: the series.
        grade: of the scan.
        findings: with their places.
        to_lps: ``(4, 4)`` from voxels of the processed volumes to LPS mm.
        shape: of the processed volumes.
        feature_map: as frames; None where the model's inputs make none.
        identity: what UIDs are made of.
        made: when.
        paper: what the PDF says.
        notes: what is odd about the source, one sentence each.
    """

    source: SourceSeries
    grade: ScanGrade
    findings: tuple[MarkedFinding, ...]
    to_lps: Affine
    shape: tuple[int, int, int]
    feature_map: FrameVolume | None
    identity: ResultIdentity
    made: datetime
    paper: ScanReport
    notes: tuple[str, ...] = ()

    def common(self, kind: ObjectKind, instance: int | str = 1) -> dict[str, Any]:
        """Arguments that all of highdicom's classes take.

        Args:
            kind: of the object.
            instance: its number in its series, or what else tells it from others of its kind.
        """
        number, description = _SERIES[kind]
        return {
            "series_instance_uid": self.identity.uid("series", kind),
            "series_number": number,
            "sop_instance_uid": self.identity.uid("instance", kind, instance),
            "instance_number": instance if isinstance(instance, int) else 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": MODEL_NAME,
            "software_versions": (f"mhsev {self.identity.version}", f"model {self.identity.model[:16]}"),
            "device_serial_number": self.identity.model,
            "series_description": f"{description} - {RESEARCH}",
            "content_qualification": "RESEARCH",
            "series_date": self.made.date(),
            "series_time": self.made.time(),
        }

    def content_times(self) -> Mapping[str, Any]:
        """Arguments of the classes whose objects have content dates."""
        return {"content_date": self.made.date(), "content_time": self.made.time()}

    def tracking_uid(self, finding: MarkedFinding) -> str:
        """What tells that a finding in one object is that of another."""
        return self.identity.uid("finding", finding.number)

    def finish(self, result: Dataset) -> Dataset:
        """The object with the source's patient and study, and the body part that all but documents must name."""
        copy_patient_and_study(self.source.header, result)
        if "SpecificCharacterSet" in self.source.header:
            result.SpecificCharacterSet = self.source.header.SpecificCharacterSet
        if "BodyPartExamined" not in result and str(result.Modality) not in ("SR", "DOC"):
            result.BodyPartExamined = str(self.source.header.get("BodyPartExamined", "") or "BRAIN")
        return result


def own_equipment(context: ResultContext) -> ContributingEquipment:
    """This software as a contributor, with version and model."""
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MODEL_NAME,
        software_versions=(f"mhsev {context.identity.version}", f"model {context.identity.model[:16]}"),
        device_serial_number=context.identity.model,
        contribution_description=f"Grading of cerebral microbleeds; model SHA-256 {context.identity.model[:32]}",
    )
