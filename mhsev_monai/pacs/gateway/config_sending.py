"""The configuration of the sending half: destinations, DICOMweb sources, reconciling, monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from pathlib import Path

from mhsev_monai.pacs.gateway.config_reader import number, word
from mhsev_monai.pacs.gateway.delivery_rules import KIND_NAMES, Backoff, Hours


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
        timeout_s: for a connection and for each answer.
        commitment: whether to ask the storage SCP for storage commitment, or the DICOMweb server whether it lists what
            it was sent.
        commitment_s: how long to wait for the answer before asking again.
        only: kinds of result that it gets (sr, seg, map, marks, capture, report); empty for all.
        skip_refused: results whose SOP class the destination does not accept are skipped instead of given up, where it
            took something else of the series.
        routine_hours: such as ``20:00-06:00``, local time, when results of routine priority are sent; empty for always.
        retry_s: waiting time after the first failure; it doubles up to ``retry_most_s``.
        max_attempts: after which a result is given up until somebody retries; by default some eight days.
    """

    name: str
    kind: str = word("dimse", "dimse", "dicomweb")
    host: str = ""
    port: int = number(0, 0, 65535)
    ae_title: str = ""
    called_by: str = ""
    url: str = ""
    tls: TlsConfig | None = None
    timeout_s: float = number(30.0, 0.1, 600)
    commitment: bool = False
    commitment_s: float = number(600.0, 0.1, 86400)
    only: tuple[str, ...] = ()
    skip_refused: bool = False
    routine_hours: str = ""
    retry_s: float = number(30.0, 0.01, 86400)
    retry_most_s: float = number(3600.0, 0.01, 86400)
    max_attempts: int = number(200, 1, 100000)

    def __post_init__(self) -> None:
        if self.kind == "dimse":
            if not (self.host and self.port):
                raise ValueError(f"destination {self.name} needs host and port")
            check_ae_title(self.ae_title)
            if self.called_by:
                check_ae_title(self.called_by)
        elif not self.url.startswith(("http://", "https://")):
            raise ValueError(f"destination {self.name} needs an url that begins with http:// or https://")
        unknown = sorted(set(self.only) - set(KIND_NAMES))
        if unknown:
            raise ValueError(f"only of {self.name} may have {', '.join(KIND_NAMES)}, got {', '.join(unknown)}")
        if self.retry_most_s < self.retry_s:
            raise ValueError(f"retry_most_s of {self.name} is {self.retry_most_s}, below retry_s {self.retry_s}")
        _hours(self.routine_hours)

    @property
    def backoff(self) -> Backoff:
        """How long to wait after each failed try."""
        return Backoff(self.retry_s, 2.0, self.retry_most_s, self.max_attempts)

    @property
    def off_peak(self) -> Hours | None:
        """When routine results may go; None for always."""
        return _hours(self.routine_hours)


def _hours(text: str) -> Hours | None:
    if not text:
        return None
    begin, _, end = text.partition("-")
    try:
        return Hours(time.fromisoformat(begin.strip()), time.fromisoformat(end.strip()))
    except ValueError as error:
        raise ValueError(f"routine_hours must be two times such as 20:00-06:00, got {text!r}") from error


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
        days: how far back to look, by study date; at least a day less than ``retention.committed_days``.
    """

    through: str
    by: str = word("dicomweb", "dicomweb", "c-move", "c-get")
    days: int = number(6, 0, 3650)
    interval_s: float = number(3600.0, 1, 86400)


def reconcile_target(
    settings: ReconcileConfig, destinations: tuple[Destination, ...], sources: tuple[WebSource, ...]
) -> Destination | WebSource:
    """What ``through`` names.

    Raises:
        ValueError: if it names nothing, or something that cannot be asked in the way of ``by``.
    """
    named: dict[str, Destination | WebSource] = {one.name: one for one in sources}
    named |= {one.name: one for one in destinations}
    if settings.through not in named:
        raise ValueError(f"reconcile.through is {settings.through!r}; it may be {', '.join(named) or 'none: add one'}")
    target = named[settings.through]
    by_dimse = isinstance(target, Destination) and target.kind == "dimse"
    if by_dimse != (settings.by != "dicomweb"):
        asked = "c-move or c-get" if by_dimse else "dicomweb"
        raise ValueError(f"reconcile.by is {settings.by}, and {settings.through} can be asked by {asked}; change one")
    return target


@dataclass(frozen=True)
class MonitorConfig:
    """`/health`, `/ready` and `/metrics` over HTTP."""

    host: str = "127.0.0.1"
    port: int = number(9470, 1, 65535)


@dataclass(frozen=True)
class TrainingStoreConfig:
    """The way of graded series into this site's own training scans, for patients who consented; off unless configured.

    Attributes:
        folder: the BIDS root that gets the scans.
        site_folder: holds the site's secret and the table of subject keys, see `mhsev ingest`.
        consents: file with one subject key (``sub-`` and 16 hexadecimal digits) a line; read anew at each look.
        interval_s: from one look to the next.
    """

    folder: Path
    site_folder: Path
    consents: Path
    interval_s: float = number(60.0, 0.1, 86400)

    def __post_init__(self) -> None:
        inside = [
            one for one in (self.site_folder, self.consents) if one.absolute().is_relative_to(self.folder.absolute())
        ]
        if inside:
            raise ValueError("site_folder and consents must lie outside of folder, which may be given away; move them")
