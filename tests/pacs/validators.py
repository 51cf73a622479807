"""dicom3tools and highdicom as independent readers of results."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset

VALIDATORS = shutil.which("dciodvfy") is not None and shutil.which("dcentvfy") is not None
needs_validators = pytest.mark.skipif(
    not VALIDATORS,
    reason="needs dciodvfy and dcentvfy: apt-get install dicom3tools",
)
# Of its own tables: it holds the element for one of the study in reports and for one of the series in images.
_QUIRK = "Different information entities for attribute - Element=<AccessionNumber>"


def standard_errors(files: Iterable[Path]) -> list[str]:
    """What dciodvfy calls an error in each of some files."""
    found = []
    for file in files:
        done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert lines, "dciodvfy said nothing"
        found += [f"{file.name}: {line}" for line in lines if line.startswith("Error")]
    return found


def contradictions(files: Iterable[Path]) -> list[str]:
    """What dcentvfy finds to differ between files of one patient and study."""
    command = ["dcentvfy", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip() and _QUIRK not in line]


def report_groups(report: Dataset) -> tuple[dict[str, float], str, list[dict]]:
    """Of a structured report, as highdicom reads it: measurements and grade of the scan, then each finding."""
    content = hd.sr.srread(report.filename).content
    scan = content.get_image_measurement_groups()
    assert len(scan) == 1
    grade = scan[0].get_qualitative_evaluations()[0].value.meaning
    findings = []
    for group in content.get_planar_roi_measurement_groups():
        values = {each.name.meaning: float(each.value) for each in group.get_measurements()}
        findings.append({"uid": group.tracking_uid, "roi": group.roi, "values": values})
    return {each.name.meaning: float(each.value) for each in scan[0].get_measurements()}, grade, findings


def segment_centres(file: Path) -> dict[int, np.ndarray]:
    """LPS mm of the middle of each segment, by its number."""
    volume = hd.seg.segread(file).get_volume(combine_segments=True)
    return {
        int(number): volume.map_indices_to_reference(np.argwhere(volume.array == number)).mean(axis=0)
        for number in np.unique(volume.array)
        if number
    }


def segment_centre(file: Path, number: int = 1) -> tuple[np.ndarray, int]:
    """LPS mm of the middle of a segment, and its number of voxels."""
    volume = hd.seg.segread(file).get_volume(segment_numbers=[number], combine_segments=False)
    inside = np.argwhere(volume.array[..., 0] > 0)
    return volume.map_indices_to_reference(inside).mean(axis=0), len(inside)
