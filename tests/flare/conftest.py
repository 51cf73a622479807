"""The fixture that makes a site without FLARE processes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
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
