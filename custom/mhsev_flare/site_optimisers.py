"""A site's side of FedProx and SCAFFOLD, by FLARE's own parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from nvflare.app_opt.pt.fedproxloss import PTFedProxLoss
from nvflare.app_opt.pt.scaffold import PTScaffoldHelper
from torch import Tensor, nn


def fedprox_penalty(network: nn.Module, mu: float | None) -> Callable[[nn.Module], Tensor] | None:
    """The penalty mu / 2 times the squared distance to the weights that ``network`` has now (Li et al. 2020, eq. 2).

    Args:
        network: holds the global weights; they are copied.
        mu: 0 or more; None or 0 give no penalty.
    """
    if not mu:
        return None
    anchor, loss = copy.deepcopy(network), PTFedProxLoss(mu=float(mu))
    for parameter in anchor.parameters():
        parameter.requires_grad_(False)
    return lambda current: loss(current, anchor)


class ScaffoldRound:
    """One round of SCAFFOLD at one site (Karimireddy et al. 2020, algorithm 1).

    The site's own variates lie in a file between rounds, since FLARE may start a new process for each task.

    Args:
        network: holds the global weights.
        controls: the server's variates.
        learning_rate: of the local optimiser.
        state_file: of this site and job; absent before its first round.
    """

    def __init__(
        self, network: nn.Module, controls: Mapping[str, np.ndarray], learning_rate: float, state_file: Path
    ) -> None:
        self._helper = PTScaffoldHelper()
        self._helper.init(network)
        self._start = copy.deepcopy(network)
        self._learning_rate, self._state_file = learning_rate, state_file
        self._helper.load_global_controls(dict(controls))
        if state_file.is_file():
            with np.load(state_file, allow_pickle=False) as stored:
                self._helper.c_local.load_state_dict({key: torch.from_numpy(stored[key]) for key in stored.files})
        self._global, self._local = self._helper.get_params()

    def after_step(self, network: nn.Module) -> None:
        """Correct a step, as ``TrainingHooks.after_step``."""
        self._helper.model_update(network, self._learning_rate, self._global, self._local)

    def finish(self, network: nn.Module) -> dict[str, np.ndarray]:
        """The change of this site's variates, which goes to the server; the new ones are kept."""
        self._helper.terms_update(network, self._learning_rate, self._global, self._local, self._start)
        self._state_file.parent.mkdir(parents=True, exist_ok=True)
        kept = {key: value.numpy() for key, value in self._helper.c_local.state_dict().items()}
        # Written beside and renamed: half a file would fail in every round that follows.
        temporary = self._state_file.with_suffix(".tmp.npz")
        np.savez(temporary, **kept)
        temporary.replace(self._state_file)
        return {key: np.asarray(value, dtype=np.float32) for key, value in self._helper.get_delta_controls().items()}
