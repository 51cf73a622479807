"""What a study has come to so far, and how it is kept through a crash: the state between two rounds. No FLARE."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mhsev_flare.checkpoint import CheckpointError, StudyState, find_checkpoint, save_checkpoint
from mhsev_flare.convergence import has_converged
from mhsev_flare.model_average import averaged_models, is_kept
from mhsev_flare.participation import Attendance, RoundPolicy
from mhsev_flare.result import write_ledger
from mhsev_flare.rounds import BestRound

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
"""What the name of a study or job may be, since a folder is called by it."""

RESUME = "send the job again with resume"
"""What to do about a study that stopped: its rounds so far are kept."""


def configuration_digest(settings: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over what must be equal for one run to go on from another: settings, and the network's own weights."""
    shapes = {key: list(np.shape(value)) for key, value in sorted(weights.items())}
    digest = hashlib.sha256(json.dumps({"settings": settings, "shapes": shapes}, sort_keys=True).encode())
    for key in sorted(weights):
        digest.update(np.ascontiguousarray(weights[key], dtype=np.float32).tobytes())
    return digest.hexdigest()


@dataclass
class StudyRecord:
    """Ledger, best model, attendance and the weights that are sent next.

    Attributes:
        folder: of the run, for the ledger.
        checkpoints: folder of the study's checkpoints, one folder a job in it.
        job_id: of this run.
        configuration: see :func:`configuration_digest`.
        sent: weights of the round that is under way.
        extra: arrays that a checkpoint must hold beside, such as control variates.
        earlier_jobs: ids of the runs that this one goes on from.
        ema_decay: of the exponential moving average of the models; 0: none is kept.
        average: that average, of the models after each closed round.
    """

    folder: Path
    checkpoints: Path
    job_id: str
    configuration: str
    sent: dict[str, np.ndarray] = field(default_factory=dict)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    best: BestRound = field(default_factory=BestRound)
    attendance: Attendance = field(default_factory=Attendance)
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    earlier_jobs: tuple[str, ...] = ()
    ema_decay: float = 0.0
    average: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def next_round(self) -> int:
        """The first round that is not in the ledger."""
        return len(self.ledger)

    @property
    def known_sites(self) -> frozenset[str]:
        """Every site that took part in a round of the study, or should have."""
        return frozenset(site for row in self.ledger for part in ("sites", "refused", "absent") for site in row[part])

    def close_round(self, row: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """Enter a round's row, judge the model with which it began, and keep the new weights through a crash.

        Returns:
            The sites that have been left out too often by now.
        """
        self.ledger.append(dict(row))
        self.best.offer(int(row["round"]), self.sent, row["validation"])
        self.sent = {key: np.array(value, copy=True) for key, value in weights.items()}
        if self.ema_decay:
            self.average = averaged_models(self.average, self.sent, self.ema_decay, self.next_round)
        often = self.attendance.note([*row["refused"], *row["absent"]])
        write_ledger(self.folder, self.ledger)
        save_checkpoint(self.checkpoints / self.job_id, self._state())
        return often

    def close_last(self, row: Mapping[str, Any]) -> None:
        """Enter the row that judges the last aggregate."""
        self.ledger.append(dict(row))
        self.best.offer(int(row["round"]), self.sent, row["validation"])
        write_ledger(self.folder, self.ledger)

    def offer_average(self, validation: Mapping[str, Any]) -> bool:
        """After the last row: keep the average of the models as the best if it is no worse than the last of them."""
        last = self.ledger[-1]
        kept = is_kept(validation["loss"], last["validation"]["loss"])
        if kept:
            self.best = BestRound()
            self.best.offer(int(last["round"]), self.average, validation)
        return kept

    def has_converged(self, policy: RoundPolicy) -> bool:
        """Whether further rounds are not worth their time."""
        losses = [row["validation"]["loss"] for row in self.ledger]
        return has_converged(losses, policy.patience, policy.least_improvement)

    def resume(self) -> StudyState:
        """Go on from the newest checkpoint of the study.

        Raises:
            CheckpointError: if there is none that fits.
        """
        state = find_checkpoint(self.checkpoints, self.configuration)
        self.sent = {key: np.array(value) for key, value in state.weights.items()}
        self.ledger = [dict(row) for row in state.ledger]
        self.best = state.best
        self.attendance.left_out.update(state.left_out)
        self.extra = {key: np.array(value) for key, value in state.extra.items()}
        self.average = {key: np.array(value) for key, value in state.average.items()}
        self.earlier_jobs = (*state.earlier_jobs, state.job_id)
        write_ledger(self.folder, self.ledger)
        return state

    def rounds_behind(self) -> int:
        """Rounds that are in the newest checkpoint of the study; 0 where none fits, which :meth:`resume` refuses."""
        try:
            return find_checkpoint(self.checkpoints, self.configuration).next_round
        except CheckpointError:
            return 0

    def forget_checkpoints(self) -> None:
        """Drop those of this run and of the runs that it went on from; other runs of the study keep theirs."""
        for job in (self.job_id, *self.earlier_jobs):
            # A name from a file must not lead out of the folder.
            if re.fullmatch(NAME, job):
                shutil.rmtree(self.checkpoints / job, ignore_errors=True)

    def _state(self) -> StudyState:
        return StudyState(
            configuration=self.configuration,
            job_id=self.job_id,
            next_round=self.next_round,
            weights=self.sent,
            ledger=self.ledger,
            best=self.best,
            left_out=dict(self.attendance.left_out),
            extra=self.extra,
            earlier_jobs=self.earlier_jobs,
            average=self.average,
        )
