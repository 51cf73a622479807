"""Pictures of every simulated hospital at every difficulty for docs/cohort.md, with the bleeds circled.

``python tests/benchmarks/cohort_pictures.py [FOLDER]`` writes ``cohort-<site>.jpg`` and ``cohort-bleeds.jpg``, to
docs/figures by default. Bleeds that count are circled in full, those that the noise hides in dots.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mhsev_monai.cohort import HOSPITALS, simulate_subject
from mhsev_monai.cohort.disease import DIFFICULTIES, Bleed
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.subject import SimulatedSubject
from mhsev_monai.preprocess.functional import mean_b0, select_shells, trace_weighted

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
SEED, INDEX, COUNT = 7, 1, 16
TILE, PATCH, PATCH_MM, N_PATCHES = 264, 92, 28.0, 8
FIELD_MM = 200.0
# How far from a slice's middle, in slices, a bleed may lie to be circled on it.
_REACH = 0.75
_WHITE, _DIM = 235, 130
_JPEG_QUALITY = 82

FloatArray = NDArray[np.floating]


class Scan(NamedTuple):
    """A simulated scan to be shown: ``b0`` and ``trace`` ``(X, Y, Z)``, where its voxels lie, and its bleeds."""

    b0: FloatArray
    trace: FloatArray
    grid: VoxelGrid
    bleeds: tuple[Bleed, ...]


def shown(subject: SimulatedSubject, hospital: Hospital) -> Scan:
    """Mean b = 0 and trace of a subject, as the rest of the package makes them."""
    import torch

    shells = select_shells(list(subject.b_values))
    data = torch.from_numpy(subject.images.astype(np.float32))
    return Scan(mean_b0(data, shells).numpy(), trace_weighted(data, shells).numpy(), hospital.grid, subject.bleeds)


def voxel_of(bleed: Bleed, grid: VoxelGrid) -> NDArray[np.float64]:
    """Where a bleed's middle lies, in fractions of voxels."""
    return np.array([(bleed.body.centre[a] - grid.axis(a)[0]) / grid.spacing[a] for a in range(3)])


def fullest_slice(scan: Scan) -> int:
    """The slice with the most bleeds that count, among those through the cerebrum."""
    n_z = scan.grid.shape[2]
    z = np.array([voxel_of(bleed, scan.grid)[2] for bleed in scan.bleeds if bleed.counted])
    candidates = np.arange(int(0.4 * n_z), int(0.8 * n_z))
    return int(candidates[np.argmax([(np.abs(z - c) <= _REACH).sum() for c in candidates])])


def hung(plane: FloatArray, spacing: Sequence[float], top: float, pixels_per_mm: float) -> Image.Image:
    """A slice with the front up and the patient's right on the left, grey from 0 to ``top``."""
    grey = (255 * np.clip(plane / top, 0, 1)).astype(np.uint8)[::-1, ::-1].T
    size = (round(plane.shape[0] * spacing[0] * pixels_per_mm), round(plane.shape[1] * spacing[1] * pixels_per_mm))
    return Image.fromarray(np.ascontiguousarray(grey)).resize(size, Image.Resampling.BICUBIC)


def slice_tile(scan: Scan, image: FloatArray, z: int) -> Image.Image:
    """One slice, bleeds circled."""
    scale = TILE / FIELD_MM
    # Fluid is let run into white, as a reader sets the window.
    top = float(np.percentile(image[image > 0.1 * image.max()], 97))
    picture = hung(image[:, :, z], scan.grid.spacing, top, scale)
    draw = ImageDraw.Draw(picture)
    for bleed in scan.bleeds:
        x, y, slice_of = voxel_of(bleed, scan.grid)
        if abs(slice_of - z) > _REACH:
            continue
        across = picture.width - (x + 0.5) * scan.grid.spacing[0] * scale
        down = picture.height - (y + 0.5) * scan.grid.spacing[1] * scale
        circle(draw, across, down, 9 if bleed.counted else 7, full=bleed.counted)
    canvas = Image.new("L", (TILE, TILE))
    canvas.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return canvas


def circle(draw: ImageDraw.ImageDraw, across: float, down: float, radius: float, *, full: bool) -> None:
    """A thin ring, or dots on it."""
    box = (across - radius, down - radius, across + radius, down + radius)
    if full:
        draw.ellipse(box, outline=_WHITE)
        return
    for degrees in range(0, 360, 45):
        draw.arc(box, degrees, degrees + 12, fill=_WHITE)


def labelled(rows: Sequence[Sequence[Image.Image]], words: Sequence[str], names: Sequence[str]) -> Image.Image:
    """Tiles in rows; a word over each column and a name at the left of each row."""
    side, head, foot = rows[0][0].size[0], 20, 74
    canvas = Image.new("L", (foot + side * len(rows[0]), head + rows[0][0].size[1] * len(rows)))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for column, word in enumerate(words):
        draw.text((foot + side * (column + 0.5), head / 2), word, fill=_WHITE, font=font, anchor="mm")
    for row, (tiles, name) in enumerate(zip(rows, names, strict=True)):
        height = tiles[0].size[1]
        draw.text((6, head + height * (row + 0.5)), name, fill=_WHITE, font=font, anchor="lm")
        for column, tile in enumerate(tiles):
            canvas.paste(tile, (foot + side * column, head + height * row))
    return canvas


def patches(scan: Scan) -> list[Image.Image]:
    """b = 0 around the first bleeds of a scan, each in its own slice; those that do not count have a dotted corner."""
    found = []
    for bleed in scan.bleeds:
        x, y, z = np.rint(voxel_of(bleed, scan.grid)).astype(int)
        half = [round(PATCH_MM / 2 / s) for s in scan.grid.spacing[:2]]
        plane = scan.b0[max(x - half[0], 0) : x + half[0] + 1, max(y - half[1], 0) : y + half[1] + 1, z]
        if plane.shape != (2 * half[0] + 1, 2 * half[1] + 1):
            continue
        picture = hung(plane, scan.grid.spacing, 1.6 * float(np.median(plane)), PATCH / PATCH_MM)
        tile = Image.new("L", (PATCH + 2, PATCH + 2))
        tile.paste(picture.resize((PATCH, PATCH), Image.Resampling.BICUBIC), (1, 1))
        if not bleed.counted:
            circle(ImageDraw.Draw(tile), PATCH / 2, PATCH / 2, 0.45 * PATCH, full=False)
        found.append(tile)
        if len(found) == N_PATCHES:
            break
    return found


def main() -> None:
    """Make all figures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    close: list[list[Image.Image]] = []
    for hospital in HOSPITALS:
        columns = []
        for name in DIFFICULTIES:
            subject = simulate_subject(hospital, SEED, INDEX, settings=CohortSettings(difficulty=name), count=COUNT)
            scan = shown(subject, hospital)
            z = fullest_slice(scan)
            columns.append([slice_tile(scan, image, z) for image in (scan.b0, scan.trace)])
            close.append(patches(scan))
        rows = [list(row) for row in zip(*columns, strict=True)]
        picture = labelled(rows, list(DIFFICULTIES), (f"{hospital.name}\nb = 0", f"{hospital.name}\ntrace"))
        picture.save(folder / f"cohort-{hospital.name}.jpg", quality=_JPEG_QUALITY, optimize=True)
    names = [f"{hospital.name}\n{name}" for hospital in HOSPITALS for name in DIFFICULTIES]
    labelled(close, [""] * N_PATCHES, names).save(folder / "cohort-bleeds.jpg", quality=_JPEG_QUALITY, optimize=True)


if __name__ == "__main__":
    main()
