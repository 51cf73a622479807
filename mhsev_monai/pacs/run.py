"""A folder of DICOM in, results out: what became of every series, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest.dicom.kinds import ACCEPTED, SeriesKind
from mhsev_monai.ingest.dicom.series import DicomSeries, group_series
from mhsev_monai.ingest.source import Source, look_through
from mhsev_monai.ingest.work import clear_abandoned
from mhsev_monai.model_file import load_model
from mhsev_monai.pacs.identity import file_digest, series_key
from mhsev_monai.pacs.result_folder import clear_unfinished, kept_outcome, write_results
from mhsev_monai.pacs.results import LoadedModel, grade_series, result_identity, result_objects
from mhsev_monai.pacs.structured_report import ReportForm
from mhsev_monai.scan_contrast import ScanContrast
from mhsev_monai.trust import ABSTENTIONS

_UNREADABLE = "the files cannot be read as DICOM, or cannot be opened: damaged, deflated or cut off; send them again"
_CLOSED = "the folders cannot be opened; mend their permissions"
_NO_DICOM = "DICOM is taken; these files are of other kinds"
_ALONE = "the study has no original diffusion series here; send that one: derived images are not graded"


class RunStatus(StrEnum):
    """What became of a series."""

    DONE = "done"
    REFUSED = "refused"
    LEFT_OUT = "left out"
    FAILED = "failed"


@dataclass(frozen=True)
class SeriesOutcome:
    """What became of one series.

    Attributes:
        series: from ``series_key``; empty for files that are of no series.
        kind: what it is, in words.
        n_files: of the source.
        status: refused: something is wrong with it. Left out: it is of another kind. Failed: a fault of ours.
        reason: one sentence without identifiers; empty where it is done.
        results: files below the folder of results, best sent in this order.
        grade: label; None where it is not done.
        count: estimated number of microbleeds; None likewise.
        warnings: reasons to doubt the result.
        abstains: why the grade is not to be relied on; None where the model stands by it, or nothing is graded.
    """

    series: str
    kind: str
    n_files: int
    status: RunStatus
    reason: str = ""
    results: tuple[str, ...] = ()
    grade: str | None = None
    count: int | None = None
    warnings: tuple[str, ...] = ()
    abstains: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return {
            "series": self.series,
            "kind": self.kind,
            "n_files": self.n_files,
            "status": str(self.status),
            "reason": self.reason,
            "results": list(self.results),
            "grade": self.grade,
            "count": self.count,
            "warnings": list(self.warnings),
            "abstains": self.abstains,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> SeriesOutcome:
        """The outcome that ``to_json`` wrote."""
        lists = {name: tuple(found[name]) for name in ("results", "warnings")}
        return cls(**{**found, **lists, "status": RunStatus(found["status"])})


@dataclass(frozen=True)
class RunSettings:
    """What a site may choose.

    Attributes:
        sr: form of the structured report, a value of ``ReportForm``.
        regions: tell which part of the brain each finding lies in.
    """

    sr: str = ReportForm.COMPREHENSIVE_3D
    regions: bool = False


def _say_nothing(outcome: SeriesOutcome) -> None:
    """Say nothing."""


def run_folder(
    source: Path,
    out: Path,
    model: Path,
    settings: RunSettings | None = None,
    report: Callable[[SeriesOutcome], None] = _say_nothing,
) -> list[SeriesOutcome]:
    """Grade every diffusion series of a folder and write its results.

    Args:
        source: a folder of any depth, or one file.
        out: made if absent; gets a folder for each series that is graded.
        model: model file.
        settings: of the site.
        report: called with each outcome as soon as it is known.

    Raises:
        ScanError: if there is no such source.
        ModelFileError: if there is no such model.
        OSError: if ``out`` cannot be written.
    """
    settings = settings or RunSettings()
    if source.exists() and source.resolve().is_relative_to(out.resolve()):
        raise ScanError("the source lies inside the folder of results; name another folder for these")
    loaded = LoadedModel(load_model(model), file_digest(model))
    found = look_through(source, skip=out)
    out.mkdir(parents=True, exist_ok=True)
    clear_abandoned()
    clear_unfinished(out)
    outcomes = []
    for outcome in _of_series(found, out, loaded, settings):
        outcomes.append(outcome)
        report(outcome)
    return outcomes


def _of_series(found: Source, out: Path, loaded: LoadedModel, settings: RunSettings) -> Iterator[SeriesOutcome]:
    """The outcome of each series, then of files that are of none."""
    wanted = ACCEPTED[ScanContrast.DWI]
    series = group_series(found.dicom)
    studies = {each.files[0].study for each in series if each.kind in wanted}
    for each in series:
        if each.kind in wanted:
            yield _settle(each, out, loaded, settings)
        else:
            yield _left_out(each, has_diffusion=each.files[0].study in studies)
    if found.unreadable:
        yield SeriesOutcome("", "unreadable file", len(found.unreadable), RunStatus.REFUSED, _UNREADABLE)
    if found.closed:
        yield SeriesOutcome("", "closed folder", found.closed, RunStatus.REFUSED, _CLOSED)
    if found.nifti:
        yield SeriesOutcome("", "NIfTI", len(found.nifti), RunStatus.LEFT_OUT, _NO_DICOM)
    if found.n_others:
        yield SeriesOutcome("", "other file", found.n_others, RunStatus.LEFT_OUT, _NO_DICOM)


def _known(series: DicomSeries, status: RunStatus, reason: str) -> SeriesOutcome:
    return SeriesOutcome(series_key(series.files[0].series), str(series.kind), len(series.files), status, reason)


def _left_out(series: DicomSeries, has_diffusion: bool) -> SeriesOutcome:
    """Why a series is not graded: what it is, and what would be."""
    derived = (SeriesKind.ADC, SeriesKind.EXPONENTIAL_ADC, SeriesKind.TRACE, SeriesKind.FA, SeriesKind.DERIVED_B0)
    reason = f"this is of the kind {series.kind}; original diffusion series of the brain are graded"
    if series.kind is SeriesKind.NO_MR_IMAGE:
        reason = f"this is {_class_name(series.files[0].sop_class)}; MR and Enhanced MR images are taken"
    elif series.kind in derived and not has_diffusion:
        reason = f"this is of the kind {series.kind}, and {_ALONE}"
    return _known(series, RunStatus.LEFT_OUT, reason)


def _class_name(sop_class: str) -> str:
    """The standard's name of a SOP class; what the file itself says is not shown."""
    from pydicom.uid import UID_dictionary

    return f"{UID_dictionary[sop_class][0]}" if sop_class in UID_dictionary else "an object of another class"


def _settle(series: DicomSeries, out: Path, loaded: LoadedModel, settings: RunSettings) -> SeriesOutcome:
    """Grade one series; a fault in it does not take the others along."""
    identity = result_identity(series, loaded.digest, settings.regions)
    form = "" if settings.sr == ReportForm.COMPREHENSIVE_3D else f"-{settings.sr}"
    folder = out / f"{series_key(series.files[0].series)}-{identity.key}{form}"
    try:
        kept = kept_outcome(folder)
        return _graded(series, folder, loaded, settings) if kept is None else SeriesOutcome.from_json(kept)
    except ScanError as error:
        return _known(series, RunStatus.REFUSED, str(error))
    except MemoryError:
        # Another time there may be more: whether the series itself is to blame is not known.
        return _known(series, RunStatus.FAILED, "the series does not fit into memory; give more, or split it")
    except OSError as error:
        reason = f"results cannot be written ({type(error).__name__}); free space, or mend permissions, and run again"
        return _known(series, RunStatus.FAILED, reason)
    except Exception as error:
        # The edge of the batch: the text of the error may hold a path or a name.
        reason = f"failed unexpectedly with {type(error).__name__}; please report it, without the files"
        return _known(series, RunStatus.FAILED, reason)


def _graded(series: DicomSeries, folder: Path, loaded: LoadedModel, settings: RunSettings) -> SeriesOutcome:
    context = grade_series(series, loaded, settings.regions)
    objects = result_objects(context, ReportForm(settings.sr))
    outcome = replace(
        _known(series, RunStatus.DONE, ""),
        results=tuple(f"{folder.name}/{name}" for name in objects),
        grade=context.grade.grade.label,
        count=context.grade.count,
        warnings=tuple(dict.fromkeys((*context.notes, *context.grade.flags))),
        abstains=None if context.grade.abstains is None else ABSTENTIONS[context.grade.abstains],
    )
    write_results(folder, objects, outcome.to_json())
    return outcome
