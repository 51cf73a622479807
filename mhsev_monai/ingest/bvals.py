"""The b-values of a diffusion series: where their file lies, and what it may hold.

The file is FSL's ``.bval`` as dcm2niix writes it: one number a volume, in s/mm^2, in a row or in a column. In a BIDS
data set one file may serve many images (the inheritance principle, BIDS 1.10, section "Common principles").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.errors import ScanError

B0_MAX = 50.0
"""Largest b-value, s/mm^2, of a volume that counts as b = 0: vendors write 0.001 to 5 for theirs, some 50."""

_LARGEST_B = 100_000.0
# b in ms/um^2 reads 1 where b in s/mm^2 reads 1000; no scanner writes a b = 0 volume as more than 5.
_OTHER_UNIT = (0.1, 10.0)
_SUFFIXES = (".nii.gz", ".nii")


def image_stem(name: str) -> str | None:
    """The name of a NIfTI file without ``.nii`` or ``.nii.gz``; None for any other file."""
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return None


def find_bvals(image: Path) -> Path | None:
    """The ``.bval`` file that belongs to an image, or None.

    The file of the same name beside the image comes first. For an image named ``sub-...`` the folders from there up to
    the one that holds the ``sub-`` folder are tried, nearest first, for a file with the same suffix whose entities
    are all among the image's.

    Raises:
        ScanError: if two files of one folder apply equally well.
    """
    stem = image_stem(image.name)
    if stem is None:
        return None
    # Links are not followed: in a DataLad tree they lead to files with other names.
    image = image.absolute()
    beside = image.with_name(f"{stem}.bval")
    if beside.is_file():
        return beside
    if not stem.startswith("sub-"):
        return None
    *entities, suffix = stem.split("_")
    for folder in _inheritance_folders(image, subject=entities[0] if entities else ""):
        found = _applicable(folder, set(entities), suffix)
        if found is not None:
            return found
    return None


def _inheritance_folders(image: Path, subject: str) -> list[Path]:
    """The image's folder and those above it, up to the one that holds the subject's folder."""
    folders = list(image.parents)
    names = [folder.name for folder in folders]
    return folders[: names.index(subject) + 2] if subject in names else folders[:1]


def _applicable(folder: Path, entities: set[str], suffix: str) -> Path | None:
    """The file of a folder that applies to an image with these entities, the most specific if there are several."""
    ranked: list[tuple[int, Path]] = []
    for path in sorted(folder.glob("*.bval")):
        *own, own_suffix = path.stem.split("_")
        if own_suffix == suffix and entities.issuperset(own):
            ranked.append((len(own), path))
    best = [path for rank, path in ranked if rank == max(ranked)[0]]
    if len(best) > 1:
        raise ScanError(
            f"{len(best)} .bval files in one folder apply to this image; one is accepted; "
            "put a .bval with the image's own name beside it"
        )
    return best[0] if best else None


def read_bvals(path: Path) -> NDArray[np.float64]:
    """The b-values of a ``.bval`` file, ``(N,)``, s/mm^2, as written (never rounded).

    Raises:
        ScanError: if the file is missing, empty or not text, or holds something else than one row or one column of
            numbers from 0 to 100 000.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError:
        raise ScanError("the .bval file is missing or cannot be opened; put it beside the image") from None
    except UnicodeDecodeError:
        raise ScanError("the .bval file is not text; it must hold one b-value a volume, in s/mm^2") from None
    rows = [row.replace(",", " ").split() for row in text.splitlines() if row.strip()]
    if not rows:
        raise ScanError("the .bval file is empty; it must hold one b-value a volume, in s/mm^2")
    if len(rows) > 1 and any(len(row) > 1 for row in rows):
        raise ScanError(
            f"the .bval file holds {len(rows)} rows of several numbers, as a .bvec does; "
            "one row or one column of b-values is accepted; give the .bval"
        )
    return _numbers([word for row in rows for word in row])


def _numbers(words: list[str]) -> NDArray[np.float64]:
    """The words of a ``.bval`` file as b-values."""
    try:
        bvals = np.array([float(word) for word in words], dtype=np.float64)
    except ValueError:
        raise ScanError("the .bval file holds a word that is not a number; b-values in s/mm^2 are accepted") from None
    if not (np.isfinite(bvals) & (bvals >= 0)).all():
        raise ScanError("the .bval file holds a negative or non-finite b-value; 0 s/mm^2 and more is accepted")
    if bvals.max() > _LARGEST_B:
        # GE stores some b-values with 1e9 added; old converters copy that.
        raise ScanError(
            f"the .bval file holds b = {bvals.max():g} s/mm^2; up to {_LARGEST_B:g} is accepted; "
            "convert the series again with a current dcm2niix"
        )
    return bvals


def check_bvals(bvals: NDArray[np.float64], n_volumes: int) -> tuple[str, ...]:
    """Warnings about b-values that fit an image of ``n_volumes`` volumes.

    Raises:
        ScanError: if their number differs from the number of volumes, or none is 50 s/mm^2 or less.
    """
    if len(bvals) != n_volumes:
        raise ScanError(
            f"volumes in the image: {n_volumes}, b-values in the .bval file: {len(bvals)}; the numbers must be equal; "
            "remove derived volumes such as an appended ADC, or convert the series again"
        )
    if bvals.min() > B0_MAX:
        raise ScanError(
            f"no volume has b <= {B0_MAX:g} s/mm^2, the lowest is {bvals.min():g}; at least one is needed; "
            "join the b = 0 series to the image and its b-value to the .bval file"
        )
    if _OTHER_UNIT[0] < bvals.max() <= _OTHER_UNIT[1]:
        return (
            f"all b-values are {bvals.max():g} or less and count as b = 0; multiply by 1000 if they are in ms/um^2",
        )
    return ()
