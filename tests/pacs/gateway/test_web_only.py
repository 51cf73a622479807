"""A PACS that only has DICOMweb: series are asked for, and results stored, without one DICOM association."""

from __future__ import annotations

from datetime import date

from gateways import eventually
from orthanc_server import needs_orthanc
from pydicom.uid import generate_uid
from result_objects import MR, write_object

# The study of what the stand-in for the pipeline makes.
STUDY = "1.2.3"


@needs_orthanc
def test_a_series_is_fetched_graded_and_its_results_stored_once(orthanc, site, in_process, tmp_path):
    server, series = orthanc(modalities={}), generate_uid()
    for number in range(3):
        named = {"study": STUDY, "series": series, "date": f"{date.today():%Y%m%d}", "n_pixels": 8}
        server.upload(write_object(tmp_path / f"{number}.dcm", MR, **named).read_bytes())
    web = {"name": "web", "url": server.dicomweb_url}
    site.held["sources"] = [web | {"interval_s": 1}]
    site.held["destinations"] = [web | {"kind": "dicomweb", "commitment": True, "retry_s": 0.2}]
    in_process(site)
    assert eventually(lambda: site.states() == ["committed"], 60), site.rows("SELECT state, reason FROM series")
    assert site.rows("SELECT series_uid, source, n_instances FROM series") == [(series, "web", 3)]
    stored = server.instances()
    assert len(stored) == 3 + 2
    assert {uid for (uid,) in site.rows("SELECT sop_uid FROM results")} <= set(stored)
    # Two more looks: the results are no MR images, and the series is known.
    assert not eventually(lambda: site.states() != ["committed"] or site.n_runs != 1, 2.5)
    assert server.instances().keys() == stored.keys()
    assert site.leftovers() == []
