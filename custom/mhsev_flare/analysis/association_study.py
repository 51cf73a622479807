"""The server's part in a study of associations: tables, the regression round by round, the check. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.analysis.answer_bounds import MOST_CASES_OF_A_SITE
from mhsev_flare.analysis.asked_sites import AnalysisStoppedError, Answer, AskSites, Question, too_few
from mhsev_flare.analysis.association_arrays import (
    slopes_from_arrays,
    sums_from_arrays,
    table_from_array,
    table_key,
)
from mhsev_flare.analysis.association_design import Design
from mhsev_flare.analysis.protocol import REGRESSION, TASK_SLOPES, TASK_SUMS, TASK_TABLES, Entry
from mhsev_monai.association_tables import AssociationTable, GroupSums
from mhsev_monai.associations import SumsName, summarise, sums_of, tests_of_tables
from mhsev_monai.proportional_odds import LEAST, OrdinalSums
from mhsev_monai.proportional_odds_check import ParallelTest, SlopeSums, parallel_tests
from mhsev_monai.proportional_odds_fit import FitError, NewtonFit
from mhsev_monai.proportional_odds_result import Layout, OrdinalFit

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What reading arrays of a message can raise where they are not what they should be."""

ToldSums = dict[SumsName, AssociationTable | GroupSums | str]


@dataclass
class AssociationStudy:
    """One study.

    Attributes:
        design: variables and grades.
        ask: asks sites.
        min_sites: fewest sites of the regression.
        result: what is known so far, as it stands in the result file.
    """

    design: Design
    ask: AskSites
    min_sites: int
    result: dict[str, Any] = field(default_factory=dict)

    def run(self, sites: Sequence[str]) -> None:
        """Ask ``sites`` for all that is needed; the result is in :attr:`result`.

        Raises:
            AnalysisStoppedError: if too few sites can take part, or the regression has no estimate.
        """
        self.result |= {
            "variables": [{**each._asdict(), "edges": list(each.edges)} for each in self.design.covariates],
            "grades": list(self.design.labels),
            "least": LEAST,
            "sites": {},
            "refused": {},
            "rounds": {"tables": 1},
            "regression": None,
            "tables": [],
        }
        told, withheld, incomplete = self._tables(sites)
        tables = tests_of_tables(self.design.covariates, told)
        self.result["tables"] = [test._asdict() for test in tables]
        able = [site for site in told if site not in withheld]
        problem = too_few(able, {**self.result["refused"], **withheld}, self.min_sites)
        if problem:
            raise AnalysisStoppedError(problem, refused=True)
        try:
            fit = self._fit(able, [covariate.label for covariate in self.design.covariates], "regression", withheld)
            reduced = self._fit(able, [], "without_variables", withheld)
            parallel = self._check(fit)
        except FitError as error:
            raise AnalysisStoppedError(str(error)) from error
        except np.linalg.LinAlgError as error:
            raise AnalysisStoppedError("the sites sent sums that fit no cases; see their logs") from error
        known = [n for site in able if (n := incomplete[site]) is not None]
        found = summarise(fit, reduced, parallel, tables, sum(known)).to_json()["regression"]
        self.result["regression"] = {**found, "incomplete": sum(known) if len(known) == len(able) else None}

    def _tables(self, sites: Sequence[str]) -> tuple[dict[str, ToldSums], dict[str, str], dict[str, int | None]]:
        """What each site that takes part told of its tables, why some take no part in the regression, and unknowns."""
        question = Question({"cuts": np.array(self.design.cuts)}, {Entry.DESIGN: self.design.to_message()})
        answers = self.ask(TASK_TABLES, dict.fromkeys(sites, question))
        refused = self.result["refused"]
        refused |= answers.missing
        told: dict[str, ToldSums] = {}
        withheld: dict[str, str] = {}
        incomplete: dict[str, int | None] = {}
        for site, answer in answers.by_site.items():
            try:
                told[site] = self._read_tables(answer)
                reason = str(answer.beside[Entry.WITHHELD].get(REGRESSION, ""))
            except MALFORMED:
                told.pop(site, None)
                refused[site] = "sent tables that are none; see the log of that site"
                continue
            incomplete[site] = _number_of_cases(answer.beside.get(Entry.INCOMPLETE))
            if reason:
                withheld[site] = reason
            self.result["sites"][site] = {"regression": not reason, "reason": reason, "cases": None}
        return told, withheld, incomplete

    def _read_tables(self, answer: Answer) -> ToldSums:
        reasons = dict(answer.beside[Entry.WITHHELD])
        told: ToldSums = {}
        for name, covariate in sums_of(self.design.covariates).items():
            key = table_key(name)
            if key in answer.arrays:
                told[name] = table_from_array(name, answer.arrays[key], covariate, self.design.labels)
            else:
                told[name] = str(reasons[key])
        return told

    def _fit(self, sites: Sequence[str], kept: Sequence[str], what: str, left_out: Mapping[str, str]) -> OrdinalFit:
        """A regression with the variables ``kept`` over ``sites``, of which all but the first have a shift."""
        names = tuple(covariate.label for covariate in self.design.covariates)
        fit = NewtonFit(Layout(len(self.design.labels), names, tuple(kept), tuple(sites[1:])))
        while not fit.settled:
            questions = {site: fit.layout.split(fit.proposal, site) for site in sites}
            answers = self._all_of(TASK_SUMS, questions)
            fit.receive({site: self._sums(site, answer, len(names)) for site, answer in answers.items()})
            self.result["rounds"][what] = fit.n_rounds
        assert fit.total is not None
        if kept:
            for site, answer in answers.items():
                self.result["sites"][site]["cases"] = int(sums_from_arrays(answer.arrays).grade_counts.sum())
        covariance = np.asarray(np.linalg.inv(-fit.total.hessian), dtype=np.float64)
        total = fit.total
        return OrdinalFit(
            fit.layout,
            fit.proposal,
            covariance,
            total.log_likelihood,
            total.grade_counts,
            fit.n_rounds,
            tuple(sites),
            dict(left_out),
        )

    def _sums(self, site: str, answer: Answer, n_variables: int) -> OrdinalSums:
        try:
            sums = sums_from_arrays(answer.arrays)
            n_grades = len(self.design.labels)
            if sums.grade_counts.size != n_grades or sums.gradient.size != n_grades - 1 + n_variables:
                raise ValueError
        except MALFORMED:
            raise AnalysisStoppedError(f"{site} sent sums that are none; see its log, and send the job again") from None
        return sums

    def _check(self, fit: OrdinalFit) -> tuple[ParallelTest, ...]:
        if len(self.design.labels) < 3:
            return ()
        questions = {site: fit.layout.split(fit.estimates, site) for site in fit.sites}
        answers = self._all_of(TASK_SLOPES, questions)
        self.result["rounds"]["check"] = 1
        return parallel_tests(fit, {site: self._slopes(site, answer) for site, answer in answers.items()})

    def _slopes(self, site: str, answer: Answer) -> SlopeSums:
        size = (len(self.design.labels) - 1) * (1 + len(self.design.columns))
        try:
            sums = slopes_from_arrays(answer.arrays)
            if sums.gradient.size != size:
                raise ValueError
        except MALFORMED:
            raise AnalysisStoppedError(f"{site} sent sums that are none; see its log, and send the job again") from None
        return sums

    def _all_of(
        self, task: str, parameters: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    ) -> Mapping[str, Answer]:
        """Answers of all sites asked, each at its own parameters; a fit cannot go on without one of them."""
        beside = {Entry.DESIGN: self.design.to_message()}
        questions = {
            site: Question({"thresholds": thresholds, "coefficients": coefficients}, beside)
            for site, (thresholds, coefficients) in parameters.items()
        }
        answers = self.ask(task, questions)
        if answers.missing:
            site, reason = next(iter(answers.missing.items()))
            raise AnalysisStoppedError(f"{site} stopped taking part: {reason}; send the job again")
        return answers.by_site


def _number_of_cases(value: Any) -> int | None:
    """A number of cases; None for the range that stands for a small one, and for what is neither."""
    return value if type(value) is int and 0 <= value <= MOST_CASES_OF_A_SITE else None
