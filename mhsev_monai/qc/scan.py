"""Quality control of one scan: through the preprocessing, then its measures, its doubts and its pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Compose

from mhsev_monai.cases import Case
from mhsev_monai.ingest import DWISeries, read_dwi
from mhsev_monai.ingest.bvals import B0_MAX
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocess.diffusion import USUAL_B
from mhsev_monai.preprocess.functional import estimate_log_bias, landmarks, select_shells
from mhsev_monai.preprocessing import BIAS_KEY, correction_transforms, process
from mhsev_monai.qc import measures
from mhsev_monai.qc.measures import BoolArray, FloatArray, Measured
from mhsev_monai.qc.motion import estimate_motion
from mhsev_monai.quality import quality_flags, scan_quality
from mhsev_monai.scan_contrast import ScanContrast

_MOST_B_VALUES = 6


@dataclass(frozen=True)
class ScanQC:
    """What is known of one processed scan.

    Attributes:
        case_id: pseudonym.
        numbers: by name; None for what the scan does not allow to measure.
        not_measured: reason by name.
        flags: reasons to doubt the scan that need no other scan, one sentence each; the loader's warnings among them.
        faces: of the volume through which brain leaves it, ``first z, last z``; empty for none. Brainstem or cord alone
            through the lowest is no reason to flag a scan.
        b_values: in words, with the number of volumes of each.
        orientation: in words, how the pictures are hung.
        head: picture of b0 with the outlines of the masks, a ``data:`` address.
        field: picture of the bias field, likewise.
        landmarks: of b0 and, where there is one, of trace: 11 percentiles of the corrected brain.
    """

    case_id: str
    numbers: Mapping[str, float | None]
    not_measured: Mapping[str, str]
    flags: tuple[str, ...]
    faces: str
    b_values: str
    orientation: str
    head: str
    field: str
    landmarks: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class _Processed:
    """A scan after mask and bias field, as arrays."""

    b0: FloatArray
    trace: FloatArray | None
    log_bias: FloatArray
    brain: BoolArray
    search: BoolArray


def check_scan(case: Case, contrast: ScanContrast = ScanContrast.DWI) -> ScanQC:
    """Process one scan and measure it.

    Raises:
        ScanError: if the scan cannot be used, such as for an empty brain mask.
        ImportError: if pillow is not installed (the extra ``report``).
    """
    from mhsev_monai.qc.pictures import Layout, field_mosaic, head_mosaic
    from mhsev_monai.report.slices import orientation_words

    entries = process(Compose(correction_transforms(contrast.b0_only, BIAS_KEY)), case.image, case.bvals)
    quality = scan_quality(entries)
    processed = _as_arrays(entries)
    found = {key: tuple(landmarks(entries[key][0], entries[Keys.BRAIN_MASK][0]).tolist()) for key in _images(entries)}
    series = read_dwi(case.image, case.bvals, b0_only=contrast.b0_only)
    measured = _measures(series, processed)
    codes = nib.aff2axcodes(series.affine)
    cut = measures.cut_faces(processed.brain, series.spacing, codes)
    layout = Layout.around(processed.brain, series.spacing, codes)
    return ScanQC(
        case_id=case.case_id,
        numbers={
            **_geometry(series, entries),
            "n_faces_cut": len(cut),
            **{name: m.value for name, m in measured.items()},
        },
        not_measured={name: m.reason for name, m in measured.items() if m.value is None},
        flags=_flags({**quality, "touches_border": ", ".join(cut)}, contrast),
        faces=", ".join(cut),
        b_values=_b_values(series),
        orientation=orientation_words(codes),
        head=head_mosaic(processed.b0, processed.brain, processed.search, layout),
        field=field_mosaic(processed.log_bias, processed.brain, processed.search, layout),
        landmarks=found,
    )


def _images(entries: Mapping[Any, Any]) -> list[str]:
    return [key for key in (Keys.B0, Keys.TRACE) if key in entries]


def _as_arrays(entries: Mapping[Any, Any]) -> _Processed:
    """Images as acquired, so with the field multiplied in again."""
    log_bias = np.asarray(entries[BIAS_KEY][0])
    acquired = {key: np.asarray(entries[key][0]) * np.exp(log_bias) for key in _images(entries)}
    brain, search = (np.asarray(entries[key][0]) > 0 for key in (Keys.BRAIN_MASK, Keys.SEARCH_MASK))
    return _Processed(acquired[Keys.B0], acquired.get(Keys.TRACE), log_bias, brain, search)


def _measures(series: DWISeries, scan: _Processed) -> dict[str, Measured]:
    shells = select_shells(series.bvals.tolist(), b0_max=B0_MAX)
    air = measures.find_air(scan.b0, scan.brain, series.spacing)
    ghost = measures.ghost_level(scan.b0, scan.brain, air)
    return {
        "snr_difference": measures.snr_difference(series.data[..., list(shells.b0)], scan.brain),
        "snr_background": measures.snr_background(series.data[..., shells.b0[0]], scan.brain, air),
        "ghost_percent": _percent(Measured(ghost.value, ghost.reason)),
        "ghost_axis": Measured(ghost.axis, ghost.reason),
        **_motion(series, shells.b0, shells.dwi, scan.brain),
        "dropout_percent": _dropout(series, shells.dwi, scan.brain),
        "field_agreement": _agreement(scan),
        "field_spread": measures.field_spread(scan.log_bias, scan.brain),
    }


def _percent(share: Measured) -> Measured:
    return share if share.value is None else Measured(100.0 * share.value)


def _motion(series: DWISeries, b0: tuple[int, ...], dwi: tuple[int, ...], brain: BoolArray) -> dict[str, Measured]:
    motion = estimate_motion(series.data, b0, dwi, brain, series.spacing)
    lengths = np.linalg.norm(np.delete(motion.shifts, b0[0], axis=0), axis=1)
    lost = int((~np.isfinite(lengths)).sum())
    lengths = lengths[np.isfinite(lengths)]
    reason = "no volume could be laid on the others" if lost else "there is one volume"
    return {
        "motion_max_mm": Measured(float(lengths.max())) if len(lengths) else Measured(None, reason),
        "motion_mean_mm": Measured(float(lengths.mean())) if len(lengths) else Measured(None, reason),
        "n_volumes_lost": Measured(lost),
        "b0_to_dwi_mm": Measured(motion.b0_to_dwi, "" if dwi else "there is no diffusion-weighted volume"),
    }


def _dropout(series: DWISeries, dwi: tuple[int, ...], brain: BoolArray) -> Measured:
    if not dwi:
        return Measured(None, "there is no diffusion-weighted volume")
    return _percent(measures.dropout_share(series.data[..., list(dwi)], brain))


def _agreement(scan: _Processed) -> Measured:
    if scan.trace is None:
        return Measured(None, "there is no diffusion-weighted volume")
    other = estimate_log_bias(torch.from_numpy(scan.trace), torch.from_numpy(scan.brain)).numpy()
    return measures.field_agreement(scan.log_bias, other, scan.brain)


def _geometry(series: DWISeries, entries: Mapping[Any, Any]) -> dict[str, float | None]:
    quality, scan = entries["quality"], entries["scan"]
    numbers: dict[str, float | None] = {
        "n_volumes": series.data.shape[-1],
        "n_b0": scan["n_b0"],
        "n_dwi": scan["n_dwi"],
    }
    for axis, name in enumerate("xyz"):
        numbers[f"n_{name}"] = series.data.shape[axis]
        numbers[f"spacing_{name}_mm"] = float(series.spacing[axis])
        numbers[f"field_of_view_{name}_mm"] = float(quality["field_of_view_mm"][axis])
    return {
        **numbers,
        "b_value": float(scan["b_value"]),
        "brain_mask_ml": float(quality["brain_mask_ml"]),
        "n_components": int(quality["n_components"]),
    }


def _flags(quality: Mapping[str, Any], contrast: ScanContrast) -> tuple[str, ...]:
    if contrast.b0_only:
        # Such a scan has no diffusion weighting by design: that is nothing to doubt.
        quality = {**quality, "n_dwi": 1, "b_value": USUAL_B[0]}
    return quality_flags(quality, (), ())


def _b_values(series: DWISeries) -> str:
    counts = Counter(round(float(b)) for b in series.bvals)
    parts = [f"{b} ({n} {'volume' if n == 1 else 'volumes'})" for b, n in sorted(counts.items())]
    if len(parts) > _MOST_B_VALUES:
        parts = [f"{len(parts)} values from {min(counts)} to {max(counts)} ({sum(counts.values())} volumes)"]
    return ", ".join(parts) + " s/mm²"
