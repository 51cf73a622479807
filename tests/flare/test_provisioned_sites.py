"""Provisioned kits that their own start scripts run: TLS, no code of jobs, and who is let in."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
from provisioned_federation import LEAD, PROJECT_ADMIN, SERVER, ProvisionedFederation, admin_of
from small_site import make_root
from tiny_study import SITES, export_tiny, make_sites, tiny_spec

pytestmark = pytest.mark.slow

LATER = ("site-4", "site-5", "site-6")
ASK = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SECONDS_TO_JOIN = 20.0
"""A kit that is let in needs 6 to 12 s, five of which are its script's own pause."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("provisioned")
    cohort = make_sites(folder / "cohort")
    for number, site in enumerate(LATER):
        make_root(cohort / site, 24, seed=10 + number)
    made = ProvisionedFederation(folder / "federation", cohort)
    try:
        made.start_all()
        yield made
    finally:
        made.stop()
        assert made.processes() == []


@pytest.fixture(scope="module")
def foreign_kit(federation):
    """The kit of a project of the same name with a CA of its own."""
    return federation.provision(["site-8"], "foreign") / "site-8"


def permission(kit: Path, role: str, right: str) -> str:
    stored = json.loads((kit / "local" / "authorization.json.default").read_text())
    return stored["permissions"][role][right]


def code_for_sites_alone(folder: Path) -> Path:
    """The packaged job with one more file of code in the sites' app."""
    job = export_tiny(folder, tiny_spec(name="tiny_code_at_sites"))
    shutil.copytree(job / "app", job / "app_sites")
    (job / "app_sites" / "custom").mkdir()
    (job / "app_sites" / "custom" / "brought.py").write_text("BROUGHT = True\n")
    deploy(job, {"app": ["server"], "app_sites": list(SITES)})
    return job


def deploy(job: Path, apps: dict[str, list[str]]) -> None:
    """Say which app goes to whom."""
    meta = json.loads((job / "meta.json").read_text())
    (job / "meta.json").write_text(json.dumps({**meta, "deploy_map": apps}))


def answer(port: int, context: ssl.SSLContext | None) -> bytes:
    """What the server's port says to a request to connect; empty where it hangs up instead."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            stream = plain if context is None else context.wrap_socket(plain, server_hostname="localhost")
            stream.sendall(ASK)
            return stream.recv(200)
        except (ssl.SSLError, ConnectionError):
            return b""


def client_context(kit: Path | None) -> ssl.SSLContext:
    """TLS with the certificate of a kit, or with none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if kit is not None:
        context.load_cert_chain(kit / "startup" / "client.crt", kit / "startup" / "client.key")
    return context


def test_the_packaged_job_runs_where_no_job_may_bring_code(federation, tmp_path):
    kits = [federation.kit(name) for name in (SERVER, *SITES)]
    assert {permission(kit, role, "byoc") for kit in kits for role in ("lead", "project_admin")} == {"none"}
    job_id = federation.submit(export_tiny(tmp_path, tiny_spec(num_rounds=2)))
    meta = federation.end(job_id)
    assert meta["status"] == "FINISHED:COMPLETED"
    assert sorted(meta["job_deploy_detail"]) == ["server: OK", *(f"{site}: OK" for site in SITES)]
    result, _, model = federation.result(job_id)
    assert sorted(result["sites"]) == list(SITES)
    assert model.is_file()
    assert (federation.kit(SERVER) / "storage" / "jobs-storage" / job_id).is_dir()


def test_a_recipe_runs_at_provisioned_sites(federation):
    said = federation.python(Path(__file__).with_name("run_recipe.py"), "prod", federation.kit(LEAD))
    # The ledger has a row for the model before the first round.
    assert f"ended FINISHED:COMPLETED completed 3 {','.join(SITES)} True" in said, said


def test_sites_run_with_secure_logging_and_the_python_they_name(federation):
    for participant in (SERVER, *SITES):
        running = [p for p in federation.processes(participant) if p.cmdline()[1:3] == ["-u", "-m"]]
        assert len(running) == 1
        named = (federation.kit(participant) / "local" / "python").read_text().strip()
        assert running[0].cmdline()[0] == named
        assert running[0].environ()["NVFLARE_SECURE_LOGGING"] == "1"


def test_the_server_listens_on_loopback_alone(federation):
    listening = {c.laddr.ip for p in federation.processes(SERVER) for c in p.net_connections() if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_a_job_with_code_is_refused_by_the_server(federation, tmp_path):
    job = export_tiny(tmp_path, tiny_spec(name="tiny_code"))
    (job / "app" / "custom").mkdir()
    (job / "app" / "custom" / "brought.py").write_text("BROUGHT = True\n")
    job_id = federation.submit(job)
    meta = federation.end(job_id)
    assert meta["status"] == "FINISHED:FAILED_TO_RUN"
    assert meta["job_deploy_detail"] == ["server: BYOC not permitted"]
    said = federation.flare("job", "meta", job_id, "--startup-kit", str(federation.kit(LEAD)))
    assert "BYOC not permitted" in said


def test_a_job_with_code_for_the_sites_is_refused_by_each_of_them(federation, tmp_path):
    meta = federation.end(federation.submit(code_for_sites_alone(tmp_path)))
    assert meta["status"] == "FINISHED:FAILED_TO_RUN"
    assert {f"{site}: NVFLARE_ERROR: BYOC not permitted" for site in SITES} <= set(meta["job_deploy_detail"])


def test_an_org_admin_may_neither_submit_nor_stop_the_site_of_another_hospital(federation, tmp_path):
    own = ("--startup-kit", str(federation.kit(admin_of("site-2"))))
    said = federation.flare("job", "submit", "-j", str(export_tiny(tmp_path, tiny_spec())), *own)
    assert "is not authorized for 'submit_job'" in said
    # FLARE 2.9 words it as if the connection had failed.
    said = federation.flare("system", "shutdown", "client", "site-1", "--force", *own)
    assert "failed to shut down" in said
    assert federation.processes("site-1")


@pytest.mark.parametrize("connection", ["plain text", "TLS without a certificate", "another CA's certificate"])
def test_the_port_hangs_up_on_who_has_no_certificate_of_the_project(federation, foreign_kit, connection):
    assert answer(federation.port, client_context(federation.kit("site-1"))).startswith(b"HTTP/1.1")
    contexts = {
        "plain text": lambda: None,
        "TLS without a certificate": lambda: client_context(None),
        "another CA's certificate": lambda: client_context(foreign_kit),
    }
    assert answer(federation.port, contexts[connection]()) == b""


def test_neither_a_foreign_kit_nor_a_false_name_joins(federation, foreign_kit):
    federation.bring(foreign_kit)
    own = federation.bring(federation.first_kits / "site-1", "site-9")
    script = own / "startup" / "sub_start.sh"
    script.write_text(script.read_text().replace("uid=site-1", "uid=site-9"))
    federation.start("site-8")
    federation.start("site-9", MHSEV_KIT_CHECK="off")
    time.sleep(SECONDS_TO_JOIN)
    assert {"site-8", "site-9"} & federation.joined() == set()
    for name in ("site-8", "site-9"):
        federation.stop_one(name)


def test_a_tampered_kit_is_refused_by_its_start_script_and_joins_only_as_it_was_made(federation):
    """FLARE 2.9 signs no plain kit, and would start it: the check is ours."""
    kit = federation.bring(federation.provision([*SITES, "site-7"]) / "site-7")
    for name, old, new in (
        ("local/authorization.json.default", '"byoc": "none"', '"byoc": "any"'),
        ("startup/fed_client.json", '"format_version": 2', '"format_version": 2, "require_signed_jobs": false'),
    ):
        made = (kit / name).read_text()
        assert old in made
        (kit / name).write_text(made.replace(old, new))
        federation.start("site-7")
        refused = f"this kit is not started: {name} is not as it was made"
        federation.wait_for(lambda refused=refused: refused in federation.console("site-7"), 60)
        federation.wait_for(lambda: federation.processes("site-7") == [], 20)
        (kit / name).write_text(made)
    assert "site-7" not in federation.joined()
    federation.start("site-7")
    federation.wait_for(lambda: "site-7" in federation.joined(), 60)
    federation.stop_one("site-7")


def test_three_hospitals_join_the_running_federation(federation, tmp_path):
    made = federation.provision([*SITES, *LATER])
    for site in SITES:
        certificate = Path("startup", "client.crt")
        assert (made / site / certificate).read_bytes() == (federation.kit(site) / certificate).read_bytes()
    for site in LATER:
        federation.bring(made / site)
        federation.start(site)
    federation.wait_for(lambda: federation.joined() >= set(LATER), 90)
    job, together = export_tiny(tmp_path, tiny_spec(num_rounds=1)), [SITES[0], *LATER]
    deploy(job, {"app": ["server", *together]})
    job_id = federation.submit(job)
    assert federation.end(job_id)["status"] == "FINISHED:COMPLETED"
    assert sorted(federation.result(job_id)[0]["sites"]) == together


def test_a_disabled_site_is_out_and_its_certificate_stays_valid(federation):
    """FLARE 2.9 has no list of revoked certificates; the server keeps a list of names."""
    admin = ("--startup-kit", str(federation.kit(PROJECT_ADMIN)))
    said = federation.flare("system", "disable-client", "site-3", "--force", *admin)
    assert "credential_revoked: False" in said
    assert answer(federation.port, client_context(federation.kit("site-3"))).startswith(b"HTTP/1.1")
    stored = json.loads((federation.kit(SERVER) / "disabled_clients.json").read_text())
    assert stored == {"disabled_clients": ["site-3"]}
    assert "site-3 " not in federation.flare("system", "status", *admin)
    federation.stop_one("site-3")
    federation.start("site-3")
    federation.wait_for(lambda: "Reject disabled client registration: site-3" in federation.console(SERVER), 60)
