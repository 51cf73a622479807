"""Twins at a site: who has them, and that training alone sees them. Scans are a few voxels; no FLARE process runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambda
from small_site import NumbersInFile, executor, make_root

from mhsev_flare.benchmark.averaging import average_federated, pool_sites
from mhsev_flare.benchmark.kept import digest_sites
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.jobs import JOBS
from mhsev_flare.protocol import Meta, Moments
from mhsev_flare.rounds import training_seed
from mhsev_flare.site import SiteFolders, load_site_data
from mhsev_monai.cases import Case
from mhsev_monai.clinical_inputs import ClinicalInputs
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import TrainingParameters, train_severity


class NumbersOfScan(NumbersInFile):
    """As ``NumbersInFile``, by way of transforms: a twin turns the signs of the first two and has the third at -1."""

    def fingerprint(self) -> str:
        return "numbers-of-scan"

    def transforms(self) -> Compose:
        return Compose([Lambda(self._load)])

    def _load(self, data: Mapping[str, Any]) -> dict[str, Any]:
        image = MetaTensor(torch.ones(1, 20, 20, 8), affine=torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0])))
        numbers = json.loads(Path(data["image"]).read_text())
        return {"b0": image, "trace": image, "adc": image, "scan": {"spacing_mm": (2.0, 2.0, 3.0)}, "numbers": numbers}

    def describe(self, entries: Mapping[str, Any]) -> CaseFeatures:
        sign = 1.0 if "adc" in entries else -1.0
        first, second, _ = (sign * number for number in entries["numbers"])
        return CaseFeatures({"a": first, "b": second, "c": sign}, {})

    def __call__(self, case: Case) -> CaseFeatures:
        return self.describe(self._load({"image": case.image}))


INPUTS = NumbersOfScan()
SPEC = JobSpec("numbers", INPUTS, SeverityMLP(3, [8], 4, 0.0, 8.0, 3), num_rounds=2, epochs=1, twins=True)


def load(root: Path, twins: bool):
    return load_site_data("site-1", SiteFolders(root, root / "cache"), INPUTS, 1, PAPER_SCALE, twins=twins)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_root(tmp_path_factory.mktemp("twins") / "site", 40, seed=0)


@pytest.fixture(scope="module")
def data(root):
    return load(root, twins=True)


def test_each_training_case_has_its_twin_and_no_other_case_has_one(root, data):
    plain = load(root, twins=False)
    assert plain.twins is None
    assert (plain.train.features[:, 2] == 1).all()
    torch.testing.assert_close(data.train.features, plain.train.features)
    torch.testing.assert_close(data.twins.features, -plain.train.features)
    torch.testing.assert_close(data.twins.counts, plain.train.counts)
    n_kept = len(list((root / "cache").glob("*.json")))
    assert n_kept == 40 + len(data.train)


def test_what_training_goes_through_is_one_tensor_for_good(data):
    """Measures of candidates are found again by the tensor itself; a new one at each round would cost them anew."""
    assert data.lessons is data.lessons
    assert len(data.lessons) == 2 * len(data.train)


def test_the_executor_trains_on_twins_and_reports_cases(site):
    from nvflare.apis.dxo import DXO, DataKind, from_shareable
    from nvflare.apis.signal import Signal
    from nvflare.app_common.app_constant import AppConstants

    made, fl_ctx = site("site-1", inputs=INPUTS, twins=True)
    own = made._site_data(fl_ctx)
    start = {key: value.numpy().copy() for key, value in made.network.state_dict().items()}

    def ask(task: str) -> DXO:
        message = DXO(DataKind.WEIGHTS, data=dict(start), meta={Meta.PROTOCOL: 1}).to_shareable()
        message.set_header(AppConstants.CURRENT_ROUND, 0)
        return from_shareable(made.execute(task, message, fl_ctx, Signal()))

    standardised = ask("standardise")
    assert standardised.data[Moments.N].tolist() == [2 * len(own.train)]
    np.testing.assert_allclose(standardised.data[Moments.MEAN], 0, atol=1e-7)  # a twin has its scan's numbers, negative
    assert standardised.data[Moments.CLASS_COUNTS].sum() == len(own.train)
    assert standardised.meta[Meta.SITE_SUMMARY]["twins"] == len(own.train)
    update = ask("train")
    assert update.meta[Meta.N_SAMPLES] == len(own.train)
    for lessons, equal in ((own.lessons, True), (own.train, False)):
        network = SeverityMLP(3, [8], 4, 0.0, 8.0, 3)
        seed = training_seed(made.seed, "site-1", 0)
        train_severity(network, lessons, PAPER_SCALE, TrainingParameters(1, 1e-2, 0.0, 1000, 1.0), seed)
        weight = network.state_dict()["layers.0.weight"].numpy() - start["layers.0.weight"]
        assert np.allclose(weight, update.data["layers.0.weight"], rtol=0, atol=1e-7) == equal


def test_averaging_in_one_process_trains_on_twins(data):
    with_twins, without = (average_federated(SPEC, {"site-1": d, "site-2": d}) for d in (data, _without(data)))
    assert not np.allclose(with_twins.weights["layers.0.weight"], without.weights["layers.0.weight"], atol=1e-6)


def test_pooled_sites_have_all_twins_and_other_twins_are_other_data(data):
    pooled = pool_sites({"site-1": data, "site-2": _without(data), "site-3": data})
    assert len(pooled.train) == 3 * len(data.train)
    assert pooled.twins is not None
    assert len(pooled.twins) == 2 * len(data.train)
    assert pool_sites({"site-2": _without(data)}).twins is None
    assert digest_sites({"site-1": data}) != digest_sites({"site-1": _without(data)})


def _without(data):
    return dataclasses.replace(data, twins=None)


def test_a_job_whose_inputs_read_no_scan_is_refused_where_it_is_made():
    with pytest.raises(ValueError, match="set twins to False for this job"):
        dataclasses.replace(JOBS["dsd_mlp"], inputs=ClinicalInputs())
    with pytest.raises(ValueError, match="set twins to False for this job"):
        executor(twins=True)
