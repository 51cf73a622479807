"""A series with both kinds of report among its results, on its way to one PACS that answers as a test wants."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from journals import Clock, Notes, add_results, open_journal
from orthanc_server import AET
from pydicom import dcmread
from pynetdicom import AE, evt
from result_objects import ENHANCED_SR, SOP_CLASSES, six_kinds, write_object

from mhsev_monai.pacs.gateway.config_sending import Destination
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.sender import Courier

FIRST, SECOND = SOP_CLASSES["sr"], ENHANCED_SR
OTHERS = [uid for uid in SOP_CLASSES.values() if uid != FIRST]


class Sending:
    """A journal with one series of seven results, and the courier of one PACS."""

    def __init__(self, state: Path, port: int, **changes: object) -> None:
        self.state, self.clock = state, Clock()
        self.destination = Destination("pacs", host="127.0.0.1", port=port, ae_title=AET, timeout_s=5, **changes)
        self.open()
        first, *others = six_kinds(state / "results")
        study = dcmread(first).StudyInstanceUID
        second = write_object(state / "results" / "sr-enhanced.dcm", SECOND, "sr", study=study)
        self.series_uid = add_results(self.journal, state, [first, second, *others], ["pacs"])

    def open(self) -> None:
        """As after a start."""
        self.journal: Journal = open_journal(self.state, self.clock)
        arguments = (self.destination, "MHSEV", self.journal, self.state / "results", Notes(), self.clock)
        self.courier = Courier(*arguments)

    def go(self) -> tuple[str, str | None]:
        """Send until nothing is due; what became of the series."""
        while self.courier.step():
            pass
        (row,) = self.journal.series()
        return row.state, row.reason

    def wait(self, tries: int, wait_s: float = 3600.0) -> tuple[str, str | None]:
        """Let time pass for some tries; what became of the series."""
        for _ in range(tries):
            state = self.go()
            self.clock.now += wait_s
        return state

    def errors(self, state: str) -> list[tuple[str, str | None]]:
        """SOP class and error of the deliveries in a state."""
        return [(item.sop_class, item.error) for item in self.journal.deliveries._found("") if item.state == state]


@contextlib.contextmanager
def answering_pacs(
    port: int, answer: Callable[[str], int] = lambda sop_class: 0x0000, sop_classes: Collection[str] = ()
) -> Iterator[list[str]]:
    """A PACS on a port; gives the classes of what it was sent, as it comes.

    Args:
        port: to listen on.
        answer: a status by the SOP class of what came.
        sop_classes: that it supports; all kinds of result by itself.
    """
    got: list[str] = []

    def store(event: evt.Event) -> int:
        got.append(str(event.request.AffectedSOPClassUID))
        return answer(got[-1])

    application = AE(ae_title=AET)
    for sop_class in sop_classes or (*SOP_CLASSES.values(), SECOND):
        application.add_supported_context(sop_class)
    server = application.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield got
    finally:
        server.shutdown()
