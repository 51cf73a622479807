"""From a scan's files to its corrected contrasts and masks: the steps that everything later begins with."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai.transforms import Compose, CopyItemsd, Transform

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest import LoadDWId
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess import DWIBrainMaskd, N4BiasFieldCorrectiond, ZScoreInMaskd

# MONAI logs, at every construction of a reader, that an optional GPU decoder is absent.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)

BIAS_KEY = "log_bias"
"""Entry with the natural logarithm of the bias field."""
Z_SCORE_KEYS = {Keys.B0: "b0_z", Keys.TRACE: "trace_z"}
"""Entries with the standardised contrasts."""
_CONTRASTS = (Keys.B0, Keys.TRACE)


def correction_transforms(b0_only: bool = False, bias_key: str | None = None) -> list[Transform]:
    """Load b0, trace and ADC, find the brain, and divide one bias field, b0's, out of both contrasts.

    Args:
        b0_only: every volume is b = 0, so that no b-values are looked for.
        bias_key: entry that receives the logarithm of the field.
    """
    return [
        LoadDWId(keys=Keys.IMAGE, b0_only=b0_only),
        DWIBrainMaskd(b0_key=Keys.B0, trace_key=Keys.TRACE, allow_missing_keys=True),
        N4BiasFieldCorrectiond(
            keys=list(_CONTRASTS),
            mask_key=Keys.BRAIN_MASK,
            reference_key=Keys.B0,
            bias_key=bias_key,
            allow_missing_keys=True,
        ),
    ]


def process(transforms: Compose, image: Path, bvals: Path | None) -> Mapping[str, Any]:
    """The dictionary of one scan after some transforms that begin with :func:`correction_transforms`.

    Raises:
        ScanError: if the scan cannot be used.
    """
    entries = {Keys.IMAGE: str(image), "bval": None if bvals is None else str(bvals)}
    try:
        result: Mapping[str, Any] = transforms(entries)
    except RuntimeError as error:
        # Compose wraps what a transform raises.
        reason = error.__cause__
        if isinstance(reason, ScanError):
            raise reason from None
        raise
    return result


@dataclass(frozen=True)
class Preprocessing:
    """Bias-corrected and standardised contrasts with their masks.

    Attributes:
        b0_only: every volume is b = 0.
        clip: z-scores are limited to ``-clip..clip``.
    """

    b0_only: bool = False
    clip: float = 6.0

    def transforms(self) -> Compose:
        """The MONAI transforms from ``{"image": path, "bval": path or None}`` to contrasts, masks, field, z-scores."""
        return Compose(
            [
                *correction_transforms(self.b0_only, BIAS_KEY),
                CopyItemsd(keys=list(_CONTRASTS), names=list(Z_SCORE_KEYS.values()), allow_missing_keys=True),
                ZScoreInMaskd(
                    keys=list(Z_SCORE_KEYS.values()),
                    mask_key=Keys.BRAIN_MASK,
                    clip=self.clip,
                    allow_missing_keys=True,
                ),
            ]
        )

    def fingerprint(self) -> str:
        """64 hexadecimal digits over parameters and code: results of other ones are stale."""
        return hashlib.sha256(f"{_code_digest()} {json.dumps(asdict(self))}".encode()).hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Hash over the files that make corrected contrasts of a scan: a version number can be forgotten."""
    here = Path(__file__)
    files = [here, *(file for room in ("ingest", "preprocess") for file in sorted((here.parent / room).rglob("*.py")))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
