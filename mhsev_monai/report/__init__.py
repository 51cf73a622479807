"""Reports of a federated run and of a single scan, as HTML, Markdown, JSON and PDF, with figures drawn here."""

from mhsev_monai.report.data import (
    Analyses,
    AttendanceRow,
    CandidateRow,
    Evaluation,
    ExampleCase,
    LocalModels,
    ReportData,
    RoundRow,
    SiteCases,
)
from mhsev_monai.report.document import Document
from mhsev_monai.report.forms import FORMS, form_of, render, write_form
from mhsev_monai.report.page import local_models_sentence, render_report, run_document
from mhsev_monai.report.slices import Mark, orientation_words, slice_pair_png

__all__ = [
    "FORMS",
    "Analyses",
    "AttendanceRow",
    "CandidateRow",
    "Document",
    "Evaluation",
    "ExampleCase",
    "LocalModels",
    "Mark",
    "ReportData",
    "RoundRow",
    "SiteCases",
    "form_of",
    "local_models_sentence",
    "orientation_words",
    "render",
    "render_report",
    "run_document",
    "slice_pair_png",
    "write_form",
]
