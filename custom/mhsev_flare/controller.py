"""The server's workflow: handshake and standardisation, rounds of FedAvg, best round, final evaluation, result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import nvflare
import torch
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.fedavg import FedAvg
from torch import nn

from mhsev_flare.aggregator import SeverityAggregator
from mhsev_flare.protocol import (
    MODEL_FILE,
    PROTOCOL_VERSION,
    RUN_FOLDER,
    TASK_STANDARDISE,
    TASK_SUBMIT_MODEL,
    TASK_VALIDATE,
    Meta,
)
from mhsev_flare.result import (
    compare_with_site_models,
    file_digest,
    pool_tables,
    test_results,
    write_ledger,
    write_result,
)
from mhsev_flare.rounds import BestRound, ledger_row
from mhsev_flare.standardisation import pool_standardisation
from mhsev_monai._version import __version__
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.model_file import save_model
from mhsev_monai.severity import SCALES


class StudyStoppedError(RuntimeError):
    """The run cannot go on; the message is for the result file and holds nothing private."""


class SeverityFedAvg(FedAvg):
    """Federated averaging (McMahan et al. 2017) of a severity network, with its evaluation.

    Before round 0 every site is asked for sums over its training cases and their twins, which give the global
    standardisation, and for numbers of cases by grade, which give class weights. A site that cannot take part says why,
    and the run stops unless ``min_sites`` others remain. The metrics that arrive with an update describe the model that
    was sent, so each round's model is judged one round later and the last one by a round of its own; the best by
    validation loss is evaluated on the test cases and saved, that very model. ``result.json`` is written whatever
    happens, since FLARE's job status does not tell.

    Args:
        study: name of the job, for the result.
        seed: the executors', for the result: with it the splits can be made again.
        network: the network to train, equal to the executor's; its weights are the initial ones.
        inputs: what the network reads, equal to the executor's; the model file keeps its arguments.
        scale: name of the grading scale.
        aggregator: combines the sites' updates.
        num_rounds: rounds of training.
        min_sites: fewest sites to train with; 0 means every site that the job was sent to.
        site_models: also train what each site would have alone, and compare.
        task_check_period: seconds between looks for answers.
    """

    _always_serialize_args = ("num_rounds", "min_sites", "site_models", "task_check_period")

    def __init__(
        self,
        study: str,
        seed: int,
        network: nn.Module,
        inputs: CaseInputs,
        scale: str,
        aggregator: SeverityAggregator,
        num_rounds: int = 20,
        min_sites: int = 0,
        site_models: bool = True,
        task_check_period: float = 0.1,
    ) -> None:
        # No persistor: the model file is ours, and FLARE's default allow list does not hold its torch persistor.
        super().__init__(
            persistor_id="",
            num_clients=None,
            num_rounds=num_rounds,
            aggregator=aggregator,
            task_check_period=task_check_period,
        )
        self.study = study
        self.seed = seed
        self.network = network
        self.inputs = inputs
        self.scale = scale
        self.min_sites = min_sites
        self.site_models = site_models
        self.task_check_period = task_check_period
        self._result: dict[str, Any] = {}
        self._ledger: list[dict[str, Any]] = []
        self._best = BestRound()
        self._sent: dict[str, np.ndarray] = {}
        self._sites: list[str] = []
        self._needed = 0

    def run(self) -> None:
        """The whole study; ends with a result file, also when it fails."""
        self._result = {
            "status": "failed",
            "reason": "the run ended before its end",
            "job": self.study,
            "seed": self.seed,
            "versions": {"mhsev": __version__, "nvflare": nvflare.__version__, "torch": str(torch.__version__)},
            "scale": self.scale,
            "num_rounds": self.num_rounds,
            "weighting": self.aggregator.weighting,
        }
        try:
            self._study()
        except Exception as error:
            self._result["reason"] = (
                str(error)
                if isinstance(error, (StudyStoppedError, ValueError))
                else (f"the server failed unexpectedly with {type(error).__name__}; see its log")
            )
            raise
        finally:
            write_ledger(self._folder(), self._ledger)
            write_result(self._folder(), self._result)

    def _folder(self) -> Path:
        return Path(self.get_run_dir()) / RUN_FOLDER

    def _study(self) -> None:
        fingerprint = self.inputs.fingerprint()
        initial = {key: value.numpy().copy() for key, value in self.network.state_dict().items()}
        sites, buffers = self._handshake(fingerprint)
        initial.update(buffers)
        self._result["features"] = {"fingerprint": fingerprint, "names": list(self.inputs.feature_names)}
        self.aggregator.expect(initial, fingerprint)
        self._sent = {key: value.copy() for key, value in initial.items()}
        self._sites = sites
        self.model = FLModel(params={k: v.copy() for k, v in initial.items()}, params_type=ParamsType.FULL)
        super().run()
        if len(self._ledger) < self.num_rounds:
            failed = ", ".join(sorted(self._current_failed_clients)) or "none is known to have failed"
            raise StudyStoppedError(
                f"training stopped after {len(self._ledger)} of {self.num_rounds} rounds; sites that failed: {failed}; "
                "the reason is in their own logs"
            )
        self._judge_last(sites)
        self._finish(sites, initial)

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        """The sites that passed the handshake; FedAvg asks anew in each round, and those that refused stay out."""
        return list(self._sites) if self._sites else sorted(super().sample_clients(num_clients))

    def _ask(
        self, task: str, sites: list[str] | None, params: Mapping[str, np.ndarray], meta: dict[str, Any]
    ) -> list[FLModel]:
        message = FLModel(params=dict(params), params_type=ParamsType.FULL, meta=meta, total_rounds=self.num_rounds)
        answers = self.send_model_and_wait(task_name=task, data=message, targets=sites)
        if self.abort_signal.triggered:
            raise StudyStoppedError(f"the run was stopped while the sites worked on {task}")
        return sorted(answers, key=lambda answer: str(answer.meta["client_name"]))

    def _handshake(self, fingerprint: str) -> tuple[list[str], dict[str, np.ndarray]]:
        asked = self.sample_clients()
        answers = self._ask(TASK_STANDARDISE, asked, {"protocol": np.array([PROTOCOL_VERSION])}, {})
        refused = dict.fromkeys(asked, "did not answer; see the log of that site")
        accepted: dict[str, FLModel] = {}
        for answer in answers:
            site, reason = str(answer.meta["client_name"]), _refusal(answer, fingerprint)
            del refused[site]
            if reason:
                refused[site] = reason
            else:
                accepted[site] = answer
        self._result["sites"] = {site: accepted[site].meta[Meta.SITE_SUMMARY] for site in sorted(accepted)}
        self._result["refused"] = refused
        for site, reason in refused.items():
            self.error(f"{site} does not take part: {reason}")
        self._needed = max(self.min_sites or len(asked), 1)
        if len(accepted) < self._needed:
            self._result["status"] = "refused"
            reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(refused.items()))
            raise StudyStoppedError(
                f"{len(accepted)} of {len(asked)} sites can take part, {self._needed} are needed ({reasons})"
            )
        standardisation = pool_standardisation({site: answer.params for site, answer in accepted.items()})
        return sorted(accepted), standardisation.buffers()

    def save_model(self, model: FLModel) -> None:
        """FLARE's hook at the end of each round: judge the model that was sent in it, and write the ledger."""
        contributions = self.aggregator.contributions()
        refused = {c.site: c.reason for c in contributions if not c.accepted}
        if len(contributions) - len(refused) < self._needed:
            reasons = "; ".join(f"{site}: {reason}" for site, reason in refused.items()) or "the others sent nothing"
            raise StudyStoppedError(
                f"round {self.current_round}: {len(contributions) - len(refused)} updates can be used, {self._needed} "
                f"are needed ({reasons})"
            )
        tables = {c.site: SeverityTable.from_json(c.meta[Meta.TABLE]) for c in contributions if c.accepted}
        row = ledger_row(self.current_round, contributions, pool_tables(tables), self.aggregator.weighting)
        self._ledger.append(row)
        self._best.offer(self.current_round, self._sent, row["validation"])
        self._sent = {key: np.array(value, copy=True) for key, value in model.params.items()}
        write_ledger(self._folder(), self._ledger)
        self.info(f"round {self.current_round}: validation {row['validation']}")

    def _judge_last(self, sites: list[str]) -> None:
        answers = self._ask(TASK_VALIDATE, sites, self._sent, {Meta.SPLIT: "validation"})
        tables = _tables(answers)
        losses = [(a.metrics["loss"], tables[str(a.meta["client_name"])].n) for a in answers]
        row = ledger_row(self.num_rounds, (), pool_tables(tables), self.aggregator.weighting, losses)
        self._ledger.append(row)
        self._best.offer(self.num_rounds, self._sent, row["validation"])

    def _finish(self, sites: list[str], initial: Mapping[str, np.ndarray]) -> None:
        weights = self._best.weights
        tables = _tables(self._ask(TASK_VALIDATE, sites, weights, {Meta.SPLIT: "test"}))
        self._result["best_round"] = self._best.round_number
        self._result["test"] = test_results(tables, SCALES[self.scale])
        self._save(weights, len(sites))
        if self.site_models:
            self._result["comparison"] = compare_with_site_models(
                pool_tables(tables), self._evaluate_site_models(sites, initial)
            )
        self._result["status"], self._result["reason"] = "completed", ""

    def _save(self, weights: Mapping[str, np.ndarray], n_sites: int) -> None:
        """Write the model before anything else can fail."""
        path = self._folder() / MODEL_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        provenance = {"best_round": self._best.round_number, "sites": n_sites, "versions": self._result["versions"]}
        tensors = {key: torch.from_numpy(np.array(value, dtype=np.float32)) for key, value in weights.items()}
        save_model(path, self.network, self.inputs, self.scale, tensors, provenance)
        self._result["model"] = {"file": MODEL_FILE, "sha256": file_digest(path)}

    def _evaluate_site_models(self, sites: list[str], initial: Mapping[str, np.ndarray]) -> dict[str, SeverityTable]:
        pooled = {}
        for answer in self._ask(TASK_SUBMIT_MODEL, sites, initial, {}):
            owner = str(answer.meta["client_name"])
            answers = self._ask(TASK_VALIDATE, sites, answer.params, {Meta.SPLIT: "test"})
            pooled[owner] = pool_tables(_tables(answers))
        return pooled


def _refusal(answer: FLModel, fingerprint: str) -> str:
    meta = answer.meta
    if meta.get(Meta.PROTOCOL) != PROTOCOL_VERSION:
        return f"speaks protocol {meta.get(Meta.PROTOCOL)} where {PROTOCOL_VERSION} is spoken; install the same mhsev"
    if meta.get(Meta.REFUSAL):
        return str(meta[Meta.REFUSAL])
    if meta.get(Meta.FINGERPRINT) != fingerprint:
        return "computes other features than the server expects; install the same mhsev everywhere"
    try:
        pool_standardisation({"this site": answer.params})
    except ValueError as error:
        return str(error)
    return ""


def _tables(answers: list[FLModel]) -> dict[str, SeverityTable]:
    return {str(a.meta["client_name"]): SeverityTable.from_json(a.meta[Meta.TABLE]) for a in answers}
