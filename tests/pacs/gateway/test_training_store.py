"""Only scans of patients who consented reach the training store, and nothing there names them."""

from __future__ import annotations

import shutil
import subprocess

import nibabel as nib
import pytest
from journals import Clock, Notes
from pydicom import dcmread

from mhsev_monai.cases import read_cases
from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.pacs.gateway.audit import Pseudonyms
from mhsev_monai.pacs.gateway.config import Caller, GatewayConfig, PipelineConfig, ReceiverConfig
from mhsev_monai.pacs.gateway.config_sending import TrainingStoreConfig
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.journal_rows import ReceivedInstance
from mhsev_monai.pacs.gateway.training_store import ConsentError, TrainingStore, read_consents, subject_key

PATIENT = "CANARY-4711"


def test_the_key_is_the_one_that_ingest_writes_and_openssl_makes(tmp_path):
    keys = SubjectKeys(tmp_path / "site")
    secret = (tmp_path / "site" / "secret").read_text().strip()
    expected = keys.subject(PATIENT)
    assert subject_key(bytes.fromhex(secret), PATIENT) == expected
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl for the line of docs/gateway.md")
    line = f"printf 'patient\\0{PATIENT}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:{secret}"
    told = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert told.split()[-1][:16] == expected.removeprefix("sub-")


@pytest.mark.parametrize("line", [PATIENT, "sub-1234", "sub-0123456789ABCDEF", "sub-0123456789abcdef extra", "Müller"])
def test_a_damaged_file_of_consents_is_not_half_obeyed(tmp_path, line):
    (tmp_path / "consents").write_text(f"# consents\n\nsub-0123456789abcdef\n{line}\n", encoding="utf-8")
    with pytest.raises(ConsentError) as raised:
        read_consents(tmp_path / "consents")
    assert line not in str(raised.value)
    (tmp_path / "consents").write_text("# consents\n\nsub-0123456789abcdef\n")
    assert read_consents(tmp_path / "consents") == {"sub-0123456789abcdef"}


@pytest.mark.parametrize("what", ["site_folder", "consents"])
def test_secret_and_consents_may_not_lie_in_what_may_be_given_away(tmp_path, what):
    places = {"folder": tmp_path / "root", "site_folder": tmp_path / "site", "consents": tmp_path / "consents"}
    with pytest.raises(ValueError, match="outside of folder"):
        TrainingStoreConfig(**places | {what: tmp_path / "root" / "x"})


class Gateway:
    """A journal with one committed series of a head, and a training store beside it."""

    def __init__(self, folder, paths) -> None:
        self.settings = TrainingStoreConfig(folder / "root", folder / "site", folder / "consents")
        SubjectKeys(folder / "site")
        self.secret = bytes.fromhex((folder / "site" / "secret").read_text().strip())
        receiver = ReceiverConfig((Caller("PACS", ("127.0.0.1",)),))
        pipeline = PipelineConfig(timeout_s=300.0)
        self.config = GatewayConfig(folder / "state", folder / "model.pt", receiver, pipeline=pipeline)
        self.config.folders.make()
        self.journal = Journal(self.config.folders.journal, Clock())
        self.audit = Notes()
        self.audit.pseudonyms = Pseudonyms(b"key")
        self._fill(paths)

    def _fill(self, paths) -> None:
        from mhsev_monai.pacs.gateway.spool import Spool

        spool = Spool(self.config.folders, 1.0, 0)
        for path in paths:
            data = dcmread(path, stop_before_pixels=True)
            uids = (str(data.SOPInstanceUID), str(data.SeriesInstanceUID), str(data.StudyInstanceUID))
            file = spool.place(uids[1], uids[0])
            incoming = spool.new_file()
            incoming.write_bytes(path.read_bytes())
            spool.keep(incoming, file)
            self.journal.add_instance(ReceivedInstance(*uids, str(data.SOPClassUID), file, 1, uids[0], "PACS"))
        self.journal.make_ready(0)
        work = self.journal.work.claim()
        self.journal.work.finish(work, [], [])
        assert [row.state for row in self.journal.series()] == ["committed"]

    def look(self) -> int:
        # Made anew each time, as after a restart.
        return TrainingStore(self.settings, self.config, self.journal, self.audit).look()


@pytest.mark.slow
def test_a_scan_is_stored_once_after_its_patient_consented_and_names_nobody(tmp_path, caplog):
    from dicom_heads import write_head

    def poisoned(data):
        data.PatientID, data.PatientName = PATIENT, "Canary^Patricia"
        data.InstitutionName, data.SeriesDescription, data.StationName = "Canary Hospital", "Canary dwi", "CANARY1"
        return data

    head = write_head(tmp_path / "head", change=poisoned)
    gateway = Gateway(tmp_path, sorted(head.folder.rglob("*.dcm")) or sorted(head.folder.iterdir()))
    root, consents = gateway.settings.folder, gateway.settings.consents
    key = subject_key(gateway.secret, PATIENT)

    # No file, nobody, somebody else, and a damaged file: nothing is stored, nor entered into the table of keys.
    for text in (None, "", "sub-0123456789abcdef\n", f"{key}\nnonsense\n"):
        if text is not None:
            consents.write_text(text)
        assert gateway.look() == 0
        assert not root.exists()
    table = tmp_path / "site" / "subject_keys.tsv"
    assert not table.exists() or PATIENT not in table.read_text()

    consents.write_text(f"{key}\n")
    assert gateway.look() == 1
    (case,) = read_cases(root, require_counts=False).cases
    assert case.subject == key
    assert case.bvals is not None
    assert nib.load(case.image).shape == (*head.volume.shape, 2)
    written = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    stored = [path for path in written if path.suffix not in (".gz",)]
    for path in stored:
        assert b"canary" not in path.read_bytes().lower() + str(path.relative_to(root)).encode().lower()
    assert not [path for path in written if written[path][128:132] == b"DICM"]
    assert b"Canary" not in bytes(str(nib.load(case.image).header), "utf-8")

    # Not again, also after a restart; and the audit knows it by a pseudonym.
    assert gateway.look() == 0
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == written
    assert [event for event, _ in gateway.audit] == ["training scan stored"]
    everything = caplog.text + repr(gateway.audit) + (gateway.config.folders.state / "training_store.txt").read_text()
    assert "canary" not in everything.lower()
    assert gateway.journal.series()[0].series_uid not in everything
