"""FLARE's FedAvg with a quorum, a period of grace and a time limit for each round; nothing of severity in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg

from mhsev_flare.participation import RoundClock, RoundPolicy


class QuorumFedAvg(FedAvg):
    """Federated averaging that goes on without a site that fails, and does not drop one for being slow.

    FLARE 2.9's FedAvg ends the job at a site's first error and waits for a silent site without limit. Here an error
    counts as no answer; a round closes when every site has answered, or ``policy.grace_seconds`` after the quorum and
    all mandatory sites have, or after ``policy.round_timeout``. Whether a closed round counts is the subclass's to
    judge, by ``policy.missing``.

    Args:
        policy: see ``RoundPolicy``.
        kwargs: FedAvg's.
    """

    def __init__(self, policy: RoundPolicy, **kwargs: Any) -> None:
        super().__init__(num_clients=None, ignore_result_error=True, **kwargs)
        self.policy = policy
        self._clock: RoundClock | None = None
        self._patient = False

    def send_model(
        self,
        task_name: str = "train",
        data: FLModel | None = None,
        targets: list[str] | None = None,
        min_responses: int | None = None,  # noqa: ARG002 - FLARE's signature
        timeout: int = 0,  # noqa: ARG002
        callback: Callable[[FLModel], Any] | None = None,
    ) -> None:
        """FLARE's, with every target waited for as ``policy`` says; ``min_responses`` and ``timeout`` are not used."""
        if data is not None:
            self.before_task(task_name, data)
        expected = frozenset(targets or self.sample_clients())
        clock = self._clock = RoundClock(self.policy, expected, time.monotonic(), self._patient)

        def received(answer: FLModel) -> Any:
            taken = callback(answer) if callback else None
            if taken is not False:
                clock.answer(str(answer.meta["client_name"]), time.monotonic())
            return taken

        super().send_model(task_name=task_name, data=data, targets=targets, callback=received)

    def before_task(self, task_name: str, message: FLModel) -> None:
        """For subclasses: what must be done before a task is sent; ``message`` may be changed."""

    def get_num_standing_tasks(self) -> int:
        """FLARE's; asked while a round is waited for, which is where a round is closed."""
        n_standing = int(super().get_num_standing_tasks() or 0)
        if n_standing and self._clock is not None and self._clock.must_close(time.monotonic()):
            late = sorted(self._clock.expected - self._clock.answered)
            self.warning(f"going on without {', '.join(late)}: no answer in the time that is given")
            self._clock = None
            self.cancel_all_tasks()
        return n_standing

    def ask(self, task_name: str, message: FLModel, sites: Sequence[str], patient: bool = False) -> list[FLModel]:
        """Send a task and wait; the answers in order of the sites' names.

        Args:
            task_name: of the task.
            message: what is sent.
            sites: who is asked.
            patient: wait for every site as long as FLARE holds it alive.
        """
        answers: list[FLModel] = []
        self._patient = patient
        try:
            self.send_model(task_name=task_name, data=message, targets=list(sites), callback=answers.append)
        finally:
            self._patient = False
        while self.get_num_standing_tasks() and not self.abort_signal.triggered:
            time.sleep(self._task_check_period)
        return sorted(answers, key=lambda answer: str(answer.meta["client_name"]))
