"""The report of a run: its document, and that document as an HTML page."""

from __future__ import annotations

from mhsev_monai.report.analysis_sections import associations_section, explanation_section
from mhsev_monai.report.case_sections import examples_section, failures_section
from mhsev_monai.report.comparison_sections import cross_site_section, paired_section, subgroups_section
from mhsev_monai.report.data import ReportData
from mhsev_monai.report.document import Document
from mhsev_monai.report.federation_section import federation_section
from mhsev_monai.report.html_page import render_html
from mhsev_monai.report.limits_section import limits_section, reading_section
from mhsev_monai.report.probability_sections import calibration_section, sets_section
from mhsev_monai.report.run_sections import opening, result_section, sites_section
from mhsev_monai.report.words import local_models_sentence, report_warnings

__all__ = ["local_models_sentence", "render_report", "run_document"]

SUBTITLE = "Federated grading of cerebral micro-hemorrhages from brain DWI"


def render_report(data: ReportData) -> str:
    """The page as HTML text; equal data gives equal text."""
    return render_html(run_document(data))


def run_document(data: ReportData) -> Document:
    """All sections that the data have something for, in the order of the page."""
    warnings = report_warnings(data)
    sections = (
        result_section(data),
        calibration_section(data),
        sets_section(data),
        sites_section(data),
        subgroups_section(data),
        cross_site_section(data),
        paired_section(data),
        explanation_section(data),
        associations_section(data),
        federation_section(data),
        examples_section(data),
        failures_section(data),
        limits_section(data),
        reading_section(data),
    )
    return Document(
        kind="run",
        title=data.title,
        subtitle=SUBTITLE if data.made_on is None else f"{SUBTITLE} · {data.made_on}",
        warnings=warnings,
        opening=opening(data),
        sections=[section for section in sections if section is not None],
        footer=" ".join(warnings[0]).strip(),
    )
