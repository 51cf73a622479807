"""The report of a federated run: one HTML page from plain data, with figures drawn here and nothing loaded."""

from mhsev_monai.report.data import (
    AttendanceRow,
    CandidateRow,
    Evaluation,
    ExampleCase,
    LocalModels,
    ReportData,
    RoundRow,
    SiteCases,
)
from mhsev_monai.report.page import local_models_sentence, render_report
from mhsev_monai.report.slices import Mark, orientation_words, slice_pair_png

__all__ = [
    "AttendanceRow",
    "CandidateRow",
    "Evaluation",
    "ExampleCase",
    "LocalModels",
    "Mark",
    "ReportData",
    "RoundRow",
    "SiteCases",
    "local_models_sentence",
    "orientation_words",
    "render_report",
    "slice_pair_png",
]
