"""A gateway that is told to end does so, whichever of its threads the signal reaches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from gateways import Site

from mhsev_monai.pacs.gateway.service import Service


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """Gives the handlers of this process back."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    held = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, held, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_reaches_another_thread_ends_the_gateway(tmp_path, number):
    service, ended, rescued = Service(Site(tmp_path).config), threading.Event(), []

    def tell() -> None:
        while not service.receiver.is_listening:
            ended.wait(0.05)
        ended.wait(0.3)
        signal.pthread_kill(threading.get_ident(), number)
        if not ended.wait(5):
            rescued.append(number)
            service.stop.set()

    teller = threading.Thread(target=tell)
    teller.start()
    service.run()
    ended.set()
    teller.join()
    assert rescued == []
