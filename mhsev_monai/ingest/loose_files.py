"""NIfTI images that somebody gives, with or without b-values, as scans.

A diffusion series is a 4-D image with its ``.bval``. PACS exports often hold separate images instead, told apart by
words in their names: ``b0`` (or ``s0``); ``trace``, ``tracew``, ``isotropic``, ``dwi`` or ``b<number>``; ``adc``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.bvals import B0_MAX, find_bvals, image_stem, read_bvals
from mhsev_monai.ingest.nifti import open_nifti, read_dwi
from mhsev_monai.ingest.scan_writer import NewScan, scan_from_nifti
from mhsev_monai.ingest.sidecar import allowed_sidecar
from mhsev_monai.scan_contrast import ScanContrast

_B_WORD = re.compile(r"b(?:val)?[-=]?(\d{1,5})")
_TRACE_WORDS = {"trace", "tracew", "isotropic", "dwi"}
_OTHER_SUFFIXES = {
    "t1w",
    "t2w",
    "flair",
    "pd",
    "bold",
    "sbref",
    "phasediff",
    "magnitude1",
    "magnitude2",
    "mask",
    "fa",
    "colfa",
}
_SAME_GRID_MM = 0.1
_ONE_PATIENT = "the {} scans of one folder are taken for those of one patient, of whom the first is graded"
_ADC_DISAGREES = 0.3


class Role(StrEnum):
    """What an image is."""

    SERIES = "diffusion"
    B0 = "b0 image"
    TRACE = "trace-weighted image"
    ADC = "ADC map"
    T2STAR = "T2*-weighted image"
    SWI = "SWI"
    UNKNOWN = "NIfTI image"
    OTHER = "other image"


_CONTRAST_WORDS = {"t2starw": Role.T2STAR, "t2star": Role.T2STAR, "swi": Role.SWI, "swan": Role.SWI}


@dataclass(frozen=True)
class LooseScan:
    """Images that make one scan.

    Attributes:
        patient: what the source calls the patient: the ``sub-`` folder, else the first folder, else the file's name.
        study: the ``ses-`` folder, or empty.
        files: by role.
        unclear: why it cannot be told whose scan this is; empty if it can.
        n_beside: scans that lie in the same folder, this one included.
    """

    patient: str
    study: str
    files: dict[Role, Path]
    unclear: str = ""
    n_beside: int = 1

    @property
    def kind(self) -> Role:
        """What the scan is as a whole: the role of its only image, or a diffusion series."""
        return next(iter(self.files)) if len(self.files) == 1 else Role.SERIES

    def content(self) -> str:
        """A digest over the images: one scan under two names is one, two scans under one name are two.

        Raises:
            OSError: if a file cannot be read.
        """
        digests = (hashlib.sha256(path.read_bytes()).hexdigest() for _, path in sorted(self.files.items()))
        return " ".join(digests)


def group_images(images: Sequence[Path], root: Path) -> tuple[LooseScan, ...]:
    """Images as scans: each series for itself, and separate b0, trace and ADC of one folder and name together."""
    sets: dict[tuple[Path, str], dict[Role, Path]] = defaultdict(dict)
    groups: list[dict[Role, Path]] = []
    for path in sorted(images):
        role, rest = _role(path)
        if role in (Role.B0, Role.TRACE, Role.ADC) and role not in sets[path.parent, rest]:
            sets[path.parent, rest][role] = path
        else:
            groups.append({role: path})
    for files in sets.values():
        joined = {Role.B0, Role.TRACE} <= set(files)
        groups += [files] if joined else [{role: path} for role, path in files.items()]
    return tuple(sorted(_with_owners(groups, root), key=lambda scan: str(next(iter(scan.files.values())))))


def _with_owners(groups: Sequence[dict[Role, Path]], root: Path) -> list[LooseScan]:
    """Whose scans these are, as far as the folders tell."""
    parents = [next(iter(files.values())).relative_to(root).parts[:-1] for files in groups]
    below: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for folders in parents:
        if folders and not any(part.startswith("sub-") for part in folders):
            below[folders[0]].add(folders)
    beside = Counter(parents)
    scans = []
    for files, folders in zip(groups, parents, strict=True):
        subject = next((part for part in folders if part.startswith("sub-")), None)
        study = next((part for part in folders if part.startswith("ses-")), "")
        unclear = subject is None and bool(folders) and len(below[folders[0]]) > 1
        path = next(iter(files.values()))
        patient = subject or (folders[0] if folders else _role(path)[1] or path.name)
        in_folder = beside[folders] if folders and subject is None else 1
        scans.append(LooseScan(patient, study, files, _UNCLEAR if unclear else "", in_folder))
    return scans


_UNCLEAR = (
    "a folder holds several folders with scans, and these may be patients or visits; arrange them as "
    "sub-<patient>/ses-<visit>/, or give each patient a folder directly below the source"
)


def _role(path: Path) -> tuple[Role, str]:
    """What an image is by its b-values and its name, and the name without the words at its end that tell."""
    stem = (image_stem(path.name) or "").lower()
    if path.with_name((image_stem(path.name) or "") + ".bval").is_file():
        return Role.SERIES, stem
    words = re.split(r"[_\-.\s]+", stem)
    telling: list[str] = []
    while words and _tells(words[-1]):
        # One b-value tells what the image is; a second such word is part of a name.
        if _B_WORD.fullmatch(words[-1]) and any(map(_B_WORD.fullmatch, telling)):
            break
        telling.append(words.pop())
    rest = "_".join(words)
    if words and words[-1] in _OTHER_SUFFIXES:
        return Role.OTHER, stem
    if words and words[-1] in _CONTRAST_WORDS:
        return _CONTRAST_WORDS[words[-1]], stem
    if "adc" in telling:
        return Role.ADC, rest
    b_values = [int(match[1]) for word in telling if (match := _B_WORD.fullmatch(word))]
    if "s0" in telling or any(b <= B0_MAX for b in b_values):
        return Role.B0, rest
    if _has_bvals(path):
        return Role.SERIES, stem
    if b_values or _TRACE_WORDS & set(telling):
        return Role.TRACE, rest
    return Role.UNKNOWN, stem


def _has_bvals(path: Path) -> bool:
    """Whether b-values apply to an image; several that apply alike are a matter for loading it."""
    try:
        return find_bvals(path) is not None
    except ScanError:
        return True


def _tells(word: str) -> bool:
    return word in _TRACE_WORDS or word in ("adc", "s0") or _B_WORD.fullmatch(word) is not None


def load_scan(scan: LooseScan, contrast: ScanContrast, b_value: float | None) -> tuple[NewScan, tuple[str, ...]]:
    """One scan, checked; and warnings about it.

    Args:
        scan: from ``group_images``.
        contrast: what the images are taken for.
        b_value: of a separate trace image, s/mm^2, where neither its name nor a sidecar tells.

    Raises:
        ScanError: if it cannot be used.
    """
    if scan.unclear:
        raise ScanError(scan.unclear)
    runs = (_ONE_PATIENT.format(scan.n_beside),) if scan.n_beside > 1 else ()
    if Role.B0 in scan.files and Role.TRACE in scan.files:
        joined, warnings = _joined(scan, b_value)
        return joined, (*runs, *warnings)
    path = next(iter(scan.files.values()))
    series = read_dwi(path, b0_only=contrast.b0_only or scan.kind is Role.B0)
    image = open_nifti(path)
    bvals = find_bvals(path)
    values = read_bvals(bvals) if bvals is not None else np.zeros(1 if len(image.shape) < 4 else image.shape[3])
    loaded = scan_from_nifti(image)
    b_values = None if contrast.folder == "anat" else values
    return _with(loaded, b_values, _sidecar(path)), (*runs, *series.warnings)


def _with(scan: NewScan, b_values: Any, sidecar: dict[str, Any]) -> NewScan:
    return NewScan(scan.stored, scan.affine, scan.slope, scan.intercept, scan.oriented, b_values, None, sidecar)


def _joined(scan: LooseScan, b_value: float | None) -> tuple[NewScan, tuple[str, ...]]:
    """b0 and trace as one series of two volumes; a vendor's ADC map is compared and not used."""
    b0 = read_dwi(scan.files[Role.B0], b0_only=True)
    path = scan.files[Role.TRACE]
    weighting = _weighting(path, b_value)
    trace = read_dwi(path, b0_only=True)
    for role, other in ((Role.TRACE, trace), (Role.ADC, _read_adc(scan))):
        if other is not None and not _same_grid(b0, other):
            raise ScanError(
                f"the {role} has another grid than the b0 image; equal matrix, voxel size and place are accepted; "
                "export both from one series"
            )
    volumes = np.stack([b0.data.mean(-1), trace.data.mean(-1)], axis=-1).astype(np.float32)
    warnings = [*b0.warnings, *(w for w in trace.warnings if w not in b0.warnings)]
    adc = _read_adc(scan)
    if adc is not None and _adc_disagrees(volumes, weighting, adc.data[..., 0]):
        warnings.append("the ADC map given differs from the one computed of b0 and trace; check the b-value")
    joined = NewScan(volumes, b0.affine, b_values=np.array([0.0, weighting]), sidecar=_sidecar(path))
    return joined, tuple(warnings)


def _read_adc(scan: LooseScan) -> Any:
    return read_dwi(scan.files[Role.ADC], b0_only=True) if Role.ADC in scan.files else None


def _weighting(path: Path, given: float | None) -> float:
    """The b-value of a trace image: as given, from its name, or from its sidecar."""
    if given is not None:
        return given
    words = re.split(r"[_\-.\s]+", (image_stem(path.name) or "").lower())
    named = [float(match[1]) for word in words if (match := _B_WORD.fullmatch(word)) and float(match[1]) > B0_MAX]
    if len(named) == 1:
        return named[0]
    stored = _read_json(path).get("DiffusionBValue")
    if isinstance(stored, int | float) and not isinstance(stored, bool) and stored > B0_MAX:
        return float(stored)
    raise ScanError(
        "the b-value of the trace image is not known; give it with --b-value, or name the image ..._b1000.nii.gz"
    )


def _same_grid(first: Any, second: Any) -> bool:
    shape: tuple[int, ...] = first.data.shape[:3]
    if shape != second.data.shape[:3]:
        return False
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    return bool(np.abs(corners @ (first.affine - second.affine).T).max() <= _SAME_GRID_MM)


def _adc_disagrees(volumes: Any, b_value: float, given: Any) -> bool:
    """Whether a vendor's ADC, in whatever power of ten, has another median than ln(S0/Sb)/b where there is signal."""
    inside = (volumes[..., 1] > np.percentile(volumes[..., 1], 75)) & (volumes[..., 0] > volumes[..., 1]) & (given > 0)
    if not inside.any():
        return True
    computed = float(np.median(np.log(volumes[..., 0][inside] / volumes[..., 1][inside]))) / b_value
    ratio = float(np.log10(np.median(given[inside]) / computed))
    return abs(ratio - round(ratio / 3) * 3) > np.log10(1 + _ADC_DISAGREES)


def _sidecar(path: Path) -> dict[str, Any]:
    return allowed_sidecar(_read_json(path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.with_name((image_stem(path.name) or "") + ".json").read_text(errors="replace"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
