"""Findings as circles over the source's own slices: what also archives of old show."""

from __future__ import annotations

import numpy as np
from highdicom import pr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from mhsev_monai.pacs.context import RESEARCH, ObjectKind, ResultContext, own_equipment
from mhsev_monai.pacs.findings import MarkedFinding
from mhsev_monai.pacs.secondary_capture import display_window, mark_radius
from mhsev_monai.pacs.source_series import SourceSlice

_LAYER = "MHSEV"


def presentation_state(context: ResultContext) -> Dataset:
    """Circles on every slice that has findings; where there is none, words on the middle slice say so."""
    layer = pr.GraphicLayer(layer_name=_LAYER, order=1, description=f"mhsev findings, {RESEARCH}")
    slices = context.source.slices
    annotations = [
        _annotation(slices[index], layer, [each for each in context.findings if each.slice_index == index])
        for index in sorted({finding.slice_index for finding in context.findings})
    ] or [_annotation(slices[len(slices) // 2], layer, [])]
    window = display_window(context.source)
    made = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=context.source.references,
        content_label="MICROBLEEDS",
        content_description=f"mhsev findings, {RESEARCH}",
        graphic_layers=[layer],
        graphic_annotations=annotations,
        voi_lut_transformations=[
            pr.SoftcopyVOILUTTransformation(
                window_center=(window[0] + window[1]) / 2, window_width=max(window[1] - window[0], 1.0)
            )
        ],
        concept_name=codes.DCM.PresentationState if hasattr(codes.DCM, "PresentationState") else None,
        contributing_equipment=[own_equipment(context)],
        **context.common(ObjectKind.MARKS),
    )
    return context.finish(made)


def _annotation(marked: SourceSlice, layer: pr.GraphicLayer, findings: list[MarkedFinding]) -> pr.GraphicAnnotation:
    """Circles and words on one slice."""
    rows, columns = marked.stored.shape
    left, top = marked.corner
    words = RESEARCH if findings else f"{RESEARCH} - no finding marked"
    texts = [
        pr.TextObject(
            text_value=words,
            units="PIXEL",
            bounding_box=(left, top, left + columns, top + max(rows / 10, 1)),
            text_justification="LEFT",
        )
    ]
    return pr.GraphicAnnotation(
        referenced_images=[marked.reference],
        graphic_layer=layer,
        referenced_frame_number=marked.frame,
        graphic_objects=[_circle(marked, finding) for finding in findings] or None,
        text_objects=texts,
    )


def _circle(marked: SourceSlice, finding: MarkedFinding) -> pr.GraphicObject:
    """A centre, and a point of the circle towards that side of the picture where there is room."""
    column, row = marked.in_picture(finding.pixel)
    radius = mark_radius(marked, finding)
    width = float(marked.reference.Columns)
    edge = column + radius if column + radius <= width else column - radius
    return pr.GraphicObject(graphic_type="CIRCLE", graphic_data=np.array([[column, row], [edge, row]]), units="PIXEL")
