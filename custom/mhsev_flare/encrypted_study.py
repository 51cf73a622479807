"""The server's workflow over ciphertexts: handshake, FLARE's ScatterAndGather, choice of the best round, evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.app_opt.he.homomorphic_encrypt import load_tenseal_context_from_workspace
from torch import nn

from mhsev_flare.answers import sites_to_ask, told_cases, usable_answers
from mhsev_flare.encrypted_payload import PACKED, as_arrays, as_message, packed, parameter_shapes
from mhsev_flare.final_phase import FinalPhase
from mhsev_flare.gates import ExpectedUpdate
from mhsev_flare.handshake import Admission, SiteReport
from mhsev_flare.participation import Attendance, RoundPolicy
from mhsev_flare.protocol import (
    MODEL_FILE,
    PROTOCOL_VERSION,
    RUN_FOLDER,
    TASK_STANDARDISE,
    TASK_TRAIN,
    Meta,
)
from mhsev_flare.result import (
    NoAnswerError,
    StudyStoppedError,
    begun_result,
    failure_reason,
    pool_tables,
    write_ledger,
    write_result,
)
from mhsev_flare.rounds import BestRound, ledger_row
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.severity import SCALES

SERVER_CONTEXT = "server_context.tenseal"
"""What FLARE's HEBuilder writes into the server's kit: the public part of the sites' keys."""

AGAIN = "send the job again: a study over ciphertexts is not resumed"
"""What to do about a study that stopped."""


class EncryptedStudy(ScatterAndGather):
    """A study in which the server sees no site's update and no trained model.

    Handshake, standardisation and class weights are those of ``SeverityFedAvg``, from the same sums in the clear. The
    rounds are FLARE's: its aggregator adds ciphertexts, its generator adds the mean to the model. Tables and losses
    come in the clear, so that the best round is chosen as ever; its model, still encrypted, goes to the sites, which
    open it, evaluate it on their test cases and keep it as ``model.pt`` in their run folders.

    What needs a look at updates is not to be had: no rule but the mean, no gate on values, no cut, no comparison.

    Args:
        study: name of the job, for the result.
        seed: the executors', for the result.
        network: the network to train, equal to the executor's; its weights are the initial ones, which are no secret.
        inputs: what the network reads, equal to the executor's.
        scale: name of the grading scale.
        policy: when a round closes and counts; ``patience`` is not used.
        weighting: how sites count, equal to the aggregator's.
        num_rounds: rounds of training.
        min_sites: fewest sites to begin with; 0 means every site that the job was sent to.
        aggregator_id: of an ``EncryptedAggregator``.
        shareable_generator_id: of FLARE's ``HEModelShareableGenerator``.
        task_check_period: seconds between looks for answers.
    """

    _always_serialize_args: ClassVar[tuple[str, ...]] = (
        "num_rounds",
        "min_sites",
        "weighting",
        "aggregator_id",
        "shareable_generator_id",
        "task_check_period",
    )

    def __init__(
        self,
        study: str,
        seed: int,
        network: nn.Module,
        inputs: CaseInputs,
        scale: str,
        policy: RoundPolicy,
        weighting: str,
        num_rounds: int,
        min_sites: int = 0,
        aggregator_id: str = "aggregator",
        shareable_generator_id: str = "shareable_generator",
        task_check_period: float = 0.1,
    ) -> None:
        super().__init__(
            num_rounds=num_rounds,
            aggregator_id=aggregator_id,
            shareable_generator_id=shareable_generator_id,
            train_task_name=TASK_TRAIN,
            train_timeout=int(policy.round_timeout),
            ignore_result_error=True,
            task_check_period=task_check_period,
            # A snapshot would hold nothing that resumes: FLARE 2.9 does not restore a job.
            snapshot_every_n_rounds=0,
        )
        self.study = study
        self.seed = seed
        self.network = network
        self.inputs = inputs
        self.scale = scale
        self.policy = policy
        self.weighting = weighting
        self.num_rounds = num_rounds
        self.min_sites = min_sites
        self.task_check_period = task_check_period
        self._result: dict[str, Any] = {}
        self._ledger: list[dict[str, Any]] = []
        self._best = BestRound()
        self._attendance = Attendance()
        self._sent: dict[str, np.ndarray] = {}
        self._sites: list[str] = []
        self._problem = ""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """The whole study; ends with a result file, also when it fails."""
        folder = Path(self._engine.get_workspace().get_run_dir(fl_ctx.get_job_id())) / RUN_FOLDER
        settings = {
            "job": self.study,
            "encrypted": True,
            "seed": self.seed,
            "scale": self.scale,
            "num_rounds": self.num_rounds,
            "weighting": self.weighting,
            "rule": "mean",
        }
        self._result = begun_result(SiteReport.of_this_machine(self.scale).versions(), settings)
        try:
            self._study(abort_signal, fl_ctx)
        except Exception as error:
            self._result["reason"] = failure_reason(error)
            raise
        finally:
            write_ledger(folder, self._ledger)
            write_result(folder, self._result)

    def _study(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        ask = partial(self._ask, fl_ctx=fl_ctx, abort_signal=abort_signal)
        self._check_keys(fl_ctx)
        buffers = self._handshake(ask, fl_ctx)
        self._result["features"] = {
            "fingerprint": self.inputs.fingerprint(),
            "names": list(self.inputs.feature_names),
        }
        parameters = packed(self.network.state_dict(), parameter_shapes(self.network))
        self._global_weights = make_model_learnable({PACKED: parameters, **buffers}, {})
        super().control_flow(abort_signal, fl_ctx)
        if self._problem or len(self._ledger) < self.num_rounds:
            raise StudyStoppedError(
                self._problem
                or f"training stopped after {len(self._ledger)} of {self.num_rounds} rounds; see the server's and the "
                f"sites' logs, and {AGAIN}"
            )
        self._finish(ask, fl_ctx)

    def _check_keys(self, fl_ctx: FLContext) -> None:
        try:
            context = load_tenseal_context_from_workspace(SERVER_CONTEXT, fl_ctx)
        except ValueError as error:
            raise StudyStoppedError(
                f"the server's kit holds no usable {SERVER_CONTEXT}; provision again with "
                "nvflare.lighter.impl.he.HEBuilder among the builders"
            ) from error
        if context.is_private():
            raise StudyStoppedError("the server holds the sites' secret key, so nothing is secret; provision again")

    def _handshake(self, ask: Any, fl_ctx: FLContext) -> dict[str, np.ndarray]:
        asked, fingerprint = sorted(client.name for client in self._engine.get_clients()), self.inputs.fingerprint()
        answers = ask(TASK_STANDARDISE, {"protocol": np.array([PROTOCOL_VERSION])}, sites=asked)
        admission = Admission.to(self.network, self.inputs, self.scale, self.min_sites, self.policy)
        admitted = admission.admit(asked, answers, self._result, lambda line: self.log_error(fl_ctx, line))
        self._sites = list(admitted.sites)
        n_parameters = sum(int(np.prod(shape)) for shape in parameter_shapes(self.network).values())
        judged = told_cases(self._result, "validation")
        expected = ExpectedUpdate({}, fingerprint, cases=admitted.cases, validation_cases=judged)
        self.aggregator.expect(expected, n_parameters)
        return dict(admitted.buffers)

    def broadcast_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Any = None,
        min_responses: int = 1,
        wait_time_after_min_received: int = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        """FLARE's; a round goes to the sites of the study, and is waited for as ``policy`` says."""
        if task.name == self.train_task_name:
            targets, min_responses = self._sites, self.policy.quorum(len(self._sites))
            wait_time_after_min_received = int(self.policy.grace_seconds)
        super().broadcast_and_wait(task, fl_ctx, targets, min_responses, wait_time_after_min_received, abort_signal)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Look at each round where FLARE lets one look: before its sum, and at its end."""
        super().handle_event(event_type, fl_ctx)
        if event_type == AppEventType.BEFORE_AGGREGATION:
            self._before_sum(fl_ctx)
        elif event_type == AppEventType.ROUND_DONE:
            self._close_round(fl_ctx)

    def _before_sum(self, fl_ctx: FLContext) -> None:
        # Kept before the generator changes it in place.
        self._sent = as_arrays(self._global_weights[ModelLearnableKey.WEIGHTS])
        contributions = self.aggregator.contributions()
        missing = self.policy.missing([c.site for c in contributions if c.accepted], len(self._sites))
        if missing:
            reasons = "; ".join(f"{c.site}: {c.reason}" for c in contributions if not c.accepted)
            self._problem = f"round {self._current_round}: {missing} ({reasons or 'the others sent nothing'})"
            self.system_panic(self._problem, fl_ctx)

    def _close_round(self, fl_ctx: FLContext) -> None:
        contributions = self.aggregator.contributions()
        tables = {c.site: SeverityTable.from_json(c.meta[Meta.TABLE]) for c in contributions if c.accepted}
        row = ledger_row(self._current_round, contributions, pool_tables(tables), self.weighting, asked=self._sites)
        self._enter(row)
        for site in self._attendance.note([*row["refused"], *row["absent"]]):
            self.log_error(fl_ctx, f"{site} WAS LEFT OUT OF {self._attendance.left_out[site]} ROUNDS")
        self.log_info(fl_ctx, f"round {self._current_round}: validation {row['validation']}")

    def _enter(self, row: dict[str, Any]) -> None:
        self._ledger.append(row)
        self._best.offer(int(row["round"]), self._sent, row["validation"])

    def _finish(self, ask: Any, fl_ctx: FLContext) -> None:
        # FLARE's generator leaves the last sum as an object; this makes bytes of it.
        self.shareable_gen.learnable_to_shareable(self._global_weights, fl_ctx)
        self._sent = as_arrays(self._global_weights[ModelLearnableKey.WEIGHTS])
        phase = FinalPhase(partial(self._ask_all, ask, fl_ctx), SCALES[self.scale], self.seed)
        tables, losses = phase.evaluation.judge(self._sent, "validation")
        self._enter(ledger_row(self.num_rounds, (), pool_tables(tables), self.weighting, losses))
        try:
            calibration, self._result["calibration"] = phase.calibrate(self._best.weights)
        except NoAnswerError as error:
            self.log_error(fl_ctx, str(error))
            calibration = self._result["calibration"] = None
        kept: dict[str, Any] = {Meta.KEEP: self._best.round_number}
        tables, entries = phase.test(self._best.weights, calibration, **kept)
        self._result["model"] = {"file": MODEL_FILE, "kept_by": sorted(tables)}
        missing = self.policy.missing(tables, len(self._sites))
        if missing:
            raise StudyStoppedError(f"the test of the model: {missing}")
        left_out = dict(self._attendance.left_out)
        self._result |= {"best_round": self._best.round_number, **entries, "left_out": left_out}
        self._result |= phase.majority_alone(tables)
        self._result["status"], self._result["reason"] = "completed", ""

    def _ask_all(
        self, ask: Any, fl_ctx: FLContext, task: str, params: Mapping[str, np.ndarray], **meta: Any
    ) -> list[FLModel]:
        """Ask every site of the study; those without a usable answer are named in the result."""
        asked = sites_to_ask(self._sites, self._result, task, meta)
        answers = ask(task, params, sites=asked, **meta)
        log_error = partial(self.log_error, fl_ctx)
        return usable_answers(answers, asked, task, meta, {}, self._result, log_error, AGAIN)

    def _ask(
        self,
        task: str,
        params: Mapping[str, np.ndarray],
        sites: Sequence[str],
        fl_ctx: FLContext,
        abort_signal: Signal,
        **meta: Any,
    ) -> list[FLModel]:
        """Send a task and wait for all; usable answers in order of the sites' names."""
        answers: list[FLModel] = []

        def received(client_task: ClientTask, fl_ctx: FLContext) -> None:  # noqa: ARG001
            answer = client_task.result
            if answer is not None and answer.get_return_code() == ReturnCode.OK:
                model = FLModelUtils.from_shareable(answer)
                model.meta["client_name"] = client_task.client.name
                answers.append(model)

        message = as_message(params, meta).to_shareable()
        waiting = Task(name=task, data=message, result_received_cb=received)
        self.broadcast_and_wait(waiting, fl_ctx, list(sites), len(sites), abort_signal=abort_signal)
        if abort_signal.triggered:
            raise StudyStoppedError(f"the run was stopped while the sites worked on {task}")
        return sorted(answers, key=lambda model: str(model.meta["client_name"]))
