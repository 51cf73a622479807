"""The filter that lets leave a site what is on the list, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvflare.apis.dxo import DataKind
from nvflare.apis.filter import ContentBlockedException, Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply

from mhsev_flare.payload_rules import MOST_BYTES, WEIGHT_KEYS, payload_complaint, task_rules

_RETURN_CODES = frozenset(value for name, value in vars(ReturnCode).items() if name.isupper())
_CONTENT = "DXO"
"""FLARE's name of the one entry of a message beside its headers, and of its content type."""


class PayloadGuard(Filter):
    """Blocks a task's result that holds anything that ``mhsev_flare.payload_rules`` does not list.

    For ``task_result_filters`` of a site, in its ``privacy.json``, behind the filters that change results. If it
    blocks, nothing of the result leaves: it raises, whereupon FLARE 2.9 sends a new reply with the return code
    ``TASK_RESULT_FILTER_ERROR`` alone, and runs no filter behind it. The site's log says what was wrong by position,
    kind and size. Of an executor's error reply only the return code leaves.

    It is not one of FLARE's DXO filters: those let pass whatever is not a DXO, holds no arrays, or says that it is an
    error. It sees results of tasks; logs, events and statistics take other ways out, which the site closes elsewhere
    (``allow_log_streaming``, ``NVFLARE_SECURE_LOGGING``, the list of allowed classes).

    Args:
        weight_keys: regular expressions of the names that weights may have, each for a whole name.
        most_bytes: of a result with weights.

    Raises:
        ValueError: if ``most_bytes`` is not positive, or ``weight_keys`` is empty.
    """

    _always_serialize_args = ("weight_keys", "most_bytes")

    def __init__(self, weight_keys: Sequence[str] = WEIGHT_KEYS, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self.weight_keys = list(weight_keys)
        self.most_bytes = most_bytes
        task_rules("", self.weight_keys, self.most_bytes)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The result itself, or for an error reply a new one with its return code.

        Raises:
            ContentBlockedException: if it must not leave.
        """
        try:
            code, complaint = self._judge(shareable, fl_ctx)
        except Exception:
            # What cannot be checked is blocked; an exception's text could hold any of it.
            code, complaint = ReturnCode.OK, "it could not be checked"
        # Outside of the handler, so that FLARE's log of this exception does not hold the one before.
        if complaint:
            reason = f"a result was blocked at this site, nothing of it was sent: {complaint}"
            self.log_error(fl_ctx, reason)
            raise ContentBlockedException(reason)
        return shareable if code == ReturnCode.OK else make_reply(code)

    def _judge(self, shareable: Shareable, fl_ctx: FLContext) -> tuple[str, str]:
        """The return code, and why the result must not leave."""
        headers = shareable.get(ReservedHeaderKey.HEADERS)
        code = headers.get(ReservedHeaderKey.RC, ReturnCode.OK) if type(headers) is dict else None
        if type(code) is not str or code not in _RETURN_CODES:
            return ReturnCode.OK, "its return code is none of FLARE's"
        if code != ReturnCode.OK:
            return code, ""
        expected: dict[str, Any] = {ReservedHeaderKey.RC: code, ReservedHeaderKey.CONTENT_TYPE: _CONTENT}
        odd = sum(key not in expected or value != expected[key] for key, value in headers.items())
        if odd or set(shareable) != {ReservedHeaderKey.HEADERS, _CONTENT}:
            return code, f"it holds {odd} headers and {len(shareable)} entries, some of which are not on the list"
        message = shareable[_CONTENT]
        if type(message) is dict and type(message.get("kind")) not in (str, DataKind):
            return code, "its kind is none of FLARE's"
        site = str(fl_ctx.get_identity_name() or "")
        rules = task_rules(site, self.weight_keys, self.most_bytes)
        return code, payload_complaint(fl_ctx.get_prop(FLContextKey.TASK_NAME), message, rules)
