"""Array transform that loads a diffusion series."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends

from mhsev_monai.ingest.bvals import B0_MAX
from mhsev_monai.ingest.nifti import DWISeries, read_dwi
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess.diffusion import (
    USUAL_B,
    apparent_diffusion_coefficient,
    mean_b0,
    select_shells,
    trace_weighted,
)

SCAN_KEY = "scan"
"""Entry with the facts about a series that are no image."""


class LoadDWI(Transform):
    """Mean b0, trace-weighted image and ADC of a diffusion series on disk.

    The images keep the file's storage order and affine, as ``monai.transforms.LoadImage`` does, but of its header only
    the grid: no path, name, date or comment travels in their metadata.

    Args:
        b0_only: every volume is b = 0, so no ``.bval`` file is needed.

    Example:
        >>> entries = LoadDWI()("sub-0001/dwi/sub-0001_dwi.nii.gz")
        >>> entries["b0"].shape, entries["scan"]["b_value"]
        (torch.Size([1, 128, 128, 60]), 1000.0)

    See Also:
        :class:`~mhsev_monai.ingest.dictionary.LoadDWId`, the same for a data dictionary.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012

    def __init__(self, b0_only: bool = False) -> None:
        self.b0_only = b0_only

    def __call__(self, image: str | os.PathLike[str], bval: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Load one series.

        Args:
            image: its ``.nii`` or ``.nii.gz`` file.
            bval: its ``.bval`` file; searched by name where None.

        Returns:
            ``b0``, ``trace`` and ``adc``, each a ``(1, X, Y, Z)`` float32 MetaTensor (the last two are absent where no
            volume has b from 600 to 1600 s/mm^2), and ``scan``: ``b_value`` (s/mm^2, 0.0 without a trace), ``n_b0``,
            ``n_dwi`` (volumes used), ``spacing_mm`` and ``warnings``.

        Raises:
            ScanError: if the series cannot be used.
        """
        series = read_dwi(Path(image), None if bval is None else Path(bval), b0_only=self.b0_only)
        data = torch.from_numpy(series.data)
        shells = select_shells(series.bvals.tolist(), b0_max=B0_MAX)
        images = {Keys.B0: mean_b0(data, shells)}
        usual = bool(shells.dwi) and USUAL_B[0] <= shells.b_value <= USUAL_B[1]
        if usual:
            images[Keys.TRACE] = trace_weighted(data, shells)
            # The b0 volumes of some scanners carry a little weighting: what counts is the difference.
            weighting = shells.b_value - shells.b0_value
            images[Keys.ADC] = apparent_diffusion_coefficient(images[Keys.B0], images[Keys.TRACE], weighting)
        scan = {
            "b_value": shells.b_value if usual else 0.0,
            "n_b0": len(shells.b0),
            "n_dwi": len(shells.dwi) if usual else 0,
            "spacing_mm": series.spacing,
            "warnings": (*series.warnings, *shells.flags),
        }
        return {**{key: _with_grid(volume, series) for key, volume in images.items()}, SCAN_KEY: scan}


def _with_grid(volume: torch.Tensor, series: DWISeries) -> MetaTensor:
    """A ``(X, Y, Z)`` volume as channel-first MetaTensor that knows its grid and nothing else."""
    affine = torch.from_numpy(series.affine.copy())
    # Channel 0 is said so that a later EnsureChannelFirst leaves the image alone.
    meta = {
        "original_affine": affine.clone(),
        "original_channel_dim": 0,
        "spatial_shape": list(volume.shape),
    }
    return MetaTensor(volume.unsqueeze(0).contiguous(), affine=affine, meta=meta)
