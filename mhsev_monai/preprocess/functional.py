"""The pure functions of this room: tensors in, tensors out, spacing in mm."""

from __future__ import annotations

from mhsev_monai.preprocess.brain_mask import BrainMaskParameters, BrainMaskResult, dwi_brain_mask
from mhsev_monai.preprocess.intensity import fuse_contrasts, relative_to_parenchyma, z_score_in_mask
from mhsev_monai.preprocess.n4 import N4Parameters, N4Result, estimate_log_bias, n4_bias_field_correction

__all__ = [
    "BrainMaskParameters",
    "BrainMaskResult",
    "N4Parameters",
    "N4Result",
    "dwi_brain_mask",
    "estimate_log_bias",
    "fuse_contrasts",
    "n4_bias_field_correction",
    "relative_to_parenchyma",
    "z_score_in_mask",
]
