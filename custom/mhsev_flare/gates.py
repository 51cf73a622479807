"""What an update must be before any rule sees it: pure checks, no FLARE.

Each check returns one sentence on what came and what is accepted; it names keys of the server's own model only, since a
key that a site made up may hold anything.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mhsev_flare.analysis.answer_bounds import MOST_CASES_OF_A_SITE
from mhsev_flare.protocol import BUFFERS, PROTOCOL_VERSION, Meta
from mhsev_monai.metrics import SeverityTable

MOST_LOSS = 1e6
"""A mean loss beyond this is no loss of these networks, and would decide the choice of the best round for all."""


def weights_digest(weights: Mapping[str, Any]) -> str:
    """SHA-256 over keys in order and float32 values: names the weights from which a site trained, or an update."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(weights[key], dtype=np.float32).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ExpectedUpdate:
    """What the server knows of an acceptable update.

    Attributes:
        shapes: of every entry, by key.
        fingerprint: of the feature schema.
        round_number: of the round that is under way.
        base: ``weights_digest`` of the weights that were sent in it; empty where it is not checked.
        cases: training cases by site, as each said in the handshake; empty where they are not checked.
        controls: whether changes of control variates must come with it.
        validation_cases: at most, by site, as each said in the handshake; of the sites that said a number or a range.
    """

    shapes: Mapping[str, tuple[int, ...]]
    fingerprint: str
    round_number: int = 0
    base: str = ""
    cases: Mapping[str, int] = field(default_factory=dict)
    controls: bool = False
    validation_cases: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def shapes_of(model: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """Keys and shapes of ``model`` less its buffers, which training never changes."""
        return {key: np.shape(value) for key, value in model.items() if key not in BUFFERS}


def refusal(params: Mapping[str, Any], meta: Mapping[str, Any], site: str, expected: ExpectedUpdate) -> str:
    """Why an update is refused by itself, without a look at the others; empty where it is not.

    Args:
        params: arrays that came, weight differences.
        meta: values that came with them.
        site: who sent it.
        expected: what is accepted.
    """
    return meta_refusal(meta, site, expected) or array_refusal(params, expected) or _control_refusal(meta, expected)


def meta_refusal(meta: Mapping[str, Any], site: str, expected: ExpectedUpdate) -> str:
    """Why an update is refused for what comes beside its arrays; empty where it is not. See :func:`refusal`."""
    return (
        _schema_refusal(meta, expected)
        or _moment_refusal(meta, expected)
        or _samples_refusal(meta, site, expected)
        or table_refusal(meta, expected.validation_cases.get(site))
        or _evaluation_refusal(meta)
    )


def _schema_refusal(meta: Mapping[str, Any], expected: ExpectedUpdate) -> str:
    if meta.get(Meta.PROTOCOL) != PROTOCOL_VERSION:
        return f"protocol {told(meta.get(Meta.PROTOCOL))} where {PROTOCOL_VERSION} is spoken; use one mhsev everywhere"
    if meta.get(Meta.FINGERPRINT) != expected.fingerprint:
        return "features of another schema or with other parameters; install the same mhsev everywhere"
    return ""


def _moment_refusal(meta: Mapping[str, Any], expected: ExpectedUpdate) -> str:
    if not expected.base:
        return ""
    if meta.get(Meta.ROUND) != expected.round_number:
        return f"an update of round {told(meta.get(Meta.ROUND))} where round {expected.round_number} is under way"
    if meta.get(Meta.BASE) != expected.base:
        return "an update of other weights than were sent in this round"
    return ""


def _samples_refusal(meta: Mapping[str, Any], site: str, expected: ExpectedUpdate) -> str:
    samples = meta.get(Meta.N_SAMPLES)
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        return "a number of training cases that is not a positive whole number"
    if not expected.cases:
        return ""
    if site not in expected.cases:
        return "an update of a site that did not pass the handshake"
    if samples != expected.cases[site]:
        return f"{samples} training cases where it had {expected.cases[site]} in the handshake"
    return ""


def table_refusal(meta: Mapping[str, Any], told: int | None) -> str:
    """Why the evaluation table of an answer cannot be pooled; empty where it can.

    Tables of more cases than any study has do not add up, so one site's would end the sum of all.

    Args:
        meta: of the answer.
        told: most cases of its split by what it said in the handshake; None where it said neither number nor range.
    """
    try:
        n = SeverityTable.from_json(meta.get(Meta.TABLE, {})).n
    except (ValueError, TypeError, OverflowError):
        return "an evaluation table that is not one"
    if n > MOST_CASES_OF_A_SITE:
        return f"an evaluation table of {n} cases, where a site has {MOST_CASES_OF_A_SITE} at most"
    if told is not None and n > told:
        return f"an evaluation table of {n} cases, where it had {told} at most in the handshake"
    return ""


def _evaluation_refusal(meta: Mapping[str, Any]) -> str:
    # A site that trains privately keeps its training loss.
    train_loss = meta.get(Meta.TRAIN_LOSS)
    if not (train_loss is None or is_number(train_loss)) or not is_number(meta.get(Meta.VALIDATION_LOSS)):
        return "losses that are not finite numbers"
    if abs(meta[Meta.VALIDATION_LOSS]) > MOST_LOSS:
        return f"a validation loss beyond {MOST_LOSS:g}"
    spent = meta.get(Meta.EPSILON)
    if not (spent is None or (is_number(spent) and spent >= 0)):
        return "an epsilon that is not a number from 0 up"
    return ""


def array_refusal(params: Mapping[str, Any], expected: ExpectedUpdate) -> str:
    """Why an update's arrays are not those of the model; empty where they are."""
    missing = sorted(set(expected.shapes) - set(params))
    n_odd = len(set(params) - set(expected.shapes))
    if missing or n_odd:
        return (
            f"keys that differ from the model's: {n_odd} are not of the model, missing: {', '.join(missing) or 'none'}"
        )
    for key, shape in expected.shapes.items():
        reason = _value_refusal(params[key], shape)
        if reason:
            return f"{key} {reason}"
    return ""


def _value_refusal(value: Any, shape: tuple[int, ...]) -> str:
    if not isinstance(value, np.ndarray):
        return "is no array of numbers"
    if value.shape != shape:
        return f"has shape {value.shape} where {shape} is expected"
    if not np.issubdtype(value.dtype, np.floating):
        # The name of a structured dtype is made of its fields' names.
        kind = value.dtype.name if value.dtype.kind in "biuc" else "something"
        return f"holds {kind} where floating-point numbers are expected"
    # What is finite in double precision need not be in that of the model.
    with np.errstate(over="ignore"):
        finite = bool(np.isfinite(value.astype(np.float32)).all())
    return "" if finite else "holds values that are not finite"


def _control_refusal(meta: Mapping[str, Any], expected: ExpectedUpdate) -> str:
    if not expected.controls:
        return ""
    deltas = meta.get(Meta.CONTROL_DELTAS)
    if not isinstance(deltas, Mapping) or not deltas or not set(deltas) <= set(expected.shapes):
        return "changes of control variates that do not belong to this model, or none"
    for key, value in deltas.items():
        reason = _value_refusal(value, expected.shapes[key])
        if reason:
            return f"the change of the control variate of {key} {reason}"
    return ""


def told(value: Any) -> str:
    """A value that a site sent, where it is a short number or version; it may else hold anything."""
    if value is None:
        return "None"
    return str(value) if re.fullmatch(r"[0-9][0-9a-z.+]{0,31}", str(value)) else "of no known form"


def is_number(value: Any) -> bool:
    """Whether a value is one finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False
