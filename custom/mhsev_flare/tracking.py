"""The rounds of a study as scalars, for a receiver such as TensorBoard at the server; nothing more leaves a site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.widgets.streaming import ANALYTIC_EVENT_TYPE, create_analytic_dxo, send_analytic_dxo

from mhsev_flare.rounds import round_scalars


def tensorboard_receiver() -> Any:
    """FLARE's receiver for TensorBoard, which listens to the server's own events and to none that sites could send.

    Raises:
        ValueError: if TensorBoard is not installed.
    """
    try:
        from nvflare.app_opt.tracking.tb.tb_receiver import TBAnalyticsReceiver
    except ImportError as error:
        raise ValueError("tensorboard is not installed; install mhsev[tensorboard], or go without it") from error
    return TBAnalyticsReceiver(events=[ANALYTIC_EVENT_TYPE])


def track_round(component: FLComponent, row: Mapping[str, Any], fl_ctx: FLContext) -> None:
    """Tell the server's receivers of a row of the ledger; without one, nobody listens."""
    for tag, value in round_scalars(row).items():
        record = create_analytic_dxo(tag, value, AnalyticsDataType.SCALAR, global_step=int(row["round"]))
        send_analytic_dxo(component, record, fl_ctx, event_type=ANALYTIC_EVENT_TYPE, fire_fed_event=False)
