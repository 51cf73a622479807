"""The jobs: one hand-written table, and how a row of it becomes a FLARE job."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nvflare.job_config.api import FedJob

import mhsev_flare
import mhsev_monai
from mhsev_flare.aggregator import SeverityAggregator
from mhsev_flare.controller import SeverityFedAvg
from mhsev_flare.executor import SeverityExecutor
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.server_optimiser import ServerOptimiser
from mhsev_flare.tracking import tensorboard_receiver
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.described_patch_inputs import DescribedPatchInputs
from mhsev_monai.described_patch_network import DescribedPatchNetwork
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.features import FEATURE_NAMES
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.inputs import DSDCandidateInputs, DSDInputs
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.noise_inputs import ContrastNoiseInputs
from mhsev_monai.patch_inputs import CandidatePatchInputs
from mhsev_monai.patch_network import CandidateCNN
from mhsev_monai.radiomics.inputs import RadiomicsInputs
from mhsev_monai.severity import PAPER_SCALE, Severity
from mhsev_monai.volume_inputs import VolumeInputs
from mhsev_monai.volume_network import SeverityCNN3d

TASK_REQUEST_INTERVAL = 0.1
"""Seconds between a site's requests for work; FLARE's 2 s make a round of a small network three times as long."""

# FedJob copies the source of every class that it meets into the job, unless its package is named here; a job with code
# in it needs each hospital's permission to bring code.
INSTALLED_PACKAGES = ["mhsev_flare", "mhsev_monai", "monai", "nvflare", "torch", "numpy", "scipy"]


GLOBAL_FEATURES = [name for name in FEATURE_NAMES if name.startswith(("band", "rank_", "window_", "map_"))]
"""What the paper's wording makes of a feature map: energies, components and moments of the whole of it, no count."""


def _vector_mlp(
    name: str,
    inputs: CaseInputs,
    hidden_features: tuple[int, ...] = (64, 32),
    dropout: float = 0.3,
    max_deviation: float = 3.0,
) -> JobSpec:
    """The paper's classifier: an MLP over one vector a scan."""
    network = SeverityMLP(
        in_features=len(inputs.feature_names),
        hidden_features=list(hidden_features),
        num_classes=len(Severity),
        dropout=dropout,
        max_deviation=max_deviation,
        seed=1,
    )
    return JobSpec(name=name, inputs=inputs, network=network)


def _radiomics_mlp(name: str, inputs: RadiomicsInputs) -> JobSpec:
    """The same with what a search found for it; see docs/baselines.md."""
    spec = _vector_mlp(name, inputs, hidden_features=(128, 64), dropout=0.5, max_deviation=5.0)
    return replace(spec, learning_rate=1e-2, weight_decay=1e-2)


_CONTEXT = ("noise", "b0_noise", "trace_noise", "in_plane_spacing", "slice_spacing")
"""Descriptors that say how much a scan can show."""


def context_of(names: Sequence[str]) -> list[int]:
    """Where those of ``_CONTEXT`` stand that are among ``names``."""
    return [names.index(name) for name in _CONTEXT if name in names]


def _candidate_mlp(name: str, inputs: DSDCandidateInputs) -> JobSpec:
    """One MLP shared by all candidates, trained end to end from the scan's count."""
    network = CandidateMLP(
        in_features=len(inputs.feature_names),
        hidden_features=[24, 12],
        members=3,
        num_classes=len(Severity),
        lower_bounds=list(PAPER_SCALE.lower_bounds),
        dropout=0.1,
        noise=0.3,
        grade_weight=1.0,
        mark_weight=0.2,
        yardstick="both",
        context_features=context_of(inputs.feature_names),
        max_deviation=8.0,
        max_federation_deviation=4.0,
        seed=1,
    )
    return JobSpec(
        name=name,
        inputs=inputs,
        network=network,
        num_rounds=30,
        epochs=2,
        learning_rate=2e-2,
        weight_decay=1e-1,
        twins=True,
    )


def _patch_detector(name: str, inputs: CandidatePatchInputs) -> JobSpec:
    """A lesion detector whose scores are counted; sites with lesion masks teach it candidate by candidate."""
    network = CandidateCNN(
        in_features=len(inputs.feature_names),
        channels=len(inputs.channels),
        side=inputs.side,
        hidden_features=[16, 32, 32],
        members=1,
        num_classes=len(Severity),
        lower_bounds=list(PAPER_SCALE.lower_bounds),
        dropout=0.0,
        noise=0.1,
        grade_weight=2.0,
        mark_weight=5.0,
        max_deviation=6.0,
        seed=1,
    )
    return JobSpec(
        name=name,
        inputs=inputs,
        network=network,
        num_rounds=30,
        epochs=1,
        learning_rate=3e-3,
        weight_decay=3e-2,
        batch_size=8,
    )


def _described_patches(name: str, inputs: DescribedPatchInputs) -> JobSpec:
    """Descriptors, with the fused contrast's noise, and a patch of each candidate; for scanners that all train."""
    network = DescribedPatchNetwork(
        in_features=len(inputs.feature_names),
        descriptors=len(DESCRIPTORS),
        channels=len(inputs.channels),
        side=inputs.side,
        convolutions=[16, 32],
        embedding=16,
        hidden_features=[24, 12],
        members=1,
        num_classes=len(Severity),
        lower_bounds=list(PAPER_SCALE.lower_bounds),
        dropout=0.1,
        noise=0.2,
        grade_weight=1.0,
        mark_weight=5.0,
        context_features=context_of(DESCRIPTORS),
        max_deviation=8.0,
        max_federation_deviation=4.0,
        max_pixel_deviation=6.0,
        seed=1,
    )
    return JobSpec(
        name=name,
        inputs=inputs,
        network=network,
        num_rounds=30,
        epochs=1,
        learning_rate=1e-2,
        weight_decay=3e-2,
        batch_size=8,
        ema_decay=0.8,
    )


CNN_AUGMENTATION: list[dict[str, Any]] = [
    {"_target_": "RandFlip", "prob": 0.5, "spatial_axis": 0},
    {
        "_target_": "RandAffine",
        "prob": 0.5,
        "rotate_range": [0.15, 0.15, 0.15],
        "scale_range": [0.08, 0.08, 0.08],
        "mode": "bilinear",
        "padding_mode": "zeros",
    },
    {"_target_": "RandScaleIntensity", "prob": 0.5, "factors": 0.1},
    {"_target_": "RandShiftIntensity", "prob": 0.5, "offsets": 0.1},
    {"_target_": "RandGaussianNoise", "prob": 0.3, "std": 0.1},
]
"""What may differ between two scans of one brain: side, place, size, gain and noise; radians and shares."""


def _volume_cnn(name: str, inputs: VolumeInputs, backbone: dict[str, Any]) -> JobSpec:
    """The paper's other baseline: a 3-D network over the whole brain."""
    network = SeverityCNN3d(
        in_features=len(inputs.feature_names),
        backbone=backbone,
        augmentation=CNN_AUGMENTATION,
        num_classes=len(Severity),
        seed=1,
    )
    return JobSpec(
        name=name,
        inputs=inputs,
        network=network,
        num_rounds=25,
        epochs=1,
        learning_rate=1e-3,
        weight_decay=1e-2,
        batch_size=4,
        count_weight=1.0,
        site_models=False,
    )


JOBS: Mapping[str, JobSpec] = {
    spec.name: spec
    for spec in (
        _candidate_mlp("dsd_mlp", ContrastNoiseInputs()),
        _vector_mlp("dsd_mlp_literal", DSDInputs(source="b0", kappa=3.0, least_brain=0.25, features=GLOBAL_FEATURES)),
        _radiomics_mlp("radiomics_mlp", RadiomicsInputs()),
        _volume_cnn(
            "cnn3d",
            VolumeInputs(),
            {
                "_target_": "resnet10",
                "widen_factor": 0.25,
                # MONAI's 7 takes twice the time on a CPU, and what is looked for fills 2 voxels.
                "conv1_t_size": 3,
                "conv1_t_stride": 2,
                "norm": ["group", {"num_groups": 4}],
            },
        ),
        _patch_detector("detector_count", CandidatePatchInputs()),
        _described_patches("dsd_patches", DescribedPatchInputs()),
    )
}


def severity_job(spec: JobSpec) -> FedJob:
    """The FLARE job of one row: our workflow at the server, our executor at every site, no code, no data path."""
    job = FedJob(name=spec.name, min_clients=max(spec.min_sites, 2))
    job.to_server(_controller(spec))
    job.to_server({"server": {"task_request_interval": TASK_REQUEST_INTERVAL}})
    if spec.tensorboard:
        job.to_server(tensorboard_receiver(), id="tensorboard")
    job.to_clients(site_executor(spec))
    job.set_app_packages(INSTALLED_PACKAGES)
    return job


def site_executor(spec: JobSpec) -> SeverityExecutor:
    """What runs at every site."""
    return SeverityExecutor(
        network=spec.network,
        inputs=spec.inputs,
        scale=spec.scale,
        epochs=spec.epochs,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        batch_size=spec.batch_size,
        count_weight=spec.count_weight,
        seed=spec.seed,
        twins=spec.twins,
        ema_decay=spec.ema_decay,
        privacy=spec.privacy,
    )


def _controller(spec: JobSpec) -> SeverityFedAvg:
    arguments: dict[str, Any] = {
        "study": spec.name,
        "seed": spec.seed,
        "network": spec.network,
        "inputs": spec.inputs,
        "scale": spec.scale,
        "aggregator": SeverityAggregator(weighting=spec.weighting, rule=spec.rule, tolerated=spec.tolerated),
        "policy": spec.policy,
        "num_rounds": spec.num_rounds,
        "min_sites": spec.min_sites,
        "site_models": spec.site_models,
        "personalise": spec.personalise,
        "control_variates": spec.optimiser.control_variates,
        "resume": spec.resume,
        "fedprox_mu": spec.optimiser.fedprox_mu,
        "ema_decay": spec.ema_decay,
        "settings": spec.settings_digest(),
    }
    if spec.optimiser.server is not None:
        arguments["server_optimiser"] = ServerOptimiser(spec.optimiser.server, dict(spec.optimiser.server_arguments))
    return SeverityFedAvg(**arguments)


def export_job(
    spec: JobSpec, folder: Path, bring_code: bool = False, make: Callable[[JobSpec], FedJob] = severity_job
) -> Path:
    """Write the job of ``spec`` as ``folder/<name>``, replacing the generated files there; returns that folder.

    Args:
        spec: the job.
        folder: holds a folder a job.
        bring_code: put both packages whole into the job, for sites that do not have them installed and let jobs bring
            code (FLARE's BYOC). Where they are installed, FLARE takes the installed ones all the same.
        make: makes the job of a row.
    """
    return write_job(make(spec), folder, bring_code)


def write_job(job: FedJob, folder: Path, bring_code: bool = False) -> Path:
    """Write a job as ``folder/<name>``; see :func:`export_job`."""
    target = folder / str(job.name)
    # What another export left there, such as a model, is not this job's.
    shutil.rmtree(target / "app", ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        job.export_job(temporary)
        shutil.copytree(Path(temporary, str(job.name)), target, dirs_exist_ok=True)
    code = target / "app" / "custom"
    shutil.rmtree(code, ignore_errors=True)
    for package in (mhsev_flare, mhsev_monai) if bring_code else ():
        own = Path(str(package.__file__)).parent
        shutil.copytree(own, code / own.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return target
