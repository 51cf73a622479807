"""The aggregator that FLARE calls: gates, then a weighted mean; the numbers are in ``weighting.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator

from mhsev_flare.protocol import BUFFERS, PROTOCOL_VERSION, Meta
from mhsev_flare.weighting import WEIGHTINGS, weighted_mean
from mhsev_monai.metrics import SeverityTable


class RefusedUpdateError(ValueError):
    """An update that must not enter the average; the message names the site and the reason."""


@dataclass
class Contribution:
    """What one site sent in a round, for the average and for the ledger."""

    site: str
    n_samples: int = 0
    accepted: bool = False
    reason: str = ""
    update: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


class SeverityAggregator(ModelAggregator):
    """Mean of the sites' weight differences, weighted by what ``weighting`` names.

    Contributions are sorted by site before they are added, since FLARE hands them over in order of arrival and sums of
    floating-point numbers depend on it. An update is refused, by name and with the reason, if a value is not finite, a
    key or shape is not the model's, or it comes from another feature schema or protocol; the round goes on without it.

    Args:
        weighting: ``samples`` (N_i / sum N), ``uniform``, ``inverse`` or ``literal``; see ``mhsev_flare.weighting``.
    """

    _always_serialize_args = ("weighting",)

    def __init__(self, weighting: str = "samples") -> None:
        super().__init__()
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {sorted(WEIGHTINGS)}, got {weighting!r}")
        self.weighting = weighting
        self._expected: dict[str, tuple[int, ...]] | None = None
        self._fingerprint = ""
        self._contributions: list[Contribution] = []

    def expect(self, model: Mapping[str, np.ndarray], fingerprint: str) -> None:
        """Say what an acceptable update looks like: keys and shapes of ``model`` less its buffers, and the schema."""
        self._expected = {key: np.shape(value) for key, value in model.items() if key not in BUFFERS}
        self._fingerprint = fingerprint

    def accept_model(self, model: FLModel) -> None:
        """Take one site's update into the round.

        Raises:
            RefusedUpdateError: if it fails a gate. FLARE logs it and goes on with the other sites.
        """
        meta = dict(model.meta or {})
        contribution = Contribution(site=str(meta.get("client_name", "unnamed site")), meta=meta)
        self._contributions.append(contribution)
        reason = self._refusal(model, meta)
        if reason:
            contribution.reason = reason
            raise RefusedUpdateError(f"{contribution.site}: {reason}")
        contribution.accepted = True
        contribution.n_samples = int(meta[Meta.N_SAMPLES])
        contribution.update = {key: np.asarray(value) for key, value in model.params.items()}

    def _refusal(self, model: FLModel, meta: Mapping[str, Any]) -> str:
        if self._expected is None:
            return "the server has not said which model it expects"
        if meta.get(Meta.PROTOCOL) != PROTOCOL_VERSION:
            return f"protocol {meta.get(Meta.PROTOCOL)} where {PROTOCOL_VERSION} is spoken; use one mhsev everywhere"
        if meta.get(Meta.FINGERPRINT) != self._fingerprint:
            return "features of another schema or with other parameters; install the same mhsev everywhere"
        if model.params_type != ParamsType.DIFF:
            return "full weights where weight differences are expected"
        samples = meta.get(Meta.N_SAMPLES)
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
            return f"{samples} training cases where a positive whole number is expected"
        try:
            SeverityTable.from_json(meta.get(Meta.TABLE, {}))
        except ValueError:
            return "an evaluation table that is not one"
        if not _is_number(meta.get(Meta.TRAIN_LOSS)) or not _is_number(meta.get(Meta.VALIDATION_LOSS)):
            return "losses that are not finite numbers"
        return self._array_refusal(model.params)

    def _array_refusal(self, params: Mapping[str, Any]) -> str:
        assert self._expected is not None
        if set(params) != set(self._expected):
            odd = sorted(set(params) ^ set(self._expected))
            return f"keys that differ from the model's: {', '.join(odd)}"
        for key, shape in self._expected.items():
            value = np.asarray(params[key])
            if value.shape != shape:
                return f"{key} has shape {value.shape} where {shape} is expected"
            if not np.issubdtype(value.dtype, np.floating):
                return f"{key} holds {value.dtype} where floating-point numbers are expected"
            if not np.isfinite(value).all():
                return f"{key} holds values that are not finite"
        return ""

    def aggregate_model(self) -> FLModel:
        """The weighted mean of the accepted updates.

        Raises:
            RefusedUpdateError: if no update was accepted; the last good model stays.
        """
        accepted = [c for c in self.contributions() if c.accepted]
        if not accepted:
            reasons = "; ".join(f"{c.site}: {c.reason}" for c in self.contributions()) or "no site sent one"
            raise RefusedUpdateError(f"no acceptable update in this round ({reasons})")
        weights = WEIGHTINGS[self.weighting]([c.n_samples for c in accepted])
        mean = weighted_mean([c.update for c in accepted], weights)
        return FLModel(params=mean, params_type=ParamsType.DIFF, meta={})

    def contributions(self) -> tuple[Contribution, ...]:
        """This round's contributions, refused ones included, sorted by site."""
        return tuple(sorted(self._contributions, key=lambda c: c.site))

    def reset_stats(self) -> None:
        """Forget the round."""
        self._contributions = []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
