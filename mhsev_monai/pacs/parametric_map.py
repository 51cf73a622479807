"""The feature map as a parametric map of 32-bit floating-point values."""

from __future__ import annotations

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.volume import Volume
from pydicom.dataset import Dataset

from mhsev_monai.pacs import codes
from mhsev_monai.pacs.context import ObjectKind, ResultContext, own_equipment
from mhsev_monai.pacs.frame_sources import frame_sources, snapped

_CENTRE, _WIDTH = -0.25, 0.5
"""From half of the signal lost, which is as dark as it gets, to none."""


def parametric_map(context: ResultContext) -> Dataset | None:
    """The map; None where the model's inputs make none."""
    if context.feature_map is None:
        return None
    frames = snapped(context.feature_map, context.source)
    values = frames.array.astype(np.float32)
    mapping = RealWorldValueMapping(
        lut_label="DSD",
        lut_explanation="Dynamic spectral decomposition; negative where dark",
        unit=codes.NO_UNITS,
        value_range=(float(values.min()), float(values.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.FEATURE_MAP,
    )
    made = ParametricMap(
        pixel_array=Volume(values, frames.affine, "PATIENT", context.source.frame_of_reference),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(_CENTRE, _WIDTH, voi_lut_function="LINEAR_EXACT")],
        content_label="DSD",
        content_description="Feature map of an automatic method",
        contributing_equipment=[own_equipment(context)],
        **frame_sources(context.source),
        **context.content_times(),
        **context.common(ObjectKind.MAP),
    )
    return context.finish(made)
