"""One hospital's side of mhsev, from a scan to a grade, without a server.

The MONAI transforms can be imported from here; they are loaded when first asked for, so that ``import mhsev_monai`` and
the command line's help do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mhsev_monai._version import __version__

_ROOMS = {
    "mhsev_monai.dsd": (
        "DSDFeaturesd",
        "DynamicSpectralDecomposition",
        "DynamicSpectralDecompositionD",
        "DynamicSpectralDecompositionDict",
        "DynamicSpectralDecompositiond",
    ),
    "mhsev_monai.ingest": ("LoadDWI", "LoadDWId"),
    "mhsev_monai.preprocess": (
        "DWIBrainMask",
        "DWIBrainMaskd",
        "FuseContrasts",
        "FuseContrastsd",
        "N4BiasFieldCorrection",
        "N4BiasFieldCorrectiond",
        "NyulStandardize",
        "NyulStandardized",
        "ZScoreInMask",
        "ZScoreInMaskd",
    ),
    "mhsev_monai.radiomics": ("RadiomicsFeatures", "RadiomicsFeaturesd"),
    "mhsev_monai.severity": ("GradingScale", "Severity", "severity_from_count"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
