"""What is refused by itself: every reason, in words that hold nothing a site made up."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mhsev_flare.gates import ExpectedUpdate, array_refusal, is_number, refusal, weights_digest
from mhsev_flare.protocol import BUFFERS, PROTOCOL_VERSION, Meta
from mhsev_monai.metrics import SeverityTable

CANARY = "DOE^JANE_19500101"
SHAPES = {"w": (2, 3), "b": (2,)}
EXPECTED = ExpectedUpdate(
    SHAPES, fingerprint="f", round_number=4, base="digest", cases={"site-1": 30, "site-2": 12}, controls=True
)


def params(**changes: Any) -> dict[str, Any]:
    return {**{key: np.zeros(shape, np.float32) for key, shape in SHAPES.items()}, **changes}


def meta(**changes: Any) -> dict[str, Any]:
    good = {
        Meta.PROTOCOL: PROTOCOL_VERSION,
        Meta.FINGERPRINT: "f",
        Meta.ROUND: 4,
        Meta.BASE: "digest",
        Meta.N_SAMPLES: 30,
        Meta.TABLE: SeverityTable.empty().to_json(),
        Meta.TRAIN_LOSS: 0.5,
        Meta.VALIDATION_LOSS: -0.7,  # a negative log-likelihood
        Meta.CONTROL_DELTAS: params(),
    }
    return {**good, **changes}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in meta().items() if key != name}


def deltas(**changes: Any) -> dict[str, Any]:
    return meta(**{Meta.CONTROL_DELTAS: params(**changes)})


def test_an_update_that_fits_is_not_refused():
    assert refusal(params(), meta(), "site-1", EXPECTED) == ""
    assert refusal(params(w=np.ones((2, 3), np.float64)), meta(), "site-1", EXPECTED) == ""


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (meta(**{Meta.PROTOCOL: 1}), "protocol 1 where 3 is spoken; use one mhsev everywhere"),
        (without(Meta.PROTOCOL), "protocol None where 3 is spoken; use one mhsev everywhere"),
        (
            meta(**{Meta.FINGERPRINT: "g"}),
            "features of another schema or with other parameters; install the same mhsev everywhere",
        ),
        (meta(**{Meta.ROUND: 3}), "an update of round 3 where round 4 is under way"),
        (meta(**{Meta.ROUND: 5}), "an update of round 5 where round 4 is under way"),
        (without(Meta.ROUND), "an update of round None where round 4 is under way"),
        (meta(**{Meta.BASE: "other"}), "an update of other weights than were sent in this round"),
        (without(Meta.BASE), "an update of other weights than were sent in this round"),
        *(
            (meta(**{Meta.N_SAMPLES: n}), "a number of training cases that is not a positive whole number")
            for n in (0, -3, 2.5, 30.0, True, "30", None)
        ),
        (meta(**{Meta.N_SAMPLES: 31}), "31 training cases where it had 30 in the handshake"),
        (meta(**{Meta.N_SAMPLES: 12}), "12 training cases where it had 30 in the handshake"),  # another site's
        *((meta(**{Meta.TABLE: t}), "an evaluation table that is not one") for t in ({}, None, [], {"n": 1})),
        (without(Meta.TABLE), "an evaluation table that is not one"),
        *(
            (meta(**{name: loss}), "losses that are not finite numbers")
            for name in (Meta.TRAIN_LOSS, Meta.VALIDATION_LOSS)
            for loss in (float("nan"), float("-inf"), "0.5", True)
        ),
        (without(Meta.VALIDATION_LOSS), "losses that are not finite numbers"),
    ],
)
def test_what_came_with_an_update_is_refused_with_its_reason(bad, reason):
    assert refusal(params(), bad, "site-1", EXPECTED) == reason


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({}, "keys that differ from the model's: 0 are not of the model, missing: b, w"),
        ({"b": np.zeros(2)}, "keys that differ from the model's: 0 are not of the model, missing: w"),
        (params(x=np.zeros(1)), "keys that differ from the model's: 1 are not of the model, missing: none"),
        (
            {"w": np.zeros((2, 3)), "y": 1, "x": 1},
            "keys that differ from the model's: 2 are not of the model, missing: b",
        ),
        (params(w=np.zeros((3, 2))), "w has shape (3, 2) where (2, 3) is expected"),
        (params(b=np.float32(1)), "b is no array of numbers"),
        (params(b=np.zeros(2, np.int32)), "b holds int32 where floating-point numbers are expected"),
        (params(b=np.zeros(2, bool)), "b holds bool where floating-point numbers are expected"),
        (params(b=np.zeros(2, complex)), "b holds complex128 where floating-point numbers are expected"),
        (params(b=np.array([0, np.nan], np.float32)), "b holds values that are not finite"),
        (params(w=np.full((2, 3), -np.inf)), "w holds values that are not finite"),
    ],
)
def test_arrays_that_are_not_the_models_are_refused_with_their_reason(bad, reason):
    assert array_refusal(bad, EXPECTED) == reason
    assert refusal(bad, meta(), "site-1", EXPECTED) == reason


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (without(Meta.CONTROL_DELTAS), "changes of control variates that do not belong to this model, or none"),
        (
            meta(**{Meta.CONTROL_DELTAS: [np.zeros(2)]}),
            "changes of control variates that do not belong to this model, or none",
        ),
        (deltas(x=np.zeros(1)), "changes of control variates that do not belong to this model, or none"),
        (
            deltas(b=np.zeros(3)),
            "the change of the control variate of b has shape (3,) where (2,) is expected",
        ),
        (
            deltas(w=np.full((2, 3), np.nan)),
            "the change of the control variate of w holds values that are not finite",
        ),
    ],
)
def test_control_variates_are_checked_where_they_must_come(bad, reason):
    assert refusal(params(), bad, "site-1", EXPECTED) == reason
    assert refusal(params(), bad, "site-1", dataclasses.replace(EXPECTED, controls=False)) == ""


def test_a_site_that_trains_privately_keeps_its_training_loss():
    assert refusal(params(), without(Meta.TRAIN_LOSS), "site-1", EXPECTED) == ""
    assert refusal(params(), meta(**{Meta.TRAIN_LOSS: None}), "site-1", EXPECTED) == ""


def test_frozen_layers_need_no_control_variate():
    only_one = meta(**{Meta.CONTROL_DELTAS: {"b": np.ones(2, np.float32)}})
    assert refusal(params(), only_one, "site-1", EXPECTED) == ""


def test_what_float32_cannot_hold_is_not_finite():
    assert refusal(params(b=np.array([1e300, 0.0])), meta(), "site-1", EXPECTED) == "b holds values that are not finite"


@pytest.mark.parametrize("spent", [float("nan"), -1.0, "DOE^JANE", 10**400])
def test_an_epsilon_is_a_number_or_nothing(spent):
    reason = refusal(params(), meta(**{Meta.EPSILON: spent}), "site-1", EXPECTED)
    assert reason == "an epsilon that is not a number from 0 up"
    assert refusal(params(), meta(**{Meta.EPSILON: 2.5}), "site-1", EXPECTED) == ""


@pytest.mark.parametrize("bad", [[[1.0], [1.0, 2.0]], "DOE^JANE", None, np.array(["a", "b"])])
def test_what_is_no_array_of_numbers_gets_a_sentence_too(bad):
    assert "DOE" not in refusal(params(b=bad), meta(), "site-1", EXPECTED) != ""


def test_a_site_that_was_not_in_the_handshake_is_refused():
    assert "did not pass the handshake" in refusal(params(), meta(), "site-9", EXPECTED)


def test_round_and_base_are_checked_where_a_base_is_known():
    unchecked = dataclasses.replace(EXPECTED, base="")
    assert refusal(params(), without(Meta.ROUND), "site-1", unchecked) == ""


def judged_cases(n: int) -> dict[str, Any]:
    """A table of ``n`` cases without a bleed, all graded so and all but sure."""
    probabilities = np.tile([0.97, 0.01, 0.01, 0.01], (n, 1))
    return SeverityTable.from_predictions(probabilities, np.zeros(n), np.zeros(n), np.zeros(n, int)).to_json()


@pytest.mark.parametrize(
    ("n", "told", "reason"),
    [
        (20, {}, ""),
        (20, {"site-1": 20}, ""),
        (10, {"site-1": 20, "site-2": 5}, ""),  # another site's number is no matter
        (21, {"site-1": 20}, "an evaluation table of 21 cases, where it had 20 at most in the handshake"),
        (100_000, {}, ""),
        (100_001, {}, "an evaluation table of 100001 cases, where a site has 100000 at most"),
    ],
)
def test_a_table_holds_no_more_cases_than_a_site_can_have(n, told, reason):
    expected = dataclasses.replace(EXPECTED, validation_cases=told)
    assert refusal(params(), meta(**{Meta.TABLE: judged_cases(n)}), "site-1", expected) == reason


def test_numbers_of_cases_are_those_of_the_very_site():
    assert refusal(params(), meta(**{Meta.N_SAMPLES: 12}), "site-2", EXPECTED) == ""
    assert "30 training cases where it had 12" in refusal(params(), meta(), "site-2", EXPECTED)
    assert refusal(params(), meta(**{Meta.N_SAMPLES: 99}), "site-1", dataclasses.replace(EXPECTED, cases={})) == ""


@pytest.mark.parametrize(
    ("bad_params", "bad_meta"),
    [
        (params(**{CANARY: np.zeros(1)}), meta()),
        ({CANARY: np.zeros(1)}, meta()),
        (params(**{CANARY: np.full(1, np.nan)}), meta()),
        (params(), deltas(**{CANARY: np.zeros(1)})),
        (params(), meta(**{Meta.CONTROL_DELTAS: {CANARY: np.zeros(1)}})),
        (params(), meta(**{Meta.CONTROL_DELTAS: CANARY})),
        (params(), meta(**{Meta.TABLE: {CANARY: 1}})),
        (params(), meta(**{Meta.TABLE: CANARY})),
        (params(), meta(**{Meta.TRAIN_LOSS: CANARY})),
        (params(), meta(**{Meta.N_SAMPLES: CANARY})),
        (params(), meta(**{Meta.FINGERPRINT: CANARY})),
        (params(), meta(**{Meta.BASE: CANARY})),
        (params(b=np.array([CANARY, CANARY])), meta()),
    ],
)
def test_what_a_site_made_up_never_stands_in_the_sentence(bad_params, bad_meta):
    reason = refusal(bad_params, bad_meta, "site-1", EXPECTED)
    assert reason
    for part in ("DOE", "JANE", "1950"):
        assert part not in reason


def test_what_is_made_up_beside_what_is_expected_does_no_harm():
    assert refusal(params(), meta(**{CANARY: CANARY}), "site-1", EXPECTED) == ""


def test_buffers_are_not_part_of_an_update():
    model = {**params(), **{name: np.zeros(3) for name in BUFFERS}}
    assert ExpectedUpdate.shapes_of(model) == SHAPES


@pytest.mark.parametrize(("value", "is_one"), [(0, True), (-1.5, True), (np.float64(2), True), (False, False)])
def test_a_number_is_finite_and_no_truth_value(value, is_one):
    assert is_number(value) is is_one
    assert not is_number([value])
    assert not is_number(float("inf"))


def test_the_digest_of_weights_does_not_depend_on_the_order_of_keys():
    weights = {"b": np.array([1.5, -2.0], np.float32), "a": np.array([[0.25]], np.float32)}
    turned = dict(reversed(weights.items()))
    assert list(turned) != list(weights)
    assert weights_digest(turned) == weights_digest(weights)


def test_the_digest_is_that_of_the_values_however_they_lie_in_memory():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = weights_digest({"w": values})
    assert weights_digest({"w": np.asfortranarray(values)}) == expected
    assert weights_digest({"w": values.astype(np.float64)}) == expected
    assert weights_digest({"w": np.repeat(values, 2, axis=1)[:, ::2]}) == expected


def test_the_digest_changes_with_every_bit_and_every_key():
    values = np.array([1.5, 0.0, -3.25], np.float32)
    digests = [weights_digest({"w": values}), weights_digest({"v": values}), weights_digest({})]
    for byte in range(values.nbytes):
        for bit in range(8):
            flipped = bytearray(values.tobytes())
            flipped[byte] ^= 1 << bit
            digests.append(weights_digest({"w": np.frombuffer(bytes(flipped), np.float32)}))
    digests.append(weights_digest({"w": values, "v": values}))
    assert len(set(digests)) == len(digests) == 3 + 96 + 1
    assert {len(digest) for digest in digests} == {64}
