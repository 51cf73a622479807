"""Pictures of single test cases, where the scans are: one of each grade, and those graded farthest from the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mhsev_flare.site import DERIVATIVES
from mhsev_monai.cases import Case, content_hash, read_cases, split_cases
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.feature_cache import load_or_compute
from mhsev_monai.model_file import SeverityModel
from mhsev_monai.networks import predict_severity
from mhsev_monai.prediction import ScanGrade, grade_scan
from mhsev_monai.report.data import CandidateRow, ExampleCase
from mhsev_monai.report.scan_pictures import best_slice, findings_on, orientation_of, slice_of
from mhsev_monai.severity import Severity

MAX_LISTED_CANDIDATES = 12
MOST_FAILURES = 4
"""Pictures of failures; each takes a whole processing of its scan."""


class GradedCase(NamedTuple):
    """A test case at hand, with what the model says of it."""

    site: str
    case: Case
    true_grade: Severity
    grade: Severity
    predicted_count: float

    @property
    def distance(self) -> tuple[int, float]:
        """Grades off, and microbleeds off."""
        return abs(int(self.grade) - int(self.true_grade)), abs(self.predicted_count - float(self.case.count or 0))


def graded_test_cases(result: Mapping[str, Any], model: SeverityModel, cohort: Path) -> list[GradedCase]:
    """The cases that the sites tested on, as far as their folders are at hand; graded from kept features."""
    found = []
    for site in result["sites"]:
        for case in _split_of(cohort / site, int(result["seed"]), model):
            judged = _judge(case, model, cohort / site)
            found.append(GradedCase(site, case, model.scale.grade(float(case.count or 0)), *judged))
    return found


def example_cases(cases: list[GradedCase], model: SeverityModel) -> Iterator[ExampleCase]:
    """One test case of each true grade, the first by site and id, so that nobody picks the handsome ones."""
    wanted = list(Severity)
    for each in cases:
        if each.true_grade in wanted:
            wanted.remove(each.true_grade)
            yield picture_of(each.site, each.case, model)


def failed_cases(cases: list[GradedCase], model: SeverityModel) -> Iterator[ExampleCase]:
    """The misgraded ones, those first that are the most grades off, then the most microbleeds, then by site and id."""
    wrong = [each for each in cases if each.grade != each.true_grade]
    wrong.sort(key=lambda each: (*(-part for part in each.distance), each.site, each.case.case_id))
    for each in wrong[:MOST_FAILURES]:
        yield picture_of(each.site, each.case, model)


def _judge(case: Case, model: SeverityModel, root: Path) -> tuple[Severity, float]:
    kept = _features(case, model, root)
    features = torch.from_numpy(model.inputs.assemble(kept)).float()[None]
    prediction = predict_severity(model.network, features, model.scale)
    return Severity(int(prediction.grades[0])), float(prediction.counts[0])


def _features(case: Case, model: SeverityModel, root: Path) -> Any:
    """The site's own kept features; anew where its folder cannot be written.

    Raises:
        ScanError: if the scan cannot be used.
    """
    try:
        return load_or_compute(case, model.inputs, root / DERIVATIVES)
    except OSError:
        # The site keeps its features elsewhere, and this folder cannot be written: the scan itself decides.
        return model.inputs(case)


def _split_of(root: Path, seed: int, model: SeverityModel) -> tuple[Case, ...]:
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
        _features(case, model, root)
    except ScanError:
        return False
    return True


def picture_of(site: str, case: Case, model: SeverityModel) -> ExampleCase:
    """A case with the slice that has most of its findings.

    Raises:
        ScanError: if the scan cannot be used.
    """
    grade, entries = grade_scan(case.image, model, case.bvals)
    z = best_slice(grade.findings, entries)
    here = findings_on(grade.findings, z)
    shown = slice_of(entries, z, here)
    return ExampleCase(
        case_id=case.case_id,
        site=site,
        true_grade=model.scale.grade(float(case.count or 0)).label,
        predicted_grade=grade.grade.label,
        true_count=case.count,
        predicted_count=grade.count,
        image=shown.png,
        orientation=orientation_of(entries),
        candidates=[
            CandidateRow(f"slice {z + 1}, signal loss {100 * finding.depth:.0f} %", finding.probability)
            for finding in here[:MAX_LISTED_CANDIDATES]
        ],
        note=f"slice {z + 1} of {shown.n_slices} " + what_is_shown(len(here), grade, shown.has_map),
    )


def what_is_shown(n_here: int, grade: ScanGrade, has_map: bool) -> str:
    """What a picture shows of a scan's findings, the end of a sentence."""
    if not has_map:
        return "has the most brain; the model judges the scan as a whole and points at no place"
    less = f"{len(grade.possible)} less likely ones, which are not drawn, and " if grade.possible else ""
    return f"shows {n_here} of {len(grade.findings)} findings; the scan has {less}{grade.n_candidates} candidates"
