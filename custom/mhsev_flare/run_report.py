"""The report of a finished run: its result and ledger, what analysis jobs found, and pictures where scans are at hand.

Pictures need scans, so they can only be drawn where the scans are: at a site, or on the machine of the simulator. The
run itself carries none.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mhsev_flare.result import read_run
from mhsev_flare.run_examples import example_cases, failed_cases, graded_test_cases, what_is_shown
from mhsev_flare.run_report_data import report_data
from mhsev_monai.model_file import SeverityModel, load_model
from mhsev_monai.report.data import ReportData
from mhsev_monai.report.forms import FORMS, form_of, write_form
from mhsev_monai.report.model_card import model_card
from mhsev_monai.report.page import run_document

__all__ = ["FORMS", "read_report", "what_is_shown", "write_model_card", "write_report", "write_report_of"]

EXPLANATION, ASSOCIATIONS = ("explanation.json", "mhsev-explanation/1"), ("associations.json", "mhsev-associations/1")
"""Name of the file and its schema."""


def write_report(
    run: Path,
    page: Path,
    cohort: Path | None = None,
    analyses: Mapping[str, Path] | None = None,
    forms: Sequence[str] = (),
) -> list[Path]:
    """Write the report of a run.

    Args:
        run: folder of the run, or any folder above it.
        page: the file to write.
        cohort: folder with one BIDS root per site; without it the page has no single cases.
        analyses: files of analysis jobs, by ``explanation.json`` or ``associations.json``; files of these names beside
            the result are read without being named.
        forms: of ``FORMS``; several are written beside each other, each with its own ending. By default the one that
            the page's name ends in, or HTML.

    Returns:
        The files that were written.

    Raises:
        FileNotFoundError: if there is no result, or a file that was named is absent.
        ValueError: if the run did not end well, so that there is nothing to report, or a file is not what it should be;
            the message says why.
    """
    return write_report_of(read_report(run, cohort, analyses), page, forms)


def write_report_of(data: ReportData, page: Path, forms: Sequence[str] = ()) -> list[Path]:
    """Write the report of data that are read already; arguments as of ``write_report``."""
    document = run_document(data)
    if not forms:
        return [write_form(document, page, form_of(page))]
    if len(forms) == 1:
        return [write_form(document, page, forms[0])]
    return [write_form(document, page.with_suffix(f".{form}"), form) for form in forms]


def write_model_card(data: ReportData, path: Path) -> Path:
    """Write the model card: Markdown, unless the file's name ends in another form."""
    ending = path.suffix.lower().lstrip(".")
    return write_form(model_card(data), path, ending if ending in FORMS else "md")


def read_report(run: Path, cohort: Path | None = None, analyses: Mapping[str, Path] | None = None) -> ReportData:
    """The data of the report; arguments and errors as of ``write_report``."""
    result, ledger, model_path = read_run(run)
    if result["status"] != "completed":
        raise ValueError(f"the run ended as {result['status']}, so there is nothing to report: {result['reason']}")
    if result.get("encrypted") and not model_path.is_file():
        raise ValueError("the server of an encrypted study has no model; put the model.pt of a site beside result.json")
    model = load_model(model_path)
    beside = model_path.parent
    told = report_data(
        result,
        ledger,
        model.network,
        _analysis(*EXPLANATION, beside, analyses or {}),
        _analysis(*ASSOCIATIONS, beside, analyses or {}),
    )
    if cohort is None:
        note = "this page does not know where the cases come from: it was made without their folder"
        return dataclasses.replace(told, notes=[*told.notes, note])
    simulated = dataclasses.replace(told, simulated=_is_simulated(cohort))
    return _with_cases(simulated, result, model, cohort)


def _with_cases(data: ReportData, result: Mapping[str, Any], model: SeverityModel, cohort: Path) -> ReportData:
    # Inputs that cannot show what they made of a scan give no pictures.
    if not hasattr(model.inputs, "process"):
        return data
    cases = graded_test_cases(result, model, cohort)
    wrong = sum(each.grade != each.true_grade for each in cases)
    return dataclasses.replace(
        data,
        examples=list(example_cases(cases, model)),
        failures=list(failed_cases(cases, model)),
        n_misgraded=(wrong, len(cases)) if cases else None,
    )


def _is_simulated(cohort: Path) -> bool:
    """Whether the folder is one that ``mhsev cohort make`` wrote."""
    return (cohort / "cohort.json").is_file()


def _analysis(name: str, schema: str, beside: Path, named: Mapping[str, Path]) -> dict[str, Any] | None:
    """What an analysis job found; None if there is no such file, or the job did not come to an end."""
    path = named.get(name, beside / name)
    if name not in named and not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"the file given as {name} is not JSON; name the file that the job wrote") from error
    if not isinstance(found, dict) or not (found.get("schema") == schema or _printed(name, found)):
        raise ValueError(f"the file given as {name} has not the schema {schema}; name the file that the job wrote")
    return found if found.get("status", "completed") == "completed" or found.get("tables") else None


def _printed(name: str, found: Mapping[str, Any]) -> bool:
    """Whether it is what ``mhsev associations --json`` prints, which has no schema."""
    return name == ASSOCIATIONS[0] and "schema" not in found and {"regression", "tables"} <= set(found)
