"""A study that was never routed is found at a real PACS and fetched, in each way that the configuration names."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from journals import Notes
from orthanc_server import AET, Modality, free_port, needs_orthanc, wait_until
from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from result_objects import MR, SOP_CLASSES, write_object

from mhsev_monai.pacs.gateway.audit import Audit, Pseudonyms
from mhsev_monai.pacs.gateway.config import Caller, GatewayConfig, LimitsConfig, ReceiverConfig
from mhsev_monai.pacs.gateway.config_sending import Destination, ReconcileConfig, WebSource
from mhsev_monai.pacs.gateway.found_series import FoundSeries
from mhsev_monai.pacs.gateway.guards import install
from mhsev_monai.pacs.gateway.instance_header import DOES_NOT_MATCH
from mhsev_monai.pacs.gateway.intake import Intake, Taken
from mhsev_monai.pacs.gateway.journal import Journal
from mhsev_monai.pacs.gateway.reconcile import Source, reconcile, source_of
from mhsev_monai.pacs.gateway.scu import PeerError
from mhsev_monai.pacs.gateway.spool import Spool

pytestmark = needs_orthanc
TODAY = date(2026, 1, 10)


class Gateway:
    """Spool, journal and intake of a gateway, and the configuration that knows one PACS by both ways."""

    def __init__(self, state, server, port: int) -> None:
        receiver = ReceiverConfig((Caller(AET, ("127.0.0.1",)),), "MHSEV", port=port)
        pacs = Destination("pacs", host="127.0.0.1", port=server.dicom_port, ae_title=AET, timeout_s=10)
        web = WebSource("web", server.dicomweb_url)
        limits = LimitsConfig(refuse_at=1.0, reserve_mb=0)
        self.config = GatewayConfig(state, state / "model.pt", receiver, (pacs,), limits, sources=(web,))
        self.config.folders.make()
        self.journal = Journal(self.config.folders.journal)
        self.audit = Audit(self.config.folders.audit, Pseudonyms(b"key"))
        self.intake = Intake(
            Spool(self.config.folders, limits.refuse_at, limits.reserve_mb), self.journal, limits, self.audit
        )

    def reconcile(self, by: str) -> int:
        through = "web" if by == "dicomweb" else "pacs"
        source = source_of(ReconcileConfig(through, by, days=5), self.config, self.intake)
        return reconcile(source, self.journal, self.audit, TODAY)

    def known(self) -> dict[str, int]:
        return {row.series_uid: row.n_instances for row in self.journal.series()}


@pytest.fixture
def gateway(orthanc, tmp_path):
    """A PACS with five studies, and a gateway that got nothing of it."""
    port = free_port()
    server = orthanc(modalities={"mhsev": Modality("MHSEV", port)})
    made = Gateway(tmp_path / "state", server, port)
    made.server, made.series = server, {}

    def store(name: str, n: int, day: date, *, result: bool = False) -> None:
        study, made.series[name] = generate_uid(), generate_uid()
        for number in range(n):
            path = tmp_path / f"{name}-{number}.dcm"
            named = {"study": study, "series": made.series[name], "date": f"{day:%Y%m%d}", "description": "dwi"}
            server.upload(write_object(path, MR, **named, n_pixels=8).read_bytes())
        if result:
            path = tmp_path / f"{name}-sr.dcm"
            words = {"description": "mhsev findings - RESEARCH USE ONLY", "date": f"{day:%Y%m%d}"}
            server.upload(write_object(path, SOP_CLASSES["sr"], "sr", study=study, **words).read_bytes())

    store("never routed", 3, TODAY)
    store("graded", 2, TODAY, result=True)
    store("long ago", 2, TODAY - timedelta(days=30))
    store("yesterday", 2, TODAY - timedelta(days=1))
    ct = {"kind": "capture", "date": f"{TODAY:%Y%m%d}", "n_pixels": 8}
    server.upload(write_object(tmp_path / "ct.dcm", SOP_CLASSES["capture"], **ct).read_bytes())
    return made


@pytest.fixture
def receiver(gateway):
    """A storage SCP at the gateway's port that gives what comes to the intake."""

    def store(event) -> int:
        file = gateway.intake.new_file()
        # In chunks, as the gateway's own server sets it for the whole process.
        file.write_bytes(event.dataset_path.read_bytes())
        return gateway.intake.accept(file, AET).status

    install()
    application = AE(ae_title="MHSEV")
    application.add_supported_context(MR)
    address = ("127.0.0.1", gateway.config.receiver.port)
    server = application.start_server(address, block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield server
    server.shutdown()


@pytest.mark.parametrize("by", ["dicomweb", "c-get", "c-move"])
def test_what_was_never_routed_is_fetched_once_and_what_is_graded_or_old_is_not(
    gateway, receiver, by, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    assert gateway.reconcile(by) == 2
    wanted = {gateway.series["never routed"]: 3, gateway.series["yesterday"]: 2}
    wait_until(lambda: gateway.known() == wanted, what="the missing series")
    assert gateway.reconcile(by) == 0
    assert gateway.known() == wanted
    spooled = {dcmread(path).SeriesInstanceUID for path in gateway.config.folders.spool.rglob("*") if path.is_file()}
    assert spooled == set(wanted)
    assert list(gateway.config.folders.incoming.iterdir()) == []
    assert list(elsewhere.iterdir()) == []


def test_a_series_of_which_a_part_came_is_completed(gateway):
    gateway.reconcile("dicomweb")
    lost = next(row for row in gateway.journal.series() if row.series_uid == gateway.series["never routed"])
    with gateway.journal._database.change() as rows:
        rows.execute(
            "DELETE FROM instances WHERE sop_uid IN (SELECT max(sop_uid) FROM instances WHERE series_id = ?)",
            (lost.id,),
        )
        rows.execute("UPDATE series SET n_instances = 2 WHERE id = ?", (lost.id,))
    assert gateway.reconcile("dicomweb") == 1
    assert gateway.known()[gateway.series["never routed"]] == 3


@pytest.mark.parametrize("by", ["dicomweb", "c-get", "c-move"])
def test_a_pacs_that_is_down_ends_the_pass_and_the_audit_names_nobody(gateway, by, caplog):
    gateway.server.kill()
    assert gateway.reconcile(by) == 0
    assert gateway.known() == {}
    assert "answer" in caplog.text
    assert "Canary" not in caplog.text + gateway.config.folders.audit.read_text()


def test_the_audit_has_pseudonyms_for_series(gateway):
    gateway.reconcile("dicomweb")
    told = gateway.config.folders.audit.read_text()
    assert told.count("series fetched") == 2
    for name in gateway.series.values():
        assert name not in told
    assert gateway.audit.pseudonyms.of(gateway.series["never routed"]) in told


def test_one_series_that_cannot_be_fetched_holds_up_no_other_and_three_in_a_row_end_the_pass(gateway):
    series = [FoundSeries(f"study-{n}", f"series-{n}", "MR", "", 1) for n in range(6)]
    tried = []

    def fetch(one: FoundSeries, failing: set[int]) -> int:
        tried.append(one)
        if len(tried) - 1 in failing:
            raise PeerError("no")
        return 1

    for failing, n_tried, n_fetched in (({0, 1, 3}, 6, 3), ({1, 2, 3}, 4, 1)):
        tried.clear()
        source = Source("pacs", lambda first, last: series, lambda one, f=failing: fetch(one, f), 1, 1.0)
        notes = Notes()
        notes.pseudonyms = gateway.audit.pseudonyms
        assert reconcile(source, gateway.journal, notes, TODAY) == n_fetched
        assert len(tried) == n_tried


@pytest.mark.parametrize("by", ["dicomweb", "c-get"])
def test_what_the_intake_refuses_for_good_is_fetched_once(gateway, by, monkeypatch):
    taken = []

    def refuse(file, *arguments):
        taken.append(file)
        file.unlink()
        return Taken(DOES_NOT_MATCH, "no")

    monkeypatch.setattr(gateway.intake, "accept", refuse)
    settings = ReconcileConfig("web" if by == "dicomweb" else "pacs", by, days=5)
    source = source_of(settings, gateway.config, gateway.intake)
    for _ in range(2):
        reconcile(source, gateway.journal, gateway.audit, TODAY)
        assert len(taken) == 5


@pytest.mark.parametrize("by", ["dicomweb", "c-get"])
def test_what_finds_no_room_is_fetched_in_the_next_pass(gateway, by, monkeypatch):
    settings = ReconcileConfig("web" if by == "dicomweb" else "pacs", by, days=5)
    source = source_of(settings, gateway.config, gateway.intake)
    with monkeypatch.context() as full:
        full.setattr(gateway.intake.spool, "has_room", lambda: False)
        assert reconcile(source, gateway.journal, gateway.audit, TODAY) == 0
    assert reconcile(source, gateway.journal, gateway.audit, TODAY) == 2


def test_an_answer_in_many_pages_is_read_to_its_end(gateway, monkeypatch):
    monkeypatch.setattr("mhsev_monai.pacs.gateway.dicomweb._PAGE", 1)
    assert gateway.reconcile("dicomweb") == 2
