"""Sites without FLARE processes, and a model that one of them trained."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from judged_sites import SIZES, describe_patients, weights_of
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from small_site import context, executor, make_root

from mhsev_flare.executor import SeverityExecutor
from mhsev_flare.site import SITE_FILE


@pytest.fixture
def site(tmp_path):
    """Makes a started executor and its context for a site with ``n`` cases."""

    def make(name: str, n: int = 40, seed: int = 0, **changes: Any) -> tuple[SeverityExecutor, FLContext]:
        local = tmp_path / name / "local"
        local.mkdir(parents=True)
        root = make_root(tmp_path / name / "data", n, seed)
        (local / SITE_FILE).write_text(json.dumps({"data_root": str(root)}))
        made, fl_ctx = executor(**changes), context(name, local)
        made.handle_event(EventType.START_RUN, fl_ctx)
        return made, fl_ctx

    return make


@pytest.fixture
def sites(site, tmp_path):
    """Three sites, of which the third has few cases, with patients of two sexes, ages and scanners."""
    made = {name: site(name, n, seed, epochs=30) for seed, (name, n) in enumerate(SIZES.items())}
    for seed, name in enumerate(made):
        describe_patients(tmp_path / name / "data", seed)
    return made


@pytest.fixture
def trained(sites) -> dict[str, np.ndarray]:
    """Weights of a model that knows a little too well: trained by one site, with logits made larger."""
    made, fl_ctx = sites["site-1"]
    data = made._site_data(fl_ctx)
    made.network.feature_mean.copy_(data.train.features.mean(dim=0))
    for round_number in range(3):
        made._local(Signal()).fit(data, round_number)
    with torch.no_grad():
        last = made.network.layers[-1]
        last.weight[:3] *= 4.0
        last.bias[:3] *= 4.0
    return weights_of(made.network)
