"""The report of one scan on paper: that of ``mhsev scan-report``, with places as the source's headers have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mhsev_monai.model_file import SeverityModel
from mhsev_monai.pacs.geometry import RAS_TO_LPS
from mhsev_monai.pacs.source_series import SourceSeries
from mhsev_monai.prediction import ScanGrade
from mhsev_monai.registration import moved
from mhsev_monai.report.scan_data import FindingLine, ScanReport
from mhsev_monai.report.scan_report import ReportContext, scan_report
from mhsev_monai.report.scan_sections import scan_pdf


def paper_report(
    grade: ScanGrade,
    entries: Mapping[str, Any],
    model: SeverityModel,
    source: SourceSeries,
    context: ReportContext,
) -> ScanReport:
    """What the paper says; whose it is stands in the object around it.

    Args:
        grade: of the scan.
        entries: the data dictionary of the same call.
        model: that graded it.
        source: of the scan.
        context: digest of the model, and what is odd about the source.
    """
    report = scan_report(grade, entries, model, None, context)
    return replace(report, findings=_as_in_headers(report.findings, source))


def _as_in_headers(lines: Sequence[FindingLine], source: SourceSeries) -> list[FindingLine]:
    """The lines with positions that differ where the converter turned the pictures."""
    if not lines:
        return []
    places = moved(RAS_TO_LPS @ source.to_source, np.array([line.position_mm for line in lines], dtype=np.float64))
    return [
        replace(line, position_mm=(float(x), float(y), float(z)))
        for line, (x, y, z) in zip(lines, places.tolist(), strict=True)
    ]


def pdf_report(paper: ScanReport) -> bytes:
    """The PDF; equal reports give equal bytes."""
    return scan_pdf(paper)
