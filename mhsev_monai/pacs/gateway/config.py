"""The gateway's configuration: what a hospital decides, in one YAML or TOML file.

Every value has a unit in its name or its docstring. `load_config` reads the file and finds each mistake before anything
listens. The sending half is in `config_sending`.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mhsev_monai.pacs.gateway.config_reader import ConfigError, build, number, read_file, word
from mhsev_monai.pacs.gateway.config_sending import (
    Destination,
    MonitorConfig,
    ReconcileConfig,
    TlsConfig,
    TrainingStoreConfig,
    WebSource,
    check_ae_title,
    reconcile_target,
)
from mhsev_monai.pacs.gateway.journal_rows import Folders

__all__ = ["Caller", "ConfigError", "GatewayConfig", "load_config"]

DAY_S = 86400.0
PRIORITIES = {"routine": 0, "high": 1, "stat": 2}


@dataclass(frozen=True)
class Caller:
    """Who may send: an AE title together with the addresses it may come from.

    Attributes:
        hosts: addresses or networks such as ``10.1.2.3`` or ``10.1.2.0/24``.
        priority: ``stat`` puts this sender's series before all others.
    """

    ae_title: str
    hosts: tuple[str, ...]
    priority: str = word("routine", *PRIORITIES)

    def __post_init__(self) -> None:
        check_ae_title(self.ae_title)
        if not self.hosts:
            raise ValueError(f"hosts of {self.ae_title} is empty; name the addresses it sends from")
        for host in self.hosts:
            try:
                ipaddress.ip_network(host)
            except ValueError as error:
                raise ValueError(f"hosts of {self.ae_title} must be addresses or networks, got {host!r}") from error

    def allows(self, address: str) -> bool:
        """Whether a connection from this address may be this caller's."""
        place = ipaddress.ip_address(address)
        # A socket that serves both families shows an IPv4 address as ::ffff:10.1.2.3.
        place = getattr(place, "ipv4_mapped", None) or place
        return any(place in ipaddress.ip_network(host) for host in self.hosts)


@dataclass(frozen=True)
class ReceiverConfig:
    """The storage SCP.

    Attributes:
        host: the address it listens on; the default serves this machine alone.
        quiet_s: a series is ready when nothing of it came for so long.
        association_s: how long a client may take to ask for an association.
        idle_s: how long an association may be silent.
        max_associations: at one time.
    """

    callers: tuple[Caller, ...]
    ae_title: str = "MHSEV"
    host: str = "127.0.0.1"
    port: int = number(11112, 1, 65535)
    quiet_s: float = number(60.0, 0.1, 86400)
    association_s: float = number(10.0, 1, 300)
    idle_s: float = number(60.0, 1, 3600)
    max_associations: int = number(8, 1, 100)
    tls: TlsConfig | None = None

    def __post_init__(self) -> None:
        check_ae_title(self.ae_title)
        titles = [caller.ae_title for caller in self.callers]
        if not titles:
            raise ValueError("callers is empty, so that nobody could send; add one with ae_title and hosts")
        if len(set(titles)) < len(titles):
            raise ValueError("callers names an AE title twice; put all its addresses into one entry's hosts")


@dataclass(frozen=True)
class LimitsConfig:
    """What a sender may use of this machine.

    Attributes:
        max_pdu_bytes: of one PDU, as announced in its header; larger ones end the connection.
        max_object_mb: of one instance; larger ones are refused.
        max_instances: of one series.
        refuse_at: part of the disk in use from which on instances are refused as out of resources.
        reserve_mb: free space below which they are refused too.
    """

    max_pdu_bytes: int = number(1 << 20, 16384, 16 << 20)
    max_object_mb: int = number(2048, 1, 65536)
    max_instances: int = number(20000, 1, 1000000)
    refuse_at: float = number(0.95, 0.01, 1.0)
    reserve_mb: int = number(1024, 0, 1 << 20)


@dataclass(frozen=True)
class PipelineConfig:
    """The child process that grades one series.

    Attributes:
        command: the program and its first arguments; ``IN OUT --model M --json --sr REPORT`` follow.
        report: which kind of SR is made: ``comprehensive3d``, ``enhanced`` for a PACS that refuses that, ``both`` to
            send the second where the first is refused, or ``none``.
        timeout_s: after which it is ended and counts as a failed attempt.
        memory_mb: address space of the child; 0 for no limit (a CUDA process reserves more than it uses).
        file_mb: of the largest file it may write.
        max_attempts: after a time-out or crash; a refusal with a reason is final.
        retry_s: waiting time before another attempt.
        n_workers: children at one time.
    """

    command: tuple[str, ...] = (sys.executable, "-m", "mhsev_flare.cli", "dicom", "run")
    timeout_s: float = number(3600.0, 1, 86400)
    memory_mb: int = number(16384, 0, 1 << 20)
    file_mb: int = number(4096, 1, 1 << 20)
    max_attempts: int = number(3, 1, 20)
    retry_s: float = number(300.0, 0, 86400)
    n_workers: int = number(1, 1, 16)
    report: str = word("comprehensive3d", "comprehensive3d", "enhanced", "both", "none")

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("command is empty; leave it out for the pipeline of this package")


@dataclass(frozen=True)
class RetentionConfig:
    """How long series, their instances and results are kept after they were committed or failed.

    Attributes:
        purge_at: part of the disk in use from which on the oldest of them are removed before their time.
    """

    committed_days: float = number(7.0, 0, 3650)
    failed_days: float = number(30.0, 0, 3650)
    purge_at: float = number(0.85, 0.01, 1.0)


@dataclass(frozen=True)
class GatewayConfig:
    """All of it.

    Attributes:
        state: folder for journal, instances and results; its file system must be local (SQLite and renames).
        model: ``model.pt`` of a run.
    """

    state: Path
    model: Path
    receiver: ReceiverConfig
    destinations: tuple[Destination, ...] = ()
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    sources: tuple[WebSource, ...] = ()
    reconcile: ReconcileConfig | None = None
    monitor: MonitorConfig | None = None
    training_store: TrainingStoreConfig | None = None

    def __post_init__(self) -> None:
        names = [one.name for one in self.destinations]
        if len(set(names)) < len(names):
            raise ValueError("destinations has a name twice; give each its own")
        if self.reconcile is not None:
            reconcile_target(self.reconcile, self.destinations, self.sources)
        looking = {f"the source {one.name}": one.days for one in self.sources}
        if self.reconcile is not None:
            looking["reconcile"] = self.reconcile.days
        for name, days in looking.items():
            # The first of the days is looked at until its end.
            if days + 1 > self.retention.committed_days:
                raise ValueError(
                    f"{name} looks back {days} days and retention.committed_days is {self.retention.committed_days:g}: "
                    f"what was removed would be fetched again; make committed_days {days + 1} or more, or days smaller"
                )
        if self.retention.purge_at > self.limits.refuse_at:
            raise ValueError(
                f"retention.purge_at {self.retention.purge_at} is above limits.refuse_at {self.limits.refuse_at}, so "
                "that instances would be refused before old ones are removed; make it smaller"
            )

    @property
    def folders(self) -> Folders:
        """Where it keeps what."""
        return Folders(self.state)


def load_config(path: Path) -> GatewayConfig:
    """Read and check a configuration.

    Raises:
        ConfigError: with one sentence about the first mistake.
    """
    return build(GatewayConfig, read_file(path))
