"""Looks whether a gateway could start with a configuration, without starting it."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mhsev_monai.pacs.gateway.audit import Pseudonyms
from mhsev_monai.pacs.gateway.config import GatewayConfig
from mhsev_monai.pacs.gateway.config_sending import TlsConfig
from mhsev_monai.pacs.gateway.guards import server_tls
from mhsev_monai.pacs.gateway.spool import Spool


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``fault`` is empty where it is well."""

    what: str
    fault: str = ""


def check_config(config: GatewayConfig) -> Iterator[Finding]:
    """Look at everything that a start needs, one finding a thing."""
    yield Finding("state folder", _state(config))
    yield Finding("model", _model(config.model))
    yield Finding("pipeline", _program(config.pipeline.command[0]))
    yield Finding("address", _address(config.receiver.host, config.receiver.port))
    if config.monitor is not None:
        yield Finding("monitor address", _address(config.monitor.host, config.monitor.port))
    yield Finding("pseudonym key", _key(config.folders.key))
    if config.receiver.tls is not None:
        yield Finding("TLS of the receiver", _tls(config.receiver.tls))
    for destination in config.destinations:
        if destination.tls is not None:
            yield Finding(f"TLS to {destination.name}", _tls(destination.tls))
        if destination.commitment and destination.kind == "dimse":
            yield Finding(f"reports of {destination.name}", _reports(config, destination.ae_title))


def _state(config: GatewayConfig) -> str:
    try:
        config.folders.make()
        probe = config.folders.incoming / "probe.part"
        probe.write_bytes(b"")
        # Spool, work and results must share one file system: instances are linked, results renamed.
        for folder in (config.folders.spool, config.folders.work, config.folders.results):
            (folder / "probe").hardlink_to(probe)
            (folder / "probe").unlink()
        probe.unlink()
    except OSError as error:
        return f"cannot be written to as one file system ({error.strerror}); give it one that is local and writable"
    if not Spool(config.folders, config.limits.refuse_at, config.limits.reserve_mb).has_room():
        return "has too little free space for limits.refuse_at and limits.reserve_mb; every instance would be refused"
    return ""


def _model(path: Path) -> str:
    from mhsev_monai.model_file import ModelFileError, load_model

    try:
        load_model(path)
    except (ModelFileError, OSError) as error:
        return f"cannot be loaded: {error}"
    return ""


def _key(path: Path) -> str:
    try:
        if path.exists():
            Pseudonyms.from_file(path)
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return ""


def _program(name: str) -> str:
    return "" if shutil.which(name) else f"{name} is not a program that can be run; correct pipeline.command"


def _address(host: str, port: int) -> str:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return f"{host} port {port} cannot be listened on ({error.strerror}); is a gateway running there already?"
    return ""


def _reports(config: GatewayConfig, title: str) -> str:
    if title in [caller.ae_title for caller in config.receiver.callers]:
        return ""
    return (
        f"its AE title {title} is not among receiver.callers, so that its storage commitment report would be refused; "
        "add it with its address"
    )


def _tls(tls: TlsConfig) -> str:
    for path in (tls.certificate, tls.key, tls.ca):
        if not os.access(path, os.R_OK):
            return f"{path.name} cannot be read"
    try:
        server_tls(tls.certificate, tls.key, tls.ca)
    except (ssl.SSLError, OSError) as error:
        return f"certificate, key and ca do not go together ({error})"
    return ""
