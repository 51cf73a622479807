"""Gradient directions of a converted image from the headers of its frames, where the converter wrote none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.ingest.bvals import B0_MAX


def image_directions(
    headers: Sequence[tuple[float, ...]], b_values: Sequence[float], affine: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Unit directions along the axes of the image, as FSL wants them in a ``.bvec``; None where a header lacks one.

    The sign of the first axis is turned where the affine keeps the handedness of the world (FSL FDT, "bvecs").

    Args:
        headers: Diffusion Gradient Orientation of each volume, 3 numbers along the patient's left, back and up (LPS);
            empty where there is none.
        b_values: of each volume, s/mm^2; those of b = 0 need no direction and have zeros.
        affine: ``(4, 4)`` of the NIfTI, to RAS.

    Returns:
        ``(3, N)``.
    """
    weighted = [b > B0_MAX for b in b_values]
    if not any(weighted) or any(w and not any(d) for w, d in zip(weighted, headers, strict=True)):
        return None
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = axes * (np.array([-1.0, 1.0, 1.0]) if np.linalg.det(axes) > 0 else 1.0)
    patient = np.array([direction if w else (0.0, 0.0, 0.0) for w, direction in zip(weighted, headers, strict=True)])
    # DICOM's world is LPS, NIfTI's RAS.
    return np.asarray((patient * [-1.0, -1.0, 1.0]) @ axes).T
