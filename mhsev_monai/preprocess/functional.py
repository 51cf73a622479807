"""The pure functions of this room: tensors in, tensors out, spacing in mm."""

from __future__ import annotations

from mhsev_monai.preprocess.brain_mask import BrainMaskParameters, BrainMaskResult, dwi_brain_mask
from mhsev_monai.preprocess.diffusion import (
    Shells,
    apparent_diffusion_coefficient,
    mean_b0,
    select_shells,
    trace_weighted,
)
from mhsev_monai.preprocess.intensity import clear_rim, fuse_contrasts, relative_to_parenchyma, z_score_in_mask
from mhsev_monai.preprocess.n4 import N4Parameters, N4Result, estimate_log_bias, n4_bias_field_correction
from mhsev_monai.preprocess.nyul import LandmarkSums, check_scale, landmarks, nyul_standardize, standard_scale

__all__ = [
    "BrainMaskParameters",
    "BrainMaskResult",
    "LandmarkSums",
    "N4Parameters",
    "N4Result",
    "Shells",
    "apparent_diffusion_coefficient",
    "check_scale",
    "clear_rim",
    "dwi_brain_mask",
    "estimate_log_bias",
    "fuse_contrasts",
    "landmarks",
    "mean_b0",
    "n4_bias_field_correction",
    "nyul_standardize",
    "relative_to_parenchyma",
    "select_shells",
    "standard_scale",
    "trace_weighted",
    "z_score_in_mask",
]
