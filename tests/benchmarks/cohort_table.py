"""The table of difficulties of docs/cohort.md: what is to be seen, what readers make of it, and what counting allows.

No head is made: contrasts of bleeds are drawn as they are for heads, with the readout's displacement, at random places
of each hospital's voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from mhsev_monai.cohort.ceiling import count_grading_ceiling
from mhsev_monai.cohort.counts import count_probabilities
from mhsev_monai.cohort.disease import (
    DIFFICULTIES,
    MAX_OCCULT,
    VISIBLE_CONTRAST_TO_NOISE,
    Difficulty,
    draw_contrasts,
    share_visible,
)
from mhsev_monai.cohort.hospitals import HOSPITALS, Hospital
from mhsev_monai.cohort.reader import FALSE_BLEEDS, detection_probability, read_count
from mhsev_monai.cohort.settings import LABELS, MIXES, CohortSettings
from mhsev_monai.cohort.subject import bleed_imaging
from mhsev_monai.severity import PAPER_SCALE

SEED = 3
SCANS = 4000
# Each costs some milliseconds; the standard error of a share of them is 0.016 at most.
CONTRASTS = 1000
NEGATIVES = CohortSettings().negatives

Contrasts = NDArray[np.float64]


class Readings(NamedTuple):
    """What two readers report of the scans of one hospital, and what is in them; arrays are ``(n,)``.

    Attributes:
        truth: counts.
        first: count of one reader.
        second: count of the other.
        sensitivity: share of the bleeds that count which the first reader finds.
        false_positives: mean number of other findings of the first reader in a scan.
    """

    truth: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    sensitivity: float
    false_positives: float


def contrasts_of(hospital: Hospital, difficulty: Difficulty, seed: int) -> Contrasts:
    """Contrast to noise of many bleeds at a hospital."""
    rng = np.random.default_rng(seed)
    return draw_contrasts(
        rng, CONTRASTS, difficulty, hospital.spacing, hospital.snr * difficulty.snr_factor, bleed_imaging(hospital)
    )


def scan_contrasts(rng: np.random.Generator, count: int, pool: Contrasts, label: str) -> Contrasts:
    """The bleeds of one scan, as ``disease.draw_bleeds`` draws them until enough of them count."""
    if label == "all" or count == 0:
        return rng.choice(pool, count)
    drawn = rng.choice(pool, count + MAX_OCCULT)
    visible = drawn >= VISIBLE_CONTRAST_TO_NOISE
    enough = np.flatnonzero((np.cumsum(visible) == count) | (np.cumsum(~visible) == MAX_OCCULT))
    kept = drawn[: int(enough[0]) + 1]
    # Past the limit of what is hidden, every bleed is one that is seen.
    n_missing = count - int((kept >= VISIBLE_CONTRAST_TO_NOISE).sum())
    return np.concatenate([kept, rng.choice(pool[pool >= VISIBLE_CONTRAST_TO_NOISE], n_missing)])


def read_scans(hospital: Hospital, pool: Contrasts, mix: str, label: str) -> Readings:
    """Two readers on scans of a hospital."""
    rng = np.random.default_rng(SEED)
    probabilities = count_probabilities(hospital, mix, NEGATIVES)
    rows, found = [], 0
    for count in rng.choice(len(probabilities), size=SCANS, p=probabilities):
        contrasts = scan_contrasts(rng, int(count), pool, label)
        counts = (contrasts >= VISIBLE_CONTRAST_TO_NOISE) | (label == "all")
        seen = rng.random(len(contrasts)) < detection_probability(contrasts)
        found += int(seen[counts].sum())
        first = int(seen.sum()) + int(rng.poisson(FALSE_BLEEDS))
        rows.append((int(count), first, read_count(rng, contrasts)))
    truth, first_counts, second_counts = np.array(rows).T
    false_positives = float((first_counts.sum() - found) / SCANS)
    return Readings(truth, first_counts, second_counts, found / int(truth.sum()), false_positives)


def grades(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Grade of each count."""
    return np.digitize(counts, PAPER_SCALE.lower_bounds)


def agreement(truth: NDArray[np.int64], given: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy and quadratic kappa of grades."""
    return float((truth == given).mean()), float(cohen_kappa_score(truth, given, weights="quadratic"))


def visible_row(difficulty: Difficulty, pools: Sequence[Contrasts]) -> list[str]:
    """Median core, and at each hospital the share of bleeds that count."""
    return [f"{difficulty.median_diameter:.1f}", *(f"{share_visible(pool):.2f}" for pool in pools)]


def reader_numbers(hospital: Hospital, pool: Contrasts, mix: str, label: str) -> list[float]:
    """Of one hospital: readers against the truth and each other, and the ceiling at their errors."""
    read = read_scans(hospital, pool, mix, label)
    accuracy, kappa = agreement(grades(read.truth), grades(read.first))
    _, between = agreement(grades(read.first), grades(read.second))
    presence = cohen_kappa_score(read.first > 0, read.second > 0)
    majority = float(np.bincount(grades(read.truth)).max() / len(read.truth))
    pmf = count_probabilities(hospital, mix, NEGATIVES)
    ceiling = count_grading_ceiling(pmf, read.sensitivity, read.false_positives)
    readers = [majority, read.sensitivity, read.false_positives, accuracy, kappa, between, float(presence)]
    return [*readers, ceiling.accuracy, ceiling.quadratic_kappa]


def reader_row(pools: Sequence[Contrasts], mix: str, label: str) -> list[str]:
    """Means over the hospitals, which count as they share a cohort."""
    weights = [hospital.n_reference for hospital in HOSPITALS]
    rows = [reader_numbers(hospital, pool, mix, label) for hospital, pool in zip(HOSPITALS, pools, strict=True)]
    return [f"{number:.2f}" for number in np.average(rows, axis=0, weights=weights)]


def main() -> None:
    """Print both tables in Markdown."""
    pools = {name: [contrasts_of(h, d, SEED) for h in HOSPITALS] for name, d in DIFFICULTIES.items()}
    print("| difficulty | median core, mm |" + "".join(f" {h.name} |" for h in HOSPITALS))
    print("|---|---|" + "---|" * len(HOSPITALS))
    for name, difficulty in DIFFICULTIES.items():
        print(f"| {name} | " + " | ".join(visible_row(difficulty, pools[name])) + " |")
    print(f"\nMeans over the hospitals, {SCANS} scans each.\n")
    print(
        "| label | mix | difficulty | majority | sensitivity | false a scan | reader accuracy | reader QWK "
        "| QWK between readers | kappa of presence | ceiling accuracy | ceiling QWK |"
    )
    print("|---|---|---|" + "---|" * 9)
    for label in LABELS:
        for mix in MIXES:
            for name in DIFFICULTIES:
                print(f"| {label} | {mix} | {name} | " + " | ".join(reader_row(pools[name], mix, label)) + " |")


if __name__ == "__main__":
    main()
