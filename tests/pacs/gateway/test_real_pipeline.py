"""The gateway with `mhsev dicom run` itself: whole series give six objects, spoiled ones a reason and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from dicom_heads import write_head, write_model
from gateways import Site, eventually, send
from orthanc_server import AET
from pydicom.dataset import Dataset
from result_objects import ENHANCED_SR, SOP_CLASSES
from selective_pacs import SelectivePacs, needs_storescp

pytestmark = [pytest.mark.slow, needs_storescp]
CASES = ("whole", "missing", "truncated", "rows")
WAIT_S = 240
OF_OLD_PACS = [ENHANCED_SR if kind == "sr" else uid for kind, uid in SOP_CLASSES.items()]


def series_uid(case: str) -> str:
    return f"1.2.826.0.1.6.{CASES.index(case) + 1}"


def spoiled(case: str, folder: Path) -> list[Dataset]:
    """A head as a series of its own, spoiled in one way; the last image of ``missing`` is for later."""

    def change(image: Dataset) -> Dataset:
        image.SeriesInstanceUID = series_uid(case)
        image.SOPInstanceUID = f"{series_uid(case)}.{image.InstanceNumber}"
        if case == "truncated" and image.InstanceNumber == 9:
            image.PixelData = image.PixelData[: len(image.PixelData) // 4 * 2]
        if case == "rows":
            image.Rows = image.Columns = 65535
        return image

    write_head(folder, change=change)
    images = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda image: int(image.InstanceNumber))
    return [*images[:5], *images[6:], images[5]] if case == "missing" else images


@pytest.fixture
def old_pacs(tmp_path) -> Iterator[SelectivePacs]:
    """One that takes no Comprehensive 3D SR."""
    server = SelectivePacs(tmp_path / "old", OF_OLD_PACS)
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path, pacs, old_pacs) -> Iterator[Site]:
    old = {"name": "old", "host": "127.0.0.1", "port": old_pacs.port, "ae_title": AET}
    made = Site(tmp_path, destinations=[pacs.destination, old], receiver={"quiet_s": 3})
    write_model(tmp_path / "real.pt")
    made.held["model"] = str(tmp_path / "real.pt")
    made.held["pipeline"] = {"max_attempts": 1, "report": "both"}
    return made


def reasons(site: Site) -> dict[str, tuple[str, str]]:
    rows = site.rows("SELECT series_uid, state, reason FROM series")
    return {CASES[int(uid.rpartition(".")[2]) - 1]: (state, reason) for uid, state, reason in rows}


def test_whole_series_give_objects_spoiled_ones_a_reason_and_late_slices_mend(site, pacs, old_pacs, running, tmp_path):
    images = {case: spoiled(case, tmp_path / case) for case in CASES}
    running(site)
    for case, of_case in images.items():
        n_sent = len(of_case) - (case == "missing")
        assert send(site.port, of_case[:n_sent]) == [0] * n_sent
    done = ("committed", "failed", "left out")
    assert eventually(lambda: all(state in done for state in site.states()), WAIT_S)
    found = reasons(site)
    assert found.pop("whole") == ("committed", None)
    assert len(set(pacs.got)) == len(pacs.got) == 6
    assert {state for state, _ in found.values()} == {"failed"}
    assert all(reason and "attempts" not in reason for _, reason in found.values()), found
    # Two reports, of which each PACS has the one that it takes.
    assert len(site.rows("SELECT * FROM results")) == 7
    assert sorted(old_pacs.got().values()) == sorted(OF_OLD_PACS)

    send(site.port, images["missing"][-1:])
    assert eventually(lambda: reasons(site)["missing"] == ("committed", None), WAIT_S), reasons(site)
    assert len(set(pacs.got)) == len(pacs.got) == 12
    assert len(old_pacs.got()) == 12
    assert eventually(lambda: site.leftovers() == [])
