"""DICOMweb: results stored by STOW-RS, series found by QIDO-RS and fetched by WADO-RS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from mhsev_monai.pacs.gateway.config_sending import TlsConfig
from mhsev_monai.pacs.gateway.cstore import Sent
from mhsev_monai.pacs.gateway.delivery_rules import Judgement, Outcome, judge_status
from mhsev_monai.pacs.gateway.found_series import FoundSeries
from mhsev_monai.pacs.gateway.instance_header import SUCCESS
from mhsev_monai.pacs.gateway.intake import Intake
from mhsev_monai.pacs.gateway.journal_rows import Delivery

# Its lines of level INFO and DEBUG hold UIDs and addresses of studies.
logging.getLogger("dicomweb_client").setLevel(logging.ERROR)
# It logs each failed try with its traceback, and there is one try.
logging.getLogger("retrying").setLevel(logging.CRITICAL)
_PAGE = 200


def web_client(url: str, tls: TlsConfig | None, timeout_s: float) -> DICOMwebClient:
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
    client = DICOMwebClient(url, session=session, timeout=timeout_s)
    client.set_http_retry_params(retry=False)
    return client


def stow_files(client: DICOMwebClient, paths: Sequence[Path]) -> list[Sent]:
    """Store files one by one; one result for each path, in the same order. A server that is down is no exception."""
    return [Sent(path, _stow(client, path)) for path in paths]


def _stow(client: DICOMwebClient, path: Path) -> Judgement:
    try:
        data = dcmread(path)
    except (OSError, InvalidDicomError):
        return Judgement(Outcome.REFUSED, "the result's file is gone or no DICOM file; run the series again")
    try:
        answer = client.store_instances([data])
    except requests.HTTPError as error:
        return (
            Judgement(Outcome.RETRY, "the DICOMweb server gave no status")
            if error.response is None
            else judge_http(error.response.status_code, _failure_reason(error.response))
        )
    except OSError as error:
        # Also of a certificate's file that cannot be read; what requests raises is an OSError too.
        return Judgement(Outcome.RETRY, f"the DICOMweb server does not answer ({type(error).__name__})")
    except ValueError:
        return Judgement(Outcome.RETRY, "the DICOMweb server gave an answer that is none")
    failed = answer.get("FailedSOPSequence")
    return judge_status(int(failed[0].FailureReason) if failed else 0x0000)


def judge_http(status: int, failure: int | None) -> Judgement:
    """What the HTTP status of a refused STOW request means.

    Args:
        status: of the response, 400 or more.
        failure: DICOM's failure reason in the response; None where it has none.
    """
    if status == 409 and failure is not None:
        return judge_status(failure)
    reason = f"the DICOMweb server answered {status}"
    if status in (401, 403):
        return Judgement(Outcome.RETRY, f"{reason}; let the gateway's certificate write there")
    # Too many requests, a time-out, and all that is the server's own fault may pass.
    passes = status in (408, 425, 429) or status >= 500
    return Judgement(Outcome.RETRY if passes else Outcome.REFUSED, reason)


def _failure_reason(response: requests.Response) -> int | None:
    try:
        failed = Dataset.from_json(response.json()).get("FailedSOPSequence")
        return int(failed[0].FailureReason) if failed else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def listed(client: DICOMwebClient, deliveries: Iterable[Delivery]) -> set[str] | None:
    """Which of the delivered instances the server lists; None if it does not answer."""
    found = set()
    try:
        for item in deliveries:
            filters = {"SOPInstanceUID": item.sop_uid}
            held = client.search_for_instances(study_instance_uid=item.study_uid, search_filters=filters)
            found |= {str(one.SOPInstanceUID) for one in map(Dataset.from_json, held)} & {item.sop_uid}
    except (OSError, ValueError):
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
    """
    n_instances = 0
    for data in client.iter_series(series.study_uid, series.series_uid, media_types=(("application/dicom", "*"),)):
        file = intake.new_file()
        try:
            data.save_as(file, enforce_file_format=True)
            n_instances += intake.accept(file, source).status == SUCCESS
        finally:
            file.unlink(missing_ok=True)
    return n_instances
