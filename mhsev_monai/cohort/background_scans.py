"""Real diffusion scans of a folder as backgrounds: found, checked, masked and measured once in a process.

Scans keep their voxels: axes are turned to right, anterior, superior by exchanging and flipping them alone, and nothing
is interpolated, so that noise and artefacts stay the scanner's own. A grid's axes are the scan's; where a scan is
oblique its affine says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from mhsev_monai.cohort.background_geometry import (
    TemplateMatch,
    brain_depth,
    cortex_share,
    fluid_share,
    match_to_template,
    noise_sd,
    signal_voids,
)
from mhsev_monai.cohort.smooth_fields import VoxelGrid
from mhsev_monai.cohort.susceptibility import EpiReadout
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.ingest import DWISeries, find_bvals, read_dwi
from mhsev_monai.ingest.sidecar import allowed_sidecar
from mhsev_monai.preprocess import DWIBrainMask
from mhsev_monai.preprocess.diffusion import Shells, mean_b0, select_shells, trace_weighted

_LOG = logging.getLogger(__name__)

# About 25 MB each. Of more scans than this, each is read again whenever its turn comes.
_CACHED_SCANS = 16
_LARGEST_STORED = 32767
# Where a scan's largest value goes if it is not stored as whole numbers up to 32767; some room is left for shading.
_RESCALED_TO = 28000.0
# Bleeds are small against the voxels of a scan coarser than this, mm.
_LARGEST_VOXEL = 6.0

# Share of CSF up to which a voxel stands for tissue in the estimate of signal and noise.
_SOLID_BELOW = 0.1
# Where no sidecar says it: 3 T, and the bandwidth of a readout of 40 ms.
_USUAL_FIELD_TESLA, _USUAL_BANDWIDTH_HZ = 3.0, 25.0
_NOTHING_USABLE = (
    "the folder of backgrounds holds no usable scan; whole-head diffusion scans (.nii or .nii.gz) are accepted, each "
    "with its .bval and with volumes at b = 0 and above; the log says what is wrong with those that are there"
)


class Background(NamedTuple):
    """A real scan that bleeds can be planted in, in RAS order.

    Attributes:
        stored: ``(X, Y, Z, N)`` the scan's own integers, or its values scaled to fill 15 bits.
        affine: ``(4, 4)`` from voxel indices to RAS+ world coordinates, mm; may be oblique.
        grid: the voxels along the scan's own axes.
        b_values: s/mm^2, one a volume.
        te_ms: echo time; None if no sidecar says it.
        tr_ms: repetition time; None if no sidecar says it.
        readout: how the susceptibility of a bleed displaces signal.
        fluid: ``(X, Y, Z)`` share of CSF.
        tissue: ``(X, Y, Z)``, where the rest of a voxel is parenchyma that gives signal.
        cortex: ``(X, Y, Z)`` share of parenchyma that is cortex.
        depth: ``(X, Y, Z)`` mm below the brain's surface, negative outside.
        match: to the template.
        noise: standard deviation on one volume, in stored units.
        snr: of the parenchyma on b = 0; where its fine structure exceeds the noise it stands for it, since a reader
            has to tell a bleed from it too.
    """

    stored: NDArray[np.int16]
    affine: NDArray[np.float64]
    grid: VoxelGrid
    b_values: tuple[float, ...]
    te_ms: float | None
    tr_ms: float | None
    readout: EpiReadout
    fluid: NDArray[np.float32]
    tissue: NDArray[np.bool_]
    cortex: NDArray[np.float32]
    depth: NDArray[np.float32]
    match: TemplateMatch
    noise: float
    snr: float


def background_summary(folder: Path) -> dict[str, Any]:
    """How many scans of a folder can be used, and a checksum of their files.

    Args:
        folder: a BIDS root, or a folder of NIfTI files with a ``.bval`` beside each.

    Returns:
        ``n_scans``, and ``sha256`` of images, b-values and sidecars in the order of their names.

    Raises:
        CohortError: if the folder cannot be used.
    """
    usable = [path for number, path in enumerate(_candidates(Path(folder)), 1) if _load(path, number) is not None]
    if not usable:
        raise CohortError(_NOTHING_USABLE)
    digest = hashlib.sha256()
    for image in usable:
        for path in (image, find_bvals(image), _sidecar_path(image)):
            content = path.read_bytes() if path is not None and path.is_file() else b""
            digest.update(hashlib.sha256(content).digest())
    return {"n_scans": len(usable), "sha256": digest.hexdigest()}


def background_scan(folder: Path, number: int) -> Background:
    """A usable scan of a folder; scans are taken in turn, in the order of their names.

    Args:
        folder: as for :func:`background_summary`.
        number: any whole number from 0; where the scan whose turn it is cannot be used, the next one serves.

    Raises:
        CohortError: if the folder cannot be used.
    """
    candidates = _candidates(Path(folder))
    for step in range(len(candidates)):
        place = (number + step) % len(candidates)
        background = _load(candidates[place], place + 1)
        if background is not None:
            return background
    raise CohortError(_NOTHING_USABLE)


@lru_cache(maxsize=4)
def _candidates(folder: Path) -> tuple[Path, ...]:
    """The NIfTI files of a folder that have b-values, by name; hidden files and BIDS derivatives are left alone."""
    if not folder.is_dir():
        raise CohortError("the folder of backgrounds is not a folder that is there; check its name")
    found = []
    for path in sorted(folder.rglob("*.nii*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or "derivatives" in parts or not path.is_file():
            continue
        try:
            has_b_values = find_bvals(path) is not None
        except ScanError:
            # Reading it will say what is ambiguous.
            has_b_values = True
        found += [path] if has_b_values else []
    if not found:
        raise CohortError(_NOTHING_USABLE)
    return tuple(found)


@lru_cache(maxsize=_CACHED_SCANS)
def _load(path: Path, number: int) -> Background | None:
    """A scan, or None with a line in the log; ``number`` stands for its name there."""
    try:
        return _background(path)
    except ScanError as error:
        _LOG.warning("background scan %d by name is left out: %s", number, error)
        return None


def _background(path: Path) -> Background:
    series = _turned(read_dwi(path))
    if max(series.spacing) > _LARGEST_VOXEL:
        raise ScanError(f"its voxels reach {max(series.spacing):.1f} mm, and up to {_LARGEST_VOXEL:g} mm is accepted")
    shells = select_shells(series.bvals.tolist())
    if not shells.dwi:
        raise ScanError("it has no diffusion-weighted volume, and at least one is needed to tell fluid from tissue")
    b0, trace, brain = _contrasts(series, shells)
    shape = (brain.shape[0], brain.shape[1], brain.shape[2])
    middle = series.affine @ np.array([*((n - 1) / 2 for n in shape), 1.0])
    grid = VoxelGrid(shape, series.spacing, (float(middle[0]), float(middle[1]), float(middle[2])))
    fluid = fluid_share(b0, trace, brain, shells.b_value - shells.b0_value)
    tissue = brain & ~signal_voids(b0, fluid, brain, series.spacing)
    solid = tissue & (fluid < _SOLID_BELOW)
    if not solid.any():
        raise ScanError("its two contrasts differ nowhere as those of brain tissue do; a healthy head is accepted")
    noise, gain = noise_sd(series.data[..., shells.dwi[0]], solid), _gain(series.data)
    depth = brain_depth(brain, series.spacing)
    facts = _facts(path)
    return Background(
        stored=np.clip(np.rint(series.data * np.float32(gain)), 0, _LARGEST_STORED).astype(np.int16),
        affine=series.affine,
        grid=grid,
        b_values=tuple(float(b) for b in series.bvals),
        te_ms=_milliseconds(facts.get("EchoTime")),
        tr_ms=_milliseconds(facts.get("RepetitionTime")),
        readout=_readout(facts, series.affine, shape[1]),
        fluid=fluid,
        tissue=tissue,
        cortex=cortex_share(fluid, depth, series.spacing),
        depth=depth,
        match=match_to_template(brain, grid),
        noise=gain * noise,
        snr=float(np.median(b0[solid])) / max(noise, noise_sd(b0, solid), 1e-6),
    )


def _turned(series: DWISeries) -> DWISeries:
    """The series with its axes exchanged and flipped to lead about right, anterior and superior."""
    image = nib.as_closest_canonical(nib.Nifti1Image(series.data, series.affine))
    affine = np.asarray(image.affine, dtype=np.float64)
    x, y, z = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    data = np.asarray(image.dataobj, dtype=np.float32)
    return DWISeries(data, affine, series.bvals, (x, y, z), series.warnings)


def _contrasts(series: DWISeries, shells: Shells) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Mean b0, trace and brain, each ``(X, Y, Z)``."""
    data = torch.from_numpy(np.ascontiguousarray(series.data))
    b0, trace = mean_b0(data, shells), trace_weighted(data, shells)
    brain = DWIBrainMask(spacing=series.spacing)(b0[None], trace[None]).mask
    return b0.numpy(), trace.numpy(), np.asarray(brain)[0] > 0


def _gain(data: NDArray[np.float32]) -> float:
    """1 for whole numbers that fit; else what fills 15 bits, so that rounding stays below the noise."""
    largest = float(data.max())
    whole = largest <= _LARGEST_STORED and bool((data == np.rint(data)).all())
    return 1.0 if whole else _RESCALED_TO / largest


def _sidecar_path(image: Path) -> Path:
    return image.with_name(image.name.split(".nii")[0] + ".json")


def _facts(image: Path) -> dict[str, Any]:
    """What may be used of the sidecar of the same name; empty where there is none."""
    try:
        found = json.loads(_sidecar_path(image).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return allowed_sidecar(found) if isinstance(found, dict) else {}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000.0 * float(seconds)


def _readout(facts: dict[str, Any], affine: NDArray[np.float64], n_phase: int) -> EpiReadout:
    """The readout: the phase encoding is taken to run along Y, as it does in most brain scans."""
    echo_spacing = float(facts.get("EffectiveEchoSpacing", 0.0))
    bandwidth = 1 / (echo_spacing * n_phase) if echo_spacing > 0 else _USUAL_BANDWIDTH_HZ
    along = affine[2, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along_x, along_y, along_z = (float(part) for part in along / np.linalg.norm(along))
    field = float(facts.get("MagneticFieldStrength", _USUAL_FIELD_TESLA))
    return EpiReadout(bandwidth, field, (along_x, along_y, along_z))
