"""Fixtures of the gateway's tests: each ends what it started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gateways import InProcess, Pacs, RunningGateway, Site


@pytest.fixture
def site(tmp_path) -> Site:
    """A state folder and configuration; nothing runs yet."""
    return Site(tmp_path)


@pytest.fixture
def in_process() -> Iterator[Callable[[Site], InProcess]]:
    """Starts a gateway in this process."""
    started: list[InProcess] = []

    def start(site: Site) -> InProcess:
        started.append(InProcess(site))
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture
def running() -> Iterator[Callable[[Site], RunningGateway]]:
    """Starts the command in a process of its own."""
    started: list[RunningGateway] = []

    def start(site: Site) -> RunningGateway:
        gateway = RunningGateway(site)
        started.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture
def pacs() -> Iterator[Any]:
    """A PACS that counts what it gets."""
    server = Pacs()
    yield server
    server.stop()
