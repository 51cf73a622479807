"""The aggregator that FLARE calls: gates, then a rule; the numbers are in ``weighting.py`` and ``robust.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator

from mhsev_flare.anomalies import Oddity
from mhsev_flare.combination import MEAN, Combination, TooFewUpdatesError
from mhsev_flare.gates import ExpectedUpdate, refusal, weights_digest
from mhsev_flare.protocol import Meta
from mhsev_flare.running_mean import RunningMean


class RefusedUpdateError(ValueError):
    """An update that must not enter the average; the message names the site and the reason."""


@dataclass
class Contribution:
    """What one site sent in a round, for the rule and for the ledger.

    Attributes:
        oddity: how it lay beside the others; None where the rule does not keep updates, or it was refused before.
        share: of the average, 0 to 1; 0 if refused. What a rule that does not weigh makes of it is not in it.
    """

    site: str
    n_samples: int = 0
    accepted: bool = False
    reason: str = ""
    update: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    oddity: Oddity | None = None
    share: float = 0.0


class SeverityAggregator(ModelAggregator):
    """One update out of the sites', by a rule that ``rule`` names, after gates that refuse what must not enter.

    An update is refused by itself, by name and with the reason, if a value is not finite, a key, shape or dtype is not
    the model's, it comes from another feature schema, protocol, round or starting point, repeats an earlier one, or
    brings another number of cases than the site told in the handshake. The rule ``clip`` (default) and the robust ones
    further look at updates beside each other: see ``mhsev_flare.anomalies``. The round goes on without what is refused.

    Updates are sorted by site before they are combined, since FLARE hands them over in order of arrival and sums of
    floating-point numbers depend on it. The rule ``mean`` keeps only their running sum, so that memory does not grow
    with sites; it cannot look at updates beside each other.

    Args:
        weighting, rule, tolerated, norm_limit, norm_gate, opposition, max_weight_ratio: those of
            ``mhsev_flare.combination.Combination``.

    Raises:
        ValueError: if a name is unknown or a number outside its range.
    """

    _always_serialize_args = (
        "weighting",
        "rule",
        "tolerated",
        "norm_limit",
        "norm_gate",
        "opposition",
        "max_weight_ratio",
    )

    def __init__(
        self,
        weighting: str = "samples",
        rule: str = "clip",
        tolerated: int = 0,
        norm_limit: float = 2.0,
        norm_gate: float = 20.0,
        opposition: float = 0.2,
        max_weight_ratio: float = 3.0,
    ) -> None:
        super().__init__()
        self.weighting = weighting
        self.rule = rule
        self.tolerated = tolerated
        self.norm_limit = norm_limit
        self.norm_gate = norm_gate
        self.opposition = opposition
        self.max_weight_ratio = max_weight_ratio
        self._combination = Combination(weighting, rule, tolerated, norm_limit, norm_gate, opposition, max_weight_ratio)
        self._expected: ExpectedUpdate | None = None
        self._contributions: list[Contribution] = []
        self._running = RunningMean()
        self._seen: set[str] = set()

    def start(self, n_sites: int) -> None:
        """Begin a study with ``n_sites``.

        Raises:
            ValueError: if the rule cannot tolerate what it is asked to among so many.
        """
        self._combination.check(n_sites)
        self._seen = set()

    def expect(self, expected: ExpectedUpdate) -> None:
        """Say what an acceptable update of the coming round looks like."""
        self._expected = expected

    def accept_model(self, model: FLModel) -> None:
        """Take one site's update into the round.

        Raises:
            RefusedUpdateError: if it fails a gate. FLARE logs it and goes on with the other sites.
        """
        meta = dict(model.meta or {})
        contribution = Contribution(site=str(meta.get("client_name", "unnamed site")), meta=meta)
        if any(known.site == contribution.site for known in self._contributions):
            raise RefusedUpdateError(f"{contribution.site}: a second update in one round")
        self._contributions.append(contribution)
        reason = self._refusal(model, meta, contribution.site)
        if reason:
            contribution.reason = reason
            raise RefusedUpdateError(f"{contribution.site}: {reason}")
        contribution.accepted = True
        contribution.n_samples = int(meta[Meta.N_SAMPLES])
        if self.rule == MEAN:
            self._running.add(model.params, self._raw_weight(contribution))
        else:
            contribution.update = {key: np.asarray(value) for key, value in model.params.items()}

    def _refusal(self, model: FLModel, meta: Mapping[str, Any], site: str) -> str:
        if self._expected is None:
            return "the server has not said which model it expects"
        if model.params_type != ParamsType.DIFF:
            return "full weights where weight differences are expected"
        reason = refusal(model.params, meta, site, self._expected)
        if reason:
            return reason
        digest = f"{site} {weights_digest(model.params)}"
        if digest in self._seen:
            return "the very update that it sent in an earlier round"
        self._seen.add(digest)
        return ""

    def aggregate_model(self) -> FLModel:
        """What the rule makes of the accepted updates.

        Raises:
            RefusedUpdateError: if too few are left for the rule; the last good model stays.
        """
        kept = [c for c in self.contributions() if c.accepted]
        try:
            params = self._mean(kept) if self.rule == MEAN else self._combined(kept)
        except TooFewUpdatesError as error:
            reasons = "; ".join(f"{c.site}: {c.reason}" for c in self.contributions() if not c.accepted)
            raise RefusedUpdateError(f"{error} ({reasons or 'the others sent none'})") from error
        return FLModel(params=params, params_type=ParamsType.DIFF, meta={})

    def _mean(self, kept: list[Contribution]) -> dict[str, np.ndarray]:
        if not kept:
            raise TooFewUpdatesError(f"0 acceptable updates in this round are too few for {self.rule}")
        weights = self._combination.weights([c.n_samples for c in kept], self._all_cases())
        for contribution, weight in zip(kept, weights, strict=True):
            contribution.share = float(weight)
        # The running sum holds weights that are not normalised; both kinds are proportional.
        return self._running.result(sum(map(self._raw_weight, kept)) / float(weights.sum()))

    def _combined(self, kept: list[Contribution]) -> dict[str, np.ndarray]:
        cases, n_refused = [c.n_samples for c in kept], len(self._contributions) - len(kept)
        combined = self._combination.combine([c.update for c in kept], cases, self._all_cases(), n_refused)
        for contribution, oddity, share in zip(kept, combined.oddities, combined.shares, strict=True):
            contribution.oddity, contribution.share, contribution.update = oddity, share, {}
            if oddity is not None and oddity.reason:
                contribution.accepted, contribution.reason = False, oddity.reason
        return combined.update

    def _all_cases(self) -> list[int]:
        """As told in the handshake; without one, no number is limited."""
        return list(self._expected.cases.values()) if self._expected else []

    def _raw_weight(self, contribution: Contribution) -> float:
        return self._combination.raw_weight(contribution.n_samples, self._all_cases())

    def contributions(self) -> tuple[Contribution, ...]:
        """This round's contributions, refused ones included, sorted by site."""
        return tuple(sorted(self._contributions, key=lambda c: c.site))

    def reset_stats(self) -> None:
        """Forget the round."""
        self._contributions = []
        self._running = RunningMean()
