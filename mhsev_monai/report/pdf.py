"""A report as PDF: the same blocks on A4, with the warning on every page. Equal documents give equal bytes."""

from __future__ import annotations

import io
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate

from mhsev_monai._version import __version__
from mhsev_monai.report.document import Document
from mhsev_monai.report.pdf_blocks import PdfBlocks
from mhsev_monai.report.pdf_drawing import latin

MARGIN = 16 * mm


def render_pdf(document: Document) -> bytes:
    """The document as the bytes of a PDF; equal documents give equal bytes.

    The text is selectable and the outline lists the sections; the file is not tagged for screen readers, for which the
    HTML page is made.
    """
    stream = io.BytesIO()
    width = A4[0] - 2 * MARGIN
    template = BaseDocTemplate(
        stream,
        pagesize=A4,
        title=latin(document.title),
        author="mhsev",
        subject=latin(document.footer),
        creator=f"mhsev {__version__}",
        lang="en",
        invariant=1,
    )
    frame = Frame(MARGIN, MARGIN + 6 * mm, width, A4[1] - 2 * MARGIN - 8 * mm, 0, 0, 0, 0)
    template.addPageTemplates(PageTemplate(frames=[frame]))
    template.build(PdfBlocks(width).story(document), canvasmaker=_canvas_maker(latin(document.footer)))
    return stream.getvalue()


def _canvas_maker(footer: str) -> Any:
    class NumberedCanvas(Canvas):
        """Pages are kept until the last, so that each can say how many there are."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._kept: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802
            self._kept.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, state in enumerate(self._kept, start=1):
                self.__dict__.update(state)
                _foot(self, footer, f"{number} of {len(self._kept)}")
                super().showPage()
            super().save()

    return NumberedCanvas


def _foot(canvas: Canvas, footer: str, pages: str) -> None:
    canvas.setFont("Helvetica-Bold", 7.4)
    canvas.setFillGray(0.25)
    canvas.drawString(MARGIN, MARGIN - 2 * mm, footer)
    canvas.setFont("Helvetica", 7.4)
    canvas.drawRightString(A4[0] - MARGIN, MARGIN - 2 * mm, pages)
