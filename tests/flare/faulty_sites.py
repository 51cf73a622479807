"""Sites that misbehave on purpose, for runs with FLARE's own processes: an executor whose replies a fault changes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from mhsev_flare.executor import SeverityExecutor
from mhsev_flare.protocol import TASK_TRAIN, TASK_VALIDATE, Meta


class FaultySite(SeverityExecutor):
    """A site that is honest but for its faults.

    Args:
        faults: by site name, each with its ``kind`` and the round ``at`` which it happens, or the split that is judged
            when it does; ``once`` names a file that keeps it from happening again.
    """

    def __init__(self, faults: dict[str, list[dict[str, Any]]], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.faults = faults

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """As the honest one's; a fault of the kind ``event`` fails where FLARE alone catches it."""
        super().handle_event(event_type, fl_ctx)
        own = self.faults.get(fl_ctx.get_identity_name(), [])
        if event_type == EventType.BEFORE_TASK_EXECUTION and any(f["kind"] == "event" for f in own):
            raise OSError("cannot open /data/DOE^JANE_19500101/dwi.nii.gz")

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        self.fault: dict[str, Any] = {}
        if task_name in (TASK_TRAIN, TASK_VALIDATE):
            now = shareable.get_header(AppConstants.CURRENT_ROUND, -1)
            if task_name == TASK_VALIDATE:
                now = from_shareable(shareable).get_meta_prop(Meta.SPLIT)
            faults = self.faults.get(fl_ctx.get_identity_name(), [])
            self.fault = next((f for f in faults if f["at"] == now and not done_before(f)), {})
        if not self.fault:
            return super().execute(task_name, shareable, fl_ctx, abort_signal)
        before(self.fault)
        return spoiled(super().execute(task_name, shareable, fl_ctx, abort_signal), self.fault["kind"])

    def _train(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Any:
        if self.fault.get("kind") == "exception":
            raise OSError("cannot open /data/DOE^JANE_19500101/dwi.nii.gz")
        return super()._train(shareable, fl_ctx, abort_signal)


def done_before(fault: dict[str, Any]) -> bool:
    """Whether a fault that happens once has happened; notes that it does now."""
    if "once" not in fault:
        return False
    mark = Path(fault["once"])
    if mark.exists():
        return True
    mark.touch()
    return False


def before(fault: dict[str, Any]) -> None:
    """What happens instead of, or before, training."""
    if fault["kind"] == "kill":
        os.kill(os.getpid(), 9)
    if fault["kind"] == "slow":
        time.sleep(fault["seconds"])


def spoiled(reply: Shareable, kind: str) -> Shareable:
    """The reply with the fault in it."""
    if kind in ("kill", "slow", "exception"):
        return reply
    dxo = from_shareable(reply)
    if kind == "claims":
        dxo.set_meta_prop(Meta.TABLE, of_so_many_cases(dxo.get_meta_prop(Meta.TABLE), 10**7))
        return dxo.to_shareable()
    first = sorted(dxo.data)[0]
    if kind == "nan":
        dxo.data[first] = np.full_like(dxo.data[first], np.nan)
    elif kind == "inf":
        dxo.data[first] = np.full_like(dxo.data[first], np.inf)
    elif kind == "shape":
        dxo.data[first] = np.zeros((1, 1), np.float32)
    elif kind == "extra key":
        dxo.data["DOE^JANE"] = np.zeros(3, np.float32)
    elif kind == "fingerprint":
        dxo.set_meta_prop(Meta.FINGERPRINT, "another")
    elif kind == "huge":
        dxo.data = {key: value * np.float32(1e6) for key, value in dxo.data.items()}
    elif kind == "stale":
        dxo.set_meta_prop(Meta.ROUND, 0)
    elif kind == "samples":
        dxo.set_meta_prop(Meta.N_SAMPLES, 100_000)
    else:
        raise ValueError(f"no fault is called {kind}")
    return dxo.to_shareable()


def of_so_many_cases(table: dict[str, Any], n: int) -> dict[str, Any]:
    """A table that is possible by itself: further cases of the lowest grade, all graded so and sure of it."""
    further = n - table["n"]
    confusion, histograms = (np.array(table[name]) for name in ("confusion", "score_histograms"))
    confusion[0, 0] += further
    histograms[0, 1, -1] += further
    histograms[1:, 0, 0] += further
    return {**table, "n": n, "confusion": confusion.tolist(), "score_histograms": histograms.tolist()}
