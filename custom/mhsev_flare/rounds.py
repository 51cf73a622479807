"""Rows of the ledger, and the choice of the best round. No FLARE."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mhsev_flare.protocol import Meta
from mhsev_monai.metrics import SeverityTable, severity_metrics


def training_seed(seed: int, site: str, round_number: int) -> int:
    """The seed of a site's shuffling and dropout in a round; the same in every process."""
    # zlib.crc32 and not hash(): Python salts hash() anew in each process.
    return int(np.random.SeedSequence([seed, zlib.crc32(site.encode()), round_number]).generate_state(1)[0])


class OddityLike(Protocol):
    """How an update lay beside the others, see ``mhsev_flare.anomalies.Oddity``."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        ...


class ContributionLike(Protocol):
    """What a ledger row needs of one site's contribution."""

    site: str
    n_samples: int
    accepted: bool
    reason: str
    meta: dict[str, Any]
    share: float

    @property
    def oddity(self) -> OddityLike | None:
        """None where it was not compared."""
        ...


def ledger_row(
    round_number: int,
    contributions: Sequence[ContributionLike],
    validation: SeverityTable,
    weighting: str,
    losses: Sequence[tuple[float, int]] = (),
    asked: Sequence[str] = (),
) -> dict[str, Any]:
    """One round: who took part, who did not and why, and how good the model was with which the round began.

    Args:
        round_number: from 0; the row numbered ``num_rounds`` judges the final aggregate and trains nothing.
        contributions: the sites' updates of this round.
        validation: pooled validation table of the model that was sent in this round.
        weighting: name of the weighting of the average.
        losses: (validation loss, number of validation cases) of each site, where they did not come with updates.
        asked: sites that were asked for an update; those of them that sent none are absent.
    """
    accepted = [c for c in contributions if c.accepted]
    pairs = list(losses) or [
        (c.meta[Meta.VALIDATION_LOSS], SeverityTable.from_json(c.meta[Meta.TABLE]).n) for c in accepted
    ]
    metrics = severity_metrics(validation)
    return {
        "round": round_number,
        "weighting": weighting,
        "sites": {c.site: _accepted(c) for c in accepted},
        "refused": {c.site: c.reason for c in contributions if not c.accepted},
        "absent": sorted(set(asked) - {c.site for c in contributions}),
        "anomalies": {c.site: _anomaly(c) for c in contributions},
        "validation": {
            "n": validation.n,
            "quadratic_kappa": metrics.quadratic_kappa,
            "balanced_accuracy": metrics.balanced_accuracy,
            "loss": _mean(pairs),
        },
    }


def round_line(row: Mapping[str, Any]) -> str:
    """One row of the ledger, for the terminal."""
    kappa = row["validation"]["quadratic_kappa"]
    shown = "undefined" if kappa is None else f"{kappa:.3f}"
    # The row after the last round judges the final aggregate, and trains nothing.
    who = f"{len(row['sites'])} sites" if row["sites"] else "final  "
    without = [*row["refused"], *row["absent"]]
    missing = f"   WITHOUT {', '.join(without)}" if without else ""
    return f"round {row['round']:>2}   {who}   validation quadratic kappa {shown}{missing}"


def round_scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """One row of the ledger as named numbers, for curves; what is undefined is left out."""
    told = {
        **{f"validation/{name}": row["validation"][name] for name in ("loss", "quadratic_kappa", "balanced_accuracy")},
        **{f"train_loss/{site}": entry["train_loss"] for site, entry in row["sites"].items()},
        "sites/taken": len(row["sites"]),
        "sites/left_out": len(row["refused"]) + len(row["absent"]),
    }
    return {tag: float(value) for tag, value in told.items() if value is not None}


def _accepted(contribution: ContributionLike) -> dict[str, Any]:
    return {"n_samples": contribution.n_samples, "train_loss": contribution.meta.get(Meta.TRAIN_LOSS)}


def _anomaly(contribution: ContributionLike) -> dict[str, Any]:
    """One row of the anomaly table: the decision, and what it rests on."""
    measured = {} if contribution.oddity is None else contribution.oddity.to_json()
    # What was spent left the site, also where it was refused.
    spent = contribution.meta.get(Meta.EPSILON)
    if isinstance(spent, float) and np.isfinite(spent):
        measured = {**measured, "epsilon": spent}
    return {
        "accepted": contribution.accepted,
        "reason": contribution.reason,
        "share": float(f"{contribution.share:.4g}"),
        **measured,
    }


def _mean(pairs: Sequence[tuple[float, int]]) -> float | None:
    total = sum(n for _, n in pairs)
    value = sum(loss * n for loss, n in pairs) / total if total else float("nan")
    return float(value) if np.isfinite(value) else None


@dataclass
class BestRound:
    """The model with the lowest validation loss so far; between equals, the higher quadratic kappa.

    Sites have some tens of validation cases, of which kappa sees the grade alone; the loss sees how sure it was.
    """

    round_number: int = -1
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    _score: tuple[float, float] = (-np.inf, -np.inf)

    @property
    def score(self) -> tuple[float | None, float | None]:
        """What it is compared by, for a file; None for minus infinity, which JSON does not know."""
        loss, kappa = (value if np.isfinite(value) else None for value in self._score)
        return loss, kappa

    @staticmethod
    def restored(round_number: int, score: Sequence[float | None], weights: Mapping[str, np.ndarray]) -> BestRound:
        """The one that was stored by its round, ``score`` and weights."""
        loss, kappa = (-np.inf if value is None else float(value) for value in score)
        return BestRound(round_number, dict(weights), (loss, kappa))

    def offer(self, round_number: int, weights: Mapping[str, np.ndarray], validation: Mapping[str, Any]) -> None:
        """Take ``weights`` if they are better than what is kept.

        A loss that is undefined is worse than any; kappa that is undefined counts as 0, chance.
        """
        kappa, loss = validation["quadratic_kappa"], validation["loss"]
        known = loss is not None and np.isfinite(loss)
        score = (-float(loss) if known else -np.inf, 0.0 if kappa is None else float(kappa))
        if not self.weights or score > self._score:
            self.round_number, self._score = round_number, score
            self.weights = {key: np.array(value, copy=True) for key, value in weights.items()}
