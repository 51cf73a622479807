"""Every scan and series of a site that is not among the processed ones, with its reason: none is silently missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mhsev_monai.cases import Case, CaseList
from mhsev_monai.ingest.bvals import image_stem
from mhsev_monai.ingest.ledger import LedgerEntry
from mhsev_monai.participants import is_bids_name
from mhsev_monai.scan_contrast import ScanContrast

WITHHELD = "(name withheld)"
"""In place of a folder's name that is no BIDS id: it may be a patient's."""

BROUGHT_IN, IN_FOLDER, PROCESSED = "bringing in", "reading the folder", "processing"


@dataclass(frozen=True)
class Excluded:
    """A scan, a series or a participant that is not among the processed scans.

    Attributes:
        case_id: or the part of it that is known.
        series: what tells series of one case apart; empty where there is one.
        stage: at which it was excluded.
        reason: one sentence.
        refused: False where it is only of no use here, such as a localiser.
    """

    case_id: str
    series: str
    stage: str
    reason: str
    refused: bool = True


def excluded_at_ingest(ledger: Iterable[LedgerEntry], stems: Iterable[str], contrast: ScanContrast) -> list[Excluded]:
    """Series of the ingest ledger that were refused, left out, or accepted and are not there any more.

    Args:
        ledger: from ``read_ledger``.
        stems: names, without folder and ending, of all images of this contrast in the root.
        contrast: accepted series of another contrast are none of this page's.
    """
    there, rows = set(stems), []
    for entry in ledger:
        case_id = "_".join(filter(None, (entry.subject, entry.session))) or "unknown patient"
        series = f"{entry.kind}, {entry.n_files} {'file' if entry.n_files == 1 else 'files'}"
        if entry.outcome != "accepted":
            rows.append(Excluded(case_id, series, BROUGHT_IN, entry.reason, entry.outcome == "refused"))
        elif entry.scan and contrast.matches(entry.scan) and entry.scan not in there:
            reason = "it was accepted, but its image is not in the folder any more; bring it in again"
            rows.append(Excluded(case_id, series, BROUGHT_IN, reason))
    return rows


def excluded_in_folder(listed: CaseList, images: Iterable[Path]) -> list[Excluded]:
    """What ``read_cases`` has excluded, and the images that it passed over for another one of the session.

    Args:
        listed: from ``read_cases``.
        images: from ``images_of``.
    """
    rows = [Excluded(_shown(case_id), "", IN_FOLDER, reason) for case_id, reason in sorted(listed.excluded.items())]
    used = {case.image for case in listed.cases}
    by_case: dict[str, list[Path]] = {}
    for path in images:
        by_case.setdefault(_case_id(path), []).append(path)
    for case_id, paths in sorted(by_case.items()):
        subject, _, session = case_id.partition("_")
        if not is_bids_name(subject, "sub"):
            # The folder as a whole is among the excluded already.
            continue
        if session and not is_bids_name(session, "ses"):
            reason = "its session's folder is named otherwise than ses-<letters and digits>"
            rows += [Excluded(subject, "", IN_FOLDER, reason) for _ in paths]
            continue
        others = [path for path in paths if path not in used]
        # The reason of a case that was excluded is that of one of its images.
        others = others[1:] if case_id in listed.excluded else others
        rows += [Excluded(case_id, _which(path, paths), IN_FOLDER, _passed_over(path)) for path in others]
    return rows


def images_of(root: Path, contrast: ScanContrast) -> tuple[Path, ...]:
    """All images of a contrast below ``sub-*`` and ``sub-*/ses-*``, whatever the folders are named, sorted."""
    files = [p for where in ("sub-*", "sub-*/ses-*") for p in root.glob(f"{where}/{contrast.folder}/sub-*")]
    return tuple(sorted(p for p in files if (stem := image_stem(p.name)) is not None and contrast.matches(stem)))


def excluded_in_processing(cases: Iterable[Case], failed: Mapping[str, str]) -> list[Excluded]:
    """Cases whose processing failed, with the reason."""
    return [Excluded(case.case_id, "", PROCESSED, failed[case.case_id]) for case in cases if case.case_id in failed]


def _case_id(path: Path) -> str:
    folder = path.parent.parent
    return folder.name if folder.name.startswith("sub-") else f"{folder.parent.name}_{folder.name}"


def _shown(case_id: str) -> str:
    return case_id if is_bids_name(case_id.partition("_")[0], "sub") else WITHHELD


def _which(path: Path, paths: list[Path]) -> str:
    return f"image {paths.index(path) + 1} of {len(paths)}" if len(paths) > 1 else ""


def _passed_over(path: Path) -> str:
    parts = {"part-phase", "part-real", "part-imag"} & set((image_stem(path.name) or "").split("_"))
    if parts:
        return "it is not the magnitude of the signal"
    return "another image of the same session is used; give it a session of its own, or take the other away"
