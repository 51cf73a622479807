"""The command that compares two dates of one patient: ``compare``; and what ``predict`` says of regions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, opened_model, verb

if TYPE_CHECKING:
    from mhsev_monai.lesion_regions import RegionCounts
    from mhsev_monai.longitudinal import Comparison, LesionChange
    from mhsev_monai.prediction import Finding, ScanGrade


def add_compare(verbs: Any) -> None:
    """``mhsev compare BASELINE FOLLOWUP --model MODEL``."""
    parser = verb(verbs, "compare", "say which findings of a patient's second scan are new, stable or gone", _compare)
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help="NIfTI of a diffusion series, .bval beside it")
    parser.add_argument("followup", type=Path, metavar="FOLLOWUP", help="the same patient at a later date")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a run that judges candidates")
    parser.add_argument("--b0-only", action="store_true", help="every volume is b = 0; no b-values are looked for")
    parser.add_argument(
        "--tolerance", type=_tolerance, default=None, metavar="MM", help="farthest that a lesion may lie (default: 6)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 < value <= 20:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 20 mm, got {text}")
    return value


def _compare(options: argparse.Namespace) -> int:
    from mhsev_monai.errors import ScanError
    from mhsev_monai.lesion_matching import TOLERANCE_MM
    from mhsev_monai.longitudinal import compare_scans

    if (model := opened_model(options.model)) is None:
        return WRONG_CALL
    tolerance = TOLERANCE_MM if options.tolerance is None else options.tolerance
    try:
        found = compare_scans(options.baseline, options.followup, model, options.b0_only, tolerance)
    except ScanError as error:
        complain(f"{options.baseline} and {options.followup}: {error}")
        return DATA_SAY_NO
    if options.json:
        names = {"baseline_scan": str(options.baseline), "followup_scan": str(options.followup)}
        print(json.dumps({**names, **found.to_json()}))
    else:
        print(describe(options.baseline, options.followup, found))
    return DONE


def describe(baseline: Path, followup: Path, found: Comparison) -> str:
    """One fact a line, for the terminal."""
    from mhsev_monai.lesion_matching import Change
    from mhsev_monai.longitudinal import ARIA_H_LIMIT
    from mhsev_monai.prediction import LIMITS

    lines = [
        f"{baseline}",
        f"  baseline       {_grade(found.baseline)}",
        f"{followup}",
        f"  follow-up      {_grade(found.followup)}",
        f"  laid together  brains overlap by {found.alignment.overlap:.2f}, the maps there and back differ by "
        f"{found.alignment.disagreement_mm:.1f} mm",
    ]
    lines += [f"  {change:<15}{_count(change, found)}" for change in Change]
    lines += [f"  {'lesion':<15}{_lesion(lesion)}" for lesion in found.lesions]
    lines += [f"  doubt          {flag}" for flag in found.flags]
    return "\n".join([*lines, f"  {ARIA_H_LIMIT}", f"  {LIMITS}"])


def _grade(grade: ScanGrade) -> str:
    return f"{grade.grade.label}, {grade.count} microbleeds, {len(grade.findings)} findings"


def _count(change: str, found: Comparison) -> str:
    from mhsev_monai.lesion_matching import Change

    n = found.counts[Change(change)]
    if change == Change.NEW:
        return f"{n}   (aria-h, of new findings only: {found.new_grade.label})"
    if change == Change.UNSURE and found.n_unsure_new:
        return f"{n}   ({found.n_unsure_new} of them perhaps new; with these aria-h: {found.new_grade_at_most.label})"
    return f"{n}"


def _lesion(lesion: LesionChange) -> str:
    """What became of a finding, its probabilities, and where it lies in the scan that shows it better."""
    before, after = lesion.baseline, lesion.followup
    probabilities = f"{_probability(before)} -> {_probability(after)}"
    if after is not None:
        return f"{lesion.change}, probability {probabilities}, follow-up at {place_text(after)}"
    assert before is not None
    return f"{lesion.change}, probability {probabilities}, baseline at {place_text(before)}"


def _probability(finding: Finding | None) -> str:
    from mhsev_monai.prediction import POSSIBLE_PROBABILITY

    if finding is None or finding.probability is None:
        return f"below {POSSIBLE_PROBABILITY:.2f}"
    return f"{finding.probability:.2f}"


def place_text(finding: Finding) -> str:
    """Place, extent of darkness and region of a finding, as far as they are known."""
    x, y, z = finding.position_mm
    extent = "" if finding.diameter_mm is None else f", dark over {finding.diameter_mm:.1f} mm"
    region = "" if finding.region is None else f", {finding.region}"
    return f"{x:.1f} {y:.1f} {z:.1f} mm (RAS+){extent}{region}"


def missing_for_regions() -> str | None:
    """What to install before regions can be told; None where all is there."""
    from mhsev_monai.errors import ScanError
    from mhsev_monai.registration import require_simpleitk
    from mhsev_monai.template_registration import load_template

    try:
        require_simpleitk()
        load_template()
    except ScanError as error:
        return str(error)
    return None


def region_lines(regions: RegionCounts | None) -> list[str]:
    """One fact a line, for the terminal; none where regions were not asked for or not told."""
    from mhsev_monai.lesion_regions import STRICTLY_LOBAR_LIMIT

    if regions is None or not regions.counts:
        return []
    lines = ["  regions        " + ", ".join(f"{label} {n}" for label, n in regions.counts.items())]
    if regions.strictly_lobar:
        lines.append(f"  distribution   strictly lobar; {STRICTLY_LOBAR_LIMIT}")
    return lines
