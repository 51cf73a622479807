"""A row of the table of jobs as a FLARE job over ciphertexts; needs the extra ``he`` and sites with keys."""

from __future__ import annotations

import dataclasses
import importlib.util

from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType

from mhsev_flare.combination import MEAN
from mhsev_flare.encrypted_payload import PACKED, PackUpdate, UnpackModel
from mhsev_flare.job_spec import FederatedOptimiser, JobSpec
from mhsev_flare.jobs import INSTALLED_PACKAGES, TASK_REQUEST_INTERVAL, site_executor
from mhsev_flare.protocol import TASK_STANDARDISE, TASK_TRAIN, TASK_VALIDATE

SUFFIX = "_encrypted"


class MissingTensealError(ImportError):
    """The package that encrypts is not installed."""


def encrypted_spec(spec: JobSpec) -> JobSpec:
    """The nearest row that an encrypted job can run: the plain mean of each round, no models of single sites."""
    name = f"{spec.name}{SUFFIX}"
    return dataclasses.replace(spec, name=name, rule=MEAN, tolerated=0, site_models=False, ema_decay=0.0)


def check_encryptable(spec: JobSpec) -> None:
    """Refuse what needs a server that sees weights.

    Raises:
        ValueError: with what cannot be had, and why.
    """
    refusals = {
        f"the rule must be {MEAN}, got {spec.rule}: a server that sees no update cannot cut, compare or refuse one": (
            spec.rule != MEAN or spec.tolerated
        ),
        "weighting must not be literal: the sum of ciphertexts is divided by the sum of the weights": (
            spec.weighting == "literal"
        ),
        "the optimiser must be plain FedAvg: FedProx, FedOpt and SCAFFOLD are not built over ciphertexts": (
            spec.optimiser != FederatedOptimiser()
        ),
        "resume must be off: the server keeps no state of a study over ciphertexts; send the job from its start": (
            spec.resume
        ),
        "site_models must be off: a site's own model would go through the server in the clear": spec.site_models,
        "ema_decay must be 0: a mean of the rounds' models is not built over ciphertexts": spec.ema_decay > 0,
        "personalise must be off: it is not built over ciphertexts": spec.personalise,
        "privacy must be off: differential privacy over ciphertexts is not built": spec.privacy is not None,
        "patience must be 0: FLARE's ScatterAndGather trains all rounds": spec.policy.patience > 0,
    }
    for reason, refused in refusals.items():
        if refused:
            raise ValueError(f"in an encrypted job {reason}")


def encrypted_job(spec: JobSpec) -> FedJob:
    """The FLARE job of one row over ciphertexts; see ``EncryptedStudy`` for what runs at the server.

    At a site the model goes through FLARE's decryptor and our unpacking to the executor, and the update through our
    packing to FLARE's encryptor. Filters that a site has of its own come first, so they see the update in the clear.

    Raises:
        ValueError: if ``spec`` asks for what an encrypted job cannot do; see :func:`encrypted_spec`.
        MissingTensealError: if the extra ``he`` is not installed.
    """
    check_encryptable(spec)
    if importlib.util.find_spec("tenseal") is None:
        raise MissingTensealError("an encrypted job needs tenseal, here and at the sites; pip install 'mhsev[he]'")
    from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
    from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
    from nvflare.app_opt.he.model_shareable_generator import HEModelShareableGenerator

    from mhsev_flare.encrypted_aggregator import EncryptedAggregator
    from mhsev_flare.encrypted_study import EncryptedStudy

    job = FedJob(name=spec.name, min_clients=max(spec.min_sites, 2))
    study = EncryptedStudy(
        study=spec.name,
        seed=spec.seed,
        network=spec.network,
        inputs=spec.inputs,
        scale=spec.scale,
        policy=spec.policy,
        weighting=spec.weighting,
        num_rounds=spec.num_rounds,
        min_sites=spec.min_sites,
        aggregator_id=job.to_server(EncryptedAggregator(spec.weighting), id="aggregator"),
        shareable_generator_id=job.to_server(HEModelShareableGenerator(), id="shareable_generator"),
    )
    job.to_server(study)
    job.to_server({"server": {"task_request_interval": TASK_REQUEST_INTERVAL}})
    # No other task, above all not that of a model of the site's own training, which would leave in the clear.
    job.to_clients(site_executor(spec), tasks=[TASK_STANDARDISE, TASK_TRAIN, TASK_VALIDATE])
    opened, sent = FilterType.TASK_DATA, FilterType.TASK_RESULT
    job.to_clients(HEModelDecryptor(), tasks=[TASK_TRAIN, TASK_VALIDATE], filter_type=opened)
    job.to_clients(UnpackModel(spec.network), tasks=[TASK_TRAIN, TASK_VALIDATE], filter_type=opened)
    job.to_clients(PackUpdate(spec.network, spec.weighting), tasks=[TASK_TRAIN], filter_type=sent)
    job.to_clients(HEModelEncryptor(encrypt_layers=[PACKED]), tasks=[TASK_TRAIN], filter_type=sent)
    job.set_app_packages(INSTALLED_PACKAGES)
    return job
