"""An optimiser at the server (FedOpt, Reddi et al. 2021), by FLARE's own part."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from nvflare.app_opt.pt.fedopt_ctl import FedOpt
from torch import nn

OPTIMISERS = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "Adagrad": torch.optim.Adagrad}
"""FedAvgM, FedAdam and FedAdagrad by the names of PyTorch's classes."""


class ServerOptimiser:
    """Takes each round's update as a gradient, by ``optimizer_update`` of FLARE's ``FedOpt``.

    FLARE names optimisers by class paths, which a site's list of allowed classes refuses; here a table has them by
    name. After a resume the optimiser's own state begins anew.

    Args:
        name: of ``OPTIMISERS``.
        arguments: of that class, such as ``lr`` and ``momentum``.

    Raises:
        ValueError: if there is no optimiser of that name.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        if name not in OPTIMISERS:
            raise ValueError(f"the server's optimiser must be one of {', '.join(OPTIMISERS)}, got {name!r}")
        self.name = name
        self.arguments = arguments
        self._fedopt: FedOpt | None = None

    def begin(self, network: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
        """Start from ``weights``; ``network`` itself is not changed."""
        model = copy.deepcopy(network).cpu()
        model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in weights.items()})
        fedopt = FedOpt(persistor_id="", source_model=model, device="cpu")
        fedopt.torch_model = model
        fedopt.optimizer = OPTIMISERS[self.name](model.parameters(), **self.arguments)
        self._fedopt = fedopt

    def step(self, update: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The weights after one more update; entries that are no parameters stay.

        Raises:
            RuntimeError: if it has not begun.
        """
        if self._fedopt is None:
            raise RuntimeError("the server's optimiser has not begun")
        weights, _ = self._fedopt.optimizer_update(dict(update))
        # Copies: the tensors are the model's own, which the next step changes.
        return {key: value.detach().numpy().copy() for key, value in weights.items()}
