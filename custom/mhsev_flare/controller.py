"""The server's workflow: handshake and standardisation, rounds of FedAvg, best round, final evaluation, result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from torch import nn

from mhsev_flare.aggregator import SeverityAggregator
from mhsev_flare.answers import sites_to_ask, told_cases, usable_answers
from mhsev_flare.checkpoint import CheckpointError
from mhsev_flare.control_variates import added_controls, control_arrays, zero_controls
from mhsev_flare.final_phase import FinalPhase
from mhsev_flare.gates import ExpectedUpdate, weights_digest
from mhsev_flare.handshake import Admission, SiteReport
from mhsev_flare.model_average import check_decay
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.protocol import (
    MODEL_FILE,
    PROTOCOL_VERSION,
    RUN_FOLDER,
    TASK_STANDARDISE,
    TASK_VALIDATE,
    Meta,
)
from mhsev_flare.quorum import QuorumFedAvg
from mhsev_flare.result import (
    NoAnswerError,
    StudyStoppedError,
    begun_result,
    failure_reason,
    file_digest,
    pool_tables,
    write_ledger,
    write_result,
)
from mhsev_flare.rounds import ledger_row
from mhsev_flare.server_optimiser import ServerOptimiser
from mhsev_flare.site import find_checkpoint_folder
from mhsev_flare.study_record import NAME, RESUME, StudyRecord, configuration_digest
from mhsev_flare.tracking import track_round
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.model_file import save_model
from mhsev_monai.severity import SCALES

Entries = TypeVar("Entries")


class ConvergedError(Exception):
    """Ends FLARE's loop over rounds, which knows no other way to stop early without a metric of its own."""


class SeverityFedAvg(QuorumFedAvg):
    """Federated averaging (McMahan et al. 2017) of a severity network, with its evaluation.

    Before round 0 every site tells versions, schema and device, and is asked for sums over its training cases and their
    twins, which give the global standardisation, and for numbers of cases by grade, which give class weights. A site
    that cannot take part says why, and the run stops unless ``min_sites`` others remain. From then on a round counts
    with the quorum of ``policy``. The metrics that arrive with an update describe the model that was sent, so each
    round's model is judged one round later and the last one by a round of its own; the best by validation loss is
    evaluated on the test cases and saved, that very model. After each round the state is kept on the server's disk;
    with ``resume`` a job goes on from there. ``result.json`` is written whatever happens, since FLARE's job status does
    not tell.

    Args:
        study: name of the job, for the result.
        seed: the executors', for the result: with it the splits can be made again.
        network: the network to train, equal to the executor's; its weights are the initial ones.
        inputs: what the network reads, equal to the executor's; the model file keeps its arguments.
        scale: name of the grading scale.
        aggregator: combines the sites' updates.
        policy: when a round closes and counts, and when training ends.
        num_rounds: rounds of training.
        min_sites: fewest sites to begin with; 0 means every site that the job was sent to.
        site_models: also train what each site would have alone, and compare.
        personalise: at the end each site trains the best model further for itself, keeps it, and says what it scores.
        server_optimiser: takes the mean update as a gradient (FedOpt); None: it is added as it is.
        control_variates: correct local steps by SCAFFOLD's control variates (Karimireddy et al. 2020).
        resume: go on from the last checkpoint of the unfinished run of this study.
        task_check_period: seconds between looks for answers.
        fedprox_mu: weight of FedProx's penalty, FLARE's own argument; None for none.
        ema_decay: of the exponential moving average of the rounds' models, which is judged at the end and is the model
            of the study unless the last round's is better; 0: none.
        settings: names all settings that decide the result; a run of others is not resumed.
    """

    _always_serialize_args: ClassVar[tuple[str, ...]] = (
        "num_rounds",
        "min_sites",
        "site_models",
        "personalise",
        "control_variates",
        "resume",
        "fedprox_mu",
        "ema_decay",
        "settings",
        "task_check_period",
    )

    def __init__(
        self,
        study: str,
        seed: int,
        network: nn.Module,
        inputs: CaseInputs,
        scale: str,
        aggregator: SeverityAggregator,
        policy: RoundPolicy,
        num_rounds: int = 20,
        min_sites: int = 0,
        site_models: bool = True,
        personalise: bool = False,
        control_variates: bool = False,
        resume: bool = False,
        task_check_period: float = 0.1,
        fedprox_mu: float | None = None,
        server_optimiser: ServerOptimiser | None = None,
        ema_decay: float = 0.0,
        settings: str = "",
    ) -> None:
        # No persistor: the model file is ours, and FLARE's default allow list does not hold its torch persistor.
        super().__init__(
            policy=policy,
            persistor_id="",
            num_rounds=num_rounds,
            aggregator=aggregator,
            task_check_period=task_check_period,
            fedprox_mu=fedprox_mu,
        )
        if not re.fullmatch(NAME, study):
            raise ValueError("study must be a name of letters, digits, dots, dashes and underscores")
        self.study = study
        self.settings = settings
        self.ema_decay = check_decay(ema_decay)
        self.seed = seed
        self.network = network
        self.inputs = inputs
        self.scale = scale
        self.min_sites = min_sites
        self.site_models = site_models
        self.personalise = personalise
        self.control_variates = control_variates
        self.resume = resume
        self.task_check_period = task_check_period
        self.server_optimiser = server_optimiser
        self._result: dict[str, Any] = {}
        self._sites: list[str] = []
        self._cases: dict[str, int] = {}
        self._fingerprint = ""
        self._total_rounds = num_rounds
        self._record: StudyRecord | None = None

    @property
    def record(self) -> StudyRecord:
        """Of the study that is under way."""
        if self._record is None:
            raise StudyStoppedError("the study has not begun")
        return self._record

    def run(self) -> None:
        """The whole study; ends with a result file, also when it fails."""
        settings = {
            "job": self.study,
            "seed": self.seed,
            "scale": self.scale,
            "num_rounds": self.num_rounds,
            "weighting": self.aggregator.weighting,
            "rule": self.aggregator.rule,
        }
        self._result = begun_result(SiteReport.of_this_machine(self.scale).versions(), settings)
        try:
            self._study()
        except Exception as error:
            self._result["reason"] = failure_reason(error)
            raise
        finally:
            write_ledger(self._folder(), self._record.ledger if self._record else [])
            write_result(self._folder(), self._result)

    def _folder(self) -> Path:
        return Path(self.get_run_dir()) / RUN_FOLDER

    def _study(self) -> None:
        self._fingerprint = self.inputs.fingerprint()
        own = {key: value.detach().cpu().numpy().copy() for key, value in self.network.state_dict().items()}
        self._record = self._new_record(own)
        # Sites with a limit on what they tell reckon with the rounds that are to come, not with those they told before.
        buffers = self._handshake(self._total_rounds - (self.record.rounds_behind() if self.resume else 0))
        initial = {**own, **buffers}
        self._result["features"] = {"fingerprint": self._fingerprint, "names": list(self.inputs.feature_names)}
        self.aggregator.start(len(self._sites))
        self._begin(initial)
        self._train()
        self._finish(initial)
        self.record.forget_checkpoints()

    def _new_record(self, own: Mapping[str, np.ndarray]) -> StudyRecord:
        settings = {
            "study": self.study,
            "seed": self.seed,
            "scale": self.scale,
            "features": self._fingerprint,
            "weighting": self.aggregator.weighting,
            "rule": self.aggregator.rule,
            "control_variates": self.control_variates,
            "fedprox_mu": self.fedprox_mu,
            **({"ema_decay": self.ema_decay} if self.ema_decay else {}),
            "settings": self.settings,
            "server_optimiser": None if self.server_optimiser is None else self.server_optimiser.name,
        }
        workspace = self.engine.get_workspace()
        root = find_checkpoint_folder(Path(workspace.get_site_config_dir()), Path(workspace.get_root_dir()))
        digest = configuration_digest(settings, own)
        folder, job = root / self.study, str(self.fl_ctx.get_job_id())
        return StudyRecord(self._folder(), folder, job, digest, ema_decay=self.ema_decay)

    def _begin(self, initial: Mapping[str, np.ndarray]) -> None:
        """Start from the initial weights, or from where the unfinished run was."""
        record = self.record
        if self.resume:
            try:
                state = record.resume()
            except CheckpointError as error:
                raise StudyStoppedError(str(error)) from error
            without = sorted(record.known_sites - set(self._sites))
            self._result["resumed"] = {"round": state.next_round, "job": state.job_id, "without": without}
            self.info(f"resuming at round {state.next_round}")
            if without:
                self.error(
                    f"{', '.join(without)} TOOK PART BEFORE AND IS NOT IN THIS JOB: it was not connected in time"
                )
            # The sites' own variates went with the job that ended, and both sides must begin from the same.
            record.extra = zero_controls(initial) if self.control_variates else record.extra
        else:
            record.forget_checkpoints()
            record.sent = {key: np.array(value) for key, value in initial.items()}
            record.extra = zero_controls(initial) if self.control_variates else {}
        if self.server_optimiser is not None:
            self.server_optimiser.begin(self.network, record.sent)
        self.model = FLModel(params={k: v.copy() for k, v in record.sent.items()}, params_type=ParamsType.FULL)
        self.start_round = record.next_round
        self.num_rounds = self._total_rounds - record.next_round

    def _train(self) -> None:
        if self.record.has_converged(self.policy):  # before the crash that is resumed from
            self._result["converged_at_round"] = self.record.next_round
            return
        try:
            if self.num_rounds > 0:
                super().run()
        except ConvergedError:
            self._result["converged_at_round"] = self.record.next_round
            return
        if self.record.next_round < self._total_rounds:
            raise StudyStoppedError(
                f"training stopped after {self.record.next_round} of {self._total_rounds} rounds; a site's process "
                f"ended or the run was aborted: see the sites' logs, then {RESUME}"
            )

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        """The sites that passed the handshake; FedAvg asks anew in each round, and those that refused stay out."""
        return list(self._sites) if self._sites else sorted(super().sample_clients(num_clients))

    def _ask(
        self,
        task: str,
        sites: Sequence[str],
        params: Mapping[str, np.ndarray],
        n_rounds: int | None = None,
        **meta: Any,
    ) -> list[FLModel]:
        rounds = self._total_rounds if n_rounds is None else n_rounds
        message = FLModel(params=dict(params), params_type=ParamsType.FULL, meta=dict(meta), total_rounds=rounds)
        answers = self.ask(task, message, sites, patient=task != TASK_VALIDATE)
        if self.abort_signal.triggered:
            raise StudyStoppedError(f"the run was stopped while the sites worked on {task}")
        return answers

    def _ask_all(self, task: str, params: Mapping[str, np.ndarray], **meta: Any) -> list[FLModel]:
        """Ask every site of the study; those that do not answer, or answer what is none, are named in the result."""
        shapes = {key: np.shape(value) for key, value in self.record.sent.items()}
        asked = sites_to_ask(self._sites, self._result, task, meta)
        answers = self._ask(task, asked, params, **meta)
        return usable_answers(answers, asked, task, meta, shapes, self._result, self.error, RESUME)

    def _handshake(self, n_rounds: int) -> dict[str, np.ndarray]:
        asked = self.sample_clients()
        answers = self._ask(TASK_STANDARDISE, asked, {"protocol": np.array([PROTOCOL_VERSION])}, n_rounds)
        admission = Admission.to(self.network, self.inputs, self.scale, self.min_sites, self.policy)
        admitted = admission.admit(asked, answers, self._result, self.error)
        self._sites, self._cases = list(admitted.sites), dict(admitted.cases)
        return dict(admitted.buffers)

    def before_task(self, task_name: str, message: FLModel) -> None:
        """Before a round, tell the aggregator what fits to the model that is sent."""
        if task_name != self.task_name:
            return
        self.aggregator.expect(
            ExpectedUpdate(
                shapes=ExpectedUpdate.shapes_of(message.params),
                fingerprint=self._fingerprint,
                round_number=int(self.current_round),
                base=weights_digest(message.params),
                cases=self._cases,
                controls=self.control_variates,
                validation_cases=told_cases(self._result, "validation"),
            )
        )
        if self.control_variates:
            message.meta = {**(message.meta or {}), Meta.CONTROLS: control_arrays(self.record.extra)}

    def update_model(self, model: FLModel, aggr_result: FLModel) -> FLModel:
        """FLARE's, with the server's optimiser between the mean update and the model where there is one."""
        if self.server_optimiser is not None:
            after = self.server_optimiser.step(aggr_result.params)
            aggr_result.params = {key: after[key] - model.params[key] for key in aggr_result.params}
        return super().update_model(model, aggr_result)

    def save_model(self, model: FLModel) -> None:
        """FLARE's hook at the end of each round: judge the model that was sent in it, write ledger and checkpoint."""
        contributions = self.aggregator.contributions()
        accepted = [c for c in contributions if c.accepted]
        missing = self.policy.missing([c.site for c in accepted], len(self._sites))
        if missing:
            reasons = "; ".join(f"{c.site}: {c.reason}" for c in contributions if not c.accepted)
            raise StudyStoppedError(
                f"round {self.current_round}: {missing} ({reasons or 'the others sent nothing'}); the model of the "
                "round before is kept, and the job can be sent again with resume"
            )
        if self.control_variates:
            deltas = [c.meta[Meta.CONTROL_DELTAS] for c in accepted]
            self.record.extra = added_controls(self.record.extra, deltas, len(self._sites))
        tables = {c.site: SeverityTable.from_json(c.meta[Meta.TABLE]) for c in accepted}
        # A site of the run that is resumed from, which was not connected when this one began, is absent too.
        asked = sorted(self.record.known_sites | set(self._sites))
        row = ledger_row(self.current_round, contributions, pool_tables(tables), self.aggregator.weighting, asked=asked)
        often = self.record.close_round(row, model.params)
        track_round(self, row, self.fl_ctx)
        for site in [*row["refused"], *row["absent"]]:
            self.warning(f"round {self.current_round} is without {site}: {row['refused'].get(site, 'no answer')}")
        for site in often:
            self.error(
                f"{site} WAS LEFT OUT OF {self.record.attendance.left_out[site]} ROUNDS: the model hardly knows it"
            )
        self.info(f"round {self.current_round}: validation {row['validation']}")
        if self.record.has_converged(self.policy) and self.record.next_round < self._total_rounds:
            raise ConvergedError

    def _finish(self, initial: Mapping[str, np.ndarray]) -> None:
        record, phase = self.record, FinalPhase(self._ask_all, SCALES[self.scale], self.seed)
        tables, losses = phase.evaluation.judge(record.sent, "validation")
        last = ledger_row(record.next_round, (), pool_tables(tables), self.aggregator.weighting, losses)
        record.close_last(last)
        track_round(self, last, self.fl_ctx)
        self._save(record.best.weights)  # before anything else can fail
        if record.average:
            judged = self._unless_missing(lambda: phase.average(record, tables, self.aggregator.weighting), None)
            self._result["average"] = judged
            self.info(f"mean of the rounds' models: {judged or 'no site judged it'}")
        best = record.best
        unknown: tuple[GradeCalibration | None, dict[str, Any] | None] = (None, None)
        calibration, entry = self._unless_missing(lambda: phase.calibrate(best.weights), unknown)
        self._result["calibration"] = entry
        self._save(best.weights, calibration)
        tables, entries = phase.test(best.weights, calibration)
        missing = self.policy.missing(tables, len(self._sites))
        if missing:
            raise StudyStoppedError(f"the test of the model, which is saved: {missing}")
        self._result |= {"best_round": best.round_number, **entries, "left_out": dict(record.attendance.left_out)}
        told = [pair for row in record.ledger for pair in row["anomalies"].items()]
        spent = {site: entry["epsilon"] for site, entry in told if "epsilon" in entry}
        if spent:
            self._result["epsilon"] = spent
        self._result |= phase.majority_alone(tables)
        if self.site_models:
            nothing: dict[str, Any] = {"comparison": None}
            self._result |= self._unless_missing(lambda: phase.site_models(best.weights, initial, tables), nothing)
        if self.personalise:
            nothing = {"personalised": None}
            self._result |= self._unless_missing(lambda: phase.personalised(best.weights), nothing)
        self._result["status"], self._result["reason"] = "completed", ""

    def _unless_missing(self, evaluate: Callable[[], Entries], otherwise: Entries) -> Entries:
        """An evaluation beside the test; ``otherwise`` where no site answered, which costs nothing of the model."""
        try:
            return evaluate()
        except NoAnswerError as error:
            self.error(str(error))
            return otherwise

    def _save(self, weights: Mapping[str, np.ndarray], calibration: GradeCalibration | None = None) -> None:
        path = self._folder() / MODEL_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        provenance = {
            "best_round": self.record.best.round_number,
            "averaged": bool((self._result.get("average") or {}).get("kept")),
            "sites": len(self._sites),
            "versions": self._result["versions"],
        }
        tensors = {key: torch.from_numpy(np.array(value, dtype=np.float32)) for key, value in weights.items()}
        save_model(path, self.network, self.inputs, self.scale, tensors, provenance, calibration)
        self._result["model"] = {"file": MODEL_FILE, "sha256": file_digest(path)}
