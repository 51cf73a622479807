"""The forms of a report: which there are, and how each is written."""

from __future__ import annotations

import os
from pathlib import Path

from mhsev_monai.report.document import Document
from mhsev_monai.report.document_json import render_json
from mhsev_monai.report.html_page import render_html
from mhsev_monai.report.markdown import render_markdown

FORMS = ("html", "md", "json", "pdf")


class MissingReportlabError(ValueError):
    """A PDF was asked for where reportlab is not installed."""


def render(document: Document, form: str) -> bytes:
    """The document in one of ``FORMS``; equal documents give equal bytes.

    Raises:
        ValueError: if there is no such form.
        MissingReportlabError: if it is ``pdf`` and reportlab is not installed.
    """
    if form == "pdf":
        try:
            from mhsev_monai.report.pdf import render_pdf
        except ImportError as error:
            raise MissingReportlabError(
                "a PDF needs reportlab, which is not installed; install mhsev[report], or ask for html, md or json"
            ) from error
        return render_pdf(document)
    text = {"html": render_html, "md": render_markdown, "json": render_json}
    if form not in text:
        raise ValueError(f"a report can be written as {', '.join(FORMS)}, not as {form!r}")
    return text[form](document).encode("utf-8")


def form_of(path: Path) -> str:
    """The form that a file's name asks for; HTML where it asks for none."""
    ending = path.suffix.lower().lstrip(".")
    return ending if ending in FORMS else "html"


def write_form(document: Document, path: Path, form: str) -> Path:
    """Write one form, whole or not at all; folders are made."""
    content = render(document, form)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, so that two processes that write one report do not mix their bytes.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
