"""``mhsev scan-report``: the report of one scan, as a page or a PDF."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, opened_model, verb

if TYPE_CHECKING:
    from mhsev_monai.model_file import SeverityModel
    from mhsev_monai.report.scan_data import ScanReport

FORMS = ("html", "md", "json", "pdf")


def add_scan_report(verbs: Any) -> None:
    """``mhsev scan-report SCAN --model MODEL --out FILE...``."""
    parser = verb(verbs, "scan-report", "grade one scan and write its report, with pictures", _run)
    parser.add_argument("scan", type=Path, metavar="SCAN", help="NIfTI of a diffusion series, .bval beside it")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a run")
    parser.add_argument(
        "--out",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="what to write, one or several: .html, .pdf, .md or .json by its ending",
    )
    parser.add_argument("--bval", type=Path, help="b-values, where they are not beside the scan")
    parser.add_argument("--b0-only", action="store_true", help="every volume is b = 0; no b-values are looked for")
    parser.add_argument("--no-explanation", action="store_true", help="leave out what the grade is attributed to")
    parser.add_argument("--subject", metavar="PSEUDONYM", help="printed in the report (default: nothing is)")
    parser.add_argument("--date", metavar="TEXT", help="likewise")


def _run(options: argparse.Namespace) -> int:
    for path in options.out:
        if path.suffix.lower().lstrip(".") not in FORMS:
            complain(f"{path}: the report's file must end in {', '.join('.' + form for form in FORMS)}")
            return WRONG_CALL
    from mhsev_monai.errors import ScanError
    from mhsev_monai.report.forms import MissingReportlabError, form_of, write_form
    from mhsev_monai.report.scan_sections import scan_document

    if (model := opened_model(options.model)) is None:
        return WRONG_CALL
    try:
        report = _report(options, model)
    except ScanError as error:
        complain(f"{options.scan}: {error}")
        return DATA_SAY_NO
    for path in options.out:
        try:
            write_form(scan_document(report), path, form_of(path))
        except (MissingReportlabError, OSError) as error:
            complain(f"{path}: {error}")
            return WRONG_CALL
        print(f"wrote {path}")
    return DONE


def _report(options: argparse.Namespace, model: SeverityModel) -> ScanReport:
    from mhsev_flare.result import file_digest
    from mhsev_monai.prediction import grade_scan
    from mhsev_monai.report.scan_report import ReportContext, scan_report
    from mhsev_monai.scan_explanation import explain_graded
    from mhsev_monai.shapley_explain import ExplainError

    grade, entries = grade_scan(options.scan, model, options.bval, options.b0_only)
    explanation = None
    if not options.no_explanation:
        try:
            explanation = explain_graded(grade, entries, model)
        except ExplainError as error:
            complain(f"without what the grade is attributed to: {error}")
    context = ReportContext(file_digest(options.model), options.subject, options.date)
    return scan_report(grade, entries, model, explanation, context)
