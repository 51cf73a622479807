"""Quality control of a site: every scan of a BIDS root on one page, and as numbers beside it.

Both files show patients' images or tell of single cases: they stay at the site. The sums of landmarks in the numbers
are made to be given away (``mhsev_monai.preprocess.nyul``).
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mhsev_monai._version import __version__
from mhsev_monai.cases import Case, CaseList, read_cases
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.ingest.bvals import image_stem
from mhsev_monai.ingest.ledger import LedgerEntry, read_ledger
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.parallel import for_each_case
from mhsev_monai.preprocess.nyul import FEWEST_SCANS, PERCENTILES, LandmarkSums
from mhsev_monai.qc.excluded import (
    IN_FOLDER,
    Excluded,
    excluded_at_ingest,
    excluded_in_folder,
    excluded_in_processing,
    images_of,
)
from mhsev_monai.qc.outliers import MEASURES, outlier_words, site_outliers
from mhsev_monai.qc.scan import ScanQC, check_scan
from mhsev_monai.quality import WHOLE_BRAIN_ML
from mhsev_monai.scan_contrast import ScanContrast

_SCHEMA = 1
_UNWRITABLE = "the page cannot be written"


def default_page(contrast: ScanContrast) -> Path:
    """Where a BIDS root keeps its page: ``derivatives/mhsev/qc.html``, other contrasts ``qc_t2star.html`` and so on."""
    name = "qc" if contrast is ScanContrast.DWI else f"qc_{contrast}"
    return Path("derivatives", "mhsev", f"{name}.html")


@dataclass(frozen=True)
class SiteQC:
    """What is known of a site's scans.

    Attributes:
        contrast: which scans.
        scans: the processed ones, sorted by id.
        flags: by case id, in the same order: reasons to doubt the scan, one sentence each; empty for none.
        outliers: by case id: modified z-score of each measure with which it stands apart from the site's other scans.
        excluded: all that is not among the scans.
        note: why the folder's scans could not be listed; empty if they could.
    """

    contrast: ScanContrast
    scans: tuple[ScanQC, ...]
    flags: Mapping[str, tuple[str, ...]]
    outliers: Mapping[str, Mapping[str, float]]
    excluded: tuple[Excluded, ...]
    note: str = ""

    @property
    def n_flagged(self) -> int:
        """Processed scans with at least one flag."""
        return sum(bool(flags) for flags in self.flags.values())

    @property
    def n_accepted(self) -> int:
        """Processed scans without a flag."""
        return len(self.scans) - self.n_flagged

    @property
    def n_refused(self) -> int:
        """Excluded for a fault, rather than for being of no use here."""
        return sum(row.refused for row in self.excluded)


@dataclass(frozen=True)
class QCSummary:
    """What became of a site's scans, and where it is written.

    Attributes:
        page: the HTML file.
        numbers: the JSON file.
        n_accepted: scans without a flag.
        flags: by case id, of the flagged scans alone.
        excluded: all that is not among the scans, each with its reason.
        note: why the folder's scans could not be listed; empty if they could.
    """

    page: Path
    numbers: Path
    n_accepted: int
    flags: Mapping[str, tuple[str, ...]]
    excluded: tuple[Excluded, ...]
    note: str = ""

    @property
    def n_refused(self) -> int:
        """Excluded for a fault, rather than for being of no use here."""
        return sum(row.refused for row in self.excluded)


def write_qc(
    root: Path,
    out: Path | None = None,
    *,
    contrast: ScanContrast = ScanContrast.DWI,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QCSummary:
    """Process every scan of a BIDS root and write its page and its numbers.

    Args:
        root: folder of the data set; no table of participants is needed.
        out: the HTML file; by default the root's ``default_page``. The numbers take the same name with the ending
            ``.json``.
        contrast: which scans of the root.
        workers: processes; 1 computes in this one.
        progress: called with the number done and the total after each scan.

    Raises:
        CohortError: if the folder holds no scan and no record of what was brought in, or is malformed, or ``out``
            cannot be written.
        ImportError: without jinja2 and pillow (the extra ``report``).
    """
    _check_extra()
    root = Path(root)
    page = Path(out) if out is not None else root / default_page(contrast)
    _check_place(root, page)
    site = check_site(root, contrast, workers, progress)
    from mhsev_monai.qc.page import render_qc

    numbers = page.with_suffix(".json")
    try:
        _write(numbers, json.dumps(site_numbers(site), indent=1, allow_nan=False) + "\n")
        _write(page, render_qc(site))
    except OSError as error:
        raise CohortError(f"{_UNWRITABLE} ({type(error).__name__}); name another file") from None
    flagged = {case_id: flags for case_id, flags in site.flags.items() if flags}
    return QCSummary(page, numbers, site.n_accepted, flagged, site.excluded, site.note)


def check_site(
    root: Path,
    contrast: ScanContrast = ScanContrast.DWI,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SiteQC:
    """Process every scan of a BIDS root; see ``write_qc``."""
    ledger = read_ledger(root)
    images = images_of(root, contrast)
    listed, note = _listed(root, contrast, ledger)
    outcomes = for_each_case(listed.cases, partial(_attempt, contrast=contrast), workers, progress)
    scans = tuple(o for _, o in sorted(outcomes.items()) if isinstance(o, ScanQC))
    failed = {case_id: o for case_id, o in outcomes.items() if isinstance(o, str)}
    stems = [stem for path in images if (stem := image_stem(path.name)) is not None]
    if note:
        in_folder = [Excluded("", f"image {i + 1} of {len(images)}", IN_FOLDER, note) for i in range(len(images))]
    else:
        in_folder = excluded_in_folder(listed, images)
    excluded = (
        *excluded_at_ingest(ledger, stems, contrast),
        *in_folder,
        *excluded_in_processing(listed.cases, failed),
    )
    outliers = site_outliers({scan.case_id: scan.numbers for scan in scans})
    flags = {scan.case_id: (*scan.flags, *_outlier_flags(scan, outliers[scan.case_id])) for scan in scans}
    return SiteQC(contrast, scans, flags, outliers, excluded, note)


def site_numbers(site: SiteQC) -> dict[str, Any]:
    """The site as JSON values; of each scan plain numbers under ``scans``, and words under its id elsewhere."""
    return {
        "schema": _SCHEMA,
        "mhsev": __version__,
        "contrast": str(site.contrast),
        "counts": {
            "entries": len(site.scans) + len(site.excluded),
            "accepted": site.n_accepted,
            "flagged": site.n_flagged,
            "excluded": len(site.excluded),
        },
        "scans": {scan.case_id: dict(scan.numbers) for scan in site.scans},
        "outliers": {case_id: dict(row) for case_id, row in site.outliers.items() if row},
        "flags": {case_id: list(flags) for case_id, flags in site.flags.items() if flags},
        "not_measured": {scan.case_id: dict(scan.not_measured) for scan in site.scans if scan.not_measured},
        "excluded": [asdict(row) for row in site.excluded],
        "landmarks": {"percentiles": list(PERCENTILES)}
        | {image: _landmark_sums(site.scans, image) for image in (Keys.B0, Keys.TRACE)},
    }


def _check_extra() -> None:
    missing = [
        name for name, module in (("jinja2", "jinja2"), ("pillow", "PIL")) if not importlib.util.find_spec(module)
    ]
    if missing:
        raise ImportError(f"the page needs {' and '.join(missing)}; install them with: pip install 'mhsev[report]'")


def _check_place(root: Path, page: Path) -> None:
    """Refuse a root or a page that cannot be, before hours of processing rather than after."""
    if not root.is_dir():
        raise CohortError("the data root is not a folder that is there; check its name, and that the disk is mounted")
    if page.suffix == ".json":
        raise CohortError("the page needs a name that does not end in .json, since the numbers lie beside it")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        _write(page.with_suffix(".json.tmp"), "")
        page.with_suffix(".json.tmp").unlink()
    except OSError as error:
        raise CohortError(f"{_UNWRITABLE} ({type(error).__name__}); name another file") from None


def _listed(root: Path, contrast: ScanContrast, ledger: Sequence[LedgerEntry]) -> tuple[CaseList, str]:
    """The cases; or none and the reason, where at least a record tells what was brought in."""
    try:
        return read_cases(root, require_counts=False, contrast=contrast), ""
    except CohortError as error:
        if not ledger:
            raise
        return CaseList((), {}), str(error)


def _attempt(case: Case, contrast: ScanContrast) -> ScanQC | str:
    try:
        return check_scan(case, contrast)
    except ScanError as error:
        return str(error)
    except Exception as error:
        # The edge of the batch: a fault of ours in one scan must not take the others with it. The message of an
        # unknown error can hold a path.
        return f"it failed unexpectedly ({type(error).__name__})"


def _outlier_flags(scan: ScanQC, scores: Mapping[str, float]) -> list[str]:
    return [outlier_words(m, scan.numbers[m.name] or 0.0, scores[m.name]) for m in MEASURES if m.name in scores]


def _landmark_sums(scans: Sequence[ScanQC], image: str) -> dict[str, Any]:
    """Sums over the scans whose mask is a whole brain's; or why there are none."""
    low, high = WHOLE_BRAIN_ML
    whole = [scan for scan in scans if low <= (scan.numbers["brain_mask_ml"] or 0.0) <= high]
    found = [scan.landmarks[image] for scan in whole if image in scan.landmarks]
    if len(found) < FEWEST_SCANS:
        return {
            "absent": f"{len(found)} scans with a whole brain have this image, and a sum over fewer than "
            f"{FEWEST_SCANS} says too much about each"
        }
    sums = LandmarkSums.of(found)
    return {"n_scans": sums.n_scans, "sums": list(sums.sums)}


def _write(path: Path, text: str) -> None:
    # Written beside and renamed: an interrupted run leaves the old file whole.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
