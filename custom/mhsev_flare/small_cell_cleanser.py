"""The filter that takes small numbers of cases out of what a site says of itself before round 0."""

from __future__ import annotations

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from mhsev_flare.protocol import Meta, Moments
from mhsev_flare.small_cells import cleanse_summary, round_counts, small_cell


class SmallCellCleanser(DXOFilter):
    """Hides small numbers in the site summary, and rounds the numbers by grade that class weights are made of.

    For ``task_result_filters`` of a site, before ``PayloadGuard``. It sees the handshake alone: the tables that come
    with later tasks are exact, and their rows add up to the numbers by grade of the validation and test cases; and the
    number of training cases weighs a site's updates. A site that must not tell those needs more cases, not a filter.

    Args:
        least: the smallest number of cases above 0 that may be told, 5 or more.
        base: of the rounding of the numbers by grade, 1 or more; 1 leaves them exact.

    Raises:
        ValueError: if one is below what is accepted.
    """

    def __init__(self, least: int, base: int) -> None:
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=[DataKind.WEIGHTS])
        small_cell(0, least)
        round_counts([], base)
        self.least = least
        self.base = base

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:  # noqa: ARG002
        """The message with small numbers taken out; None, which is FLARE's word for unchanged, if it holds none."""
        data, meta = dict(dxo.data), dict(dxo.meta or {})
        if Meta.SITE_SUMMARY not in meta and Moments.CLASS_COUNTS not in data:
            return None
        if Meta.SITE_SUMMARY in meta:
            meta[Meta.SITE_SUMMARY] = cleanse_summary(meta[Meta.SITE_SUMMARY], self.least)
        if Moments.CLASS_COUNTS in data:
            counts = np.asarray(data[Moments.CLASS_COUNTS])
            rounded = round_counts([int(count) for count in counts], self.base)
            data[Moments.CLASS_COUNTS] = np.array(rounded, dtype=counts.dtype)
        return DXO(dxo.data_kind, data=data, meta=meta)
