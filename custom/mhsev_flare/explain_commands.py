"""The command that says why a scan got its grade: ``explain``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, opened_model, positive, verb

if TYPE_CHECKING:
    from mhsev_monai.scan_explanation import ScanExplanation, SpotContribution


def add_explain(verbs: Any) -> None:
    """``mhsev explain SCAN... --model MODEL``."""
    parser = verb(verbs, "explain", "say what each group of features and each spot adds to a scan's grade", _explain)
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN", help="NIfTI of a diffusion series")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a run")
    parser.add_argument("--b0-only", action="store_true", help="every volume is b = 0; no b-values are looked for")
    parser.add_argument("--spots", type=positive, default=10, metavar="N", help="listed one by one (default: 10)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the groups of the one scan into this file")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for machines")


def _explain(options: argparse.Namespace) -> int:
    if options.svg is not None and len(options.scans) > 1:
        complain(f"--svg goes with one scan, and {len(options.scans)} were given; name one")
        return WRONG_CALL
    from mhsev_monai.errors import ScanError
    from mhsev_monai.scan_explanation import explain_scan
    from mhsev_monai.shapley_explain import ExplainError

    if (model := opened_model(options.model)) is None:
        return WRONG_CALL
    status = DONE
    for scan in options.scans:
        try:
            found = explain_scan(scan, model, b0_only=options.b0_only, most_spots=options.spots)
        except (ScanError, ExplainError) as error:
            complain(f"{scan}: {error}")
            status = DATA_SAY_NO
            if options.json:
                print(json.dumps({"scan": str(scan), "error": str(error)}), flush=True)
            continue
        told = json.dumps({"scan": str(scan), **found.to_json()}) if options.json else describe(scan, found)
        print(told, flush=True)
        if options.svg is not None:
            options.svg.write_text(_drawn(found))
    return status


def _drawn(found: ScanExplanation) -> str:
    from mhsev_monai.report.waterfall import standalone, waterfall_svg

    steps = [(each.name, each.severity) for each in found.contributions]
    return standalone(waterfall_svg(found.usual_severity, steps, (0.0, 3.0), "expected severity", "explanation"))


def describe(scan: Path, found: ScanExplanation) -> str:
    """One fact a line, for the terminal."""
    from mhsev_monai.prediction import LIMITS

    lines = [
        f"{scan}",
        f"  grade              {found.grade.grade.label}",
        f"  expected severity  {found.expected_severity:.2f}   (0 none, 1 mild, 2 moderate, 3 severe)",
        f"  usual severity     {found.usual_severity:.2f}   (of the background; the next lines are the difference)",
    ]
    lines += [f"  {_signed(each.severity)}              {each.name}" for each in found.contributions]
    if found.expected_count is not None:
        lines.append(f"  expected count     {found.expected_count:.2f}   microbleeds")
        lines.append(f"  without spots      {found.count_without_spots:.2f}   (the next lines are the difference)")
        lines += [f"  {_signed(each.microbleeds)}              {_place(each)}" for each in found.spots]
    lines += [f"  doubt              {flag}" for flag in found.grade.flags]
    return "\n".join([*lines, f"  {LIMITS}"])


def _place(spot: SpotContribution) -> str:
    if spot.position_mm is None:
        return f"all other spots together; severity {_signed(spot.severity)}"
    x, y, z = spot.position_mm
    return f"spot at {x:.1f} {y:.1f} {z:.1f} mm (RAS+); severity {_signed(spot.severity)}"


def _signed(value: float) -> str:
    """Two digits with a sign, which nothing has not."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else " 0.00"
