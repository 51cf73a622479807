"""The filter that takes out of a message what a site never tells."""

from __future__ import annotations

from collections.abc import Sequence

from nvflare.apis.dxo import DXO
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from mhsev_flare.site_policy import BLOCKABLE


class EntryBlocker(DXOFilter):
    """Removes entries that stand beside a message's arrays, in the results of all tasks.

    For ``task_result_filters`` of a site, before ``PayloadGuard``; ``mhsev site-config --block`` writes it. Without an
    optional entry (``site_policy.OPTIONAL_ENTRIES``) a job runs as before; without a needed one the server refuses the
    site, which ``SeverityExecutor`` says in the handshake, before anything is trained.

    Args:
        entries: of ``site_policy.BLOCKABLE``.

    Raises:
        ValueError: if one is not an entry that can be blocked, or there is none.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        super().__init__(supported_data_kinds=None, data_kinds_to_filter=None)
        unknown = sorted(set(entries) - set(BLOCKABLE))
        if unknown or not entries:
            raise ValueError(f"entries must be some of {', '.join(BLOCKABLE)}, got {unknown or 'none'}")
        self.entries = list(entries)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:  # noqa: ARG002
        """The message without the entries; None, which is FLARE's word for unchanged, if it holds none of them."""
        meta = dict(dxo.meta or {})
        if not set(meta) & set(self.entries):
            return None
        kept = {key: value for key, value in meta.items() if key not in self.entries}
        return DXO(dxo.data_kind, data=dxo.data, meta=kept)
