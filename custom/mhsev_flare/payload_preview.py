"""What would leave this site in a study, entry by entry, from its own data, before it joins.

The site's executor is asked as a server would ask it, its answers go through the site's own filters and FLARE's
serialisation, and nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException, Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.decomposers.numpy_decomposers import NumpyArrayDecomposer
from nvflare.fuel.utils import fobs

from mhsev_flare.job_spec import JobSpec
from mhsev_flare.jobs import site_executor
from mhsev_flare.protocol import (
    PROTOCOL_VERSION,
    TASK_COMPARE,
    TASK_STANDARDISE,
    TASK_SUBMIT_MODEL,
    TASK_TRAIN,
    TASK_VALIDATE,
    Meta,
)
from mhsev_flare.standardisation import Asked, pool_standardisation
from mhsev_monai.conformal import ConformalThresholds
from mhsev_monai.grade_calibration import COVERAGE, GradeCalibration
from mhsev_monai.severity import Severity

EXAMPLE_NUMBERS = 3
MOST_SHOWN = 60
"""Characters of an entry's content."""

LAST_QUESTIONS: tuple[Mapping[str, Any], ...] = (
    {Meta.SPLIT: "validation", Meta.TEMPERATURE: 1.0},
    {
        Meta.SPLIT: "test",
        Meta.CALIBRATION: GradeCalibration(1.0, ConformalThresholds((0,) * len(Severity), 50, COVERAGE), 1.0).to_json(),
    },
)
"""What the server asks of the kept model, with a calibration that has all that one can have."""


@dataclass(frozen=True)
class LeavingEntry:
    """One entry of a message: its path in it, what it is, bytes of its content, and the beginning of that."""

    name: str
    kind: str
    n_bytes: int
    example: str


@dataclass(frozen=True)
class LeavingMessage:
    """One answer of the site; ``blocked`` says why nothing of it would leave, ``n_bytes`` what FLARE would send."""

    task: str
    n_bytes: int
    entries: tuple[LeavingEntry, ...] = ()
    blocked: str = ""


class PreviewEngine:
    """As much of FLARE's engine as an executor asks for, with its run folder in ``folder``."""

    def __init__(self, local: Path, folder: Path) -> None:
        self._local, self._folder = local, folder

    def get_workspace(self) -> PreviewEngine:
        """The workspace, which is this object too."""
        return self

    def get_site_config_dir(self) -> str:
        """The site's ``local`` folder."""
        return str(self._local)

    def get_run_dir(self, job_id: str) -> str:
        """Where a job may write."""
        return str(self._folder / job_id)

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Logging fires events, for which nobody listens here."""


def preview_payload(
    spec: JobSpec,
    site: str,
    local: Path,
    scope_properties: Mapping[str, Any],
    filters: Sequence[Filter] = (),
) -> list[LeavingMessage]:
    """What the site would answer to each task of a study of one round.

    Args:
        spec: the job.
        site: FLARE's name of the site.
        local: its ``local`` folder.
        scope_properties: of the privacy scope that the job would run in.
        filters: of that scope, in their order.

    Returns:
        One message a task. Sizes of later rounds are those of the first.
    """
    return preview(partial(_messages, spec), site, local, scope_properties, filters)


def preview(
    messages: Callable[[FLContext, Sequence[Filter]], Iterable[LeavingMessage]],
    site: str,
    local: Path,
    scope_properties: Mapping[str, Any],
    filters: Sequence[Filter],
) -> list[LeavingMessage]:
    """What ``messages`` makes in the context that FLARE would give a site; see :func:`preview_payload`."""
    with TemporaryDirectory() as temporary:
        engine = PreviewEngine(local, Path(temporary))
        manager = FLContextManager(
            engine=engine, identity_name=site, job_id="preview", public_stickers={}, private_stickers={}
        )
        fl_ctx = manager.new_context()
        fl_ctx.set_prop(FLContextKey.SCOPE_PROPERTIES, dict(scope_properties))
        return list(messages(fl_ctx, filters))


def _messages(spec: JobSpec, fl_ctx: FLContext, filters: Sequence[Filter]) -> Iterator[LeavingMessage]:
    executor = site_executor(spec)
    executor.handle_event(EventType.START_RUN, fl_ctx)
    weights = {key: value.numpy().copy() for key, value in spec.network.state_dict().items()}

    def answer(task: str, data: Mapping[str, Any], **meta: Any) -> Shareable:
        request = DXO(DataKind.WEIGHTS, data=dict(data), meta=meta).to_shareable()
        request.set_header(AppConstants.CURRENT_ROUND, 0)
        request.set_header(AppConstants.NUM_ROUNDS, 1)
        fl_ctx.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
        return executor.execute(task, request, fl_ctx, Signal())

    reply = answer(TASK_STANDARDISE, {"protocol": np.array([PROTOCOL_VERSION])})
    yield leaving(TASK_STANDARDISE, reply, filters, fl_ctx)
    told = from_shareable(reply) if reply.get_return_code() == ReturnCode.OK else None
    if told is None or told.get_meta_prop(Meta.REFUSAL):
        return
    weights |= pool_standardisation({fl_ctx.get_identity_name(): told.data}, Asked.by(spec.network)).buffers()
    yield leaving(TASK_TRAIN, answer(TASK_TRAIN, weights), filters, fl_ctx)
    for asked in LAST_QUESTIONS:
        yield leaving(TASK_VALIDATE, answer(TASK_VALIDATE, weights, **asked), filters, fl_ctx)
    if spec.site_models:
        yield leaving(TASK_SUBMIT_MODEL, answer(TASK_SUBMIT_MODEL, weights), filters, fl_ctx)
        yield leaving(TASK_COMPARE, answer(TASK_COMPARE, weights), filters, fl_ctx)


def leaving(task: str, reply: Shareable, filters: Sequence[Filter], fl_ctx: FLContext) -> LeavingMessage:
    """What of a reply would leave, behind the site's filters."""
    code = reply.get_return_code()
    if code != ReturnCode.OK:
        return LeavingMessage(task, _n_sent(reply), blocked=f"the task failed with {code}; the site's log says why")
    fl_ctx.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
    try:
        for step in filters:
            reply = step.process(reply, fl_ctx)
    except ContentBlockedException as error:
        return LeavingMessage(task, 0, blocked=str(error))
    message = from_shareable(reply)
    entries = [*_entries("", message.data), *_entries("beside: ", message.meta)]
    return LeavingMessage(task, _n_sent(reply), tuple(entries))


def _n_sent(reply: Shareable) -> int:
    fobs.register(NumpyArrayDecomposer)
    return len(fobs.dumps(reply))


def _entries(prefix: str, content: Mapping[str, Any]) -> Iterator[LeavingEntry]:
    for key in sorted(content):
        value, name = content[key], f"{prefix}{key}"
        if isinstance(value, np.ndarray):
            shown = ", ".join(f"{number:.4g}" for number in value.ravel()[:EXAMPLE_NUMBERS].tolist())
            more = ", ..." if value.size > EXAMPLE_NUMBERS else ""
            shape = " x ".join(map(str, value.shape)) or "one number"
            yield LeavingEntry(name, f"{value.dtype} {shape}", int(value.nbytes), shown + more)
        elif isinstance(value, Mapping):
            yield from _entries(f"{name}.", value)
        else:
            text = json.dumps(value)
            # A sentence is shown whole, a table by its beginning.
            whole = isinstance(value, str) or len(text) < MOST_SHOWN
            yield LeavingEntry(name, type(value).__name__, len(text), text if whole else f"{text[:MOST_SHOWN]} ...")


def describe_payload(messages: Sequence[LeavingMessage]) -> str:
    """The messages for the terminal."""
    lines: list[str] = []
    for message in messages:
        lines.append(f"{message.task}: {message.n_bytes} bytes" + (f"   {message.blocked}" if message.blocked else ""))
        lines += [f"  {e.name:<42} {e.kind:<16} {e.n_bytes:>8}   {e.example}" for e in message.entries]
    return "\n".join(lines)
