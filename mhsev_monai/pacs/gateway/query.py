"""Ask a PACS over DICOM what it has (C-FIND), and have it sent here (C-MOVE) or fetch it (C-GET)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    EnhancedMRImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from mhsev_monai.pacs.gateway.found_series import FEWER_THAN_LISTED, FoundSeries
from mhsev_monai.pacs.gateway.guards import GuardedMessages, IncomingFile, IncomingFiles, install
from mhsev_monai.pacs.gateway.instance_header import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS
from mhsev_monai.pacs.gateway.intake import Intake
from mhsev_monai.pacs.gateway.scu import Peer, PeerError, associate, release

_PENDING = (0xFF00, 0xFF01)
# The retrieval came to its end, and some or all of the instances were not taken (PS3.4, C.4.3.1.4).
_SOME_FAILED = (0xB000, 0xA702)
_PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_IMAGES = (MRImageStorage, EnhancedMRImageStorage)


def find_series(peer: Peer, first: date, last: date) -> list[FoundSeries]:
    """All series of the studies of some days that have MR images.

    Raises:
        PeerError: if the PACS is not there, or does not answer the query.
    """
    studies = Dataset()
    studies.QueryRetrieveLevel = "STUDY"
    studies.StudyDate = f"{first:%Y%m%d}-{last:%Y%m%d}"
    studies.ModalitiesInStudy = "MR"
    studies.StudyInstanceUID = ""
    association = associate(peer, [build_context(StudyRootQueryRetrieveInformationModelFind, _PLAIN)])
    try:
        found = []
        for study in list(_answers(association, studies, peer)):
            query = Dataset()
            query.QueryRetrieveLevel = "SERIES"
            query.StudyInstanceUID = study.StudyInstanceUID
            query.SeriesInstanceUID = query.Modality = query.SeriesDescription = ""
            query.NumberOfSeriesRelatedInstances = None
            found += [FoundSeries.of(one, study.StudyInstanceUID) for one in _answers(association, query, peer)]
        return found
    except AttributeError as error:
        raise PeerError(f"{peer.aet} gave an answer without a UID to the query") from error
    finally:
        release(association)


def _answers(association: Association, query: Dataset, peer: Peer) -> Iterator[Dataset]:
    try:
        responses = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        for status, answer in responses:
            code = status.get("Status")
            if code in _PENDING and answer is not None:
                yield answer
            elif code != SUCCESS:
                raise PeerError(f"{peer.aet} did not answer the query{'' if code is None else f' (status {code:04X})'}")
    except RuntimeError as error:
        raise PeerError(f"{peer.aet} ended the association during the query") from error


def _one_series(series: FoundSeries) -> Dataset:
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "SERIES"
    wanted.StudyInstanceUID = series.study_uid
    wanted.SeriesInstanceUID = series.series_uid
    return wanted


def move_series(peer: Peer, series: FoundSeries, receiver_aet: str) -> int:
    """Have the PACS send a series to this gateway's receiver; the number of instances that it says it sent.

    Args:
        peer: the PACS, which must know ``receiver_aet`` with its address.
        series: which.
        receiver_aet: the AE title of the receiver.

    Raises:
        PeerError: if the PACS is not there or sends less than all.
    """
    association = associate(peer, [build_context(StudyRootQueryRetrieveInformationModelMove, _PLAIN)])
    try:
        responses = association.send_c_move(
            _one_series(series), receiver_aet, StudyRootQueryRetrieveInformationModelMove
        )
        return _n_moved(responses, peer, series)
    except RuntimeError as error:
        raise PeerError(f"{peer.aet} ended the association during the retrieval") from error
    finally:
        release(association)


def fetch_series(peer: Peer, series: FoundSeries, intake: Intake) -> int:
    """Fetch a series over the association that asks for it; the number of instances that the PACS says it sent.

    What is refused here for good, such as images of another modality, is no reason to fetch the series again.

    Raises:
        PeerError: if the PACS is not there or sends less than all; what came is kept.
    """
    files = IncomingFiles()
    refused: list[int] = []

    def open_into_spool(event: evt.Event) -> None:
        # Else pynetdicom would hold the objects in memory, or leave them in the system's temporary folder.
        association: Any = event.assoc
        receive = GuardedMessages(association, intake.new_file, intake.max_bytes, files)
        association.dimse.receive_primitive = receive

    def store(event: evt.Event) -> int:
        file = event.request._dataset_file
        if not isinstance(file, IncomingFile):
            return CANNOT_UNDERSTAND
        try:
            file.close()
            status = OUT_OF_RESOURCES if file.fault else intake.accept(file.path, peer.aet).status
            refused.extend([status] if status not in (SUCCESS, OUT_OF_RESOURCES) else [])
            return status
        finally:
            files.done(file)

    install()
    contexts: list[PresentationContext] = [build_context(StudyRootQueryRetrieveInformationModelGet, _PLAIN)]
    contexts += [build_context(sop_class, _PLAIN) for sop_class in _IMAGES]
    handlers = [(evt.EVT_CONN_OPEN, open_into_spool), (evt.EVT_C_STORE, store)]
    roles = [build_role(sop_class, scp_role=True) for sop_class in _IMAGES]
    association = associate(peer, contexts, handlers, roles)
    try:
        responses = association.send_c_get(_one_series(series), StudyRootQueryRetrieveInformationModelGet)
        return _n_moved(responses, peer, series, refused)
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"{peer.aet} does not give series over the association that asks for them") from error
    finally:
        release(association)
        files.sweep()


def _n_moved(
    responses: Iterator[tuple[Dataset, Any]], peer: Peer, series: FoundSeries, refused: Sequence[int] = ()
) -> int:
    """The number of instances of which the PACS says that they arrived; ``refused`` fills while responses come."""
    statuses = [status for status, _ in responses]
    last = statuses[-1] if statuses else Dataset()
    code = last.get("Status")
    n_failed = int(last.get("NumberOfFailedSuboperations") or 0)
    all_sent = code == SUCCESS or (code in _SOME_FAILED and bool(refused))
    if not all_sent or n_failed > len(refused):
        told = "gave no answer" if code is None else f"ended with status {code:04X}, {n_failed} instances failed"
        raise PeerError(f"the retrieval from {peer.aet} {told}")
    n_completed = last.get("NumberOfCompletedSuboperations")
    n_moved = int(n_completed or 0) + int(last.get("NumberOfWarningSuboperations") or 0)
    # The numbers are optional in an answer.
    if n_completed is not None and n_moved + n_failed < (series.n_instances or 0):
        raise PeerError(f"{peer.aet}: {FEWER_THAN_LISTED}")
    return n_moved
