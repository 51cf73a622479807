"""The aggregator's gates and its mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

from mhsev_flare.aggregator import RefusedUpdateError, SeverityAggregator
from mhsev_flare.gates import ExpectedUpdate
from mhsev_flare.protocol import PROTOCOL_VERSION, Meta
from mhsev_monai.metrics import SeverityTable

MODEL = {
    "layers.0.weight": np.zeros((2, 3), np.float32),
    "layers.0.bias": np.zeros(2, np.float32),
    "feature_mean": np.zeros(3),
}


def update(site: str, value: float, n: int = 10) -> FLModel:
    params = {k: np.full(v.shape, value, np.float32) for k, v in MODEL.items() if k != "feature_mean"}
    meta = {
        "client_name": site,
        Meta.PROTOCOL: PROTOCOL_VERSION,
        Meta.FINGERPRINT: "f",
        Meta.N_SAMPLES: n,
        Meta.TABLE: SeverityTable.empty().to_json(),
        Meta.TRAIN_LOSS: 0.5,
        Meta.VALIDATION_LOSS: 0.7,
    }
    return FLModel(params=params, params_type=ParamsType.DIFF, meta=meta)


def aggregator(weighting: str = "samples", **arguments: Any) -> SeverityAggregator:
    made = SeverityAggregator(weighting=weighting, **arguments)
    made.expect(ExpectedUpdate(ExpectedUpdate.shapes_of(MODEL), "f"))
    return made


def test_mean_is_weighted_by_cases():
    """(200 * 1 + 180 * 2 + 120 * 4) / 500 = 2.08."""
    made = aggregator()
    for site, value, n in [("a", 1, 200), ("b", 2, 180), ("c", 4, 120)]:
        made.accept_model(update(site, value, n))
    result = made.aggregate_model()
    assert result.params_type == ParamsType.DIFF
    assert set(result.params) == {"layers.0.weight", "layers.0.bias"}
    np.testing.assert_allclose(result.params["layers.0.bias"], 2.08, rtol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "median", "geometric_median"])
def test_order_of_arrival_does_not_change_a_bit(rule):
    values = {"a": 0.1, "b": 1e8, "c": -1e8, "d": 0.3}
    results = []
    for order in ("abcd", "dcba", "cadb"):
        made = aggregator("uniform", rule=rule, norm_gate=np.inf, opposition=1.0)
        for site in order:
            made.accept_model(update(site, values[site]))
        results.append(made.aggregate_model().params["layers.0.weight"])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def with_params(**changes: np.ndarray) -> FLModel:
    model = update("b", 1.0)
    model.params.update(changes)
    return model


def with_meta(**changes: object) -> FLModel:
    model = update("b", 1.0)
    model.meta.update(changes)
    return model


def full_weights() -> FLModel:
    model = update("b", 1.0)
    model.params_type = ParamsType.FULL
    return model


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            with_params(**{"layers.0.bias": np.array([np.nan, 0], np.float32)}),
            "layers.0.bias holds values that are not finite",
        ),
        (with_params(**{"layers.0.bias": np.array([np.inf, 0], np.float32)}), "not finite"),
        (with_params(**{"layers.0.bias": np.zeros(3, np.float32)}), r"shape \(3,\) where \(2,\)"),
        (with_params(extra=np.zeros(1, np.float32)), "keys that differ from the model's: 1 are not"),
        (with_params(feature_mean=np.zeros(3, np.float32)), "keys that differ from the model's: 1 are not"),
        (with_params(**{"layers.0.bias": np.zeros(2, np.int64)}), "int64"),
        (with_meta(**{Meta.FINGERPRINT: "g"}), "features of another schema"),
        (with_meta(**{Meta.PROTOCOL: 0}), "protocol 0 where 3 is spoken"),
        (with_meta(**{Meta.N_SAMPLES: 0}), "not a positive whole number"),
        (with_meta(**{Meta.N_SAMPLES: 2.5}), "not a positive whole number"),
        (with_meta(**{Meta.N_SAMPLES: True}), "not a positive whole number"),
        (with_meta(**{Meta.TABLE: {"confusion": []}}), "evaluation table"),
        (with_meta(**{Meta.TRAIN_LOSS: float("nan")}), "losses that are not finite"),
        (full_weights(), "full weights"),
    ],
)
def test_a_bad_update_is_refused_by_name_and_the_others_go_on(bad, words):
    made = aggregator()
    made.accept_model(update("a", 1.0))
    with pytest.raises(RefusedUpdateError, match=f"^b: .*{words}"):
        made.accept_model(bad)
    made.accept_model(update("c", 3.0))
    np.testing.assert_allclose(made.aggregate_model().params["layers.0.bias"], 2.0)
    assert [(c.site, c.accepted, bool(c.reason)) for c in made.contributions()] == [
        ("a", True, False),
        ("b", False, True),
        ("c", True, False),
    ]


def test_a_round_without_acceptable_update_fails_with_the_reasons():
    made = aggregator()
    with pytest.raises(RefusedUpdateError):
        made.accept_model(with_meta(**{Meta.FINGERPRINT: "g"}))
    with pytest.raises(RefusedUpdateError, match=r"0 acceptable updates .*too few for clip .b: features"):
        made.aggregate_model()


def test_each_round_starts_empty():
    made = aggregator()
    made.accept_model(update("a", 1.0))
    made.reset_stats()
    made.accept_model(update("a", 5.0))
    np.testing.assert_allclose(made.aggregate_model().params["layers.0.bias"], 5.0)


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="must be one of"):
        SeverityAggregator(weighting="fair")
