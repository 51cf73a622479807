"""One simulated head on two dates: the same anatomy and mimics, more bleeds, another place in the scanner."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from mhsev_monai.cohort.anatomy import Anatomy, draw_head_shape, head_anatomy
from mhsev_monai.cohort.disease import DIFFICULTIES, Bleed, draw_bleeds
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.lesions import Ellipsoid
from mhsev_monai.cohort.mimics import Mimics, draw_mimics, paint_mimics
from mhsev_monai.cohort.motion import Pose, moved
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.signal import WhiteMatterTensor, draw_tensor
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.subject import (
    Head,
    bleed_imaging,
    diseased_fractions,
    draw_record,
    placed_head,
    random_streams,
    scan_head,
    subject_protocol,
)

HOSPITAL = HOSPITALS[0]
SMALL = CohortSettings(size="small")
_SAMPLE_MM = {"full": 1.0, "small": 1.7}


class Patient(NamedTuple):
    """What stays between the dates; bleeds in the order in which they appear, mm along the slices' axes."""

    settings: CohortSettings
    anatomy: Anatomy
    tensor: WhiteMatterTensor
    mimics: Mimics
    bleeds: tuple[Bleed, ...]


def draw_patient(seed: int, n_bleeds: int, settings: CohortSettings = SMALL) -> Patient:
    """A head with so many bleeds to come that count."""
    streams = random_streams(seed, HOSPITAL.name, 1)
    protocol = subject_protocol(HOSPITAL, settings, streams["protocol"])
    clinical = draw_record(HOSPITAL, seed, 1, settings).clinical
    grid, difficulty, rng = protocol.grid, DIFFICULTIES[settings.difficulty], streams["anatomy"]
    anatomy = head_anatomy(
        placed_head(draw_head_shape(rng, clinical.age, grid), protocol), grid, _SAMPLE_MM[settings.size]
    )
    tensor = draw_tensor(rng, grid)
    mimics = draw_mimics(streams["mimics"], clinical, anatomy, grid, difficulty)
    bleeds = draw_bleeds(
        streams["bleeds"],
        n_bleeds,
        anatomy,
        grid,
        difficulty,
        mimics.bodies,
        protocol.snr,
        settings.label,
        bleed_imaging(protocol),
    )
    return Patient(settings, anatomy, tensor, mimics, tuple(bleeds))


def write_scan(path: Path, seed: int, patient: Patient, n_bleeds: int, pose: Pose, date: int) -> np.ndarray:
    """Scan the patient with its first bleeds; returns their ``(n, 3)`` RAS+ positions.

    Args:
        path: the NIfTI to write, with its ``.bval`` beside it.
        seed: of the patient.
        patient: from ``draw_patient``.
        n_bleeds: how many there are by now.
        pose: of the head in the scanner.
        date: noise and shading differ between dates.
    """
    protocol = subject_protocol(HOSPITAL, patient.settings, random_streams(seed, HOSPITAL.name, 1)["protocol"])
    grid = protocol.grid
    effects = paint_mimics(patient.mimics, grid)
    fractions = diseased_fractions(patient.anatomy.fractions, effects)
    bleeds = [bleed._replace(body=_moved_body(bleed.body, pose, grid)) for bleed in patient.bleeds[:n_bleeds]]
    head = Head(
        np.stack([moved(part, pose, grid) for part in fractions]),
        moved(effects.kept, pose, grid),
        patient.tensor,
        patient.anatomy._replace(fractions=np.stack([moved(part, pose, grid) for part in patient.anatomy.fractions])),
        bleeds,
    )
    images = scan_head(head, protocol, random_streams(seed + 1000 * date, HOSPITAL.name, 1))
    nib.save(nib.Nifti1Image(images, protocol.affine), path)
    path.with_name(path.name.removesuffix(".nii.gz") + ".bval").write_text(" ".join(map(str, protocol.b_values)))
    centres = np.array([bleed.body.centre for bleed in bleeds]).reshape(-1, 3)
    first = np.array([grid.axis(axis)[0] for axis in range(3)])
    return ((centres - first) / np.array(grid.spacing)) @ protocol.affine[:3, :3].T + protocol.affine[:3, 3]


def _moved_body(body: Ellipsoid, pose: Pose, grid: VoxelGrid) -> Ellipsoid:
    """A sphere where ``motion.moved`` puts the signal at its place."""
    middle = np.array([(grid.axis(axis)[0] + grid.axis(axis)[-1]) / 2 for axis in range(3)])
    turn = Rotation.from_euler("xyz", pose.rotation_degrees, degrees=True).as_matrix()
    return body._replace(centre=middle + turn @ (body.centre - middle) + pose.shift_mm)
