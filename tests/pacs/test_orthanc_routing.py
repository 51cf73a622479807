"""The script of docs/pacs.md in a real Orthanc: MR series are routed, others and our own results are not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from orthanc_server import AET, Modality, free_port, needs_orthanc, wait_until
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt

DOCS = Path(__file__).resolve().parents[2] / "docs" / "pacs.md"

pytestmark = [
    pytest.mark.slow,
    needs_orthanc,
    pytest.mark.skipif(not DOCS.is_file(), reason="needs the checkout, not the wheel alone"),
]


class Receiver:
    """A store that the routing leads to, and the Series Instance UIDs that came."""

    def __init__(self) -> None:
        self.port, self.series = free_port(), []
        receiver = AE("MHSEV")
        for each in (MRImageStorage, CTImageStorage):
            receiver.add_supported_context(each)
        handlers = [(evt.EVT_C_STORE, self._store)]
        self.server = receiver.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _store(self, event: evt.Event) -> int:
        self.series.append(str(event.dataset.SeriesInstanceUID))
        return 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.server.shutdown()


def image(sop_class: str, modality: str, name: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid(entropy_srcs=[name])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", generate_uid(entropy_srcs=["series", name])
    dataset.PatientID, dataset.PatientName, dataset.Modality = "1", "Roe^Jane", modality
    return dataset


def send(dataset: Dataset, calling: str, port: int) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    sender = AE(calling)
    sender.add_requested_context(dataset.SOPClassUID)
    association = sender.associate("127.0.0.1", port, ae_title=AET)
    assert association.is_established
    assert association.send_c_store(dataset).Status == 0
    association.release()


def test_mr_series_are_routed_and_what_came_back_is_not(orthanc, receiver):
    (script,) = re.findall(r"```lua\n(.*?)```", DOCS.read_text(), re.DOTALL)
    modalities = {"mhsev": Modality("MHSEV", receiver.port), "scanner": Modality("SCANNER", free_port())}
    pacs = orthanc(modalities=modalities, lua=script)
    scan, result = image(MRImageStorage, "MR", "scan"), image(MRImageStorage, "MR", "result")
    send(image(CTImageStorage, "CT", "ct"), "SCANNER", pacs.dicom_port)
    send(result, "MHSEV", pacs.dicom_port)
    send(scan, "SCANNER", pacs.dicom_port)
    wait_until(lambda: receiver.series, 20, "the series")
    # All three are stable by now, each a second after it came; the one that was sent last has arrived.
    wait_until(lambda: all(pacs.get(f"/series/{name}")["IsStable"] for name in pacs.get("/series")))
    time.sleep(2)
    assert receiver.series == [str(scan.SeriesInstanceUID)]
