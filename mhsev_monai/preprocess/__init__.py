"""Bias field, brain mask and intensities of a diffusion scan; the mathematics is in ``functional``."""

from __future__ import annotations

from mhsev_monai.preprocess.array import (
    BrainMasks,
    DWIBrainMask,
    FuseContrasts,
    N4BiasFieldCorrection,
    NyulStandardize,
    ZScoreInMask,
)
from mhsev_monai.preprocess.dictionary import (
    DWIBrainMaskD,
    DWIBrainMaskd,
    DWIBrainMaskDict,
    FuseContrastsD,
    FuseContrastsd,
    FuseContrastsDict,
    N4BiasFieldCorrectionD,
    N4BiasFieldCorrectiond,
    N4BiasFieldCorrectionDict,
    NyulStandardizeD,
    NyulStandardized,
    NyulStandardizeDict,
    ZScoreInMaskD,
    ZScoreInMaskd,
    ZScoreInMaskDict,
)

__all__ = [
    "BrainMasks",
    "DWIBrainMask",
    "DWIBrainMaskD",
    "DWIBrainMaskDict",
    "DWIBrainMaskd",
    "FuseContrasts",
    "FuseContrastsD",
    "FuseContrastsDict",
    "FuseContrastsd",
    "N4BiasFieldCorrection",
    "N4BiasFieldCorrectionD",
    "N4BiasFieldCorrectionDict",
    "N4BiasFieldCorrectiond",
    "NyulStandardize",
    "NyulStandardizeD",
    "NyulStandardizeDict",
    "NyulStandardized",
    "ZScoreInMask",
    "ZScoreInMaskD",
    "ZScoreInMaskDict",
    "ZScoreInMaskd",
]
