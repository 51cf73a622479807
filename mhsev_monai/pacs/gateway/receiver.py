"""The storage SCP: who may send what, and the way of each instance into the intake."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from mhsev_monai.pacs.gateway.audit import Audit
from mhsev_monai.pacs.gateway.config import PRIORITIES, Caller, GatewayConfig
from mhsev_monai.pacs.gateway.guards import IncomingFile, IncomingFiles, install, server_tls
from mhsev_monai.pacs.gateway.instance_header import (
    ACCEPTED_CLASSES,
    CANNOT_UNDERSTAND,
    NOT_SUPPORTED,
    OUT_OF_RESOURCES,
    SUCCESS,
)
from mhsev_monai.pacs.gateway.intake import Intake, Taken

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

_log = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
# Lossless only, and never Deflated: 512 MB of zeros arrive as 0.5 MB.
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.5",  # RLE Lossless
)
_PDU_BYTES = 1 << 17
_COMMENT_CHARACTERS = 64
# Beyond the associations: connections that wait for their refusal.
_SPARE_CONNECTIONS = 16
_REJECT_PERMANENT, _BY_USER, _CALLER_UNKNOWN = 1, 1, 3


class Receiver:
    """The listening half; `start` it, `tick` it every second or so, `stop` it.

    Args:
        config: of the gateway.
        intake: takes what is sent.
        audit: notes who sent.
        contexts: further presentation contexts, for storage commitment reports.
        handlers: and what serves them.
    """

    def __init__(
        self,
        config: GatewayConfig,
        intake: Intake,
        audit: Audit,
        contexts: Sequence[PresentationContext] = (),
        handlers: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        self._config = config.receiver
        self._limits = config.limits
        self._intake = intake
        self._audit = audit
        self._contexts = list(contexts)
        self._handlers = list(handlers)
        self._callers = {caller.ae_title.strip(): caller for caller in config.receiver.callers}
        self._files = IncomingFiles()
        self._server: Any = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def is_listening(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: if the address cannot be listened on.
        """
        import threading

        from mhsev_monai.pacs.gateway.guarded_server import GuardedServer

        install()
        tls = self._config.tls
        self._server = self._application().make_server(
            (self._config.host, self._config.port),
            ssl_context=None if tls is None else server_tls(tls.certificate, tls.key, tls.ca),
            evt_handlers=self._bound(),
            server_class=GuardedServer,
            gate=self._gate(),
        )
        self._server.ae._servers.append(self._server)
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)
        self._thread.start()
        _log.info("listening on %s port %d as %s", self._config.host, self.port, self._config.ae_title)

    def stop(self) -> None:
        """End all associations and listen no more; what is not acknowledged by now will be sent again."""
        if self._server is None:
            return
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()
        self._files.sweep()
        self._server = None

    def tick(self) -> None:
        """Remove what associations that broke off left behind."""
        self._files.sweep()

    def _application(self) -> Any:
        from pynetdicom import AE

        ae = AE(ae_title=self._config.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(self._callers)
        ae.maximum_associations = self._config.max_associations
        ae.maximum_pdu_size = min(_PDU_BYTES, self._limits.max_pdu_bytes)
        ae.acse_timeout = self._config.association_s
        ae.dimse_timeout = self._config.idle_s
        ae.network_timeout = self._config.idle_s
        ae.add_supported_context(VERIFICATION)
        for sop_class in ACCEPTED_CLASSES:
            ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        for context in self._contexts:
            ae.add_supported_context(
                str(context.abstract_syntax), context.transfer_syntax, context.scu_role, context.scp_role
            )
        return ae

    def _bound(self) -> list[tuple[Any, ...]]:
        from pynetdicom import evt

        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._store),
            *self._handlers,
        ]

    def _gate(self) -> Any:
        from mhsev_monai.pacs.gateway.guarded_server import Gate

        return Gate(
            admits=lambda address: any(caller.allows(address) for caller in self._callers.values()),
            association_s=self._config.association_s,
            idle_s=self._config.idle_s,
            max_connections=self._config.max_associations + _SPARE_CONNECTIONS,
            max_pdu_bytes=self._limits.max_pdu_bytes,
            max_object_bytes=self._intake.max_bytes,
            new_path=self._intake.new_file,
            files=self._files,
        )

    def _caller(self, event: Event) -> Caller | None:
        requestor = event.assoc.requestor
        request = requestor.primitive
        title = (request.calling_ae_title if request is not None else "") or ""
        caller = self._callers.get(title.strip())
        return caller if caller is not None and caller.allows(requestor.address) else None

    def _requested(self, event: Event) -> None:
        """Refuse a known title from another's address; unknown titles are pynetdicom's to refuse."""
        address = event.assoc.requestor.address
        caller = self._caller(event)
        if caller is None:
            self._audit.note("association refused", address=address)
            event.assoc.acse.send_reject(_REJECT_PERMANENT, _BY_USER, _CALLER_UNKNOWN)
            event.assoc.kill()
        else:
            self._audit.note("association requested", caller=caller.ae_title, address=address)

    def _store(self, event: Event) -> Dataset | int:
        file = event.request._dataset_file
        if not isinstance(file, IncomingFile):
            return _status(Taken(CANNOT_UNDERSTAND, "the request has no data set"))
        try:
            return _status(self._taken(event, file))
        finally:
            self._files.done(file)

    def _taken(self, event: Event, file: IncomingFile) -> Taken:
        file.close()
        caller, request = self._caller(event), cast("C_STORE", event.request)
        claimed = (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        if caller is None or claimed[0] != event.context.abstract_syntax:
            return Taken(NOT_SUPPORTED, "the SOP class is not that of the presentation context")
        if file.fault is not None:
            self._audit.note("instance refused", source=caller.ae_title, reason=file.fault)
            return Taken(OUT_OF_RESOURCES, file.fault)
        # PS3.7, 9.3.1: the request's priority is 0 medium, 1 high, 2 low.
        priority = max(PRIORITIES[caller.priority], 1 if request.Priority == 1 else 0)
        return self._intake.accept(file.path, caller.ae_title, priority, claimed)


def _status(taken: Taken) -> Dataset | int:
    if taken.status == SUCCESS:
        return SUCCESS
    from pydicom.dataset import Dataset

    response = Dataset()
    response.Status = taken.status
    response.ErrorComment = taken.reason[:_COMMENT_CHARACTERS]
    return response
