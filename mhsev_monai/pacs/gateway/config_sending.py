"""The configuration of the sending half: destinations, DICOMweb sources, reconciling, monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mhsev_monai.pacs.gateway.config_reader import number, word


def check_ae_title(title: str) -> None:
    """Refuse what PS3.5 does not allow as an AE title: 1 to 16 printable ASCII characters without backslash."""
    sound = title.isascii() and title.isprintable() and "\\" not in title and 0 < len(title.strip()) <= len(title) <= 16
    if not sound:
        raise ValueError(f"an AE title has 1 to 16 printable ASCII characters and no backslash, got {title!r}")


@dataclass(frozen=True)
class TlsConfig:
    """TLS 1.2 or later, both sides with a certificate; PEM files.

    Attributes:
        ca: certificates that the other side's must be signed by.
    """

    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True)
class Destination:
    """Where results go: a storage SCP (``kind: dimse``) or a DICOMweb server (``kind: dicomweb``).

    Attributes:
        ae_title: of the storage SCP.
        called_by: AE title that this side calls itself; empty for the receiver's.
        url: of the DICOMweb server.
        commitment: whether to ask for storage commitment.
        commitment_s: how long to wait for its answer before asking again.
        report: ``comprehensive3d``, ``enhanced`` or ``none``: which kind of SR the destination gets.
        skip_refused: results whose SOP class the destination does not accept are skipped instead of given up.
        retry_s: waiting time after the first failure; it doubles up to ``retry_most_s``.
        max_attempts: after which a result is given up until somebody retries.
    """

    name: str
    kind: str = word("dimse", "dimse", "dicomweb")
    host: str = ""
    port: int = number(0, 0, 65535)
    ae_title: str = ""
    called_by: str = ""
    url: str = ""
    tls: TlsConfig | None = None
    commitment: bool = False
    commitment_s: float = number(600.0, 1, 86400)
    report: str = word("comprehensive3d", "comprehensive3d", "enhanced", "none")
    skip_refused: bool = False
    retry_s: float = number(30.0, 0.01, 86400)
    retry_most_s: float = number(3600.0, 0.01, 86400)
    max_attempts: int = number(50, 1, 100000)

    def __post_init__(self) -> None:
        if self.kind == "dimse":
            if not (self.host and self.port):
                raise ValueError(f"destination {self.name} needs host and port")
            check_ae_title(self.ae_title)
        elif not self.url.startswith(("http://", "https://")):
            raise ValueError(f"destination {self.name} needs an url that begins with http:// or https://")


@dataclass(frozen=True)
class WebSource:
    """A DICOMweb server that is asked for new series, for sites whose PACS does not send.

    Attributes:
        days: how far back to look, by study date.
    """

    name: str
    url: str
    interval_s: float = number(300.0, 1, 86400)
    days: int = number(2, 0, 3650)
    tls: TlsConfig | None = None


@dataclass(frozen=True)
class ReconcileConfig:
    """The regular look for studies of the last days that never came, or have no results.

    Attributes:
        through: a name out of ``destinations`` or ``sources``.
        by: how missing series are fetched.
    """

    through: str
    by: str = word("dicomweb", "dicomweb", "c-move", "c-get")
    days: int = number(7, 0, 3650)
    interval_s: float = number(3600.0, 1, 86400)


@dataclass(frozen=True)
class MonitorConfig:
    """`/health`, `/ready` and `/metrics` over HTTP."""

    host: str = "127.0.0.1"
    port: int = number(9470, 1, 65535)


@dataclass(frozen=True)
class TrainingStoreConfig:
    """The consent-gated path into this site's own training scans; see docs/gateway.md.

    Attributes:
        folder: gets the scans.
        secret: file with the site's secret for subject keys.
        consents: file with one keyed hash a line.
    """

    folder: Path
    secret: Path
    consents: Path
