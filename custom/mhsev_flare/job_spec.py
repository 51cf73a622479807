"""What one experiment decides: the settings of a job, and nothing that a site decides."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mhsev_flare.combination import Combination
from mhsev_flare.model_average import check_decay
from mhsev_flare.participation import RoundPolicy
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.model_file import class_config
from mhsev_monai.private_training import PrivacyParameters
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.twin_inputs import TwinInputs


def majority_policy() -> RoundPolicy:
    """The policy of the shipped jobs: two sites' updates make a round, the others have ten minutes more."""
    return RoundPolicy(min_sites=2, grace_seconds=600.0)


@dataclass(frozen=True)
class FederatedOptimiser:
    """What is added to FedAvg; nothing by default.

    Attributes:
        fedprox_mu: weight of FedProx's penalty; None for none.
        control_variates: SCAFFOLD.
        server: FedOpt: name of a PyTorch optimiser (``SGD``, ``Adam``, ``Adagrad``) that takes the mean update as a
            gradient; None: the mean update is added as it is.
        server_arguments: of that optimiser.
    """

    fedprox_mu: float | None = None
    control_variates: bool = False
    server: str | None = None
    server_arguments: Mapping[str, Any] = field(default_factory=dict)


OPTIMISERS: Mapping[str, FederatedOptimiser] = {
    "fedavg": FederatedOptimiser(),
    "fedprox": FederatedOptimiser(fedprox_mu=0.1),
    "fedopt": FederatedOptimiser(server="SGD", server_arguments={"lr": 1.0, "momentum": 0.6}),
    "scaffold": FederatedOptimiser(control_variates=True),
}
"""By the name that a recipe takes; FedOpt's momentum is FLARE's default."""


@dataclass(frozen=True)
class JobSpec:
    """One experiment: what an experiment decides, and nothing that a site decides.

    Attributes:
        name: of the job and of its folder.
        inputs: turns a case into the network's input.
        network: the network, with the input size of ``inputs``.
        weighting: how sites count in the average; see ``mhsev_flare.weighting``.
        scale: name of the grading scale.
        num_rounds: rounds of training.
        epochs: passes over a site's training cases, and their twins, in each round.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch_size: cases a step.
        count_weight: weight of the count loss beside the ordinal loss.
        seed: of splits, shuffling and dropout.
        min_sites: fewest sites to begin with; 0 means every site that the job was sent to.
        site_models: also train what each site would have alone, and compare.
        twins: train also on each training scan's protocol twin, see ``mhsev_monai.twin_inputs``.
        rule: how updates are combined; see ``mhsev_flare.aggregator``.
        tolerated: sites that may lie without harm, where the rule is a robust one.
        policy: when a round closes and counts, and when training ends.
        optimiser: what the federated optimiser adds to FedAvg.
        ema_decay: of the exponential moving average of the rounds' models, which is the model of the study unless the
            last round's is better; the same of a site that trains alone. Not with an early end. 0: none.
        personalise: at the end each site trains the model further for itself and keeps it.
        resume: go on from where the unfinished run of this study ended.
        tensorboard: write the curves of the rounds at the server, for TensorBoard (extra ``tensorboard``).
        privacy: train with differential privacy of each scan; twins, models of single sites and further training there
            must then be off.
    """

    name: str
    inputs: CaseInputs
    network: nn.Module
    weighting: str = "samples"
    scale: str = PAPER_SCALE.name
    num_rounds: int = 30
    epochs: int = 4
    learning_rate: float = 3e-3
    weight_decay: float = 1e-1
    batch_size: int = 16
    count_weight: float = 3.0
    seed: int = 1
    min_sites: int = 0
    site_models: bool = True
    twins: bool = False
    rule: str = "clip"
    tolerated: int = 0
    policy: RoundPolicy = field(default_factory=majority_policy)
    optimiser: FederatedOptimiser = field(default_factory=FederatedOptimiser)
    ema_decay: float = 0.0
    personalise: bool = False
    resume: bool = False
    tensorboard: bool = False
    privacy: PrivacyParameters | None = None

    def __post_init__(self) -> None:
        if check_decay(self.ema_decay) and self.policy.patience:
            raise ValueError(
                "with ema_decay, patience must be 0: a training that ends because it got worse is no longer where its "
                "best round was, and a mean of its last rounds is not either"
            )
        if self.twins:
            TwinInputs(self.inputs)  # refuses inputs that no twin can go through
        if self.privacy is None:
            return
        others = (self.twins, self.site_models, self.personalise)
        if any(others) or self.optimiser.control_variates or self.optimiser.fedprox_mu:
            raise ValueError("with privacy, twins, site_models, personalise, control variates and FedProx must be off")
        if self.privacy.noise_multiplier == 0:
            raise ValueError("privacy without noise is none; noise_multiplier must be positive")

    def settings_digest(self) -> str:
        """64 hexadecimal digits over what decides the result, so that a run is resumed with its own settings."""
        names = ("weighting", "rule", "tolerated", "scale", "epochs", "learning_rate", "weight_decay", "batch_size")
        decisive = {name: getattr(self, name) for name in (*names, "count_weight", "seed", "twins")}
        if self.ema_decay:  # studies of jobs without it can be resumed from before it was there
            decisive["ema_decay"] = self.ema_decay
        parts = {name: getattr(self, name) for name in ("optimiser", "privacy")}
        described = {name: None if part is None else dataclasses.asdict(part) for name, part in parts.items()}
        return hashlib.sha256(json.dumps({**decisive, **described}, sort_keys=True).encode()).hexdigest()

    def with_network(self, **changes: Any) -> JobSpec:
        """The job with other arguments of its network."""
        arguments = {**class_config(self.network)["args"], **changes}
        return dataclasses.replace(self, network=type(self.network)(**arguments))

    @property
    def combination(self) -> Combination:
        """How the sites' updates are combined."""
        return Combination(self.weighting, self.rule, self.tolerated)

    @property
    def all_inputs(self) -> tuple[CaseInputs, ...]:
        """What is read of scans: the inputs, and those of the twins where there are any."""
        return (self.inputs, TwinInputs(self.inputs)) if self.twins else (self.inputs,)
