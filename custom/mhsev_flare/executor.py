"""The executor that runs at each site: standardise, train, validate, submit_model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from torch import nn

from mhsev_flare.gates import weights_digest
from mhsev_flare.handshake import SiteReport
from mhsev_flare.local_training import LocalTraining
from mhsev_flare.model_average import check_decay
from mhsev_flare.protocol import (
    MODEL_FILE,
    PROTOCOL_VERSION,
    TASK_COMPARE,
    TASK_PERSONALISE,
    TASK_STANDARDISE,
    TASK_SUBMIT_MODEL,
    TASK_TRAIN,
    TASK_VALIDATE,
    Meta,
    Moments,
)
from mhsev_flare.site import load_site_data
from mhsev_flare.site_context import place_of, privacy_account, run_folder, site_folders, site_policy
from mhsev_flare.site_data import SiteData, SiteError
from mhsev_flare.site_evaluation import SiteEvaluation, asked_calibration
from mhsev_flare.site_policy import REQUIRED
from mhsev_flare.site_round import train_round, train_round_privately
from mhsev_flare.site_sums import site_sums
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.model_file import save_model
from mhsev_monai.private_training import PrivacyParameters
from mhsev_monai.severity import SCALES
from mhsev_monai.training import TrainingAbortedError, TrainingParameters
from mhsev_monai.twin_inputs import TwinInputs
from mhsev_monai.volume_network import SeverityCNN3d, device_name, place_network

PERSONAL_ROUNDS = 10
"""Rounds of a site's own training beyond the global model; the best of them is kept, or the global model."""

PERSONAL_MODEL, OWN_MODEL, CONTROL_FILE = "personal.pt", "own_model.npz", "controls.npz"


class SeverityExecutor(Executor):
    """One site's part in the federated training of a severity network.

    Weights come in whole and go out as differences; buffers (standardisation, class weights) come in and never go out.
    All that a later task needs is in the message or on the site's disk, so it does not matter whether FLARE keeps one
    process for the whole run or starts a new one for each task, as its simulator does with fewer threads than sites.

    Args:
        network: the network to train; its weights are replaced by those that arrive.
        inputs: turns a case into the network's input.
        scale: name of the grading scale, a key of ``mhsev_monai.severity.SCALES``.
        epochs: passes over the training cases, and their twins, in each round.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch_size: cases a step.
        count_weight: weight of the count loss beside the ordinal loss.
        seed: of splits, shuffling and dropout; combined with the site's name and the round.
        twins: train also on each training scan's protocol twin, see ``mhsev_monai.twin_inputs``.
        ema_decay: of the average of the rounds' models where this site trains alone; see ``JobSpec``.
        privacy: train with differential privacy of each scan; None: without.
    """

    # Jobs of before have none; FLARE leaves arguments out that equal their defaults, and a default may change one day.
    _always_serialize_args: ClassVar[tuple[str, ...]] = ("ema_decay",)

    def __init__(
        self,
        network: nn.Module,
        inputs: CaseInputs,
        scale: str,
        epochs: int,
        learning_rate: float,
        weight_decay: float,
        batch_size: int,
        count_weight: float,
        seed: int,
        twins: bool,
        ema_decay: float = 0.0,
        privacy: PrivacyParameters | None = None,
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {sorted(SCALES)}, got {scale!r}")
        if twins:
            TwinInputs(inputs)  # refuses inputs that no twin can go through
        if privacy is not None and twins:
            raise ValueError("with privacy, twins must be off: a scan and its twin would be two records of one patient")
        self.network = network
        self.inputs = inputs
        self.scale = scale
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.count_weight = count_weight
        self.seed = seed
        self.twins = twins
        self.ema_decay = check_decay(ema_decay)
        self.privacy = privacy
        self._site = ""
        self._data: SiteData | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Learn the site's name at the start of a run, and drop its data at the end."""
        if event_type == EventType.START_RUN:
            self._site = fl_ctx.get_identity_name()
            # Sites share the machine in the simulator, and a vector of 60 numbers never gains from more threads.
            if fl_ctx.get_prop(FLContextKey.SIMULATE_MODE, False) or not isinstance(self.network, SeverityCNN3d):
                torch.set_num_threads(1)
            place_network(self.network)
        elif event_type == EventType.END_RUN:
            self._data = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Do one task; the edge where every failure becomes a FLARE return code."""
        tasks = {
            TASK_STANDARDISE: self._standardise,
            TASK_TRAIN: self._train,
            TASK_VALIDATE: self._validate,
            TASK_SUBMIT_MODEL: self._submit_model,
            TASK_PERSONALISE: self._personalise,
            TASK_COMPARE: self._compare,
        }
        if task_name not in tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        try:
            return tasks[task_name](shareable, fl_ctx, abort_signal).to_shareable()
        except TrainingAbortedError as error:
            self.log_info(fl_ctx, f"{task_name} aborted: {error}")
            return make_reply(ReturnCode.TASK_ABORTED)
        except SiteError as error:
            self.log_error(fl_ctx, f"{task_name}: {error}")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        except Exception as error:
            # The text of an unforeseen exception may hold a path or a name, and logs can leave the site: its type only.
            self.log_error(fl_ctx, f"{task_name} failed unexpectedly with {type(error).__name__}{place_of(error)}")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)

    def _standardise(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> DXO:
        try:
            data = self._site_data(fl_ctx)
            self._check_cost(data, int(shareable.get_header(AppConstants.NUM_ROUNDS, 1)), fl_ctx)
        except SiteError as error:
            self.log_error(fl_ctx, f"this site cannot take part: {error}")
            return self._reply(DataKind.WEIGHTS, {Moments.N: np.zeros(1)}, {Meta.REFUSAL: str(error)})
        scale = SCALES[self.scale]
        report = SiteReport.of_this_machine(self.scale, device_name(self.network)).to_json()
        meta = {Meta.SITE_SUMMARY: data.summary(scale), Meta.N_SAMPLES: len(data.train), Meta.REPORT: report}
        return self._reply(DataKind.WEIGHTS, site_sums(self.network, data, scale), meta)

    def _train(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> DXO:
        data, local = self._site_data(fl_ctx), self._local(abort_signal)
        message = from_shareable(shareable)
        received = local.load(message.data)
        round_number = int(shareable.get_header(AppConstants.CURRENT_ROUND, 0))
        table, validation_loss = local.evaluate("validation", data)
        meta = {
            Meta.N_SAMPLES: len(data.train),
            Meta.ROUND: round_number,
            Meta.BASE: weights_digest(received),
            Meta.TABLE: table,
            Meta.VALIDATION_LOSS: validation_loss,
        }
        if self.privacy is not None:
            account = privacy_account(self._site, fl_ctx)
            meta |= train_round_privately(local, data, self.privacy, account, site_policy(fl_ctx))
        else:
            controls = run_folder(fl_ctx) / CONTROL_FILE
            meta |= train_round(local, data, round_number, message.meta or {}, controls)
        return self._reply(DataKind.WEIGHT_DIFF, local.update(received), meta)

    def _validate(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> DXO:
        data, local = self._site_data(fl_ctx), self._local(abort_signal)
        received = from_shareable(shareable)
        weights, asked = local.load(received.data), received.meta or {}
        split = asked.get(Meta.SPLIT, "validation")
        if split == "train" and self.privacy is not None:
            raise SiteError("a table of the training cases would leave without privacy; ask for another split")
        meta, loss = SiteEvaluation.under(site_policy(fl_ctx).least, local, data).answer(split, asked)
        if (kept := asked.get(Meta.KEEP)) is not None:
            self._save(MODEL_FILE, weights, {"best_round": int(kept)}, fl_ctx, asked_calibration(asked))
        return self._reply(DataKind.METRICS, {"loss": loss}, meta)

    def _submit_model(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> DXO:
        """The model that this site trains alone: its own cases only, as many rounds, the best by its own validation.

        The standardisation and class weights are those of the model that came, so the federation's.
        """
        if self.privacy is not None:
            raise SiteError("a model of the site's own training would leave it without privacy; send the job without")
        data, local = self._site_data(fl_ctx), self._local(abort_signal)
        local.load(from_shareable(shareable).data)
        n_rounds = int(shareable.get_header(AppConstants.NUM_ROUNDS, 1))
        best = local.train_alone(data, n_rounds, self.ema_decay)
        path = run_folder(fl_ctx) / OWN_MODEL
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **best.weights)
        return self._reply(DataKind.WEIGHTS, best.weights, {Meta.N_SAMPLES: len(data.train)})

    def _compare(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> DXO:
        """The model that came beside the one that this site trained alone, on its own test cases."""
        data, local = self._site_data(fl_ctx), self._local(abort_signal)
        local.load(from_shareable(shareable).data)
        loss, path = local.loss("test", data), run_folder(fl_ctx) / OWN_MODEL
        if not path.is_file():
            raise SiteError("this site has no model of its own in this job to compare with")
        with np.load(path) as own:
            meta = SiteEvaluation.under(site_policy(fl_ctx).least, local, data).pairs(own)
        return self._reply(DataKind.METRICS, {"loss": loss}, meta)

    def _personalise(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> DXO:
        """Train the global model on with this site's cases, and keep the best by its own validation.

        The global model itself is among those that are judged, so a site keeps it where training on does not help.
        """
        if self.privacy is not None:
            raise SiteError("further training at the site would tell of it without privacy; send the job without")
        data, local = self._site_data(fl_ctx), self._local(abort_signal)
        local.load(from_shareable(shareable).data)
        best = local.train_alone(data, PERSONAL_ROUNDS)
        local.load(best.weights)
        self._save(PERSONAL_MODEL, best.weights, {"personalised": best.round_number}, fl_ctx)
        table, loss = local.evaluate("test", data)
        return self._reply(DataKind.METRICS, {"loss": loss}, {Meta.TABLE: table, Meta.SPLIT: "test"})

    def _local(self, abort_signal: Signal) -> LocalTraining:
        parameters = TrainingParameters(
            self.epochs, self.learning_rate, self.weight_decay, self.batch_size, self.count_weight
        )
        return LocalTraining(
            network=self.network,
            scale=SCALES[self.scale],
            parameters=parameters,
            seed=self.seed,
            site=self._site,
            should_stop=lambda: bool(abort_signal.triggered),
        )

    def _save(
        self,
        name: str,
        weights: Mapping[str, np.ndarray],
        provenance: dict[str, Any],
        fl_ctx: FLContext,
        calibration: GradeCalibration | None = None,
    ) -> None:
        path = run_folder(fl_ctx) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {key: torch.from_numpy(value.copy()) for key, value in weights.items()}
        save_model(path, self.network, self.inputs, self.scale, tensors, provenance, calibration)

    def _reply(self, kind: str, data: Mapping[str, Any], meta: Mapping[str, Any]) -> DXO:
        own = {Meta.PROTOCOL: PROTOCOL_VERSION, Meta.FINGERPRINT: self.inputs.fingerprint()}
        return DXO(kind, data=dict(data), meta={**own, **meta})

    def _check_cost(self, data: SiteData, n_rounds: int, fl_ctx: FLContext) -> None:
        """Refuse a job whose rounds would together cost more privacy than this site's policy allows."""
        policy = site_policy(fl_ctx)
        if self.privacy is None or policy.privacy.rule != REQUIRED:
            return
        account = privacy_account(self._site, fl_ctx)
        policy.check_cost(self._local(Signal()).planned_epsilon(len(data.train), self.privacy, account, n_rounds))

    def _site_data(self, fl_ctx: FLContext) -> SiteData:
        # Each task asks for the data first, and none gets them against the policy, whatever the server left out.
        site_policy(fl_ctx).check_job(self.privacy)
        if self._data is None:
            self._data = load_site_data(
                self._site,
                site_folders(self._site, fl_ctx),
                self.inputs,
                self.seed,
                SCALES[self.scale],
                self._progress(fl_ctx),
                self.twins,
            )
            self.log_info(fl_ctx, f"cases: {self._data.summary(SCALES[self.scale])}")
        return self._data

    def _progress(self, fl_ctx: FLContext) -> Any:
        def report(done: int, total: int) -> None:
            if done == total or done % 10 == 0:
                self.log_info(fl_ctx, f"features of {done} of {total} scans")

        return report
