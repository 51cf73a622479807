"""What ``mhsev compare`` finds of bleeds that came between two simulated dates, for docs/longitudinal.md.

``python tests/benchmarks/benchmark_compare.py MODEL --patients 4``: each patient has three bleeds on the first date and
seven on the second, where the head lies otherwise; voxels are those of the first hospital.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from two_dates import draw_patient, write_scan

from mhsev_monai.cohort.motion import Pose
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.lesion_matching import TOLERANCE_MM, Change
from mhsev_monai.longitudinal import Comparison, compare_scans
from mhsev_monai.model_file import load_model
from mhsev_monai.registration import moved

BEFORE, AFTER = 3, 7
FIRST_SEED = 101
"""Cohorts are made with small seeds: a model must not have seen these heads."""
POSE = Pose(np.array([4.0, -3.0, 5.0]), np.array([3.0, -4.0, 2.0]))
STILL = Pose(np.zeros(3), np.zeros(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--patients", type=int, default=4)
    parser.add_argument("--difficulty", default="easy")
    options = parser.parse_args()
    model = load_model(options.model)
    settings = CohortSettings(difficulty=options.difficulty)
    print("patient  new  of them true  true new missed  stable  of them true  gone  unsure  map mm  s")
    for seed in range(FIRST_SEED, FIRST_SEED + options.patients):
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder) / "before.nii.gz", Path(folder) / "after.nii.gz"
            patient = draw_patient(seed, AFTER, settings)
            counted = [number for number, bleed in enumerate(patient.bleeds, start=1) if bleed.counted]
            first = write_scan(before, seed, patient, counted[BEFORE - 1], STILL, 1)
            second = write_scan(after, seed, patient, counted[AFTER - 1], POSE, 2)
            start = time.process_time()
            found = compare_scans(before, after, model)
            seconds = time.process_time() - start
        error = np.linalg.norm(moved(found.alignment.matrix, first) - second[: len(first)], axis=1).mean()
        visible = [number - 1 for number in counted]
        row = told(found, second, len(first), visible[BEFORE:])
        print(f"{seed:7}  {row}  {error:6.2f}  {seconds:.0f}", flush=True)


def told(found: Comparison, places: np.ndarray, n_before: int, new_visible: list[int]) -> str:
    """Numbers of one patient; ``new_visible``: indices of the bleeds that came and that the image shows."""
    new = positions(found, Change.NEW)
    stable = positions(found, Change.STABLE)
    true_new = [near(place, places[n_before:]) for place in new]
    true_stable = [near(place, places[:n_before]) for place in stable]
    missed = [index for index in new_visible if not near(places[index], new)]
    counts = found.counts
    return (
        f"{len(new):3}  {sum(true_new):12}  {len(missed):6} of {len(new_visible)}     {len(stable):6}  "
        f"{sum(true_stable):12}  {counts[Change.GONE]:4}  {counts[Change.UNSURE]:6}"
    )


def positions(found: Comparison, change: Change) -> np.ndarray:
    """``(n, 3)`` on the follow-up."""
    spots = [lesion.followup for lesion in found.lesions if lesion.change is change]
    return np.array([spot.position_mm for spot in spots if spot is not None]).reshape(-1, 3)


def near(place: np.ndarray, others: np.ndarray) -> bool:
    return bool(len(others)) and bool(np.linalg.norm(others - place, axis=1).min() <= TOLERANCE_MM)


if __name__ == "__main__":
    main()
