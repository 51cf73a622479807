"""The jobs that analyse and train nothing: a table, and how a row of it becomes a FLARE job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nvflare.job_config.api import FedJob
from torch import nn

from mhsev_flare.analysis.association_controller import AssociationController
from mhsev_flare.analysis.association_design import KNOWN_COVARIATES, Design
from mhsev_flare.analysis.association_executor import AssociationExecutor
from mhsev_flare.analysis.explanation_controller import ExplanationController
from mhsev_flare.analysis.explanation_executor import ExplanationExecutor
from mhsev_flare.analysis.explanation_plan import ExplanationPlan
from mhsev_flare.analysis.protocol import MODEL_IN_JOB
from mhsev_flare.jobs import INSTALLED_PACKAGES, JOBS, TASK_REQUEST_INTERVAL
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.model_file import SeverityModel, load_model
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.volume_network import SeverityCNN3d

MIN_SITES = 2
"""With one site the result would be that site's own."""

TASK_CHECK_PERIOD = 0.1
PASSES = 20
"""Up to 8 groups of descriptors are exact with these."""
BACKGROUND_ROWS, BACKGROUND_SCANS = 100, 8


@dataclass(frozen=True)
class AssociationSpec:
    """A study of associations.

    Attributes:
        name: of the job and of its folder.
        columns: variables, of ``association_design.KNOWN_COVARIATES``.
        cuts: least number of microbleeds of each grade above the lowest.
        min_sites: fewest sites of the regression.
        round_timeout: see ``AnalysisController``.
    """

    name: str
    columns: tuple[str, ...] = tuple(KNOWN_COVARIATES)
    cuts: tuple[int, ...] = PAPER_SCALE.lower_bounds
    min_sites: int = MIN_SITES
    round_timeout: float = 0.0

    def __post_init__(self) -> None:
        Design(tuple(self.columns), tuple(self.cuts))


@dataclass(frozen=True)
class ExplanationSpec:
    """An explanation of one model.

    Attributes:
        name: of the job and of its folder.
        network: equal to the model's.
        inputs: equal to the model's.
        plan: which cases, and how carefully.
        scale: name of the grading scale.
        seed: of the training run's splits.
        min_sites: fewest sites.
        round_timeout: see ``AnalysisController``.
        model: the model file, which travels in the job; None: it is put there later, as ``config/model.pt`` of the app.

    Raises:
        ValueError: if the network reads volumes, which have no features.
    """

    name: str
    network: nn.Module
    inputs: CaseInputs
    plan: ExplanationPlan
    scale: str = PAPER_SCALE.name
    seed: int = 1
    min_sites: int = MIN_SITES
    round_timeout: float = 0.0
    model: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.network, SeverityCNN3d):
            raise ValueError("this model reads volumes, which have no features to attribute to; name another model")
        if self.model is not None and self.model.name != MODEL_IN_JOB:
            raise ValueError(f"the model file must be called {MODEL_IN_JOB}, got {self.model.name}")


AnalysisSpec = AssociationSpec | ExplanationSpec


def usual_plan(network: nn.Module) -> ExplanationPlan:
    """The test cases, with as much effort as ``mhsev explain`` makes for a scan."""
    n_background = BACKGROUND_SCANS if isinstance(network, CandidateMLP) else BACKGROUND_ROWS
    return ExplanationPlan("test", PASSES, n_background, background_seed=0, covariances=False)


def explanation_of(model: Path, spec: ExplanationSpec) -> ExplanationSpec:
    """The explanation ``spec`` of the model in a file, whatever network it has.

    Raises:
        ModelFileError: if the file is no model.
        ValueError: if the model cannot be explained.
    """
    found: SeverityModel = load_model(model)
    plan = replace(spec.plan, n_background=usual_plan(found.network).n_background)
    return replace(spec, network=found.network, inputs=found.inputs, scale=found.scale.name, plan=plan, model=model)


ANALYSIS_JOBS: Mapping[str, AnalysisSpec] = {
    "associations": AssociationSpec("associations"),
    "explain": ExplanationSpec(
        "explain", JOBS["dsd_mlp"].network, JOBS["dsd_mlp"].inputs, usual_plan(JOBS["dsd_mlp"].network)
    ),
}


def analysis_job(spec: AnalysisSpec) -> FedJob:
    """The FLARE job of one row: our workflow at the server, our executor at every site, no code, no data path."""
    job = FedJob(name=spec.name, min_clients=spec.min_sites)
    job.to_server(analysis_server(spec))
    job.to_server({"server": {"task_request_interval": TASK_REQUEST_INTERVAL}})
    if isinstance(spec, ExplanationSpec) and spec.model is not None:
        job.add_file_to_server(str(spec.model), app_folder_type="config")
    job.to_clients(analysis_executor(spec))
    job.set_app_packages(INSTALLED_PACKAGES)
    return job


def analysis_executor(spec: AnalysisSpec) -> AssociationExecutor | ExplanationExecutor:
    """What runs at every site."""
    if isinstance(spec, AssociationSpec):
        return AssociationExecutor()
    return ExplanationExecutor(
        network=spec.network, inputs=spec.inputs, scale=spec.scale, seed=spec.seed, plan=spec.plan
    )


def analysis_server(spec: AnalysisSpec) -> AssociationController | ExplanationController:
    """What runs at the server."""
    if isinstance(spec, AssociationSpec):
        return AssociationController(
            study=spec.name,
            columns=spec.columns,
            cuts=spec.cuts,
            min_sites=spec.min_sites,
            round_timeout=spec.round_timeout,
            task_check_period=TASK_CHECK_PERIOD,
        )
    return ExplanationController(
        study=spec.name,
        network=spec.network,
        inputs=spec.inputs,
        scale=spec.scale,
        plan=spec.plan,
        min_sites=spec.min_sites,
        round_timeout=spec.round_timeout,
        task_check_period=TASK_CHECK_PERIOD,
    )
