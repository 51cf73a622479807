"""Published images and feature values of ../shared/data, and the names that they have there."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray

TEXTURES = ("glcm", "glrlm", "glszm", "gldm", "ngtdm")


class OracleImage(NamedTuple):
    """An image with its region, axes in the order z, y, x where it comes from pyradiomics."""

    image: NDArray[np.float64]
    mask: NDArray[np.bool_]
    spacing: tuple[float, ...]


def read_nrrd(path: Path) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """Voxels of an attached-header NRRD file and mm along each axis, both in the order z, y, x."""
    header, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(re.findall(r"^([^#:\n]+): ?(.*)$", header.decode(), re.MULTILINE))
    sizes = [int(size) for size in fields["sizes"].split()]
    dtype = {"short": "<i2", "unsigned char": "u1", "uint8": "u1", "int": "<i4", "unsigned short": "<u2"}
    raw = gzip.decompress(body) if fields["encoding"] == "gzip" else body
    voxels = np.frombuffer(raw, dtype[fields["type"]]).reshape(sizes[::-1]).astype(np.float64)
    directions = [np.array(d.split(","), float) for d in re.findall(r"\(([^)]*)\)", fields["space directions"])]
    return voxels, tuple(float(np.linalg.norm(d)) for d in directions[::-1])


def pyradiomics_image(folder: Path, name: str) -> OracleImage:
    """One of brain1, brain2, breast1."""
    image, spacing = read_nrrd(folder / f"{name}_image.nrrd")
    label, _ = read_nrrd(folder / f"{name}_label.nrrd")
    return OracleImage(image, label == 1, spacing)


def snake_case(name: str) -> str:
    """Name of one of pyradiomics' features as the feature table writes it."""
    _, family, feature = name.split("_")
    return f"{family}_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", feature).lower()


def pyradiomics_values(folder: Path, family: str, column: str) -> dict[str, float]:
    """The baseline of one family in one column of its table."""
    with (folder / "baseline" / f"baseline_{family}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["featureName"].startswith("original_")]
    return {snake_case(row["featureName"]): float(row[column]) for row in rows}


def ibsi_phantom(folder: Path) -> OracleImage:
    """The digital phantom of the Image Biomarker Standardisation Initiative, 74 voxels."""
    scan = nibabel.load(folder / "nifti" / "image" / "phantom.nii.gz")
    mask = np.asarray(nibabel.load(folder / "nifti" / "mask" / "mask.nii.gz").dataobj) > 0
    return OracleImage(np.asarray(scan.dataobj, float), mask, tuple(float(s) for s in scan.header.get_zooms()))


def ibsi_values(folder: Path, merged: bool) -> Iterator[tuple[str, float]]:
    """Code and agreed value of each 3-D feature, to the three digits that were printed."""
    wanted = ("", "3D", "3D, merged" if merged else "3D, averaged")
    with (folder / "reference_values_raw.csv").open() as file:
        for row in csv.DictReader(file):
            if row["aggregation"] in wanted:
                # The table was parsed without the code of one feature, and without minus signs.
                code = row["code"] or ("P001" if row["feature"] == "Small zone emphasis" else "")
                number = row["value"] or row["value_text"].replace(":math:`-`\\ ", "-")
                yield code, float(number)
