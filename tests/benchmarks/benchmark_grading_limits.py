"""What limits the grade of a simulated cohort: the candidates, their descriptors, or learning from counts alone.

``python tests/benchmarks/benchmark_grading_limits.py COHORT --repeats 5`` prints a table in Markdown, of the splits
that ``mhsev benchmark`` has for seeds 1 to 5:

* every candidate judged right: the grade of the number of counted bleeds that have a candidate. What is missing from 1
  is lost before anything is learnt.
* trees taught by lesion masks: gradient-boosted trees (scikit-learn) that read the descriptors of a candidate, as they
  are and within the scan, and learn from the masks of all training and validation cases which are bleeds. The sum
  of their probabilities is cut into grades at the points of the greatest quadratic kappa, on predictions for cases
  that the trees had not seen. What it is ahead of the job is the price of counts alone, of the small perceptron, and of
  not holding all cases in one place.

Both know what the job does not: where the bleeds are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from mhsev_flare.benchmark.protocol import Cohort, load_cohort
from mhsev_flare.benchmark.rules import best_cuts
from mhsev_flare.jobs import JOBS
from mhsev_flare.progress import bar, cores
from mhsev_monai.candidate_network import against_scan
from mhsev_monai.severity import SCALES
from mhsev_monai.statistics import agreement_scores, corrected_interval
from mhsev_monai.training import LabelledFeatures

JOB = JOBS["dsd_mlp"]
SCALE = SCALES[JOB.scale]
N_PARTS = 3
"""Of the training cases: each part is graded by trees that learnt from the others, so that cut points are honest."""
RIGHT, TREES = "every candidate judged right", "trees taught by lesion masks"


class Scores(NamedTuple):
    """Of the test cases of one split."""

    accuracy: float
    kappa: float
    n_train: int
    n_test: int


def main() -> None:
    """Train, grade, and print the table."""
    options = parse()
    torch.set_num_threads(1)
    cohort = load_cohort(options.cohort, [JOB.inputs], cores(), bar)
    found: dict[str, list[Scores]] = {RIGHT: [], TREES: []}
    with bar("splits", "split") as progress:
        for seed in range(1, options.repeats + 1):
            for name, scores in judged(cohort, seed):
                found[name].append(scores)
            progress(seed, options.repeats)
    print("\n".join(table(found)))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="simulated: folder with one BIDS root a hospital")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="splits, 2 or more (default: 5)")
    options = parser.parse_args()
    if not options.cohort.is_dir():
        parser.error(f"{options.cohort.name} is not a folder; make one with `mhsev cohort make`, or name another")
    if options.repeats < 2:
        parser.error(f"--repeats must be 2 or more, got {options.repeats}: an interval needs several splits")
    return options


def judged(cohort: Cohort, seed: int) -> Iterable[tuple[str, Scores]]:
    """Either judge's scores of one split."""
    sites = cohort.split(JOB.inputs, seed, SCALE, masks=True).values()
    training = LabelledFeatures.join([part for site in sites for part in (site.train, site.validation)])
    test = LabelledFeatures.join([site.test for site in sites])
    yield RIGHT, scored(test, SCALE.lower_bounds, np.nansum(marks_of(test), axis=1), len(training))
    cuts, _ = best_cuts(sums_of_unseen(training), training.grades(SCALE).numpy())
    yield TREES, scored(test, cuts, sums(taught(training), test), len(training))


def sums_of_unseen(data: LabelledFeatures) -> NDArray[np.float64]:
    """``(n,)`` expected bleeds of each case, by trees that learnt from other cases."""
    part, found = torch.arange(len(data)) % N_PARTS, np.zeros(len(data))
    for number in range(N_PARTS):
        held = part == number
        others, own = (data.take(torch.nonzero(chosen)[:, 0]) for chosen in (~held, held))
        found[held.numpy()] = sums(taught(others), own)
    return found


def taught(data: LabelledFeatures) -> HistGradientBoostingClassifier:
    """Trees that know candidates with bleeds from those without; what the masks leave open is left out."""
    rows, marks = rows_of(data), marks_of(data).ravel()
    known = ~np.isnan(marks) & ~np.isnan(rows[:, 0])
    trees = HistGradientBoostingClassifier(
        max_iter=300, learning_rate=0.06, max_leaf_nodes=15, min_samples_leaf=40, l2_regularization=1.0, random_state=0
    )
    return trees.fit(rows[known], marks[known])


def sums(trees: HistGradientBoostingClassifier, data: LabelledFeatures) -> NDArray[np.float64]:
    """``(n,)`` sums of the candidates' probabilities."""
    rows = rows_of(data)
    probabilities = np.where(np.isnan(rows[:, 0]), 0.0, trees.predict_proba(rows)[:, 1])
    return probabilities.reshape(len(data), -1).sum(axis=1)


def rows_of(data: LabelledFeatures) -> NDArray[np.float32]:
    """``(n N, 2 D)`` descriptors of every candidate, as they are and within its scan."""
    both = torch.cat([data.features, against_scan(data.features)], dim=-1)
    return both.reshape(-1, both.shape[-1]).numpy()


def marks_of(data: LabelledFeatures) -> NDArray[np.float32]:
    """``(n, N)``: 1 for a bleed, 0 for none, NaN for one more candidate of the same bleed."""
    if data.marks is None:
        raise ValueError("the cohort has no lesion masks; make one with `mhsev cohort make`")
    return data.marks.numpy()


def scored(test: LabelledFeatures, cuts: Sequence[float], counts: NDArray[np.floating], n_train: int) -> Scores:
    """How the counts, cut into grades, agree with the truth."""
    truth, grades = test.grades(SCALE).numpy(), np.searchsorted(np.asarray(cuts), counts, side="right")
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (truth, grades), 1.0)
    return Scores(float((truth == grades).mean()), float(agreement_scores(confusion)[1]), n_train, len(test))


def table(found: dict[str, list[Scores]]) -> list[str]:
    """Means over the splits with their 95 % intervals."""
    lines = ["| judge | accuracy | quadratic kappa |", "| --- | --- | --- |"]
    for name, scores in found.items():
        cells = []
        for values in ([one.accuracy for one in scores], [one.kappa for one in scores]):
            low, high = corrected_interval(values, scores[0].n_train, scores[0].n_test)
            cells.append(f"{np.mean(values):.3f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
