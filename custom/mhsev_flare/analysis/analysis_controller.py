"""FLARE's side of asking sites: questions that differ by site, answers that are checked, and a file that is written."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import nvflare
import torch
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.model_controller import ModelController

from mhsev_flare.analysis.asked_sites import AnalysisStoppedError, Answer, Answers, Question
from mhsev_flare.analysis.protocol import ANSWER_ENTRY
from mhsev_flare.analysis.result import write_analysis
from mhsev_flare.handshake import SiteReport, site_refusal
from mhsev_flare.protocol import RUN_FOLDER
from mhsev_flare.study_record import NAME
from mhsev_monai._version import __version__

SILENT = "did not answer; see the log of that site"


class AnalysisController(ModelController):
    """A workflow that asks each site its own question and ends with one result file, also when it fails.

    FLARE broadcasts one message to many sites; here each site gets a task of its own, and all work at the same time.
    A site whose answer does not fit is named with the reason, and costs its own part alone.

    Args:
        study: name of the job, for the result.
        min_sites: fewest sites that must take part.
        round_timeout: seconds after which the server goes on without the sites that have not answered; 0: as long as
            FLARE holds a site alive, since one may have to compute features first.
        task_check_period: seconds between looks for answers.

    Raises:
        ValueError: if ``study`` is no name, ``min_sites`` is below 1 or ``round_timeout`` below 0.
    """

    file_name: ClassVar[str] = ""
    schema: ClassVar[str] = ""

    def __init__(self, study: str, min_sites: int, round_timeout: float, task_check_period: float) -> None:
        super().__init__(persistor_id="", ignore_result_error=True, task_check_period=task_check_period)
        if not re.fullmatch(NAME, study):
            raise ValueError("study must be a name of letters, digits, dots, dashes and underscores")
        if min_sites < 1 or round_timeout < 0:
            raise ValueError(
                f"min_sites must be 1 or more and round_timeout 0 or more, got {min_sites}, {round_timeout}"
            )
        self.study = study
        self.min_sites = min_sites
        self.round_timeout = round_timeout
        self.task_check_period = task_check_period
        self.result: dict[str, Any] = {}

    @abstractmethod
    def analyse(self, sites: Sequence[str]) -> None:
        """Ask the sites, and enter into :attr:`result` what is known; raises ``AnalysisStoppedError``."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Of what must agree between the server and a site."""

    @abstractmethod
    def scale_name(self) -> str:
        """Of the grading scale."""

    def run(self) -> None:
        """The whole analysis; ends with a result file, also when it fails."""
        versions = {"mhsev": __version__, "nvflare": nvflare.__version__, "torch": str(torch.__version__)}
        told: dict[str, Any] = {"status": "failed", "reason": "the run ended before its end"}
        self.result |= {"sites": {}, "refused": {}}
        try:
            self.analyse(sorted(self.sample_clients()))
            told = {"status": "completed", "reason": ""}
        except AnalysisStoppedError as error:
            told = {"status": "refused" if error.refused else "failed", "reason": str(error)}
            raise
        except Exception as error:
            told["reason"] = f"the server failed unexpectedly with {type(error).__name__}; see its log"
            raise
        finally:
            content = {**told, "job": self.study, "versions": versions, **self.result}
            write_analysis(Path(self.get_run_dir()) / RUN_FOLDER / self.file_name, self.schema, content)

    def ask(self, task: str, questions: Mapping[str, Question]) -> Answers:
        """Ask each site its own question, and wait for all."""
        found: dict[str, FLModel] = {}

        def received(answer: FLModel) -> None:
            found[str(answer.meta["client_name"])] = answer

        for site, question in questions.items():
            message = FLModel(params=dict(question.arrays), params_type=ParamsType.FULL, meta=dict(question.beside))
            self.send_model(task_name=task, data=message, targets=[site], callback=received)
        self._wait(task, set(questions), found)
        by_site: dict[str, Answer] = {}
        missing: dict[str, str] = {}
        for site in sorted(questions):
            reason = self._complaint(task, found[site]) if site in found else SILENT
            if reason:
                missing[site] = reason
                self.error(f"{site} does not answer {task}: {reason}")
            else:
                meta = found[site].meta
                by_site[site] = Answer(meta[ANSWER_ENTRY[task]], meta)
        return Answers(by_site, missing)

    def _wait(self, task: str, asked: set[str], found: Mapping[str, FLModel]) -> None:
        started = time.monotonic()
        while self.get_num_standing_tasks():
            if self.abort_signal.triggered:
                raise AnalysisStoppedError(f"the run was stopped while the sites worked on {task}")
            if self.round_timeout and time.monotonic() - started >= self.round_timeout:
                self.warning(f"going on without {', '.join(sorted(asked - set(found)))}: no answer in time")
                self.cancel_all_tasks()
            time.sleep(self._task_check_period)

    def _complaint(self, task: str, answer: FLModel) -> str:
        reason = site_refusal(answer.meta, self.fingerprint(), SiteReport.of_this_machine(self.scale_name()))
        if reason:
            return reason
        told = isinstance(answer.meta.get(ANSWER_ENTRY[task]), Mapping)
        return "" if told else "did not send what was asked; its policy may withhold it"
