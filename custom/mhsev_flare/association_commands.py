"""``mhsev associations``: how clinical variables go with the grade in one or several BIDS roots."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, positive, verb

if TYPE_CHECKING:
    from mhsev_monai.associations import Associations
    from mhsev_monai.clinical_covariates import ClinicalTable, Covariate

# The paper's scale: none, 1-5, 6-10, more. Spelt out here, since --help must not wait for NumPy.
PAPER_CUTS = (1, 6, 11)


def add_associations(verbs: Any) -> None:
    """``mhsev associations BIDS_ROOT ...``."""
    parser = verb(verbs, "associations", "relate clinical variables to the grade, each BIDS root as a site", _run)
    parser.add_argument("roots", type=Path, nargs="+", metavar="BIDS_ROOT", help="folder with participants.tsv, sub-*")
    parser.add_argument("--columns", nargs="+", metavar="NAME", help="variables (default: all eight that mhsev knows)")
    parser.add_argument(
        "--cuts",
        type=positive,
        nargs="+",
        default=PAPER_CUTS,
        metavar="N",
        help="least number of microbleeds of each grade above the lowest (default: 1 6 11)",
    )
    parser.add_argument(
        "--least",
        type=positive,
        default=5,
        metavar="N",
        help="a site with fewer cases of a grade or category takes no part (default: 5)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")


def _run(options: argparse.Namespace) -> int:
    from mhsev_monai.associations import associate
    from mhsev_monai.clinical_covariates import grade_labels
    from mhsev_monai.proportional_odds_fit import FitError

    covariates = _covariates(options.columns)
    if covariates is None:
        return WRONG_CALL
    if len({root.name for root in options.roots}) < len(options.roots):
        complain("two BIDS roots have the same name, by which sites are told apart; rename one")
        return WRONG_CALL
    try:
        grade_labels(options.cuts)
    except ValueError as error:
        complain(error)
        return WRONG_CALL
    sites = _read(options.roots, covariates, options.cuts)
    if sites is None:
        return DATA_SAY_NO
    try:
        found = associate(sites, options.least)
    except FitError as error:
        complain(error)
        return DATA_SAY_NO
    if options.json:
        print(json.dumps(found.to_json()))
    else:
        print(describe(found, next(iter(sites.values())).labels))
    return DONE


def _covariates(columns: list[str] | None) -> tuple[Covariate, ...] | None:
    """The variables that were named; None, after a complaint, if one is not known."""
    from mhsev_monai.clinical_covariates import CLINICAL_COVARIATES

    known = {covariate.column: covariate for covariate in CLINICAL_COVARIATES}
    wanted = list(dict.fromkeys(columns or known))
    unknown = [column for column in wanted if column not in known]
    if unknown:
        complain(f"there is no variable {', '.join(unknown)}; there are {', '.join(known)}")
        return None
    return tuple(known[column] for column in wanted)


def _read(
    roots: list[Path], covariates: tuple[Covariate, ...], cuts: tuple[int, ...]
) -> dict[str, ClinicalTable] | None:
    """The table of each root by its name; None, after complaints, if one cannot be read."""
    from mhsev_monai.cases import read_cases
    from mhsev_monai.clinical_covariates import read_clinical
    from mhsev_monai.errors import CohortError

    sites = {}
    for root in roots:
        try:
            sites[root.name] = read_clinical(read_cases(root).cases, covariates, cuts)
        except CohortError as error:
            complain(f"{root}: {error}")
    return sites if len(sites) == len(roots) else None


def describe(found: Associations, labels: tuple[str, ...]) -> str:
    """One fact a line, for the terminal."""
    fit = found.fit
    counts = ", ".join(f"{n} with {label}" for label, n in zip(labels, fit.grade_counts, strict=True))
    lines = [
        f"sites          {len(fit.sites)}   ({', '.join(fit.sites)})",
        *(f"left out       {site}: {reason}" for site, reason in fit.left_out.items()),
        f"patients       {fit.n}   ({counts} microbleeds; {found.n_incomplete} more with a value that is not known)",
        f"rounds         {fit.n_rounds}",
        "",
        "adjusted for site and each other" + " " * 3 + "odds ratio   95% interval        p       Holm",
    ]
    for ratio, adjusted in zip(fit.odds_ratios(), found.adjusted, strict=True):
        interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
        lines.append(f"{ratio.name:<35}{ratio.odds_ratio:>10.2f}   {interval:<14}{_p(ratio.p_value)}{_p(adjusted)}")
    lines.append(
        f"{'all variables':<35}likelihood ratio {found.overall.statistic:.1f} of "
        f"{found.overall.degrees_of_freedom} degrees, p {_p(found.overall.p_value).strip()}"
    )
    if found.parallel:
        overall, *single = found.parallel
        lines.append(
            f"{'odds proportional':<35}score test {overall.statistic:.1f} of {overall.degrees_of_freedom} degrees, "
            f"p {_p(overall.p_value).strip()}"
        )
        lowest = min(single, key=lambda test: test.p_value)
        lines.append(f"{'':<35}least so: {lowest.name}, p {_p(lowest.p_value).strip()}")
    lines += ["", "one variable, not adjusted" + " " * 9 + "    effect   cases             p       Holm"]
    for test in found.tables:
        name = f"{test.variable}: {test.test}"
        numbers = f"{'-':>10}   {test.n:<14}" if test.effect is None else f"{test.effect:>10.2f}   {test.n:<14}"
        lines.append(f"{name:<35}{numbers}{_p(test.p_value)}{_p(test.adjusted)}")
        if test.note:
            lines.append(f"  {test.note}")
    return "\n".join(line.rstrip() for line in lines)


def _p(value: float | None) -> str:
    """A p-value in eleven places."""
    text = "-" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"
    return f"{text:>11}"
