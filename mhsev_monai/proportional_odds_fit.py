"""Proportional-odds regression over several sites by Newton's method on their sums (``proportional_odds``).

Each site has a shift of its own that is added to x . coefficients, that of the first site being 0, so that a
difference between sites in how grave their cases are is not taken for the effect of a variable. The shifts are the
server's affair: a site is asked at thresholds less its shift, and its gradient and Hessian are mapped back. The
estimates are those of maximum likelihood over all cases in one table with an indicator for each site but the first.

The first round tells the numbers of cases by grade, from which thresholds and shifts begin. Newton's method converges
quadratically near the maximum, and the log-likelihood is concave, so 6 or 7 rounds are usual. A step that lowers the
likelihood, or after which thresholds would not rise, is halved until neither holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mhsev_monai.proportional_odds import OrdinalData, OrdinalSite, OrdinalSums, StaysOutError
from mhsev_monai.proportional_odds_result import Layout, OrdinalFit

SiteAnswers = Callable[[NDArray[np.float64], NDArray[np.float64]], OrdinalSums]
"""From thresholds and coefficients to sums; raises ``StaysOutError`` where a site takes no part."""

MOST_ROUNDS = 8
SETTLED = 1e-8
"""Distance to the maximum, in standard errors, at which the fit has settled."""

_COLLINEAR = 1e-9
_HALVINGS = 30


class FitError(ValueError):
    """The regression has no estimate on these cases: the message says why and what to do."""


class NewtonFit:
    """The server's side of a fit, one round at a time.

    Args:
        layout: what is fitted.
        most_rounds: answers of all sites that are asked for.
    """

    def __init__(self, layout: Layout, most_rounds: int = MOST_ROUNDS) -> None:
        self.layout = layout
        self.n_rounds = 0
        self.settled = False
        self._most_rounds = most_rounds
        shares = np.arange(1, layout.n_grades) / layout.n_grades
        # Equally frequent grades and no effect; from anywhere else the same maximum is reached.
        self.proposal = np.zeros(len(layout.parameters))
        self.proposal[: layout.n_grades - 1] = np.log(shares / (1 - shares))
        self._point = self.proposal
        self._value = -np.inf
        self._step = np.zeros_like(self.proposal)
        self.total: OrdinalSums | None = None

    def receive(self, answers: Mapping[str, OrdinalSums]) -> None:
        """Take the sums of all sites at ``proposal``; moves ``proposal``, or sets ``settled``.

        Raises:
            FitError: if the effects cannot be told apart, a grade has no case, or the fit did not settle.
            ValueError: if an answer has another number of parameters or grades.
        """
        total = self._add(answers)
        self.n_rounds += 1
        if self.n_rounds == 1 and (total.grade_counts == 0).any():
            absent = int(np.flatnonzero(total.grade_counts == 0)[0])
            raise FitError(f"no site that takes part has a case of grade {absent}; join it with the next one")
        # Near the maximum, what rounding takes away must not count as a fall.
        if total.log_likelihood >= self._value - 1e-12 * abs(total.log_likelihood):
            self._point, self._value, self.total = self.proposal, total.log_likelihood, total
            self._step = _newton_step(total, self.layout, at_start=self.n_rounds == 1)
            if self.n_rounds == 1:
                self._step = self._from_counts(answers) - self._point
            if max(0.0, float(self._step @ total.gradient)) ** 0.5 < SETTLED:
                self.settled = True
                return
        else:
            self._step = self._step / 2
        if self.n_rounds >= self._most_rounds:
            raise FitError(self._not_settled())
        self.proposal = self._next()

    def _add(self, answers: Mapping[str, OrdinalSums]) -> OrdinalSums:
        """The sums over sites, by the parameters of the layout."""
        n_local = self.layout.n_grades - 1 + len(self.layout.names)
        size = len(self.layout.parameters)
        counts = np.zeros(self.layout.n_grades, dtype=np.int64)
        value, gradient, hessian = 0.0, np.zeros(size), np.zeros((size, size))
        for site, sums in answers.items():
            if sums.gradient.size != n_local or sums.grade_counts.size != self.layout.n_grades:
                raise ValueError(f"{site} answered for {sums.gradient.size} parameters, {n_local} were asked for")
            matrix = self.layout.of_site(site)
            counts, value = counts + sums.grade_counts, value + sums.log_likelihood
            gradient, hessian = gradient + matrix.T @ sums.gradient, hessian + matrix.T @ sums.hessian @ matrix
        return OrdinalSums(counts, value, gradient, (hessian + hessian.T) / 2)

    def _from_counts(self, answers: Mapping[str, OrdinalSums]) -> NDArray[np.float64]:
        """Thresholds and shifts by the sites' numbers of cases by grade, without effects: nearer than one step leads.

        Where a grade is rare, Newton's method from equally frequent grades takes two or three rounds more.
        """
        start = np.zeros(len(self.layout.parameters))
        n_thresholds = self.layout.n_grades - 1
        together = _log_odds(sum(sums.grade_counts for sums in answers.values()))
        shift = {site: float((together - _log_odds(sums.grade_counts)).mean()) for site, sums in answers.items()}
        start[:n_thresholds] = together
        if self.layout.shifted:
            first = next(shift[site] for site in answers if site not in self.layout.shifted)
            start[:n_thresholds] -= first
            start[start.size - len(self.layout.shifted) :] = [shift[site] - first for site in self.layout.shifted]
        return start

    def _next(self) -> NDArray[np.float64]:
        n_thresholds = self.layout.n_grades - 1
        for _ in range(_HALVINGS):
            moved = self._point + self._step
            if (np.diff(moved[:n_thresholds]) > 0).all():
                return np.asarray(moved)
            self._step = self._step / 2
        raise FitError("two thresholds fall together; join grades that hardly any case has")

    def _not_settled(self) -> str:
        growing = [
            name
            for name, step in zip(self.layout.parameters, self._step, strict=True)
            if abs(step) > 0.1 and not name.startswith("threshold")
        ]
        which = f"the effect of {', '.join(growing)} keeps growing" if growing else "the estimates keep moving"
        return (
            f"the regression did not settle in {self.n_rounds} rounds: {which}, as where a variable or a site "
            "separates the grades; leave it out, or join categories or grades"
        )


def _log_odds(grade_counts: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """``(K - 1,)`` log-odds of being at most each grade; half a case is added to each, so that they are finite."""
    cumulative = np.cumsum(np.asarray(grade_counts) + 0.5)
    return np.asarray(np.log(cumulative[:-1]) - np.log(cumulative[-1] - cumulative[:-1]))


def _newton_step(total: OrdinalSums, layout: Layout, *, at_start: bool) -> NDArray[np.float64]:
    """The step to the maximum of the quadratic that touches the log-likelihood here."""
    information = -total.hessian
    scale = np.sqrt(np.clip(np.diag(information), np.finfo(float).tiny, None))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    if values[0] < _COLLINEAR:
        weights = np.abs(vectors[:, 0])
        names = [
            name
            for name, weight in zip(layout.parameters, weights, strict=True)
            if weight > 0.1 and not name.startswith("threshold")
        ]
        which = ", ".join(names) or "the thresholds"
        if at_start:
            raise FitError(
                f"the cases do not tell the effect of {which}: a variable is constant, or follows from the others or "
                "from the site; leave it out"
            )
        raise FitError(f"the effect of {which} grows without end: a variable separates the grades; leave it out")
    return np.asarray(vectors @ ((vectors.T @ (total.gradient / scale)) / values) / scale)


def fit_federated(
    sites: Mapping[str, OrdinalData | SiteAnswers],
    names: Sequence[str],
    n_grades: int,
    *,
    kept: Sequence[str] | None = None,
    site_shifts: bool = True,
    most_rounds: int = MOST_ROUNDS,
) -> OrdinalFit:
    """Fit the regression over sites.

    Args:
        sites: by name, cases or whatever answers for them; the first that takes part has no shift.
        names: of the variables, the same at each site.
        n_grades: the same at each site.
        kept: the variables that the model has; all by default, and none for a model to compare with.
        site_shifts: whether sites may differ in how grave their cases are.
        most_rounds: times that sites are asked.

    Raises:
        FitError: if no site takes part, or the cases give no estimate.
        ValueError: if an answer is malformed or ``kept`` names another variable.
    """
    unknown = sorted(set(kept or ()) - set(names))
    if unknown:
        raise ValueError(f"kept must name variables of the sites, {list(names)}; got {unknown}")
    answering = {
        site: OrdinalSite(answer) if isinstance(answer, OrdinalData) else answer for site, answer in sites.items()
    }
    wanted = tuple(names) if kept is None else tuple(name for name in names if name in kept)
    first = NewtonFit(Layout(n_grades, tuple(names), wanted, ()), most_rounds)
    answers, left_out = _ask(answering, first)
    if not answers:
        reasons = "; ".join(f"{site}: {reason}" for site, reason in left_out.items())
        raise FitError(f"no site takes part ({reasons or 'none was given'})")
    taking_part = tuple(answers)
    layout = Layout(n_grades, tuple(names), wanted, taking_part[1:] if site_shifts else ())
    fit = NewtonFit(layout, most_rounds)
    # Without effects and shifts all layouts begin at the same parameters, so the first answers serve.
    fit.receive(answers)
    while not fit.settled:
        answers, missing = _ask({site: answering[site] for site in taking_part}, fit)
        if missing:
            site, reason = next(iter(missing.items()))
            raise FitError(f"{site} stopped taking part: {reason}")
        fit.receive(answers)
    assert fit.total is not None
    covariance = np.asarray(np.linalg.inv(-fit.total.hessian), dtype=np.float64)
    return OrdinalFit(
        layout,
        fit.proposal,
        covariance,
        fit.total.log_likelihood,
        fit.total.grade_counts,
        fit.n_rounds,
        taking_part,
        left_out,
    )


def _ask(sites: Mapping[str, SiteAnswers], fit: NewtonFit) -> tuple[dict[str, OrdinalSums], dict[str, str]]:
    """Answers at the fit's proposal, and the reasons of the sites that gave none."""
    answers, missing = {}, {}
    for site, answer in sites.items():
        try:
            answers[site] = answer(*fit.layout.split(fit.proposal, site))
        except StaysOutError as error:
            missing[site] = str(error)
    return answers, missing
