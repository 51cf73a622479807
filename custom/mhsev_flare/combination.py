"""From the sites' updates of a round to one: what is refused beside the others, and what the rule makes of the rest.

Pure numbers, no FLARE: the aggregator, the federation in one process and the attacks' table all call this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mhsev_flare.anomalies import Limits, Oddity, judge
from mhsev_flare.robust import RULES, check_tolerance, clip_to_median_norm, flatten, unflatten
from mhsev_flare.weighting import WEIGHTINGS, capped_cases, weighted_mean

MEAN, CLIP = "mean", "clip"

Update = Mapping[str, np.ndarray]


class TooFewUpdatesError(ValueError):
    """What is left of a round's updates is too little for the rule."""


@dataclass(frozen=True)
class Combined:
    """What became of a round.

    Attributes:
        update: the one update, float32.
        oddities: of every update, in the order given; None for each where the rule does not compare them.
        shares: of every update in the average; 0 where it was refused. Rules that do not weigh make no use of them.
    """

    update: dict[str, np.ndarray]
    oddities: tuple[Oddity | None, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Combination:
    """How updates are combined.

    Attributes:
        weighting: ``samples`` (N_i / sum N), ``uniform``, ``inverse`` or ``literal``; see ``mhsev_flare.weighting``.
        rule: ``mean`` (no update is compared with another), ``clip``, or another of ``mhsev_flare.robust.RULES``.
        tolerated: how many sites may lie without harm, the f of robust rules; ``mean`` and ``clip`` do not use it.
        norm_limit: ``clip``: an update longer than this times the median length is cut to the median length.
        norm_gate: an update longer than this times the median length is refused.
        opposition: one whose cosine to more than half of the others is below minus this is refused; 1 never does.
        max_weight_ratio: a site counts for at most this times the median number of cases, whatever it says.

    Raises:
        ValueError: if a name is unknown or a number outside its range.
    """

    weighting: str = "samples"
    rule: str = CLIP
    tolerated: int = 0
    norm_limit: float = 2.0
    norm_gate: float = 20.0
    opposition: float = 0.2
    max_weight_ratio: float = 3.0

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {sorted(WEIGHTINGS)}, got {self.weighting!r}")
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {sorted(RULES)}, got {self.rule!r}")
        if not self.max_weight_ratio >= 1:
            raise ValueError(f"max_weight_ratio must be 1 or more, got {self.max_weight_ratio}")
        if self.tolerated < 0:
            raise ValueError(f"tolerated must be 0 or more, got {self.tolerated}")
        _ = self.limits

    @property
    def limits(self) -> Limits:
        """What is refused beside the others."""
        return Limits(self.norm_limit if self.rule == CLIP else np.inf, self.norm_gate, self.opposition)

    def check(self, n_sites: int) -> None:
        """Raise ``ValueError`` if the rule cannot tolerate what it is asked to among ``n_sites``."""
        check_tolerance(self.rule, n_sites, self.tolerated)

    def weights(self, cases: Sequence[int], all_cases: Sequence[int]) -> np.ndarray:
        """Weight of each site; sums to 1 but for ``literal``.

        Args:
            cases: training cases of the sites that are weighed.
            all_cases: of all sites of the study, whose median limits each.
        """
        return WEIGHTINGS[self.weighting](self._counted(cases, all_cases))

    def raw_weight(self, n_cases: int, all_cases: Sequence[int]) -> float:
        """Proportional to one of ``weights``, whichever other sites answer."""
        counted = self._counted([n_cases], all_cases)[0]
        return {"samples": counted, "uniform": 1.0}.get(self.weighting, 1.0 / counted)

    def _counted(self, cases: Sequence[int], all_cases: Sequence[int]) -> list[float]:
        if self.weighting != "inverse" or not len(all_cases):
            return capped_cases(cases, all_cases, self.max_weight_ratio)
        # Where few cases weigh most, it is a low number that must not be believed without limit.
        least = float(np.median(np.asarray(all_cases, dtype=np.float64))) / self.max_weight_ratio
        return [max(float(n), least) for n in cases]

    def least_updates(self, n_refused: int) -> int:
        """Fewest updates that the rule needs once ``n_refused`` liars were caught: those need no more tolerance."""
        return max(RULES[self.rule].least_sites(max(self.tolerated - n_refused, 0)), 1)

    def combine(
        self, updates: Sequence[Update], cases: Sequence[int], all_cases: Sequence[int], n_refused: int = 0
    ) -> Combined:
        """One update out of those of a round.

        Args:
            updates: equal keys and shapes, finite; in the order of the sites' names.
            cases: training cases of each.
            all_cases: of all sites of the study.
            n_refused: updates of this round that were refused before.

        Raises:
            TooFewUpdatesError: if those that are left are too few for the rule.
        """
        oddities = self._judge(updates)
        kept = [i for i, oddity in enumerate(oddities) if oddity is None or not oddity.reason]
        n_refused += len(updates) - len(kept)
        if len(kept) < self.least_updates(n_refused):
            raise TooFewUpdatesError(f"{len(kept)} acceptable updates in this round are too few for {self.rule}")
        weights = self.weights([cases[i] for i in kept], all_cases)
        combined = self._combine([updates[i] for i in kept], weights, [oddities[i] for i in kept], n_refused)
        shares = np.zeros(len(updates))
        shares[kept] = weights
        return Combined(combined, tuple(oddities), tuple(float(s) for s in shares))

    def _judge(self, updates: Sequence[Update]) -> list[Oddity | None]:
        """Each update beside those that stay: whoever is refused must not be what the others are measured by."""
        if self.rule == MEAN or not updates:
            return [None] * len(updates)
        matrix, _ = flatten(updates)
        oddities: list[Oddity | None] = [None] * len(updates)
        kept = list(range(len(updates)))
        while kept:
            judged = judge(matrix[kept], self.limits)
            for i, oddity in zip(kept, judged, strict=True):
                oddities[i] = oddity
            if not any(oddity.reason for oddity in judged):
                break
            kept = [i for i, oddity in zip(kept, judged, strict=True) if not oddity.reason]
        return oddities

    def _combine(
        self, updates: Sequence[Update], weights: np.ndarray, oddities: Sequence[Oddity | None], n_refused: int
    ) -> dict[str, np.ndarray]:
        clipped = any(oddity is not None and oddity.clipped for oddity in oddities)
        if self.rule == MEAN or (self.rule == CLIP and not clipped):
            # Bit for bit the mean of federated averaging.
            return weighted_mean(updates, weights)
        matrix, layout = flatten(updates)
        if self.rule == CLIP:
            return unflatten(weights @ clip_to_median_norm(matrix, self.norm_limit), layout)
        tolerated = max(self.tolerated - n_refused, 0)
        return unflatten(RULES[self.rule].combine(matrix, weights, tolerated), layout)
