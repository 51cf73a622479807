"""DICOMweb: results stored by STOW-RS, series found by QIDO-RS and fetched by WADO-RS."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread

from mhsev_monai.pacs.gateway.config_sending import TlsConfig
from mhsev_monai.pacs.gateway.cstore import Sent
from mhsev_monai.pacs.gateway.delivery_rules import Judgement, Outcome, judge_status
from mhsev_monai.pacs.gateway.found_series import FEWER_THAN_LISTED, OUT_OF_ROOM, FoundSeries, NotTakenError
from mhsev_monai.pacs.gateway.instance_header import OUT_OF_RESOURCES, SUCCESS
from mhsev_monai.pacs.gateway.intake import Intake
from mhsev_monai.pacs.gateway.journal_rows import Delivery

# Its lines of level INFO and DEBUG hold UIDs and addresses of studies.
logging.getLogger("dicomweb_client").setLevel(logging.ERROR)
# It logs each failed try with its traceback, and there is one try.
logging.getLogger("retrying").setLevel(logging.CRITICAL)
_PAGE = 200

logger = logging.getLogger(__name__)


class WebClient(DICOMwebClient):
    """A DICOMweb client that stores for itself.

    DICOMwebClient's own way of storing takes an answer that it cannot read for success.
    """

    def __init__(self, url: str, session: requests.Session, timeout_s: float) -> None:
        super().__init__(url, session=session, timeout=timeout_s)
        self.set_http_retry_params(retry=False)
        self._studies = f"{url.rstrip('/')}/studies"
        self._own_session, self._timeout_s = session, timeout_s

    def post_instance(self, part10: bytes) -> requests.Response:
        """Send one Part 10 file by STOW-RS; the server's answer, whatever its status.

        Raises:
            OSError: if there is no answer.
        """
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        return self._own_session.post(
            self._studies,
            data=b"".join((head, part10, f"\r\n--{boundary}--\r\n".encode())),
            headers={"Content-Type": kind, "Accept": "application/dicom+json"},
            timeout=self._timeout_s,
        )


def web_client(url: str, tls: TlsConfig | None, timeout_s: float) -> WebClient:
    """A client that tries each request once: when to try again is the gateway's own decision.

    Args:
        url: of the DICOMweb service, such as ``https://pacs/dicom-web``.
        tls: the gateway's certificate and whom it trusts; None for what the system trusts.
        timeout_s: for the connection and for each answer.
    """
    session = requests.Session()
    # Neither proxies nor passwords out of this machine's environment.
    session.trust_env = False
    if tls is not None:
        # urllib3 2 speaks TLS 1.2 or later, and looks at the server's name.
        session.cert, session.verify = (str(tls.certificate), str(tls.key)), str(tls.ca)
    return WebClient(url, session, timeout_s)


def stow_files(client: WebClient, paths: Sequence[Path]) -> list[Sent]:
    """Store files one by one; one result for each path, in the same order. A server that is down is no exception."""
    return [Sent(path, _stow(client, path)) for path in paths]


def _stow(client: WebClient, path: Path) -> Judgement:
    try:
        sop_uid, part10 = str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID), path.read_bytes()
    except Exception:
        # Whatever a damaged file makes pydicom raise: it holds up no other file.
        return Judgement(Outcome.REFUSED, "the result's file is gone or no DICOM file; run the series again")
    try:
        answer = client.post_instance(part10)
        return judge_answer(answer.status_code, answer.content, sop_uid)
    except OSError as error:
        # Also of a certificate's file that cannot be read; what requests raises is an OSError too.
        return Judgement(Outcome.RETRY, f"the DICOMweb server does not answer ({type(error).__name__})")
    except Exception as error:
        # The edge to the network: one file must not hold up the batch for ever; so it counts as a try.
        return Judgement(Outcome.RETRY, f"the DICOMweb server gave an answer that is none ({type(error).__name__})")


def judge_answer(status: int, body: bytes, sop_uid: str) -> Judgement:
    """What the answer to a STOW request with one instance means; stored is only what it says is stored.

    Args:
        status: of the response.
        body: DICOM JSON (PS3.18, 10.5.3), whatever its Content-Type says.
        sop_uid: of the instance.
    """
    try:
        told = Dataset.from_json(json.loads(body))
        kept = {str(item.get("ReferencedSOPInstanceUID")) for item in told.get("ReferencedSOPSequence") or ()}
        failed = list(told.get("FailedSOPSequence") or ())
        failure = int(failed[0].get("FailureReason") or 0) if failed else None
    except Exception:
        # The edge to the network; pydicom raises what it likes of wrong JSON.
        if status >= 400:
            return judge_http(status, None)
        return Judgement(Outcome.RETRY, f"the DICOMweb server answered {status} without DICOM JSON; check its url")
    if status >= 400:
        return judge_http(status, failure)
    if failure is not None:
        return _judge_failure(failure)
    if sop_uid in kept:
        return judge_status(0x0000)
    return Judgement(Outcome.RETRY, f"the DICOMweb server answered {status} and does not say that it stored the object")


def _judge_failure(failure: int) -> Judgement:
    judged = judge_status(failure)
    if judged.outcome is Outcome.STORED and failure != 0x0111:
        return Judgement(Outcome.RETRY, f"the DICOMweb server failed to store it (reason {failure:04X})")
    return judged


def judge_http(status: int, failure: int | None) -> Judgement:
    """What the HTTP status of a refused STOW request means.

    Args:
        status: of the response, 400 or more.
        failure: DICOM's failure reason in the response; None where it has none.
    """
    if status == 409 and failure is not None:
        return _judge_failure(failure)
    reason = f"the DICOMweb server answered {status}"
    if status in (401, 403):
        return Judgement(Outcome.RETRY, f"{reason}; let the gateway's certificate write there")
    # Too many requests, a time-out, and all that is the server's own fault may pass.
    if status in (408, 425, 429) or status >= 500:
        return Judgement(Outcome.RETRY, reason)
    told = None if failure is None else _judge_failure(failure)
    return Judgement(Outcome.REFUSED, reason, told is not None and told.outcome is Outcome.REFUSED and told.of_form)


def listed(client: DICOMwebClient, deliveries: Iterable[Delivery]) -> set[str] | None:
    """Which of the delivered instances the server lists; None if it does not answer."""
    found = set()
    try:
        for item in deliveries:
            filters = {"SOPInstanceUID": item.sop_uid}
            held = client.search_for_instances(study_instance_uid=item.study_uid, search_filters=filters)
            found |= {str(one.SOPInstanceUID) for one in map(Dataset.from_json, held)} & {item.sop_uid}
    except Exception as error:
        # The edge to the network: whatever the server answered, what it lists is not known.
        logger.warning("a DICOMweb server did not answer what it lists (%s)", type(error).__name__)
        return None
    return found


def find_web_series(client: DICOMwebClient, first: date, last: date) -> Iterator[FoundSeries]:
    """All series of the studies of some days that have MR images, as the server lists them.

    Raises:
        OSError: if the server does not answer.
    """
    days = {"StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}"}
    # Not with ModalitiesInStudy as a filter: there Orthanc 1.10 with DICOMweb 1.7 gets the pages wrong.
    search_studies = partial(client.search_for_studies, search_filters=days, fields=["ModalitiesInStudy"])
    fields = ["SeriesDescription", "Modality", "NumberOfSeriesRelatedInstances"]
    for study in _pages(search_studies, "StudyInstanceUID"):
        modalities = study.get("ModalitiesInStudy") or "MR"
        if "MR" in ([modalities] if isinstance(modalities, str) else list(modalities)):
            search_series = partial(client.search_for_series, study.StudyInstanceUID, fields=fields)
            for one in _pages(search_series, "SeriesInstanceUID"):
                yield FoundSeries.of(one, study.StudyInstanceUID)


def _pages(search: Callable[..., list[dict[str, dict[str, Any]]]], uid: str) -> Iterator[Dataset]:
    """All answers of a search, page by page.

    dicomweb-client's own way asks until a page is empty, which never comes from a server that ignores the offset; here
    a page without news is the last.
    """
    seen: set[str] = set()
    while True:
        page = [Dataset.from_json(one) for one in search(limit=_PAGE, offset=len(seen))]
        news = {str(one[uid].value): one for one in page if str(one[uid].value) not in seen}
        yield from news.values()
        seen |= set(news)
        if not news or len(page) < _PAGE:
            return


def fetch_web_series(client: DICOMwebClient, series: FoundSeries, intake: Intake, source: str) -> int:
    """Fetch one series into the spool; the number of instances that were taken.

    Raises:
        OSError: if the server ends in between; what came is kept, and the rest comes next time.
        NotTakenError: if an image could not be taken for want of resources, or the server gave fewer than it lists.
    """
    n_instances = n_given = 0
    for data in client.iter_series(series.study_uid, series.series_uid, media_types=(("application/dicom", "*"),)):
        n_given += 1
        file = intake.new_file()
        try:
            data.save_as(file, enforce_file_format=True)
            status = intake.accept(file, source).status
            if status == OUT_OF_RESOURCES:
                raise NotTakenError(OUT_OF_ROOM)
            n_instances += status == SUCCESS
        finally:
            file.unlink(missing_ok=True)
    if n_given < (series.n_instances or 0):
        raise NotTakenError(FEWER_THAN_LISTED)
    return n_instances
