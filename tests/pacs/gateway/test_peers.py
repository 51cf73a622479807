"""Who may speak to the gateway: addresses, titles together with addresses, and certificates."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gateways import Site, eventually, send
from mr_objects import mr_image, written
from raw_dicom import RawClient, associate_request

from mhsev_monai.pacs.gateway.guards import server_tls

OPENSSL = "openssl"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A CA, a server and a client that it signed, and a stranger that signed itself; P-256, PEM."""
    if shutil.which(OPENSSL) is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        openssl(*new, "-x509", "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    return folder


def client_context(folder: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.check_hostname = False
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@pytest.fixture
def tls_site(tmp_path, certificates) -> Site:
    names = {"certificate": "server.pem", "key": "server.key", "ca": "ca.pem"}
    tls = {key: str(certificates / name) for key, name in names.items()}
    return Site(tmp_path, receiver={"tls": tls, "association_s": 4, "idle_s": 3, "quiet_s": 3600})


def test_with_tls_a_signed_client_may_send(tls_site, certificates, in_process):
    in_process(tls_site)
    context = client_context(certificates, "client")
    assert send(tls_site.port, [mr_image(), mr_image(number=2)], tls_args=(context, "server")) == [0, 0]


@pytest.mark.parametrize("name", [None, "stranger"])
def test_with_tls_a_client_without_a_signed_certificate_may_not(tls_site, certificates, in_process, name):
    in_process(tls_site)
    context = client_context(certificates, name)
    assert send(tls_site.port, [mr_image()], tls_args=(context, "server"), timeout=5) == []
    assert tls_site.rows("SELECT * FROM series") == []


def test_with_tls_a_plain_client_may_not(tls_site, in_process):
    in_process(tls_site)
    assert send(tls_site.port, [mr_image()], timeout=5) == []


def test_tls_before_1_2_and_clients_without_certificate_are_not_for_the_server(tls_site):
    tls = tls_site.config.receiver.tls
    context = server_tls(tls.certificate, tls.key, tls.ca)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_connections_that_never_shake_hands_do_not_stop_the_others(tls_site, certificates, in_process):
    in_process(tls_site)
    silent = [RawClient(tls_site.port) for _ in range(5)]
    try:
        context = client_context(certificates, "client")
        begun = time.monotonic()
        assert send(tls_site.port, [mr_image()], tls_args=(context, "server")) == [0]
        assert time.monotonic() - begun < 10, "five time-outs of 4 s were waited for"
        assert eventually(lambda: silent[0].receive()[0] == 0), "a silent connection was kept"
    finally:
        for client in silent:
            client.__exit__()


def test_dcmtk_can_send_over_tls(tls_site, certificates, in_process, tmp_path):
    if shutil.which("storescu") is None:
        pytest.skip("needs storescu of dcmtk")
    in_process(tls_site)
    to = ["-aet", "MODALITY", "-aec", "MHSEV", "127.0.0.1", str(tls_site.port)]
    signed = ["+tls", str(certificates / "client.key"), str(certificates / "client.pem")]
    files = [str(written(mr_image(), tmp_path / "1.dcm"))]
    trusted = ["+cf", str(certificates / "ca.pem")]
    assert subprocess.run(["storescu", *signed, *trusted, *to, *files], check=False).returncode == 0
    assert subprocess.run(["storescu", "+tla", *trusted, *to, *files], check=False).returncode != 0
    assert tls_site.rows("SELECT n_instances, n_repeats FROM series") == [(1, 0)]


def test_without_tls_a_client_with_tls_may_not_send(site, certificates, in_process):
    in_process(site)
    context = client_context(certificates, "client")
    assert send(site.port, [mr_image()], tls_args=(context, "server"), timeout=5) == []


def test_an_unknown_address_is_dropped_unread_and_told_once(tmp_path, in_process, caplog):
    site = Site(tmp_path, receiver={"callers": [{"ae_title": "MODALITY", "hosts": ["10.1.0.0/16"]}]})
    in_process(site)
    with RawClient(site.port) as client:
        client.send(associate_request())
        assert client.receive() == (0, b"")
    assert send(site.port, [mr_image()], timeout=5) == []
    assert (
        caplog.text.count("dropped a connection from 127.0.0.1: no caller of the configuration sends from there") == 1
    )


def test_a_known_title_from_the_address_of_another_is_rejected(tmp_path, in_process):
    callers = [{"ae_title": "MODALITY", "hosts": ["10.1.0.0/16"]}, {"ae_title": "OTHER", "hosts": ["127.0.0.1"]}]
    site = Site(tmp_path, receiver={"callers": callers})
    in_process(site)
    assert send(site.port, [mr_image()], title="MODALITY", timeout=5) == []
    assert send(site.port, [mr_image()], title="OTHER") == [0]


def test_dcmtk_can_ask_and_send(site, in_process, tmp_path):
    if shutil.which("storescu") is None:
        pytest.skip("needs storescu of dcmtk")
    in_process(site)
    to = ["-aet", "MODALITY", "-aec", "MHSEV", "127.0.0.1", str(site.port)]
    assert subprocess.run(["echoscu", *to], check=False).returncode == 0
    files = [str(written(mr_image(number=number), tmp_path / f"{number}.dcm")) for number in range(1, 21)]
    assert subprocess.run(["storescu", *to, *files], check=False).returncode == 0
    assert site.rows("SELECT n_instances FROM series") == [(20,)]
    assert eventually(lambda: site.states() == ["committed"])


def test_the_gateway_needs_no_torch():
    program = "import sys, mhsev_monai.pacs.gateway.service as s, mhsev_monai.pacs.gateway.sender\n"
    program += "from mhsev_monai.pacs.gateway import instance_header, guarded_server, reconcile, monitor\n"
    program += "assert not {'torch', 'monai', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
