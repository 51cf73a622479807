"""A cohort whose scans are pretended: features that follow the counts lie in the cache."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from small_site import make_root

from mhsev_flare.benchmark.rows import ROWS
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.jobs import JOBS
from mhsev_flare.site import DERIVATIVES
from mhsev_monai.cases import Case, read_cases
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.features import FEATURE_NAMES
from mhsev_monai.feature_cache import CaseFeatures, CaseInputs, compute_features
from mhsev_monai.inputs import CANDIDATE_SET, POSITION_SET, DSDInputs
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.noise_inputs import NOISE_DESCRIPTORS, NOISE_SET
from mhsev_monai.training import LabelledFeatures

SITES = {"site-1": 30, "site-2": 24, "site-3": 40}
VECTOR = DSDInputs(features=["focal_count_12", "focal_count_20", "log_count_12", "depth_30"])
SHORT = JobSpec("short", VECTOR, SeverityMLP(4, [16], 4, 0.3, 3.0, 1), num_rounds=2, epochs=2)
OTHER = dataclasses.replace(JOBS["dsd_mlp"], num_rounds=2, epochs=1)
DSD_JOBS = ("dsd_mlp", "dsd_mlp_literal")
RULES = ("majority by site", "naive LoG count", "calibrated LoG count")
ALL_INPUTS = [VECTOR, *(inputs for name in (*DSD_JOBS, *RULES) for inputs in ROWS[name].all_inputs)]


@dataclass(frozen=True)
class PretendedScan:
    """Stands for the decomposition when the cache is filled: features that follow the count, with noise."""

    inputs: CaseInputs

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.inputs.feature_names

    def fingerprint(self) -> str:
        return self.inputs.fingerprint()

    def computation(self) -> str:
        return self.inputs.computation()

    def assemble(self, found: CaseFeatures) -> np.ndarray:
        return self.inputs.assemble(found)

    def __call__(self, case: Case) -> CaseFeatures:
        rng, count = np.random.default_rng([case.count or 0, int(case.subject[4:])]), case.count or 0
        found = np.log1p(rng.binomial(count, 0.8) + rng.poisson(1.0, len(FEATURE_NAMES)))
        candidates = rng.normal(size=(count + 4, len(DESCRIPTORS))).astype(np.float32)
        candidates[:count] += 1.0
        values = dict(zip(FEATURE_NAMES, found.tolist(), strict=True))
        positions = rng.normal(size=(count + 4, 3)).astype(np.float32)
        over_noise = rng.normal(size=(count + 4, len(NOISE_DESCRIPTORS))).astype(np.float32)
        return CaseFeatures(values, {}, {CANDIDATE_SET: candidates, POSITION_SET: positions, NOISE_SET: over_noise})


def make_cohort(root: Path) -> Path:
    """A cohort of pretended scans at ``root``, with its manifest and the features of all rows in the cache."""
    for seed, (name, n) in enumerate(SITES.items()):
        make_root(root / name, n, seed)
        for inputs in ALL_INPUTS:
            table = compute_features(read_cases(root / name).cases, PretendedScan(inputs), root / name / DERIVATIVES)
            assert len(table.case_ids) == n
    manifest = {"n_subjects": 94, "seed": 5, "settings": {"difficulty": "easy", "backgrounds": "/data/private/heads"}}
    (root / "cohort.json").write_text(json.dumps({**manifest, "hospitals": [{"name": "site-1"}]}))
    return root


def labelled(counts, columns=4) -> LabelledFeatures:
    """Cases whose every feature is log(1 + count)."""
    values = torch.tensor(counts, dtype=torch.float32)
    return LabelledFeatures(torch.log1p(values)[:, None].repeat(1, columns), values)
