"""A site's part of one round: training as the message asks, and what goes to the server beside the update."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import MetaKey

from mhsev_flare.local_training import LocalTraining
from mhsev_flare.privacy_account import PrivacyAccount
from mhsev_flare.protocol import Meta
from mhsev_flare.site_data import SiteData
from mhsev_flare.site_optimisers import ScaffoldRound, fedprox_penalty
from mhsev_flare.site_policy import SitePolicy
from mhsev_monai.private_training import PrivacyParameters
from mhsev_monai.training import TrainingHooks


def train_round(
    local: LocalTraining, data: SiteData, round_number: int, asked: Mapping[str, Any], control_file: Path
) -> dict[str, Any]:
    """Train a round; what goes to the server beside the update.

    Args:
        local: with the weights that came; it holds the trained ones after.
        data: the site's cases.
        round_number: for the seed.
        asked: entries of the server's message: a weight of FedProx's penalty, control variates.
        control_file: where the site keeps its own control variates.
    """
    controls = asked.get(Meta.CONTROLS)
    scaffold = (
        None
        if controls is None
        else ScaffoldRound(local.network, controls, local.parameters.learning_rate, control_file)
    )
    hooks = TrainingHooks(
        should_stop=local.should_stop,
        penalty=fedprox_penalty(local.network, asked.get(Meta.FEDPROX_MU)),
        after_step=None if scaffold is None else scaffold.after_step,
    )
    steps = local.fit(data, round_number, hooks)
    meta: dict[str, Any] = {Meta.TRAIN_LOSS: local.loss("train", data), MetaKey.NUM_STEPS_CURRENT_ROUND: steps}
    if scaffold is not None:
        meta[Meta.CONTROL_DELTAS] = scaffold.finish(local.network)
    return meta


def train_round_privately(
    local: LocalTraining, data: SiteData, privacy: PrivacyParameters, account: PrivacyAccount, policy: SitePolicy
) -> dict[str, Any]:
    """Train a round privately; the training loss, which would tell of the training cases, does not leave."""
    steps, spent = local.fit_privately(data, privacy, account, policy.check_cost)
    return {Meta.EPSILON: spent, MetaKey.NUM_STEPS_CURRENT_ROUND: steps}
