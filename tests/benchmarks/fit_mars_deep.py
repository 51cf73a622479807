"""Fits the surface between lobar and deep of ``mhsev_monai/mars_regions.py`` to the MARS atlas and prints its numbers.

``python tests/benchmarks/fit_mars_deep.py ATLAS``, a NIfTI with the labels 1 to 13 of MARS in MNI space. The atlas is
that of github.com/v-sundaresan/microbleed-size-counting (MIT), decoded; it is not shipped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from sklearn.linear_model import LogisticRegression

from mhsev_monai.mars_regions import DEGREE, monomials

LAST_INFRATENTORIAL, LAST_DEEP = 2, 8
STEP = 5
C = 3.0


def main(atlas: Path) -> None:
    """Fit on the right half of the brain and print the agreement on the left one; then fit on both."""
    image = nib.load(atlas)
    labels = np.asarray(image.dataobj)
    voxels = np.argwhere(labels > LAST_INFRATENTORIAL)[::STEP]
    position = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
    deep = labels[tuple(voxels.T)] <= LAST_DEEP
    terms = monomials(position)
    right = position[:, 0] > 0
    half = _fit(terms[right], deep[right])
    told = terms @ half > 0
    left = ~right
    dice = 2 * (told & deep)[left].sum() / (told[left].sum() + deep[left].sum())
    print(f"degree {DEGREE}: fitted on the right, Dice of deep on the left {dice:.3f}")
    print(", ".join(f"{value:.2f}" for value in _fit(terms, deep)))


def _fit(terms: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return LogisticRegression(C=C, max_iter=5000, fit_intercept=False).fit(terms, deep).coef_[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
