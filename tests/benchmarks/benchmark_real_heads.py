"""What rows of the benchmark, trained on a simulated cohort, count on real healthy heads, where the right answer is 0.

``python tests/benchmarks/benchmark_real_heads.py COHORT --rows dsd_mlp 'candidates, absolute' --seeds 1 2 3`` prints a
table in Markdown: a model is trained federatedly for each row and seed, in one process, on the split that
``mhsev benchmark`` has for the seed. Real scans are those of ``shared/data/nifti_dwi`` beside the checkout; spin-echo
EPI without b-values is read as b = 0 alone.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mhsev_flare.benchmark.averaging import average_federated, load_weights
from mhsev_flare.benchmark.protocol import Cohort, Regime, load_cohort
from mhsev_flare.benchmark.rows import ROWS, Row
from mhsev_flare.benchmark.run import Task, make_task
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.progress import bar, cores
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.inputs import DSDCandidateInputs
from mhsev_monai.networks import predict_severity
from mhsev_monai.patch_inputs import CandidatePatchInputs
from mhsev_monai.severity import SCALES

SCANS = Path(__file__).parents[3] / "shared" / "data" / "nifti_dwi"
B0_ONLY = "seepi"
"""In the names of spin-echo EPI without diffusion weighting."""

FOUND_AT = 0.5


def main() -> None:
    """Train, count, and print the table."""
    options = parse()
    rows = [ROWS[name] for name in options.rows]
    torch.set_num_threads(1)
    heads = dict(read_heads(common_inputs(rows)))
    if not heads:
        sys.exit("there are no real scans in shared/data/nifti_dwi beside the checkout; put them there")
    all_inputs = {one.fingerprint(): one for row in rows for one in row.all_inputs}
    cohort = load_cohort(options.cohort, all_inputs.values(), cores(), bar)
    print("\n".join(table(cohort, rows, options.seeds, heads)))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="folder with one BIDS root a hospital")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["dsd_mlp"], metavar="NAME", help="of ROWS")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="of splits (default: 1 2 3)"
    )
    options = parser.parse_args()
    if not options.cohort.is_dir():
        parser.error(f"{options.cohort.name} is not a folder; make one with `mhsev cohort make`, or name another")
    return options


CandidateTable = DSDCandidateInputs | CandidatePatchInputs
"""Inputs that read the candidates of a scan, one row each."""


def common_inputs(rows: Sequence[Row]) -> CandidateTable:
    """What all rows read; the program ends where they differ or read no candidates."""
    inputs = rows[0].inputs
    others = any(row.inputs.fingerprint() != inputs.fingerprint() for row in rows)
    if others or not isinstance(inputs, CandidateTable):
        sys.exit(
            "--rows must all read the same of candidates; run those with other descriptors or patches by themselves"
        )
    return inputs


def read_heads(inputs: CandidateTable) -> Iterator[tuple[str, Tensor]]:
    """Name and ``(1, N, D)`` rows of the candidates of each real scan."""
    for image in sorted(SCANS.glob("*.nii.gz")):
        name = image.name.removesuffix(".nii.gz")
        bvals = image.with_name(f"{name}.bval")
        if not bvals.exists() and B0_ONLY not in name:
            continue
        print(f"reading {name}", file=sys.stderr, flush=True)
        entries = inputs.process(image, bvals if bvals.exists() else None, b0_only=not bvals.exists())
        features = np.asarray(inputs.assemble(inputs.describe(entries)), dtype=np.float32)
        yield name, torch.from_numpy(features)[None]


def table(cohort: Cohort, rows: Sequence[Row], seeds: Sequence[int], heads: Mapping[str, Tensor]) -> list[str]:
    """Counts of each model by scan, their mean, and findings a scan."""
    lines = [
        f"| row | seed | {' | '.join(heads)} | count, mean | findings, mean |",
        f"| --- | --- |{' --- |' * (len(heads) + 2)}",
    ]
    for row in rows:
        for seed in seeds:
            print(f"training {row.name}, seed {seed}", file=sys.stderr, flush=True)
            task = make_task(cohort, row, seed, [Regime.FEDERATED])
            network = trained(task)
            counts, findings = zip(*(counted(network, features) for features in heads.values()), strict=True)
            cells = " | ".join(f"{count:.0f}" for count in counts)
            lines.append(f"| `{row.name}` | {seed} | {cells} | {np.mean(counts):.2f} | {np.mean(findings):.2f} |")
    return lines


def trained(task: Task) -> CandidateMLP:
    """The network of a row on a split, after federated training in this process."""
    if not isinstance(task.method, JobSpec) or not isinstance(task.method.network, CandidateMLP):
        raise TypeError("the row must be a job with a CandidateMLP")
    network = copy.deepcopy(task.method.network)
    load_weights(network, average_federated(task.method, task.sites).weights)
    return network.eval()


def counted(network: CandidateMLP, features: Tensor) -> tuple[float, int]:
    """The predicted count of one scan, and the number of its candidates that are at least as likely a bleed as not."""
    count = predict_severity(network, features, SCALES["paper"]).counts[0]
    with torch.no_grad():
        likely = network.candidate_probabilities(features)
    return float(count), int((likely >= FOUND_AT).sum())


if __name__ == "__main__":
    main()
