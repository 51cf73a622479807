"""From a converted series to its result objects, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from mhsev_monai._version import __version__
from mhsev_monai.ingest.dicom.series import DicomSeries, convert_series
from mhsev_monai.ingest.scan_writer import write_scan
from mhsev_monai.ingest.work import work_folder
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.lesion_regions import tell_regions
from mhsev_monai.model_file import SeverityModel
from mhsev_monai.pacs.context import ObjectKind, ResultContext
from mhsev_monai.pacs.encapsulated_pdf import encapsulated_report
from mhsev_monai.pacs.findings import mark_findings, processed_to_lps
from mhsev_monai.pacs.geometry import FrameVolume, as_frames
from mhsev_monai.pacs.identity import ResultIdentity
from mhsev_monai.pacs.parametric_map import parametric_map
from mhsev_monai.pacs.patient_study import quiet_library
from mhsev_monai.pacs.pdf_report import paper_report
from mhsev_monai.pacs.presentation_state import presentation_state
from mhsev_monai.pacs.secondary_capture import secondary_captures
from mhsev_monai.pacs.segmentation import segmentation
from mhsev_monai.pacs.source_series import SourceSeries, source_series
from mhsev_monai.pacs.structured_report import ReportForm, structured_report
from mhsev_monai.prediction import grade_scan
from mhsev_monai.report.scan_report import ReportContext


class LoadedModel(NamedTuple):
    """A model and the SHA-256 of its file."""

    model: SeverityModel
    digest: str


def result_identity(series: DicomSeries, model_digest: str, regions: bool = False) -> ResultIdentity:
    """What the UIDs of the results of a series are made of; those with regions are others."""
    uids = [file.instance_uid for file in series.files]
    version = f"{__version__}+regions" if regions else __version__
    return ResultIdentity.of(series.identity, uids, model_digest, version)


def grade_series(series: DicomSeries, loaded: LoadedModel, regions: bool = False) -> ResultContext:
    """Convert a series, grade it, and find the places of its findings in its own slices.

    Args:
        series: its files.
        loaded: the model.
        regions: tell which part of the brain each finding lies in.

    Raises:
        ScanError: if the series cannot be used.
    """
    with quiet_library():
        scan, warnings = convert_series(series)
        source = source_series(series, scan)
    with work_folder() as work:
        grade, entries = grade_scan(write_scan(scan, work, "scan"), loaded.model)
    if regions:
        grade, _ = tell_regions(grade, entries)
    x, y, z = entries[Keys.B0].shape[1:]
    notes = (*warnings, *source.warnings)
    return ResultContext(
        source=source,
        grade=grade,
        findings=mark_findings(grade.findings, entries, source),
        to_lps=processed_to_lps(entries, source),
        shape=(int(x), int(y), int(z)),
        feature_map=_feature_map(entries, source),
        identity=result_identity(series, loaded.digest, regions),
        made=datetime.now(),
        paper=paper_report(grade, entries, loaded.model, source, ReportContext(loaded.digest, notes=notes)),
        notes=notes,
    )


def _feature_map(entries: Mapping[str, Any], source: SourceSeries) -> FrameVolume | None:
    if Keys.DSD not in entries:
        return None
    volume = np.asarray(entries[Keys.DSD], dtype=np.float32)[0]
    return as_frames(volume, processed_to_lps(entries, source), source.slices[0].plane)


def result_objects(context: ResultContext, form: ReportForm) -> dict[str, Dataset]:
    """The objects by the names of their files, in the order in which they are best sent."""
    with quiet_library():
        reports = {name: structured_report(context, each) for name, each in _reports(form).items()}
        single = {
            ObjectKind.SEG: segmentation(context),
            ObjectKind.MAP: parametric_map(context),
            ObjectKind.MARKS: presentation_state(context),
            ObjectKind.REPORT: encapsulated_report(context),
        }
        captures = secondary_captures(context)
    named = reports | {f"{kind}.dcm": made for kind, made in single.items() if made is not None}
    return named | {f"{ObjectKind.CAPTURE}-{n:03d}.dcm": made for n, made in enumerate(captures, start=1)}


def _reports(form: ReportForm) -> dict[str, ReportForm]:
    """Files of structured reports; of two, the second is for archives that refuse the first."""
    if form is ReportForm.NONE:
        return {}
    if form is ReportForm.BOTH:
        second = f"{ObjectKind.SR}-{ReportForm.ENHANCED}.dcm"
        return {f"{ObjectKind.SR}.dcm": ReportForm.COMPREHENSIVE_3D, second: ReportForm.ENHANCED}
    return {f"{ObjectKind.SR}.dcm": form}
