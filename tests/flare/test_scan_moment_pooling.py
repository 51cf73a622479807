"""How scans differ from each other, in the handshake: one answer for all sites, from sums alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_handshake import OWN, Answer, meta, sums
from tiny_study import tiny_spec

from mhsev_flare.benchmark.averaging import average_federated, start_weights
from mhsev_flare.handshake import sort_answers
from mhsev_flare.payload_rules import payload_complaint, task_rules
from mhsev_flare.protocol import TASK_STANDARDISE, Moments
from mhsev_flare.site_data import SiteData
from mhsev_flare.site_sums import site_sums
from mhsev_flare.standardisation import Asked, pool_standardisation
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures

NETWORK = CandidateMLP(4, [6], 1, 4, [1, 6, 11], 0.0, 0.0, 1.0, 0.0, "both", [3], 8.0, 1)
SPEC = tiny_spec(name="yardsticks", network=NETWORK, num_rounds=2, epochs=1, batch_size=8)


def cases(seed: int, n: int) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    features = rng.normal(rng.normal(size=(n, 1, 4)), 1.0, size=(n, 20, 4)).astype(np.float32)
    for case in features:
        case[rng.integers(5, 20) :] = np.nan
    return LabelledFeatures(torch.from_numpy(features), torch.tensor(rng.integers(0, 20, n), dtype=torch.float32))


DATA = {
    name: SiteData(cases(seed, n), cases(seed + 10, 3), cases(seed + 20, 3), excluded={}, twins=cases(seed + 30, n))
    for seed, (name, n) in enumerate([("a", 6), ("b", 9), ("c", 3)])
}


def own_sums(name: str) -> dict[str, np.ndarray]:
    return site_sums(NETWORK, DATA[name], PAPER_SCALE)


def means_of_all() -> np.ndarray:
    """Of the training scans in one place, twins not among them, each scan with the mean of its candidates."""
    scans = [scan for data in DATA.values() for scan in data.train.features.double().numpy()]
    return np.stack([scan[np.isfinite(scan[:, 0])].mean(axis=0) for scan in scans])


def test_mean_and_spread_are_those_of_all_training_scans_in_one_place():
    pooled = pool_standardisation({name: own_sums(name) for name in DATA}, Asked.by(NETWORK))
    assert pooled.scan_cases == 18
    np.testing.assert_allclose(pooled.scan_mean, means_of_all().mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled.scan_scale, means_of_all().std(axis=0), rtol=1e-5)


def test_the_federation_in_one_process_begins_with_them_and_never_trains_them():
    start, best = start_weights(SPEC, DATA), average_federated(SPEC, DATA)
    for name, expected in (("scan_mean", means_of_all().mean(axis=0)), ("scan_scale", means_of_all().std(axis=0))):
        np.testing.assert_allclose(start[name], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(best.weights[name], start[name])
    assert not np.array_equal(best.weights["scorers.1.0.weight"], start["scorers.1.0.weight"])


def refusal(n_samples: int = 12, **changes: Any) -> str:
    answer = Answer({"client_name": "a", **meta(mhsev_n_samples=n_samples)}, {**own_sums("a"), **changes})
    return sort_answers(["a"], [answer], "f", OWN, 4, Asked.by(NETWORK))[1].get("a", "")


def test_moments_of_scans_pass():
    assert refusal() == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({Moments.SCAN_MEAN: None}, "sent no moments of its scans, which this job asks for"),
        ({Moments.SCAN_MEAN: np.array(["DOE^JANE"] * 4)}, "sent no moments of its scans"),
        ({Moments.SCAN_SQUARED_DEVIATION: np.ones(4, dtype=complex)}, "sent no moments of its scans"),
        ({Moments.SCAN_MEAN: np.zeros(3)}, "shapes do not fit 4 features"),
        ({Moments.SCAN_N: np.array(6.0)}, "shapes do not fit 4 features"),
        ({Moments.SCAN_MEAN: np.full(4, np.nan)}, "moments of scans that are not finite"),
        ({Moments.SCAN_N: np.array([np.inf])}, "moments of scans that are not finite"),
        ({Moments.SCAN_N: np.array([0.0])}, "moments of scans that cannot be"),
        ({Moments.SCAN_N: np.array([2.5])}, "moments of scans that cannot be"),
        ({Moments.SCAN_SQUARED_DEVIATION: np.full(4, -1.0)}, "moments of scans that cannot be"),
    ],
)
def test_moments_that_cannot_be_are_refused_by_name(changes, reason):
    assert reason in refusal(**changes)
    assert "DOE" not in refusal(**changes)


def test_moments_of_more_scans_than_the_site_has_are_refused():
    assert refusal(n_samples=5) == "sent moments of more scans than it has"


def test_a_job_that_asks_for_none_takes_none():
    assert sort_answers(["a"], [Answer({"client_name": "a", **meta()}, sums())], "f", OWN, 3)[1] == {}
    alone = CandidateMLP(4, [6], 1, 4, [1, 6, 11], 0.0, 0.0, 1.0, 0.0, "scan", [3], 8.0, 1)
    assert Moments.SCAN_N not in site_sums(alone, DATA["a"], PAPER_SCALE)


def test_the_payload_guard_lets_them_out_and_nothing_else_of_their_name():
    rules = task_rules("a")
    message = {"kind": "WEIGHTS", "data": own_sums("b"), "meta": {}}
    assert payload_complaint(TASK_STANDARDISE, message, rules) == ""
    message["data"][Moments.SCAN_MEAN] = "DOE^JANE"
    assert "scan_mean" in payload_complaint(TASK_STANDARDISE, message, rules)
