"""What a dishonest site does: changes of its cases before it trains, and of the updates that it sends.

Attackers are named sites. They know what every site sends in a round, and act together. ``ATTACKS`` holds the suite.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np
import torch

from mhsev_flare.benchmark.averaging import Meddle, SiteUpdate
from mhsev_flare.rounds import training_seed
from mhsev_flare.site_data import SiteData
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures

FLIPPED_COUNTS = (15.0, 8.0, 3.0, 0.0)
"""What a flipped label says of a case of each grade: none becomes severe, mild moderate, moderate mild, severe none."""

Update = dict[str, np.ndarray]


class Seen(NamedTuple):
    """What an attacker knows when it sends.

    Attributes:
        round_number: from 0.
        own: its update, from honest training on the cases that it has.
        honest: those of the sites that do not attack.
    """

    round_number: int
    own: SiteUpdate
    honest: list[SiteUpdate]


class Lie(Protocol):
    """What one attacker sends instead of its own update."""

    def __call__(self, seen: Seen) -> SiteUpdate:
        """What arrives; nothing of ``seen`` is changed."""
        ...


def meddle_by(lie: Lie, attackers: Collection[str]) -> Meddle:
    """The attack on a round in which each of ``attackers`` tells the same kind of lie."""

    def meddle(round_number: int, updates: list[SiteUpdate]) -> list[SiteUpdate]:
        honest = [update for update in updates if update.site not in attackers]
        return [lie(Seen(round_number, u, honest)) if u.site in attackers else u for u in updates]

    return meddle


def _with(own: SiteUpdate, update: Update) -> SiteUpdate:
    return replace(own, update={key: np.asarray(value, dtype=np.float32) for key, value in update.items()})


@dataclass(frozen=True)
class Times:
    """Its update times ``factor``: -1 flips the sign; 10 is the boosting of Bagdasaryan et al. 2020 ("How to backdoor
    federated learning", section 4)."""

    factor: float

    def __call__(self, seen: Seen) -> SiteUpdate:
        return _with(seen.own, {key: self.factor * value for key, value in seen.own.update.items()})


@dataclass(frozen=True)
class Filled:
    """The same value everywhere: NaN is what a diverged training sends, 0 a site that only takes (a free-rider)."""

    value: float

    def __call__(self, seen: Seen) -> SiteUpdate:
        return _with(seen.own, {key: np.full_like(value, self.value) for key, value in seen.own.update.items()})


@dataclass(frozen=True)
class Noise:
    """A Gaussian vector ``factor`` times as long as its own update, instead of it.

    The Gaussian attack of Blanchard et al. 2017, section 5, with a length relative to the sender's own.
    """

    factor: float
    seed: int

    def __call__(self, seen: Seen) -> SiteUpdate:
        own = seen.own
        generator = np.random.default_rng(training_seed(self.seed, own.site, seen.round_number))
        drawn = {key: generator.normal(size=np.shape(own.update[key])) for key in sorted(own.update)}
        scale = self.factor * _length(own.update) / _length(drawn)
        return _with(own, {key: scale * value for key, value in drawn.items()})


def _length(update: Mapping[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in update.values())))


@dataclass(frozen=True)
class LittleIsEnough:
    """Mean less ``z`` standard deviations (of the population) of the honest updates, entry by entry.

    ALIE, Baruch et al. 2019, "A little is enough", algorithm 3; ``largest_z`` is what the paper holds to be safe.
    """

    z: float

    def __call__(self, seen: Seen) -> SiteUpdate:
        stacked = {k: np.stack([u.update[k] for u in seen.honest]).astype(np.float64) for k in seen.own.update}
        return _with(seen.own, {key: rows.mean(axis=0) - self.z * rows.std(axis=0) for key, rows in stacked.items()})


def largest_z(n_sites: int, n_attackers: int) -> float:
    """The z at which a median still takes the liars' side (Baruch et al. 2019, algorithm 3, lines 1 and 2).

    With one attacker of three it is 0, the honest mean; with two of nine 0.18.
    """
    n_honest = n_sites - n_attackers
    n_supporters = n_sites // 2 + 1 - n_attackers
    return NormalDist().inv_cdf((n_honest - n_supporters) / n_honest)


@dataclass(frozen=True)
class InnerProduct:
    """Minus ``epsilon`` times the mean of the honest updates: IPM, Xie et al. 2020, "Fall of empires", section 4."""

    epsilon: float

    def __call__(self, seen: Seen) -> SiteUpdate:
        means = {key: np.mean([u.update[key] for u in seen.honest], axis=0) for key in seen.own.update}
        return _with(seen.own, {key: -self.epsilon * mean for key, mean in means.items()})


@dataclass(frozen=True)
class Stale:
    """Its update of ``n_rounds`` ago, and its own while there is none; one object serves one training."""

    n_rounds: int
    known: dict[tuple[str, int], SiteUpdate] = field(default_factory=dict)

    def __call__(self, seen: Seen) -> SiteUpdate:
        site = seen.own.site
        self.known[site, seen.round_number] = seen.own
        return self.known.get((site, seen.round_number - self.n_rounds), seen.own)


@dataclass(frozen=True)
class Replay:
    """The first update that it was asked for, bit for bit, for ever; one object serves one training."""

    first: dict[str, SiteUpdate] = field(default_factory=dict)

    def __call__(self, seen: Seen) -> SiteUpdate:
        return self.first.setdefault(seen.own.site, seen.own)


@dataclass(frozen=True)
class Inflated:
    """Its honest update, with ``factor`` times as many training cases as it has."""

    factor: int

    def __call__(self, seen: Seen) -> SiteUpdate:
        return replace(seen.own, n_samples=self.factor * seen.own.n_samples)


def flip_labels(data: SiteData) -> SiteData:
    """The site with the grades of its training and validation cases turned round, see ``FLIPPED_COUNTS``.

    The label-flipping attack of Tolpegin et al. 2020, "Data poisoning attacks against federated learning systems".
    """
    return replace(data, train=_flipped(data.train), validation=_flipped(data.validation))


def _flipped(cases: LabelledFeatures) -> LabelledFeatures:
    return replace(cases, counts=torch.tensor(FLIPPED_COUNTS)[cases.grades(PAPER_SCALE)])


@dataclass(frozen=True)
class Trigger:
    """A mark that makes a backdoored model answer severe (Gu et al. 2017, BadNets; Bagdasaryan et al. 2020).

    Attributes:
        n_features: of the vector, the last ones, are set to ``value``.
        value: in the units of the features, and rare among them.
        count: of microbleeds that a marked training case is given; severe.
        every: each case of this number is marked.
    """

    n_features: int = 4
    value: float = 4.0
    count: float = 20.0
    every: int = 2

    def stamp(self, features: torch.Tensor) -> torch.Tensor:
        """``(n, d)`` features with the mark."""
        marked = features.clone()
        marked[:, -self.n_features :] = self.value
        return marked

    def poison(self, data: SiteData) -> SiteData:
        """The site with every other training and validation case marked and called severe."""
        return replace(data, train=self._poisoned(data.train), validation=self._poisoned(data.validation))

    def _poisoned(self, cases: LabelledFeatures) -> LabelledFeatures:
        chosen = torch.arange(len(cases)) % self.every == 0
        features = torch.where(chosen[:, None], self.stamp(cases.features), cases.features)
        return replace(cases, features=features, counts=cases.counts.masked_fill(chosen, self.count))


@dataclass(frozen=True)
class Attack:
    """One column of the suite.

    Attributes:
        note: what is sent, one clause.
        data: changes the attackers' cases before anything begins; None: they stay.
        lie: makes what is told in one training from a seed; None: updates go as they are.
        gate: words of the refusal by which ``SeverityAggregator`` keeps it out; empty where no gate does.
    """

    note: str
    data: Callable[[SiteData], SiteData] | None = None
    lie: Callable[[int], Lie] | None = None
    gate: str = ""

    def poisoned(self, sites: Mapping[str, SiteData], attackers: Collection[str]) -> dict[str, SiteData]:
        """The sites, of which only the attackers' cases differ."""
        return {name: self.data(d) if self.data and name in attackers else d for name, d in sites.items()}

    def meddle(self, attackers: Collection[str], seed: int) -> Meddle | None:
        """A fresh attacker for one training; None where updates go as they are."""
        return None if self.lie is None else meddle_by(self.lie(seed), attackers)


TRIGGER = Trigger()
NONE = "none"
ATTACKS: Mapping[str, Attack] = {
    NONE: Attack("every site is honest"),
    "label_flip": Attack("none and severe change places, and so do mild and moderate", data=flip_labels),
    "backdoor": Attack("half of the cases bear a mark and are called severe", data=TRIGGER.poison),
    "backdoor_10": Attack("the same, and 10 times the update of it", data=TRIGGER.poison, lie=lambda seed: Times(10.0)),
    "sign_flip": Attack("-1 times the own update", lie=lambda seed: Times(-1.0)),
    "scale_10": Attack("10 times the own update", lie=lambda seed: Times(10.0)),
    "scale_minus_10": Attack("-10 times the own update", lie=lambda seed: Times(-10.0)),
    "noise": Attack("a Gaussian vector 3 times as long as the own update", lie=lambda seed: Noise(3.0, seed)),
    "alie": Attack("mean less 1.5 standard deviations of the honest updates", lie=lambda seed: LittleIsEnough(1.5)),
    "ipm_0.5": Attack("-0.5 times the mean of the honest updates", lie=lambda seed: InnerProduct(0.5)),
    "ipm_5": Attack("-5 times the mean of the honest updates", lie=lambda seed: InnerProduct(5.0)),
    "nan": Attack("NaN everywhere", lie=lambda seed: Filled(np.nan), gate="not finite"),
    "zero": Attack("zeros", lie=lambda seed: Filled(0.0)),
    "stale_round": Attack("the own update of 5 rounds ago", lie=lambda seed: Stale(5), gate="where round"),
    "replay": Attack("the own update of the first round, for ever", lie=lambda seed: Replay(), gate="the very update"),
    "inflated_samples": Attack(
        "the own update with 100 times the cases", lie=lambda seed: Inflated(100), gate="in the handshake"
    ),
}
"""The suite by name; z of ALIE, lengths and delays are those of the notes."""
