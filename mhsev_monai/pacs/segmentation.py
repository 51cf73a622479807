"""Findings as a binary segmentation, one segment a finding."""

from __future__ import annotations

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.volume import Volume
from pydicom.dataset import Dataset

from mhsev_monai.pacs import codes
from mhsev_monai.pacs.context import MODEL_NAME, ObjectKind, ResultContext, own_equipment
from mhsev_monai.pacs.frame_sources import frame_sources, snapped
from mhsev_monai.pacs.geometry import as_frames


def segmentation(context: ResultContext) -> Dataset | None:
    """The segmentation; None where there is no finding, since one without segments is no valid object."""
    if not context.findings:
        return None
    labels = np.zeros(context.shape, dtype=np.uint16)
    for finding in context.findings:
        labels[tuple(finding.region.T)] = finding.number
    frames = snapped(as_frames(labels, context.to_lps, context.source.slices[0].plane), context.source)
    algorithm = AlgorithmIdentificationSequence(
        name=MODEL_NAME, family=codes.FAMILY, version=context.identity.version, source="mhsev"
    )
    descriptions = [
        SegmentDescription(
            segment_number=finding.number,
            segment_label=finding.label,
            segmented_property_category=codes.ABNORMAL,
            segmented_property_type=codes.MICROBLEED,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=context.tracking_uid(finding),
            tracking_id=finding.label,
            anatomic_regions=[codes.BRAIN],
        )
        for finding in context.findings
    ]
    made = Segmentation(
        pixel_array=Volume(frames.array, frames.affine, "PATIENT", context.source.frame_of_reference),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        content_label="MICROBLEEDS",
        content_description="Findings of an automatic method",
        contributing_equipment=[own_equipment(context)],
        **frame_sources(context.source),
        **context.content_times(),
        **context.common(ObjectKind.SEG),
    )
    return context.finish(made)
