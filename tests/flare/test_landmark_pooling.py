"""Nyul's landmarks in the handshake: one scale for all sites, from sums alone, in one process and in FLARE's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_site import VolumesOfFile
from test_handshake import OWN, Answer, meta, sums
from tiny_study import SITES, make_sites, simulate, tiny_spec

from mhsev_flare.benchmark.averaging import average_federated, start_weights
from mhsev_flare.handshake import Admission, sort_answers
from mhsev_flare.landmark_pooling import pool_landmarks
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.payload_rules import payload_complaint, task_rules
from mhsev_flare.protocol import TASK_STANDARDISE, Moments
from mhsev_flare.site import DERIVATIVES, SiteFolders, load_site_data
from mhsev_flare.site_data import SiteData
from mhsev_flare.site_sums import site_sums
from mhsev_flare.standardisation import Asked
from mhsev_monai.preprocess.functional import LandmarkSums, landmarks, standard_scale
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures
from mhsev_monai.volume_network import SeverityCNN3d
from mhsev_monai.volume_scale import even_scale

BACKBONE = {"_target_": "resnet10", "widen_factor": 0.125, "conv1_t_stride": 2, "norm": ["group", {"num_groups": 4}]}
NETWORK = SeverityCNN3d(2, BACKBONE, (), 4, 1, nyul=True)
SPEC = tiny_spec(name="nyul", inputs=VolumesOfFile(), network=NETWORK, num_rounds=2, epochs=1, batch_size=8)


def cases(seed: int, n: int) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    volumes = rng.gamma(3.0, size=(n, 10, 12, 8, 2)).astype(np.float32)
    volumes[:, :, 0] = np.nan
    return LabelledFeatures(torch.from_numpy(volumes), torch.tensor(rng.integers(0, 20, n), dtype=torch.float32))


DATA = {
    name: SiteData(cases(seed, n), cases(seed + 10, 3), cases(seed + 20, 3), excluded={})
    for seed, (name, n) in enumerate([("a", 6), ("b", 9), ("c", 3)])
}


def own_sums(name: str) -> dict[str, np.ndarray]:
    return site_sums(NETWORK, DATA[name], PAPER_SCALE)


def scale_of_cases(volumes: torch.Tensor) -> np.ndarray:
    """Of all cases in one place."""
    found = [[landmarks(v[..., c].float(), torch.isfinite(v[..., c])) for v in volumes] for c in range(2)]
    return np.array([standard_scale([LandmarkSums.of(channel)]) for channel in found])


def test_the_scale_is_that_of_all_cases_in_one_place_and_a_site_with_three_tells_none():
    scale, n = pool_landmarks({name: own_sums(name) for name in DATA}, 2)
    together = torch.cat([DATA["a"].train.features, DATA["b"].train.features])
    np.testing.assert_allclose(scale, scale_of_cases(together), rtol=1e-6)
    assert n == [15, 15]
    assert own_sums("c")[Moments.LANDMARK_CASES].tolist() == [0, 0]


def test_where_nobody_tells_any_the_scale_is_even():
    scale, n = pool_landmarks({"c": own_sums("c")}, 2)
    np.testing.assert_array_equal(scale, even_scale(2).numpy())
    assert n == [0, 0]


def test_the_federation_in_one_process_begins_with_the_scale_and_never_trains_it():
    start = start_weights(SPEC, DATA)
    pooled, _ = pool_landmarks({name: own_sums(name) for name in DATA}, 2)
    np.testing.assert_array_equal(start["standard_scale"], pooled)
    best = average_federated(SPEC, DATA)
    np.testing.assert_array_equal(best.weights["standard_scale"], pooled)
    assert not np.array_equal(best.weights["layers.conv1.weight"], start["layers.conv1.weight"])


def answered(site: str = "a", n_samples: int = 6, **changes: Any) -> Answer:
    return Answer({"client_name": site, **meta(mhsev_n_samples=n_samples)}, {**own_sums("a"), **changes})


def refusal(answer: Answer) -> str:
    return sort_answers(["a"], [answer], "f", OWN, 2, Asked(landmark_channels=2))[1].get("a", "")


def test_sums_of_landmarks_pass():
    assert refusal(answered()) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({Moments.LANDMARK_SUMS: None}, "sent no sums of landmarks, which this job asks for"),
        ({Moments.LANDMARK_CASES: np.array(["DOE^JANE", "x"])}, "sent no sums of landmarks"),
        ({Moments.LANDMARK_CASES: np.array([6.0 + 1.0j, 6.0])}, "sent no sums of landmarks"),
        ({Moments.LANDMARK_SUMS: np.ones((2, 11), dtype=complex)}, "sent no sums of landmarks"),
        ({Moments.LANDMARK_CASES: np.array([np.inf, 6.0])}, "no whole number of them"),
        ({Moments.LANDMARK_CASES: np.array([6.0])}, "shapes do not fit 2 channels"),
        ({Moments.LANDMARK_SUMS: np.zeros(22)}, "shapes do not fit 2 channels"),
        ({Moments.LANDMARK_CASES: np.array([4.0, 6.0])}, "landmarks of fewer than 5 cases"),
        ({Moments.LANDMARK_CASES: np.array([5.5, 6.0])}, "no whole number of them"),
        ({Moments.LANDMARK_CASES: np.array([np.nan, 6.0])}, "no whole number of them"),
        ({Moments.LANDMARK_CASES: np.array([7.0, 6.0])}, "sums that cannot be those of landmarks"),
        ({Moments.LANDMARK_SUMS: np.full((2, 11), np.nan)}, "sums that cannot be those of landmarks"),
    ],
)
def test_sums_that_cannot_be_are_refused_by_name(changes, reason):
    assert reason in refusal(answered(**changes))
    assert "DOE" not in refusal(answered(**changes))


def test_landmarks_of_more_cases_than_the_site_has_are_refused():
    assert refusal(answered(n_samples=5)) == "sent landmarks of more cases than it has"


def test_a_job_that_asks_for_none_takes_none():
    assert sort_answers(["a"], [Answer({"client_name": "a", **meta()}, sums())], "f", OWN, 3)[1] == {}


def test_the_result_says_over_how_many_cases_each_scale_stands():
    result: dict[str, Any] = {}
    admission = Admission("f", 2, OWN, 1, RoundPolicy(min_sites=1), beside=Asked(landmark_channels=2))
    admitted = admission.admit(["a"], [answered()], result, lambda line: None)
    assert result["landmark_cases"] == [6, 6]
    np.testing.assert_allclose(admitted.buffers["standard_scale"], scale_of_cases(DATA["a"].train.features), rtol=1e-6)


def test_the_payload_guard_lets_them_out_and_nothing_else_of_their_name():
    rules = task_rules("a")
    message = {"kind": "WEIGHTS", "data": own_sums("b"), "meta": {}}
    assert payload_complaint(TASK_STANDARDISE, message, rules) == ""
    message["data"][Moments.LANDMARK_SUMS] = "DOE^JANE"
    assert "landmark_sums" in payload_complaint(TASK_STANDARDISE, message, rules)


@pytest.mark.slow
def test_flare_s_own_processes_agree_on_the_scale_of_all_training_cases(tmp_path):
    """Real sites and server: the saved model holds the scale of the pooled training cases, and the result says so."""
    cohort = make_sites(tmp_path / "cohort")
    result, ledger, path = simulate(tmp_path, cohort, SPEC)
    assert result["status"] == "completed", result["reason"]
    assert [len(row["sites"]) for row in ledger] == [3, 3, 0]  # the last row judges alone
    scale = torch.load(path, weights_only=True)["weights"]["standard_scale"]
    train = []
    for site in SITES:
        folders = SiteFolders(cohort / site, cohort / site / DERIVATIVES)
        train.append(load_site_data(site, folders, SPEC.inputs, SPEC.seed, PAPER_SCALE).train.features)
    np.testing.assert_allclose(scale.numpy(), scale_of_cases(torch.cat(train)), rtol=1e-6)
    assert result["landmark_cases"] == [sum(map(len, train))] * 2
