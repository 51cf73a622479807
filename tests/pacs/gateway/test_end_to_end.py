"""From the scanner to the results in the archive: all parts real, on one machine.

DCMTK's storescu is the scanner, Orthanc the archive with the routing script of docs/pacs.md, the gateway the command
itself in its own process, and the pipeline its child.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import requests
from gateways import Site
from orthanc_server import AET, Modality, free_port, needs_orthanc, wait_until
from result_objects import SOP_CLASSES

DOCS = Path(__file__).resolve().parents[3] / "docs" / "pacs.md"
SCANNER = "SCANNER"

pytestmark = [
    pytest.mark.slow,
    needs_orthanc,
    pytest.mark.skipif(not DOCS.is_file(), reason="needs the checkout, not the wheel alone"),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="needs storescu: apt-get install dcmtk"),
]


def scan(folder: Path, port: int) -> None:
    """Send a folder as a scanner does."""
    command = ["storescu", "-aet", SCANNER, "-aec", AET, "127.0.0.1", str(port), "+sd", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def test_a_scan_is_routed_graded_and_its_results_lie_in_its_study_once(orthanc, running, tmp_path):
    from dicom_heads import write_head, write_model

    head = write_head(tmp_path / "head")
    site, monitor = Site(tmp_path), free_port()
    server = orthanc(
        modalities={"mhsev": Modality("MHSEV", site.port), "scanner": Modality(SCANNER, free_port())},
        lua=re.search(r"```lua\n(.*?)```", DOCS.read_text(), re.DOTALL)[1],
    )
    write_model(site.model)
    del site.held["pipeline"]
    site.held["receiver"] |= {"callers": [{"ae_title": AET, "hosts": ["127.0.0.1"]}], "quiet_s": 1}
    pacs = {"name": "pacs", "host": "127.0.0.1", "port": server.dicom_port, "ae_title": AET, "commitment": True}
    site.held["destinations"] = [pacs | {"commitment_s": 5, "retry_s": 1}]
    site.held["monitor"] = {"port": monitor}
    site.held["reconcile"] = {"through": "pacs", "by": "c-get", "days": 3640, "interval_s": 2}
    site.held["retention"] = {"committed_days": 3650}
    running(site)

    scan(head.folder, server.dicom_port)
    wait_until(lambda: site.states() == ["committed"] or "failed" in site.states(), 240, "the end of the series")
    assert site.states() == ["committed"], site.rows("SELECT reason FROM series")
    stored = server.instances()
    results = [tags for tags in stored.values() if tags["SOPClassUID"] in SOP_CLASSES.values()]
    assert {tags["SOPClassUID"] for tags in results} == set(SOP_CLASSES.values())
    assert len(server.get("/studies")) == 1
    assert len(server.get("/patients")) == 1

    # The same scan once more, time for the routing, and for several passes of reconciling: nothing new anywhere.
    scan(head.folder, server.dicom_port)
    n_instances = site.rows("SELECT n_instances, revision FROM series")
    time.sleep(8)
    assert set(server.instances()) == set(stored)
    assert site.rows("SELECT n_instances, revision FROM series") == n_instances
    assert site.states() == ["committed"]
    # Of all series, Orthanc has routed the scan alone: results do not go round.
    jobs = [job for job in server.get("/jobs?expand") if job["Type"] == "DicomModalityStore"]
    routed = {series for job in jobs for series in job["Content"]["ParentResources"]}
    uids = {server.get(f"/series/{series}")["MainDicomTags"]["SeriesInstanceUID"] for series in routed}
    assert uids == {uid for (uid,) in site.rows("SELECT series_uid FROM series")}
    assert not uids & {tags["SeriesInstanceUID"] for tags in results}
    told = requests.get(f"http://127.0.0.1:{monitor}/metrics", timeout=10).text
    assert f'mhsev_gateway_deliveries{{destination="pacs",state="committed"}} {len(results)}' in told
    assert requests.get(f"http://127.0.0.1:{monitor}/health", timeout=10).status_code == 200
    for tags in stored.values():
        assert tags["SOPInstanceUID"] not in told
