"""The edge of an analysis at a site: whatever is asked becomes numbers, a refusal in words, or a return code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply

from mhsev_flare.analysis.answer_book import AnswerBook
from mhsev_flare.analysis.protocol import ANSWER_ENTRY
from mhsev_flare.handshake import SiteReport
from mhsev_flare.protocol import PROTOCOL_VERSION, Meta, Moments
from mhsev_flare.site_context import run_folder, site_policy
from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import REQUIRED, SitePolicy

ANSWERS_FILE = "answers.json"

WITHHOLDABLE: Mapping[str, str] = {
    Meta.REPORT: "versions",
    Meta.SITE_SUMMARY: "numbers of cases by split and grade",
    Meta.N_SAMPLES: "number of training cases",
}
"""Entries that a study needs and an analysis too, or whose numbers follow from its sums."""


@dataclass(frozen=True)
class Told:
    """What a site answers.

    Attributes:
        arrays: the numbers, for the task's entry.
        beside: further entries.
    """

    arrays: Mapping[str, Any]
    beside: Mapping[str, Any]


@dataclass(frozen=True)
class SiteEdge:
    """Answers one task of an analysis.

    Attributes:
        executor: that was asked, for its log.
        fl_ctx: in which it was asked.
        fingerprint: of what must agree with the server; empty where it is not known.
        scale: name of the grading scale.
        of_training: whether cases are asked about that a model may have been trained with.
    """

    executor: Executor
    fl_ctx: FLContext
    fingerprint: str
    scale: str
    of_training: bool = True

    def answer(self, task: str, tell: Callable[[SitePolicy], Told]) -> Shareable:
        """The reply: numbers, or why there are none; of an unforeseen failure a return code alone."""
        try:
            policy = site_policy(self.fl_ctx)
            check_withheld(policy, task)
            if self.of_training:
                check_exact_sums(policy)
            self.book().take(task, self.fingerprint)
            told = tell(policy)
        except SiteError as error:
            return self.refuse(task, error)
        except Exception as error:
            # The text of an unforeseen exception may hold a path or a name, and logs can leave the site: its type only.
            self.executor.log_error(self.fl_ctx, f"{task} failed unexpectedly with {type(error).__name__}")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        return self._reply({ANSWER_ENTRY[task]: dict(told.arrays), **told.beside})

    def refuse(self, task: str, reason: SiteError) -> Shareable:
        """The reply of a site that does not answer."""
        self.executor.log_error(self.fl_ctx, f"this site does not answer {task}: {reason}")
        return self._reply({Meta.REFUSAL: str(reason)})

    def book(self) -> AnswerBook:
        """How often this site answered in this job."""
        return AnswerBook(run_folder(self.fl_ctx) / ANSWERS_FILE)

    def _reply(self, beside: Mapping[str, Any]) -> Shareable:
        own: dict[str, Any] = {
            Meta.PROTOCOL: PROTOCOL_VERSION,
            Meta.REPORT: SiteReport.of_this_machine(self.scale).to_json(),
        }
        if self.fingerprint:
            own[Meta.FINGERPRINT] = self.fingerprint
        # The numbers stand beside, where a site's EntryBlocker can take them out; FLARE wants an array all the same.
        return DXO(DataKind.WEIGHTS, data={Moments.N: np.ones(1)}, meta={**own, **beside}).to_shareable()


def check_withheld(policy: SitePolicy, task: str) -> None:
    """Refuse a task whose answer this site's policy withholds.

    Raises:
        SiteError: with the reason, which may leave the site.
    """
    needed = {**WITHHOLDABLE, ANSWER_ENTRY[task]: "sums for this analysis"}
    withheld = [what for entry, what in needed.items() if entry in policy.blocked]
    if withheld:
        raise SiteError(
            f"the policy of this site withholds its {withheld[0]}, without which it cannot take part in this analysis"
        )


def check_exact_sums(policy: SitePolicy) -> None:
    """Refuse sums of training cases where this site's policy requires differential privacy of them.

    Raises:
        SiteError: with the reason, which may leave the site.
    """
    if policy.privacy.rule == REQUIRED:
        raise SiteError(
            "the policy of this site requires differential privacy of its training cases and this analysis asks for "
            "exact sums of them; explain test cases alone, or leave the site out"
        )
