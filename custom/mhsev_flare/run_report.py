"""The page of a finished run: its result and ledger, and pictures of example cases where their scans are at hand.

Pictures need scans, so they can only be drawn where the scans are: at a site, or on the machine of the simulator. The
run itself carries none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from mhsev_flare.result import read_run
from mhsev_flare.site import DERIVATIVES
from mhsev_monai.cases import Case, content_hash, read_cases, split_cases
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.feature_cache import load_or_compute
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.metrics import SeverityTable, severity_intervals
from mhsev_monai.model_file import SeverityModel, load_model
from mhsev_monai.prediction import ScanGrade, grade_scan
from mhsev_monai.report import (
    AttendanceRow,
    CandidateRow,
    Evaluation,
    ExampleCase,
    LocalModels,
    Mark,
    ReportData,
    RoundRow,
    SiteCases,
    orientation_words,
    render_report,
    slice_pair_png,
)
from mhsev_monai.severity import Severity

MAX_LISTED_CANDIDATES = 12


def write_report(run: Path, page: Path, cohort: Path | None = None) -> None:
    """Write the HTML page of a run.

    Args:
        run: folder of the run, or any folder above it.
        page: the file to write.
        cohort: folder with one BIDS root per site; without it the page has no example cases.

    Raises:
        FileNotFoundError: if there is no result.
        ValueError: if the run did not end well, so that there is nothing to report; the message says why.
    """
    result, ledger, model_path = read_run(run)
    if result["status"] != "completed":
        raise ValueError(f"the run ended as {result['status']}, so there is nothing to report: {result['reason']}")
    if result.get("encrypted") and not model_path.is_file():
        raise ValueError("the server of an encrypted study has no model; put the model.pt of a site beside result.json")
    model = load_model(model_path)
    # Inputs that cannot show what they made of a scan give no pictures.
    examples = list(_examples(result, model, cohort)) if cohort and hasattr(model.inputs, "process") else []
    data = _report_data(result, ledger, examples, cohort)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_report(data), encoding="utf-8")


def _is_simulated(cohort: Path) -> bool:
    """Whether the folder is one that ``mhsev cohort make`` wrote."""
    return (cohort / "cohort.json").is_file()


def _evaluation(name: str, entry: Mapping[str, Any], seed: int) -> Evaluation:
    intervals = severity_intervals([SeverityTable.from_json(entry["table"])], seed)
    return Evaluation(name, entry["metrics"], entry["table"], intervals)


def _report_data(
    result: Mapping[str, Any],
    ledger: Sequence[Mapping[str, Any]],
    examples: Sequence[ExampleCase],
    cohort: Path | None,
) -> ReportData:
    test, seed = result["test"], int(result["seed"])
    pooled = Evaluation(
        "all sites",
        test["pooled"]["metrics"],
        test["pooled"]["table"],
        severity_intervals([SeverityTable.from_json(e["table"]) for e in test["sites"].values()], seed),
    )
    return ReportData(
        title="Federated grading of cerebral micro-hemorrhages",
        simulated=cohort is not None and _is_simulated(cohort),
        facts=_facts(result),
        scale=result["scale"],
        sites=[_site_cases(site, summary) for site, summary in result["sites"].items()],
        pooled=pooled,
        per_site=[_evaluation(site, entry, seed) for site, entry in test["sites"].items()],
        majority=test["majority"]["metrics"],
        local_models=_local_models(result.get("comparison")),
        rounds=[_round(row) for row in ledger],
        kept_round=result["best_round"],
        attendance=[_attendance(site, ledger) for site in result["sites"]],
        examples=examples,
        notes=_notes(result, cohort),
    )


def _facts(result: Mapping[str, Any]) -> dict[str, str | int | float | None]:
    versions, digest = result["versions"], result["model"].get("sha256", "")
    return {
        "job": result["job"],
        "rounds": result["num_rounds"],
        "round kept": result["best_round"],
        "weighting of sites": result["weighting"],
        "rule for updates": result["rule"],
        "grading scale": result["scale"],
        "features": len(result["features"]["names"]),
        "seed": result["seed"],
        "mhsev": versions["mhsev"],
        "NVIDIA FLARE": versions["nvflare"],
        "PyTorch": versions["torch"],
        **({"model SHA-256": digest[:16]} if digest else {"encrypted": "the model is at the sites alone"}),
    }


def _local_models(comparison: Mapping[str, Any] | None) -> LocalModels | None:
    if comparison is None:
        return None
    own = {site: entry["metrics"]["balanced_accuracy"] for site, entry in comparison["site_models"].items()}
    return LocalModels(own, comparison["global_balanced_accuracy"])


def _round(row: Mapping[str, Any]) -> RoundRow:
    return RoundRow(
        number=row["round"],
        samples={site: entry["n_samples"] for site, entry in row["sites"].items()},
        rejected=row["refused"],
        quadratic_kappa=row["validation"]["quadratic_kappa"],
        loss=row["validation"]["loss"],
    )


def _site_cases(site: str, summary: Mapping[str, Any]) -> SiteCases:
    """A site may hide small numbers; a split of which any number is hidden is not shown."""
    told = {split: counts for split, counts in summary["grades"].items() if all(isinstance(n, int) for n in counts)}
    return SiteCases(site, told)


def _attendance(site: str, ledger: Sequence[Mapping[str, Any]]) -> AttendanceRow:
    trained = [row for row in ledger if row["anomalies"] or row["absent"]]
    own = [row["anomalies"][site] for row in trained if site in row["anomalies"]]
    ratios = [entry["norm_ratio"] for entry in own if entry.get("norm_ratio") is not None]
    cosines = [entry["cosine_to_median"] for entry in own if entry.get("cosine_to_median") is not None]
    return AttendanceRow(
        site=site,
        taken=sum(entry["accepted"] for entry in own),
        refused=sum(not entry["accepted"] for entry in own),
        absent=sum(site in row["absent"] for row in trained),
        clipped=sum(bool(entry.get("clipped")) for entry in own),
        largest_ratio=max(ratios, default=None),
        least_cosine=min(cosines, default=None),
    )


def _notes(result: Mapping[str, Any], cohort: Path | None) -> list[str]:
    notes = [
        f"{site}: {summary['excluded']} cases were left out; the reasons are in the site's own log"
        for site, summary in result["sites"].items()
        if summary["excluded"]  # a number, or a range in its place
    ]
    if cohort is None:
        notes.append("this page does not know where the cases come from: it was made without their folder")
    notes += [f"{site} did not take part: {reason}" for site, reason in result["refused"].items()]
    if "resumed" in result:
        notes.append(f"the run went on from round {result['resumed']['round']} of one that had ended before its end")
        notes += [
            f"{site} took part before, and was not there when it went on"
            for site in result["resumed"].get("without", [])
        ]
    if "converged_at_round" in result:
        notes.append(f"training ended at round {result['converged_at_round']}, since the validation loss fell no more")
    hidden = [s for s, told in result["sites"].items() if not all(isinstance(n, int) for n in _numbers(told["grades"]))]
    notes += [f"{site} hides small numbers of cases, so some of its numbers by grade are not shown" for site in hidden]
    return notes


def _numbers(grades: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [number for counts in grades.values() for number in counts]


def _examples(result: Mapping[str, Any], model: SeverityModel, cohort: Path) -> Iterator[ExampleCase]:
    """One test case of each true grade, the first by site and id, so that nobody picks the handsome ones."""
    wanted = list(Severity)
    for site in result["sites"]:
        for case in _test_cases(cohort / site, int(result["seed"]), model) if wanted else ():
            grade = model.scale.grade(float(case.count or 0))
            if grade in wanted:
                wanted.remove(grade)
                yield _example(site, case, model)


def _test_cases(root: Path, seed: int, model: SeverityModel) -> tuple[Case, ...]:
    """The cases that the site tested on: the same split of the same usable cases."""
    try:
        cases = read_cases(root).cases
    except CohortError:
        return ()
    usable = [case for case in cases if _is_usable(case, model, root)]
    contents = {case.case_id: content_hash(case) for case in usable}
    return split_cases(usable, seed, content_hashes=contents, scale=model.scale).test


def _is_usable(case: Case, model: SeverityModel, root: Path) -> bool:
    try:
        load_or_compute(case, model.inputs, root / DERIVATIVES)
    except ScanError:
        return False
    except OSError:
        # The site keeps its features elsewhere, and this folder cannot be written: the scan itself decides.
        return _can_be_processed(case, model)
    return True


def _can_be_processed(case: Case, model: SeverityModel) -> bool:
    try:
        model.inputs(case)
    except ScanError:
        return False
    return True


def _example(site: str, case: Case, model: SeverityModel) -> ExampleCase:
    grade, entries = grade_scan(case.image, model, case.bvals)
    b0 = np.asarray(entries[Keys.B0][0])
    # Models over the whole brain have no map and point at nothing.
    feature_map = np.asarray(entries[Keys.DSD][0]) if Keys.DSD in entries else None
    # The slice with most findings; without any, the one with most brain.
    per_slice = np.bincount([round(f.voxel[2]) for f in grade.findings], minlength=b0.shape[2])
    brain = np.asarray(entries[Keys.BRAIN_MASK][0]).sum(axis=(0, 1))
    z = int(per_slice.argmax() if per_slice.any() else brain.argmax())
    here = [finding for finding in grade.findings if round(finding.voxel[2]) == z]
    affine = np.asarray(entries[Keys.B0].affine)
    codes = aff2axcodes(affine)
    spacing = voxel_sizes(affine)
    picture = slice_pair_png(
        b0[:, :, z],
        None if feature_map is None else feature_map[:, :, z],
        [Mark(finding.voxel[0], finding.voxel[1]) for finding in here],
        spacing=(float(spacing[0]), float(spacing[1])),
        axis_codes=codes,
    )
    listed = here[:MAX_LISTED_CANDIDATES]
    return ExampleCase(
        case_id=case.case_id,
        site=site,
        true_grade=model.scale.grade(float(case.count or 0)).label,
        predicted_grade=grade.grade.label,
        true_count=case.count,
        predicted_count=grade.count,
        image=picture,
        orientation=orientation_words(codes),
        candidates=[
            CandidateRow(f"slice {z + 1}, depth {100 * finding.depth:.0f} %", finding.probability) for finding in listed
        ],
        note=f"slice {z + 1} of {b0.shape[2]} " + what_is_shown(len(here), grade, feature_map is not None),
    )


def what_is_shown(n_here: int, grade: ScanGrade, has_map: bool) -> str:
    """What a picture shows of a scan's findings, the end of a sentence."""
    if not has_map:
        return "has the most brain; the model judges the scan as a whole and points at no place"
    less = f"{len(grade.possible)} less likely ones, which are not drawn, and " if grade.possible else ""
    return f"shows {n_here} of {len(grade.findings)} findings; the scan has {less}{grade.n_candidates} candidates"
