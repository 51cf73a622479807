"""How clinical variables go with the grade over several sites: the regression, its check, and tables by variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from mhsev_monai.association_tables import AssociationTable, GroupSums
from mhsev_monai.association_tests import chi_square, one_way_anova, spearman
from mhsev_monai.clinical_covariates import ClinicalTable, Covariate
from mhsev_monai.proportional_odds import LEAST, OrdinalSite, StaysOutError
from mhsev_monai.proportional_odds_check import ParallelTest, check_proportional_odds
from mhsev_monai.proportional_odds_fit import fit_federated
from mhsev_monai.proportional_odds_result import LikelihoodRatio, OrdinalFit, likelihood_ratio
from mhsev_monai.statistics import holm


class TableTest(NamedTuple):
    """A test of one variable, from added tables.

    Attributes:
        variable: its label.
        test: ``chi-square``, ``ANOVA`` or ``Spearman``.
        statistic: chi-square, F, or the rank correlation.
        effect: Cramer's V, eta squared, or the rank correlation.
        n: cases that the tables show.
        p_value: not adjusted.
        adjusted: by Holm's method over all tests of tables.
        note: what speaks against the p-value, or why there is none; empty if nothing does.
    """

    variable: str
    test: str
    statistic: float | None
    effect: float | None
    n: int
    p_value: float | None
    adjusted: float | None
    note: str


@dataclass(frozen=True, eq=False)
class Associations:
    """All results.

    Attributes:
        fit: the regression on all variables, adjusted for site.
        adjusted: p-values of its odds ratios by Holm's method over the variables, in their order.
        overall: of all variables at once, against the regression on sites alone.
        parallel: whether odds are proportional, of all variables and of each.
        tables: one or two tests a variable, not adjusted for site.
        n_incomplete: patients with a value that is not known, whom regression and tables leave out.
    """

    fit: OrdinalFit
    adjusted: tuple[float, ...]
    overall: LikelihoodRatio
    parallel: tuple[ParallelTest, ...]
    tables: tuple[TableTest, ...]
    n_incomplete: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, texts and lists."""
        ratios = zip(self.fit.odds_ratios(), self.adjusted, strict=True)
        return {
            "regression": {
                **self.fit.to_json(),
                "odds_ratios": [{**ratio._asdict(), "adjusted": float(adjusted)} for ratio, adjusted in ratios],
                "all_variables": self.overall._asdict(),
                "proportional_odds": [test._asdict() for test in self.parallel],
                "incomplete": self.n_incomplete,
            },
            "tables": [test._asdict() for test in self.tables],
        }


def associate(sites: Mapping[str, ClinicalTable], least: int = LEAST) -> Associations:
    """Relate the variables of ``sites`` to the grade, from what each of them may send.

    Args:
        sites: by name; covariates and labels are the same at each, and there is at least one site.
        least: fewest cases of a grade or category with which a site takes part in the regression, and of a cell of a
            table that it sends.

    Raises:
        FitError: if the regression has no estimate.
        ValueError: if sites differ in covariates or labels, or there is none.
    """
    tables = list(sites.values())
    if not tables or any((t.covariates, t.labels) != (tables[0].covariates, tables[0].labels) for t in tables):
        raise ValueError("associations need one or more sites with equal covariates and labels of grades")
    data = {name: table.ordinal_data() for name, table in sites.items()}
    answering = {name: OrdinalSite(part, least) for name, part in data.items()}
    names, n_grades = next(iter(data.values())).names, len(tables[0].labels)
    fit = fit_federated(answering, names, n_grades)
    reduced = fit_federated({name: answering[name] for name in fit.sites}, names, n_grades, kept=())
    parallel = check_proportional_odds(fit, answering) if n_grades > 2 else ()
    told = {name: told_sums(table, least) for name, table in sites.items()}
    n_incomplete = sum(data[name].n_left_out for name in fit.sites)
    return summarise(fit, reduced, parallel, tests_of_tables(tables[0].covariates, told), n_incomplete)


def summarise(
    fit: OrdinalFit,
    reduced: OrdinalFit,
    parallel: tuple[ParallelTest, ...],
    tables: tuple[TableTest, ...],
    n_incomplete: int,
) -> Associations:
    """All results, from the regression on all variables and the ``reduced`` one on sites alone."""
    return Associations(
        fit=fit,
        adjusted=tuple(holm([ratio.p_value for ratio in fit.odds_ratios()]).tolist()),
        overall=likelihood_ratio(fit, reduced),
        parallel=parallel,
        tables=tables,
        n_incomplete=n_incomplete,
    )


class SumsName(NamedTuple):
    """What the sums of a variable are of.

    Attributes:
        column: of the table of participants.
        test: ``chi-square``, ``ANOVA`` or ``Spearman``.
    """

    column: str
    test: str


def sums_of(covariates: Sequence[Covariate]) -> dict[SumsName, Covariate]:
    """Which sums each site tells of these variables, in the order of their tests."""
    tests = {covariate: ("Spearman", "ANOVA") if covariate.edges else ("chi-square",) for covariate in covariates}
    return {SumsName(covariate.column, test): covariate for covariate in covariates for test in tests[covariate]}


def told_sums(table: ClinicalTable, least: int) -> dict[SumsName, AssociationTable | GroupSums | str]:
    """What a site tells of its tables, or why it tells nothing of one.

    All are of the patients of whom every variable is known, like the sums of the regression: tables of more patients,
    less those sums, would be the few of whom something is not known.
    """
    told: dict[SumsName, AssociationTable | GroupSums | str] = {}
    complete = table.complete()
    for name, covariate in sums_of(table.covariates).items():
        try:
            whole = complete.sums(covariate) if name.test == "ANOVA" else complete.table(covariate)
            told[name] = whole.for_sending(least)
        except StaysOutError as error:
            told[name] = str(error)
    return told


def tests_of_tables(
    covariates: Sequence[Covariate], told: Mapping[str, Mapping[SumsName, AssociationTable | GroupSums | str]]
) -> tuple[TableTest, ...]:
    """One or two tests a variable, from what the sites told of it (see :func:`told_sums`)."""
    tests = []
    for name, covariate in sums_of(covariates).items():
        # Of one kind each, which the name says.
        sums: list[Any] = [each[name] for each in told.values() if not isinstance(each[name], str)]
        missing = [f"without {site}: {each[name]}" for site, each in told.items() if isinstance(each[name], str)]
        tests.append(_test(covariate.label, name.test, reduce(add, sums) if sums else None, "; ".join(missing)))
    made = holm([float("nan") if test.p_value is None else test.p_value for test in tests])
    return tuple(
        test if test.p_value is None else test._replace(adjusted=float(adjusted))
        for test, adjusted in zip(tests, made, strict=True)
    )


def _test(label: str, name: str, sums: AssociationTable | GroupSums | None, missing: str) -> TableTest:
    """One test, or the reason why there is none."""
    n = 0 if sums is None else int(sums.counts.sum() if isinstance(sums, AssociationTable) else sums.n.sum())
    notes = [missing] if missing else []
    statistic = effect = p_value = None
    try:
        if isinstance(sums, GroupSums):
            anova = one_way_anova(sums)
            statistic, effect, p_value = anova.statistic, anova.eta_squared, anova.p_value
        elif sums is not None and name == "Spearman":
            ranks = spearman(sums)
            statistic, effect, p_value = ranks.correlation, ranks.correlation, ranks.p_value
        elif sums is not None:
            found = chi_square(sums)
            statistic, effect, p_value = found.statistic, found.cramers_v, found.p_value
            if not found.reliable:
                notes.append(f"expected numbers of cases down to {found.smallest_expected:.1f}: do not rely on p")
    except ValueError as error:
        notes.append(str(error))
    return TableTest(label, name, statistic, effect, n, p_value, None, "; ".join(notes))
