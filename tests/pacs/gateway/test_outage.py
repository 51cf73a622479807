"""A PACS that is down for a while loses no result, whatever else happens meanwhile.

``MHSEV_OUTAGE_S=600 pytest tests/pacs/gateway/test_outage.py`` takes it down for ten minutes.
"""

from __future__ import annotations

import os
import time

import pytest
import requests
from gateways import CALLER, Site, eventually, free_port, send
from mr_objects import mr_image
from orthanc_server import AET, Modality, needs_orthanc

pytestmark = [pytest.mark.slow, needs_orthanc]

OUTAGE_S = float(os.environ.get("MHSEV_OUTAGE_S", "4"))
N_SERIES = 8
# At ten minutes this is the default of 30 s, from which the wait doubles: the last one is at most the outage once more.
RETRY_S = OUTAGE_S / 20


def series(number: int) -> str:
    return f"1.2.3.4.{number}"


def test_all_results_of_an_outage_come_once_it_is_over_also_over_a_kill_of_the_gateway(orthanc, running, tmp_path):
    site, monitor = Site(tmp_path), free_port()
    server = orthanc(modalities={"mhsev": Modality("MHSEV", site.port)})
    site.held["receiver"]["callers"] = [{"ae_title": name, "hosts": ["127.0.0.1"]} for name in (CALLER, AET)]
    pacs = {"name": "pacs", "host": "127.0.0.1", "port": server.dicom_port, "ae_title": AET, "commitment": True}
    site.held["destinations"] = [pacs | {"retry_s": RETRY_S, "timeout_s": 5, "commitment_s": 5}]
    site.held["monitor"] = {"port": monitor}
    gateway = running(site)
    assert send(site.port, [mr_image(series(0))]) == [0]
    assert eventually(lambda: site.states() == ["committed"])
    assert len(server.instances()) == 2

    server.kill()
    end = time.monotonic() + OUTAGE_S
    for number in range(1, N_SERIES):
        assert send(site.port, [mr_image(series(number))]) == [0]
        if number == N_SERIES // 2:
            gateway.kill()
            gateway.start()
        time.sleep(max(0.0, end - time.monotonic()) / (N_SERIES - number))
    assert eventually(lambda: sorted(site.states()) == ["committed"] + ["sending"] * (N_SERIES - 1)), site.states()
    open_ones = "SELECT state, count(*) FROM deliveries WHERE state != 'committed' GROUP BY state"
    assert site.rows(open_ones) == [("pending", 2 * (N_SERIES - 1))]
    # A PACS that is down is no fault of the gateway.
    assert requests.get(f"http://127.0.0.1:{monitor}/health", timeout=10).status_code == 200

    server.start()
    back = time.monotonic()
    assert eventually(lambda: site.states() == ["committed"] * N_SERIES, OUTAGE_S + 60), site.rows(open_ones)
    tries = site.rows("SELECT max(attempts) FROM deliveries")[0][0]
    print(f"down for {OUTAGE_S:g} s; all committed {time.monotonic() - back:.1f} s later; at most {tries} failed tries")
    assert tries
    assert set(server.instances()) == {uid for (uid,) in site.rows("SELECT sop_uid FROM results")}
    assert len(server.instances()) == 2 * N_SERIES
