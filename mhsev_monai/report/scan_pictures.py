"""Slices of a processed scan as pictures, with its findings circled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.prediction import Finding
from mhsev_monai.report.slices import Mark, orientation_words, slice_pair_png


class ShownSlice(NamedTuple):
    """A slice as a picture: PNG as a ``data:`` address, slices of the volume, whether the map is beside it."""

    png: str
    n_slices: int
    has_map: bool


def slice_index(finding: Finding) -> int:
    """The slice that holds the finding's centre, from 0."""
    return round(finding.voxel[2])


def findings_on(findings: Sequence[Finding], z: int) -> list[Finding]:
    """Those of the slice ``z``."""
    return [finding for finding in findings if slice_index(finding) == z]


def slices_with_findings(findings: Sequence[Finding], entries: Mapping[str, Any], most: int) -> list[int]:
    """The slices with most findings, at most so many, in their order; without findings, the one with most brain."""
    depth = np.asarray(entries[Keys.B0][0]).shape[2]
    per_slice = np.bincount([slice_index(finding) for finding in findings], minlength=depth)
    if not per_slice.any():
        return [int(np.asarray(entries[Keys.BRAIN_MASK][0]).sum(axis=(0, 1)).argmax())]
    fullest = np.argsort(-per_slice, kind="stable")[:most]
    return sorted(int(z) for z in fullest if per_slice[z] > 0)


def best_slice(findings: Sequence[Finding], entries: Mapping[str, Any]) -> int:
    """The slice with most findings; without any, the one with most brain."""
    return slices_with_findings(findings, entries, 1)[0]


def orientation_of(entries: Mapping[str, Any]) -> str:
    """A sentence that says how the slices are hung."""
    return orientation_words(aff2axcodes(np.asarray(entries[Keys.B0].affine)))


def slice_of(
    entries: Mapping[str, Any], z: int, findings: Sequence[Finding], numbers: Sequence[str] = ()
) -> ShownSlice:
    """The slice ``z`` of the b = 0 image, beside the map where the model computes one.

    Args:
        entries: the data dictionary that ``grade_scan`` returns.
        z: from 0.
        findings: to circle.
        numbers: what to write beside each of them; nothing by default.
    """
    b0 = np.asarray(entries[Keys.B0][0])
    # Models over the whole brain have no map and point at nothing.
    feature_map = np.asarray(entries[Keys.DSD][0]) if Keys.DSD in entries else None
    affine = np.asarray(entries[Keys.B0].affine)
    spacing = voxel_sizes(affine)
    png = slice_pair_png(
        b0[:, :, z],
        None if feature_map is None else feature_map[:, :, z],
        [Mark(f.voxel[0], f.voxel[1], text) for f, text in zip(findings, numbers or [""] * len(findings), strict=True)],
        spacing=(float(spacing[0]), float(spacing[1])),
        axis_codes=aff2axcodes(affine),
    )
    return ShownSlice(png, b0.shape[2], feature_map is not None)
