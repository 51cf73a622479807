"""Three hospitals with policies of their own, as FLARE's own processes: what each enforces against a job that asks
otherwise, and what `mhsev site-check` says of a server that runs and of one that does not.
"""

from __future__ import annotations

import json
import subprocess

import pytest
from poc_federation import PocFederation
from tiny_study import SITES, TEST_MODULES, export_tiny, make_sites, tiny_spec

from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.cli import main
from mhsev_flare.jobs import JOBS
from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.network import check_server
from mhsev_flare.site_config import Kit

pytestmark = pytest.mark.slow

POLICIES = {
    "site-1": ["--block", "mhsev_train_loss"],
    "site-2": ["--privacy", "required", "--max-epsilon", "8"],
    "site-3": [],
}
SIZES = (40, 30, 24)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Kits with their sites' policies; nothing runs."""
    folder = tmp_path_factory.mktemp("poc")
    cohort = make_sites(folder / "cohort", SIZES)
    federation = PocFederation(folder / "federation", cohort)
    federation.prepare({site: cohort / site for site in SITES}, allow=[*ALLOWED_CLASSES, *TEST_MODULES])
    try:
        for site, options in POLICIES.items():
            assert main(["site-config", str(federation.kits / site), "--data-root", str(cohort / site), *options]) == 0
        yield federation
    finally:
        federation.stop()


@pytest.fixture(scope="module")
def server_findings(prepared):
    """What the check says of the server before it runs, and of the same server when it does."""
    facts = SiteFacts(Kit.at(prepared.kits / "site-3"), JOBS["dsd_mlp"])
    before = check_server(facts)
    subprocess.run(
        prepared.start_command("server"),
        cwd=prepared.kits / "server",
        env=prepared.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )
    prepared.wait_for(lambda: check_server(facts).status == "ok", 120)
    return before, check_server(facts)


@pytest.fixture(scope="module")
def poc(prepared, server_findings):
    """All of it runs: also the site that was started for a moment by the check."""
    prepared.start()
    return prepared


@pytest.fixture(scope="module")
def finished(poc):
    """A job without privacy, without filters, for two sites at least."""
    job_id = poc.submit(export_tiny(poc.folder / "jobs", tiny_spec(min_sites=2)))
    poc.wait(job_id)
    return poc.result(job_id)


def test_the_server_is_reached_when_it_runs_and_missed_when_it_does_not(server_findings):
    before, after = server_findings
    assert before.status == "FAIL"
    assert "does not answer" in before.found
    assert "ask whether the server runs" in before.remedy
    assert after.status == "ok"
    assert "answers, and the site can be started" in after.found


def test_a_site_whose_policy_requires_privacy_refuses_a_job_without_by_name_and_the_others_go_on(finished):
    result, ledger, _ = finished
    assert result["status"] == "completed", result["reason"]
    assert set(result["refused"]) == {"site-2"}
    assert "requires differential privacy and the job trains without" in result["refused"]["site-2"]
    assert all(set(row["sites"]) == {"site-1", "site-3"} for row in ledger[:-1])


def test_a_blocked_entry_does_not_leave_its_site(finished):
    _, ledger, _ = finished
    for row in ledger[:-1]:
        assert row["sites"]["site-1"]["train_loss"] is None
        assert isinstance(row["sites"]["site-3"]["train_loss"], float)


def test_small_numbers_are_hidden_though_the_job_has_no_filter(finished):
    result, _, _ = finished
    cells = [cell for site in result["sites"].values() for cells in site["grades"].values() for cell in cells]
    assert len(cells) == 2 * 3 * 4
    assert not [cell for cell in cells if isinstance(cell, int) and 0 < cell < 5]
    assert [cell for cell in cells if not isinstance(cell, int)]


def test_where_a_site_keeps_its_scans_is_not_told_to_the_server(poc, finished):
    at_server = [poc.kits / "server", poc.folder / "workspace" / "jobs-storage", poc.folder / "downloads"]
    files = [file for folder in at_server for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 20
    named = str(poc.cohort / "site-1").encode()
    assert [file.name for file in files if named in file.read_bytes()] == []


def test_a_job_of_another_privacy_scope_is_refused_by_every_site(poc):
    job = export_tiny(poc.folder / "scoped", tiny_spec(min_sites=2))
    meta = json.loads((job / "meta.json").read_text())
    (job / "meta.json").write_text(json.dumps({**meta, "scope": "another"}))
    job_id = poc.submit(job)
    poc.wait(job_id)
    assert poc.status(job_id) == "FINISHED:FAILED_TO_RUN"
    meta = json.loads(next(poc.folder.rglob(f"{job_id}/meta")).read_text())
    for site in SITES:
        assert f"{site}: NVFLARE_ERROR: privacy scope 'another' is not allowed" in meta["job_deploy_detail"]
    assert not [site for site in SITES if (poc.kits / site / job_id / "mhsev").exists()]
