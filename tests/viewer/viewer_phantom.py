"""A small scan with two spots, one on either side, that lies obliquely and is stored from right to left."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.prediction import Finding, ScanGrade
from mhsev_monai.severity import Severity

SHAPE = (40, 48, 30)
SPACING = (4.0, 4.0, 5.0)
TILT = np.deg2rad(12.0)
RIGHT_SPOT, LEFT_SPOT = (10, 30, 12), (31, 20, 20)
"""Voxels; the first axis runs from the patient's right to the left."""
PATIENT = "Doe^Jane"


def affine() -> np.ndarray:
    """``(4, 4)``: the first axis reversed, the head nods by ``TILT``, the middle of the grid at the origin."""
    cosine, sine = np.cos(TILT), np.sin(TILT)
    turn = np.array([[-1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ np.diag(SPACING)
    whole = np.eye(4)
    whole[:3, :3] = turn
    whole[:3, 3] = -turn @ ((np.array(SHAPE) - 1) / 2)
    return whole


def world(voxel: tuple[int, int, int]) -> tuple[float, float, float]:
    x, y, z = (affine() @ (*voxel, 1.0))[:3]
    return float(x), float(y), float(z)


def finding(voxel: tuple[int, int, int], probability: float) -> Finding:
    return Finding(tuple(float(i) for i in voxel), world(voxel), 0.4, probability)


def scan() -> tuple[ScanGrade, dict[str, Any]]:
    """Its grade and entries: a dark grey brain that is white in a block of 7 x 7 x 7 voxels at the right spot."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    brain = (grid**2).sum(0) < 0.8
    image = 300.0 * brain
    image[tuple(slice(i - 3, i + 4) for i in RIGHT_SPOT)] = 3000.0
    darkness = np.zeros(SHAPE)
    darkness[tuple(slice(i - 2, i + 3) for i in LEFT_SPOT)] = -1.0
    name = {"filename_or_obj": f"/archive/{PATIENT}.nii.gz"}
    entries = {
        key: MetaTensor(torch.from_numpy(volume[None].astype(np.float32)), affine=affine(), meta=dict(name))
        for key, volume in ((Keys.B0, image), (Keys.BRAIN_MASK, brain), (Keys.DSD, darkness))
    }
    entries[Keys.CANDIDATE_VOXELS] = np.array([RIGHT_SPOT, LEFT_SPOT, (20, 24, 15)])
    grade = ScanGrade(
        grade=Severity.MILD,
        count=2,
        count_interval=(1, 4),
        probabilities={"none": 0.001, "mild": 0.9, "moderate": 0.099, "severe": 0.0},
        judges_spots=True,
        n_candidates=3,
        findings=[finding(RIGHT_SPOT, 0.9)],
        possible=[finding(LEFT_SPOT, 0.3)],
        quality={"brain_mask_ml": 1400.0},
        flags=["the coverage is <partial> & small"],
    )
    return grade, entries
