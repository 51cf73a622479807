"""The server's workflow of the job ``explain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import nn

from mhsev_flare.analysis.analysis_controller import AnalysisController
from mhsev_flare.analysis.asked_sites import AnalysisStoppedError
from mhsev_flare.analysis.explanation_plan import ExplanationPlan
from mhsev_flare.analysis.explanation_study import ExplanationStudy, same_arguments
from mhsev_flare.analysis.protocol import EXPLANATION_FILE, EXPLANATION_SCHEMA, MODEL_IN_JOB
from mhsev_flare.result import file_digest
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.model_file import ModelFileError, SeverityModel, class_config, load_model


class ExplanationController(AnalysisController):
    """Explains the model that lies in the job over all sites' cases; ends with ``explanation.json``.

    Args:
        study: see ``AnalysisController``.
        network: equal to the model's; only its class and arguments are looked at.
        inputs: equal to the model's.
        scale: name of the grading scale.
        plan: how the model is explained.
        min_sites: see ``AnalysisController``.
        round_timeout: see ``AnalysisController``.
        task_check_period: see ``AnalysisController``.

    Raises:
        ValueError: as ``AnalysisController``.
    """

    file_name: ClassVar[str] = EXPLANATION_FILE
    schema: ClassVar[str] = EXPLANATION_SCHEMA

    def __init__(
        self,
        study: str,
        network: nn.Module,
        inputs: CaseInputs,
        scale: str,
        plan: ExplanationPlan,
        min_sites: int,
        round_timeout: float,
        task_check_period: float,
    ) -> None:
        super().__init__(study, min_sites, round_timeout, task_check_period)
        self.network = network
        self.inputs = inputs
        self.scale = scale
        self.plan = plan

    def analyse(self, sites: Sequence[str]) -> None:
        """See ``AnalysisController``."""
        model = self._model()
        self.result["split"] = self.plan.split
        names = tuple(model.inputs.feature_names)
        ExplanationStudy(model.network, names, self.plan, self.ask, self.min_sites, self.result).run(sites)

    def _model(self) -> SeverityModel:
        config = Path(self.engine.get_workspace().get_app_config_dir(self.fl_ctx.get_job_id()))
        path = config / MODEL_IN_JOB
        if not path.is_file():
            raise AnalysisStoppedError(
                f"this job holds no model; export it with `mhsev jobs export FOLDER --only {self.study} --model "
                f"{MODEL_IN_JOB}` of a finished run"
            )
        try:
            model = load_model(path)
        except ModelFileError as error:
            raise AnalysisStoppedError(f"the model of this job cannot be used: {error}") from error
        for own, theirs in ((self.network, model.network), (self.inputs, model.inputs)):
            if not same_arguments(class_config(own), class_config(theirs)):
                raise AnalysisStoppedError(
                    f"the model of this job has another {type(theirs).__name__} than the job names; export the job "
                    "with this model"
                )
        self.result["model"] = {
            "digest": file_digest(path),
            "network": type(model.network).__name__,
            "features": model.inputs.fingerprint(),
            "scale": model.scale.name,
        }
        return model

    def fingerprint(self) -> str:
        """Of the inputs."""
        return self.inputs.fingerprint()

    def scale_name(self) -> str:
        """Of the grading scale."""
        return self.scale
