"""A real Orthanc as the hospital's PACS: started with a configuration in a temporary folder, ended by its process id.

Orthanc 1.10 binds both ports to every address. HTTP is refused to others (``RemoteAccessAllowed``), and DICOM is
answered only to the modalities that a test names, from 127.0.0.1 (``DicomCheckModalityHost``).
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

ORTHANC = Path("/usr/sbin/Orthanc")
PLUGINS = Path("/usr/share/orthanc/plugins")
AET = "ORTHANC"

needs_orthanc = pytest.mark.skipif(
    not ORTHANC.is_file() or not (PLUGINS / "libOrthancDicomWeb.so").exists(),
    reason="needs Orthanc with its DICOMweb plugin: apt-get install orthanc orthanc-dicomweb",
)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], Any], seconds: float = 20, what: str = "the state that was waited for") -> Any:
    """The first true value of ``holds``; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {seconds} s")
        time.sleep(0.05)
    return value


@dataclass(frozen=True)
class Modality:
    """A DICOM application that Orthanc knows: whom it answers, and where it sends."""

    aet: str
    port: int
    tls: bool = False

    def configuration(self) -> dict[str, Any]:
        return {"AET": self.aet, "Host": "127.0.0.1", "Port": self.port, "UseDicomTls": self.tls}


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of one end of a connection: its own certificate and key, and the authority it trusts."""

    certificate: Path
    key: Path
    authority: Path


@dataclass
class OrthancServer:
    """One Orthanc in a folder; started and stopped any number of times on the same ports, its storage kept.

    Attributes:
        folder: for configuration, storage and log.
        modalities: name to modality; ``{"mhsev": Modality("MHSEV", port)}``.
        tls: DICOM TLS with the client's certificate required; None for plain DICOM.
        lua: text of a script.
        changes: entries of the configuration that go before those written here.
    """

    folder: Path
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    tls: TlsFiles | None = None
    lua: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the REST interface, without a slash at its end."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.url}/dicom-web"

    def start(self, seconds: float = 30) -> None:
        """Start, and return once HTTP and DICOM answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "orthanc.json").write_text(json.dumps(self._configuration(), indent=1))
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(ORTHANC), "orthanc.json"], cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(self._answers, seconds, "Orthanc's answer")

    def stop(self) -> None:
        """End this Orthanc, by its id; nothing where it does not run."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End it at once; its storage may be left half-written."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def get(self, path: str) -> Any:
        """What ``GET path`` answers, from JSON."""
        return self._json(requests.get(self.url + path, timeout=20))

    def post(self, path: str, body: Any) -> Any:
        return self._json(requests.post(self.url + path, data=json.dumps(body), timeout=20))

    def delete(self, path: str) -> None:
        requests.delete(self.url + path, timeout=20).raise_for_status()

    def upload(self, data: bytes) -> Any:
        """Store one DICOM file over HTTP."""
        return self._json(requests.post(f"{self.url}/instances", data=data, timeout=20))

    def instances(self) -> dict[str, dict[str, str]]:
        """The main tags of every stored instance, with its ``Modality`` and ``SOPClassUID``, by SOP instance UID."""
        found = {}
        for name in self.get("/instances"):
            tags = self.get(f"/instances/{name}/simplified-tags")
            found[tags["SOPInstanceUID"]] = {key: value for key, value in tags.items() if isinstance(value, str)}
        return found

    def log(self) -> str:
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"Orthanc ended at its start:\n{self.log()[-2000:]}"
        try:
            requests.get(f"{self.url}/system", timeout=2).raise_for_status()
            # A connection that asks for nothing; Orthanc's DICOM server listens after its HTTP server does.
            socket.create_connection(("127.0.0.1", self.dicom_port), timeout=2).close()
        except OSError:
            return False
        return True

    def _configuration(self) -> dict[str, Any]:
        plugins = [PLUGINS / name for name in ("libOrthancDicomWeb.so", "libOrthancGdcm.so")]
        configuration: dict[str, Any] = {
            "Name": "test PACS",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "TemporaryDirectory": str(self.folder),
            "Plugins": [str(path) for path in plugins if path.exists()],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": AET,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomCheckModalityHost": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": {name: modality.configuration() for name, modality in self.modalities.items()},
            "StableAge": 1,
            "OverwriteInstances": False,
            "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
        }
        if self.tls is not None:
            configuration |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(self.tls.certificate),
                "DicomTlsPrivateKey": str(self.tls.key),
                "DicomTlsTrustedCertificates": str(self.tls.authority),
                "DicomTlsRemoteCertificateRequired": True,
            }
        if self.lua is not None:
            (self.folder / "script.lua").write_text(self.lua)
            configuration["LuaScripts"] = [str(self.folder / "script.lua")]
        return configuration | dict(self.changes)

    @staticmethod
    def _json(response: requests.Response) -> Any:
        response.raise_for_status()
        return response.json()


def make_tls(folder: Path, *names: str) -> dict[str, TlsFiles]:
    """Certificates of one throw-away authority for each name, valid for 127.0.0.1 and a day.

    Args:
        folder: for the PEM files.
        names: one for each end, such as ``"pacs", "gateway"``.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    folder.mkdir(parents=True, exist_ok=True)

    def run(*arguments: str) -> None:
        subprocess.run([str(openssl), *arguments], cwd=folder, check=True, capture_output=True)

    authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "1"]
    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", *authority)
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in names:
        run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=x")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "san"]
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return {name: TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem") for name in names}
