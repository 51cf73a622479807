"""The study with an optimiser at the server (FedOpt, Reddi et al. 2021), by FLARE's own part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_opt.pt.fedopt_ctl import FedOpt

from mhsev_flare.controller import SeverityFedAvg


class SeverityFedOpt(SeverityFedAvg, FedOpt):
    """``SeverityFedAvg`` whose mean update is a gradient for a PyTorch optimiser at the server.

    After a resume the optimiser's own state begins anew.

    Args:
        optimizer_args: FLARE's: ``path`` and ``args`` of the optimiser, such as ``torch.optim.SGD``.
        lr_scheduler_args: FLARE's, likewise.
        kwargs: of ``SeverityFedAvg``, ``network`` among them.
    """

    _always_serialize_args: ClassVar[tuple[str, ...]] = (
        *SeverityFedAvg._always_serialize_args,
        "optimizer_args",
        "lr_scheduler_args",
    )

    def __init__(self, optimizer_args: dict[str, Any], lr_scheduler_args: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(
            source_model=kwargs["network"],
            optimizer_args=optimizer_args,
            lr_scheduler_args=lr_scheduler_args,
            device="cpu",
            **kwargs,
        )

    def _begin(self, initial: Mapping[str, np.ndarray]) -> None:
        super()._begin(initial)
        self.network.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in self.record.sent.items()})

    def update_model(self, global_model: FLModel, aggr_result: FLModel) -> FLModel:
        """FLARE's, with arrays of their own: its are views of the network, which the next step would change."""
        model = super().update_model(global_model, aggr_result)
        model.params = {key: np.array(value, copy=True) for key, value in model.params.items()}
        return model
