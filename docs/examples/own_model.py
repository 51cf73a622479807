"""A fifth model: one class for its input, one row for its job, and the rest is there.

``python docs/examples/own_model.py COHORT`` trains it by federated averaging over the hospitals of a cohort (``mhsev
cohort make COHORT --subjects 60 --size small``) and prints how it grades the test cases. The model is a
perceptron over a histogram of the brain: it shows how a model is put in, not that this one is good. To run it as a
FLARE job, put the class into ``mhsev_monai`` (sites load classes of installed packages alone) and the row into
``JOBS``; then ``mhsev jobs export jobs/`` writes it, and ``mhsev benchmark`` has a row of its name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from monai.transforms import Compose
from numpy.typing import NDArray

from mhsev_flare.benchmark.averaging import average_federated
from mhsev_flare.benchmark.graded import Setting
from mhsev_flare.benchmark.protocol import load_cohort
from mhsev_flare.benchmark.run import grade_with
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.progress import bar
from mhsev_monai.cases import Case
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.preprocess import ZScoreInMaskd
from mhsev_monai.preprocessing import correction_transforms, process
from mhsev_monai.quality import scan_quality
from mhsev_monai.severity import PAPER_SCALE


class HistogramInputs:
    """Shares of the brain's voxels on b0 in bins of its standard deviation; the arguments are JSON values."""

    def __init__(self, n_bins: int = 24) -> None:
        self.n_bins = n_bins

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each entry of the vector."""
        return tuple(f"share_{number}" for number in range(self.n_bins))

    def fingerprint(self) -> str:
        """What a model is tied to; change the name where the computation changes."""
        return hashlib.sha256(json.dumps({"kind": "histogram/1", "n_bins": self.n_bins}).encode()).hexdigest()

    def computation(self) -> str:
        """What a kept vector is tied to."""
        return self.fingerprint()

    def __call__(self, case: Case) -> CaseFeatures:
        """The features of one case by their names, and the quality of its scan."""
        steps = [*correction_transforms(), ZScoreInMaskd(keys=Keys.B0, mask_key=Keys.BRAIN_MASK)]
        entries = process(Compose(steps), case.image, case.bvals)
        brain = np.asarray(entries[Keys.B0][0])[np.asarray(entries[Keys.BRAIN_MASK][0]) > 0]
        counts, _ = np.histogram(brain, bins=self.n_bins, range=(-6, 6))
        shares = (counts / counts.sum()).tolist()
        return CaseFeatures(dict(zip(self.feature_names, shares, strict=True)), scan_quality(entries))

    def assemble(self, found: CaseFeatures) -> NDArray[np.float32]:
        """What the network reads."""
        return found.vector(self.feature_names).astype(np.float32)


INPUTS = HistogramInputs()
JOB = JobSpec(
    name="histogram_mlp",
    inputs=INPUTS,
    network=SeverityMLP(len(INPUTS.feature_names), [32], 4, dropout=0.3, max_deviation=3.0, seed=1),
)


def main() -> None:
    """Train and grade."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cohort", type=Path, help="folder with one BIDS root a hospital")
    cohort = load_cohort(parser.parse_args().cohort, [INPUTS], workers=2, bar=bar)
    sites = cohort.split(INPUTS, JOB.seed, PAPER_SCALE)
    best = average_federated(JOB, sites)
    graded = grade_with(JOB, best.weights, {name: data.test for name, data in sites.items()})
    found = graded.scores(Setting.ALL)
    print(f"best round {best.round_number} of {JOB.num_rounds}, {len(graded.true_grades)} test cases")
    print("  ".join(f"{name} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
