"""Whether the probabilities mean what they say: calibration before and after the temperature, and sets of grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhsev_monai.report.data import ReportData
from mhsev_monai.report.document import (
    NOT_COMPUTED,
    UNDETERMINED,
    Beside,
    Block,
    Cell,
    Column,
    Drawing,
    Named,
    Number,
    Paragraph,
    Section,
    Table,
)
from mhsev_monai.report.reliability import reliability_points, reliability_svg, wilson
from mhsev_monai.report.words import GRADES

_ERRORS = (
    (
        "ece",
        "Expected calibration error",
        "mean gap of probability and share right, 10 bins; chance only raises it, so no interval",
    ),
    ("brier", "Brier score", "of the four probabilities, 0 to 2; lower is better"),
    ("rps", "Ranked probability score", "0 to 1; lower is better"),
)
_RELIABILITY = (
    "Each dot is a bin of test cases: where the model says a probability, how often it is right. On the dashed line "
    "the two are equal; below it the model is too sure. Larger dots hold more cases; whiskers: 95 % Wilson "
    "intervals{}."
)


def calibration_section(data: ReportData) -> Section | None:
    """Temperature, calibration errors before and after it, and the reliability diagram; None without a calibration."""
    fitted = data.analyses.calibration
    if not fitted:
        return None
    blocks: list[Block] = [Paragraph(_fitted(fitted))]
    pooled = _pooled(data)
    if pooled:
        is_fitted = fitted["temperature"] != 1
        blocks.append(Beside([[_errors(pooled, is_fitted)], [_diagram(pooled, is_fitted)]], "two stack"))
        blocks += [_bins(pooled, is_fitted), *_worse(pooled)]
    return Section("calibration", "Calibration", blocks)


def _pooled(data: ReportData) -> Mapping[str, Any] | None:
    pooled = (data.analyses.uncertainty or {}).get("pooled")
    return pooled if isinstance(pooled, Mapping) else None


def _fitted(fitted: Mapping[str, Any]) -> str:
    temperature, losses = fitted["temperature"], (fitted.get("loss_before"), fitted.get("loss_after"))
    cases = f"on {fitted['n']} cases of the {fitted['split']} split, from sums that the sites send"
    if temperature == 1:
        reason = fitted.get("reason") or "a reason was not told"
        return (
            f"No temperature was fitted: {reason}. So the probabilities are the network's own, at temperature 1. One "
            f"was looked for {cases}; the table below is of the test cases."
        )
    loss = ""
    if None not in losses:
        loss = f" On these cases the mean negative log-likelihood is {losses[0]:.3f} before and {losses[1]:.3f} after."
    return (
        f"Temperature {temperature:.2f}, fitted {cases}. The round was chosen on the same cases, so what they say of "
        f"calibration is a little too good; the table below is of the test cases.{loss} The grade does not depend on "
        "the temperature."
    )


def _worse(pooled: Mapping[str, Any]) -> list[Block]:
    """Said where the temperature did harm: few calibration cases choose it badly."""
    before, after = ((pooled.get(when) or {}).get("ece") for when in ("before", "after"))
    if before is None or after is None or after <= before:
        return []
    told = (
        f"On the test cases the calibration error is larger after than before: {after:.3f} against {before:.3f}. The "
        "temperature was fitted on few cases, or on cases that these are unlike; do not rely on it."
    )
    return [Paragraph(told, "The temperature did not help.", style="verdict")]


def _errors(pooled: Mapping[str, Any], is_fitted: bool) -> Table:
    """Before and after; at a temperature that stayed 1 both are the same, and stand there once."""
    heads = {"before": Column("Before", "temperature 1"), "after": Column("After", "fitted temperature")}
    shown = heads if is_fitted else {"before": Column("Value", "temperature 1")}
    rows: list[Sequence[Cell]] = [
        (Named(title, words), *(_error(pooled.get(when) or {}, name) for when in shown))
        for name, title, words in _ERRORS
    ]
    caption = f"Calibration on the test cases ({pooled['n']} cases), with 95 % intervals of the two scores"
    return Table("calibration-errors", caption, (Column("Error"), *shown.values()), rows)


def _error(entry: Mapping[str, Any], name: str) -> Number:
    known = (entry.get("intervals") or {}).get(name)
    # Results of before have one of the calibration error, which seldom held the true one: see ``intervals``.
    low, high = (None, None) if name == "ece" or known is None else known
    return Number(entry.get(name), 3, low, high)


def _diagram(pooled: Mapping[str, Any], is_fitted: bool) -> Drawing:
    both = (("before", "before calibration"), ("after", "after calibration"))
    series = [
        (name, points)
        for when, name in (both if is_fitted else [("after", "the network's own")])
        if (points := reliability_points(pooled[when]["reliability"]) if _has_sums(pooled, when) else [])
    ]
    words = _RELIABILITY.format(" of the last series" if is_fitted else "")
    return Drawing("reliability", reliability_svg(series, "reliability") if series else None, words)


def _has_sums(pooled: Mapping[str, Any], when: str) -> bool:
    return bool((pooled.get(when) or {}).get("reliability"))


def _bins(pooled: Mapping[str, Any], is_fitted: bool) -> Table:
    points = reliability_points(pooled["after"]["reliability"]) if _has_sums(pooled, "after") else []
    total = len(pooled["after"]["reliability"]["n"]) if points else 10
    rows = [
        (
            f"{(low := min(int(point.confidence * total), total - 1)) / total:.1f} to {(low + 1) / total:.1f}",
            point.n,
            Number(point.confidence, 2),
            Number(point.right, 2, point.low, point.high),
        )
        for point in points
    ]
    columns = (
        Column("Probability of the reported grade"),
        Column("Cases"),
        Column("Mean probability"),
        Column("Share right", "95 % Wilson interval"),
    )
    caption = "The dots after calibration, as numbers" if is_fitted else "The dots, as numbers"
    return Table("reliability-bins", caption, columns, rows)


def sets_section(data: ReportData) -> Section | None:
    """Coverage and size of the sets of grades; None where there are none."""
    uncertainty = data.analyses.uncertainty or {}
    pooled = _pooled(data)
    if not pooled or not pooled.get("sets"):
        return None
    target = float((data.analyses.calibration or {}).get("coverage") or 0.9)
    rows = [_set_row(Named("all sites", strong=True), pooled)]
    rows += [_set_row(site, entry) for site, entry in (uncertainty.get("sites") or {}).items()]
    columns = (
        Column("Test cases of"),
        Column("Cases"),
        Column("Coverage", f"share of sets with the true grade; meant: {target:.2f}"),
        Column("Mean size", "grades in a set, 0 to 4"),
        Column("Empty sets", "share of cases"),
        Column("Odd scans", "cases"),
    )
    caption = "Sets of grades that are meant to hold the true one, with 95 % intervals"
    blocks: list[Block] = [
        Paragraph(
            "With each grade comes a set of grades, such as “mild or moderate”, made to hold the true grade in "
            f"{100 * target:.0f} % of cases that are like the calibration cases (split-conformal prediction). Small "
            "sets that hold the truth as often as meant are good; a set of all four grades says that the model does "
            "not know. At a site whose patients differ from the others' the share can be another."
        ),
        Table("sets", caption, columns, rows),
        _by_grade(pooled, _grade_cases(data)),
        _sizes(pooled["sets"]),
    ]
    return Section("sets", "Sets of grades", blocks)


def _set_row(name: Cell, entry: Any) -> tuple[Cell, ...]:
    if not isinstance(entry, Mapping) or not entry.get("sets"):
        return (name, entry if isinstance(entry, str) else None, *(["not told"] * 4))
    sets = entry["sets"]
    (low, high), size = (sets.get(f"{key}_interval") or (None, None) for key in ("coverage", "mean_size"))
    why = UNDETERMINED if "coverage_interval" in sets else NOT_COMPUTED
    return (
        name,
        entry["n"],
        Number(sets.get("coverage"), 3, low, high, no_ends=why),
        Number(sets.get("mean_size"), 2, *size),
        Number(sets.get("share_empty"), 3),
        entry.get("n_odd"),
    )


def _grade_cases(data: ReportData) -> Mapping[str, int]:
    """Test cases of all sites by their true grade."""
    entries = ((data.pooled.metrics if data.pooled else None) or {}).get("per_class") or ()
    return {entry["severity"]: entry["n"] for entry in entries}


def _by_grade(pooled: Mapping[str, Any], cases: Mapping[str, int]) -> Table:
    """Coverage by grade; with cases and intervals where all test cases have told their sets."""
    shares = pooled["sets"].get("coverage_by_grade") or {}
    known = sum(cases.values()) == pooled.get("n")
    columns = (
        Column("Grade"),
        *([Column("Cases")] if known else []),
        Column("Coverage", "95 % Wilson interval" if known else ""),
    )
    rows: list[Sequence[Cell]] = []
    for grade in (grade for grade in GRADES if grade in shares):
        share, n = shares[grade], cases.get(grade, 0)
        low, high = wilson(round(share * n), n) if known and n and share is not None else (None, None)
        coverage = Number(share, 3, low, high, missing="no such case")
        rows.append((grade, n, coverage) if known else (grade, coverage))
    return Table("sets-by-grade", "Coverage by true grade, test cases of all sites", columns, rows)


def _sizes(sets: Mapping[str, Any]) -> Table:
    sizes = sets.get("sizes") or []
    rows = [(str(size), n) for size, n in enumerate(sizes)]
    return Table(
        "set-sizes", "Test cases by number of grades in their set", (Column("Grades in the set"), Column("Cases")), rows
    )
