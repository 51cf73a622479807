"""How well scans are laid on the template, for docs/regions.md: simulated heads, whose map is known, and real ones.

``python tests/benchmarks/benchmark_regions.py simulated --subjects 2 [--atlas MARS.nii.gz]`` prints, for each hospital,
the error of the map at the bleeds and how many get the right region; the truth is the atlas at the bleed's true place
in the template, or, without an atlas, the surfaces that bleeds were placed by.
``... real SCAN... [--b0-only SCAN...] [--picture FILE]`` prints overlap and peakedness of real scans as they are and
turned, and draws the template's brain and its deep and infratentorial parts on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.transforms import Compose
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mhsev_monai.cohort import HOSPITALS, simulate_subject
from mhsev_monai.cohort.hospitals import MORE_HOSPITALS, Hospital
from mhsev_monai.cohort.placement import nearest_voxels
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.subject import SimulatedSubject
from mhsev_monai.cohort.writer import stored_axes, subject_grid, subject_id, write_subject
from mhsev_monai.lesion_regions import scan_brain
from mhsev_monai.mars_regions import mars_region
from mhsev_monai.preprocessing import correction_transforms, process
from mhsev_monai.regions import Region, region_of
from mhsev_monai.registration import Brain, moved
from mhsev_monai.template_registration import load_template, map_to_template

SEED, COUNT, EVERY = 77, 12, 37
TURNS = {
    "as it is": np.eye(3),
    "upside down": np.diag([1.0, 1.0, -1.0]),
    "front to back": np.diag([1.0, -1.0, 1.0]),
    "turned by 90 degrees": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "tilted by 30 degrees": np.array([[1, 0, 0], [0, np.cos(np.pi / 6), -0.5], [0, 0.5, np.cos(np.pi / 6)]]),
}
SLICES = (0.3, 0.45, 0.6, 0.75)


class Case(NamedTuple):
    """A simulated scan after correction and what is true of it; places in RAS+ and MNI mm."""

    brain: Brain
    landmarks: NDArray[np.float64]
    landmarks_true: NDArray[np.float64]
    bleeds: NDArray[np.float64]
    bleeds_true: NDArray[np.float64]


def simulated(n_subjects: int, atlas: Path | None) -> None:
    print("site    scan  overlap  peak  floor mm  error mm  95 % mm  bleeds  right  wrong  uncertain  s")
    total = np.zeros(4, dtype=int)
    by_region = np.zeros((4, 4), dtype=int)
    errors: list[float] = []
    for hospital in (*HOSPITALS, *MORE_HOSPITALS):
        for index in range(1, n_subjects + 1):
            case = case_of(hospital, index)
            start = time.process_time()
            found = map_to_template(case.brain)
            seconds = time.process_time() - start
            error = np.linalg.norm(moved(found.matrix, case.landmarks) - case.landmarks_true, axis=1)
            truth = true_regions(case.bleeds_true, atlas)
            told = mars_region(moved(found.matrix, case.bleeds))
            known = truth != Region.UNCERTAIN
            np.add.at(by_region, (truth[known], told[known]), 1)
            right, unsure = (told == truth)[known].sum(), (told == Region.UNCERTAIN)[known].sum()
            total += (known.sum(), right, known.sum() - right - unsure, unsure)
            errors += np.linalg.norm(moved(found.matrix, case.bleeds) - case.bleeds_true, axis=1).tolist()
            print(
                f"{hospital.name}  {index:4}  {found.overlap:7.3f}  {found.peakedness:4.1f}  {floor(case):8.2f}  "
                f"{error.mean():8.2f}  {np.percentile(error, 95):7.1f}  {known.sum():6}  {right:5}  "
                f"{known.sum() - right - unsure:5}  {unsure:9}  {seconds:.1f}  {found.doubt or ''}",
                flush=True,
            )
    print(f"bleeds {total[0]}: right {total[1]}, wrong {total[2]}, uncertain {total[3]}")
    print(
        f"error at bleeds: mean {np.mean(errors):.2f} mm, 95 % {np.percentile(errors, 95):.1f}, max {max(errors):.1f}"
    )
    for truth in (Region.LOBAR, Region.DEEP, Region.INFRATENTORIAL):
        row = {region.label: int(by_region[truth, region]) for region in Region}
        print(f"truly {truth.label}: told {row}")


def case_of(hospital: Hospital, index: int) -> Case:
    settings = CohortSettings(difficulty="realistic")
    subject = simulate_subject(hospital, SEED, index, settings=settings, count=COUNT)
    with tempfile.TemporaryDirectory() as folder:
        write_subject(Path(folder), index, hospital, subject)
        name = subject_id(index)
        entries = process(Compose(correction_transforms()), Path(folder) / name / "dwi" / f"{name}_dwi.nii.gz", None)
    brain = scan_brain(entries)
    flips = stored_axes(hospital.orientation)
    voxels = np.argwhere(subject.anatomy.parenchyma[flips] > 0.9)[::EVERY]
    true = subject.anatomy.template_position[flips][tuple(voxels.T)].astype(np.float64)
    return Case(brain, moved(brain.affine, voxels), true, *bleed_places(subject))


def bleed_places(subject: SimulatedSubject) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where all bleeds of a subject lie, seen or not: world and template, mm."""
    grid = subject_grid(subject)
    centres = np.array([bleed.body.centre for bleed in subject.bleeds])
    first = np.array([grid.axis(axis)[0] for axis in range(3)])
    world = moved(subject.affine, (centres - first) / np.array(grid.spacing))
    return world, subject.anatomy.template_position[nearest_voxels(centres, grid)].astype(np.float64)


def floor(case: Case) -> float:
    """Mean error of the affine map that fits the truth best, mm: no affine registration can do better."""
    rows = np.c_[case.landmarks, np.ones(len(case.landmarks))]
    best = np.linalg.lstsq(rows, case.landmarks_true, rcond=None)[0]
    return float(np.linalg.norm(rows @ best - case.landmarks_true, axis=1).mean())


def true_regions(places: NDArray[np.float64], atlas: Path | None) -> NDArray[np.int8]:
    """By MARS labels 1-2 infratentorial, 3-8 deep, 9-13 lobar; uncertain outside the atlas."""
    if atlas is None:
        return region_of(places.astype(np.float32))
    image = nib.load(atlas)
    labels = np.asarray(image.dataobj)
    index = np.rint(moved(np.linalg.inv(image.affine), places)).astype(int)
    label = labels[tuple(np.clip(index, 0, np.array(labels.shape) - 1).T)]
    groups = np.array([Region.UNCERTAIN, *[Region.INFRATENTORIAL] * 2, *[Region.DEEP] * 6, *[Region.LOBAR] * 5])
    return groups.astype(np.int8)[label]


def real(scans: Mapping[Path, bool], picture: Path | None) -> None:
    rows = []
    print("scan, as it lies, overlap, peakedness, scales, seconds, doubt")
    for path, b0_only in scans.items():
        brain = scan_brain(process(Compose(correction_transforms(b0_only)), path, None))
        for name, turn in TURNS.items():
            affine = brain.affine.copy()
            affine[:3] = turn @ affine[:3]
            start = time.process_time()
            found = map_to_template(brain._replace(affine=affine))
            seconds = time.process_time() - start
            low, high = found.scales[2], found.scales[0]
            print(
                f"{path.name.removesuffix('.nii.gz')}, {name}, {found.overlap:.3f}, {found.peakedness:.2f}, "
                f"{low:.2f}-{high:.2f}, {seconds:.1f}, {'refused' if found.doubt else 'accepted'}",
                flush=True,
            )
            if name == "as it is":
                rows.append(drawn(brain, found.matrix, path.name.removesuffix(".nii.gz")))
    if picture is not None:
        width = max(row.width for row in rows)
        sheet = Image.new("RGB", (width, sum(row.height for row in rows)))
        for number, row in enumerate(rows):
            sheet.paste(row, (0, sum(other.height for other in rows[:number])))
        sheet.save(picture, quality=80)


def drawn(brain: Brain, matrix: Any, name: str) -> Image.Image:
    """Slices of a scan; edge of the template's brain white, of deep yellow, of infratentorial blue."""
    template = load_template()
    axis = int(np.argmax(np.abs(brain.affine[2, :3])))
    image = np.moveaxis(brain.image, axis, 2)
    voxels = np.stack(np.meshgrid(*map(np.arange, brain.mask.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    places = moved(matrix @ brain.affine, voxels)
    index = np.rint(moved(np.linalg.inv(template.affine), places)).astype(int)
    index = np.clip(index, 0, np.array(template.mask.shape) - 1)
    inside = template.mask[tuple(index.T)]
    region = np.moveaxis((mars_region(places, 0.5) * inside).reshape(brain.mask.shape), axis, 2)
    inside = np.moveaxis(inside.reshape(brain.mask.shape), axis, 2)
    extent = np.flatnonzero(np.moveaxis(brain.mask, axis, 2).any(axis=(0, 1)))
    tiles = []
    for share in SLICES:
        z = int(extent[0] + share * (extent[-1] - extent[0]))
        grey = np.clip(image[:, :, z] / (2.2 * np.median(brain.image[brain.mask])), 0, 1) * 255
        colour = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
        for part, shade in (
            (inside[:, :, z], (255, 255, 255)),
            (region[:, :, z] == Region.DEEP, (255, 220, 0)),
            (region[:, :, z] == Region.INFRATENTORIAL, (80, 160, 255)),
        ):
            colour[_edge(part)] = shade
        tile = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 0, 2)[::-1]))
        tiles.append(tile.resize((220, round(220 * tile.height / tile.width)), Image.Resampling.NEAREST))
    row = Image.new("RGB", (220 * len(tiles), 16 + max(tile.height for tile in tiles)))
    ImageDraw.Draw(row).text((4, 2), name, fill=(255, 255, 255))
    for number, tile in enumerate(tiles):
        row.paste(tile, (220 * number, 16))
    return row


def _edge(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    return part & ~ndimage.binary_erosion(part)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    heads = verbs.add_parser("simulated")
    heads.add_argument("--subjects", type=int, default=2)
    heads.add_argument("--atlas", type=Path)
    scans = verbs.add_parser("real")
    scans.add_argument("scans", type=Path, nargs="*")
    scans.add_argument("--b0-only", type=Path, nargs="*", default=[])
    scans.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    if options.verb == "simulated":
        simulated(options.subjects, options.atlas)
    else:
        real({**dict.fromkeys(options.scans, False), **dict.fromkeys(options.b0_only, True)}, options.picture)


if __name__ == "__main__":
    main()
