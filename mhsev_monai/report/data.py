"""What a report is made of: plain data, in no need of a network, a scan or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mhsev_monai.report.document import NOT_COMPUTED, PNG_ADDRESS, UNDEFINED, UNDETERMINED, Number


@dataclass(frozen=True)
class Evaluation:
    """A model judged on one set of cases.

    Attributes:
        name: of the site, or of the set of sites.
        metrics: ``SeverityMetrics.to_json()``; None where it was not computed.
        table: ``SeverityTable.to_json()``; None where it was not computed.
        intervals: (low, high) of 95 % by the name of the metric, as ``severity_intervals`` gives them; under
            ``per_class``, where it is there, one such mapping a grade.
    """

    name: str
    metrics: Mapping[str, Any] | None = None
    table: Mapping[str, Any] | None = None
    intervals: Mapping[str, Any] = field(default_factory=dict)

    @property
    def confusion(self) -> Sequence[Sequence[int]] | None:
        """Rows truth, columns prediction."""
        return None if self.table is None else self.table["confusion"]

    @property
    def class_counts(self) -> tuple[int, ...] | None:
        """Cases of each true grade."""
        return None if self.confusion is None else tuple(sum(row) for row in self.confusion)

    def metric(self, name: str) -> float | None:
        """The metric of this name; None where it is undefined or was not computed."""
        return None if self.metrics is None else self.metrics.get(name)

    def number(self, name: str) -> Number:
        """The metric with its interval, to be printed."""
        return metric_number(self.metrics, self.intervals, name)

    def class_number(self, position: int, name: str) -> Number:
        """A metric of one grade against the rest, with its interval where there is one."""
        entries = (self.metrics or {}).get("per_class") or ()
        ends = self.intervals.get("per_class") or ()
        return metric_number(
            entries[position] if position < len(entries) else None, ends[position] if position < len(ends) else {}, name
        )


def metric_number(metrics: Mapping[str, Any] | None, intervals: Mapping[str, Any], name: str) -> Number:
    """A metric to be printed: undefined where it is None, not computed where it is absent."""
    digits = 2 if name.startswith("count_") else 3
    if metrics is None or name not in metrics:
        return Number(None, digits)
    low, high = intervals.get(name) or (None, None)
    return Number(metrics[name], digits, low, high, UNDEFINED, UNDETERMINED if name in intervals else NOT_COMPUTED)


@dataclass(frozen=True)
class SiteCases:
    """Cases of a site.

    Attributes:
        site: its name.
        splits: for each split, how many of each grade, in the order of ``Severity``; a range such as ``1-4`` or None
            where the site hides the number.
        totals: cases of each split; a range where the site hides it. Without an entry: the sum of the grades.
        excluded: cases that could not be used; a range where the site hides it.
    """

    site: str
    splits: Mapping[str, Sequence[int | str | None]]
    totals: Mapping[str, int | str | None] = field(default_factory=dict)
    excluded: int | str | None = None

    def known(self, split: str) -> tuple[int, ...] | None:
        """The numbers by grade, if none is hidden."""
        counts = self.splits.get(split, ())
        told = tuple(count for count in counts if isinstance(count, int))
        return told if counts and len(told) == len(counts) else None

    def total(self, split: str) -> int | str | None:
        """Cases of the split."""
        counts = self.known(split)
        return self.totals.get(split) if counts is None else sum(counts)


@dataclass(frozen=True)
class LocalModels:
    """The models that each site would have without the others, beside the global one, on the same cases.

    Attributes:
        balanced_accuracy: by the site that trained the model.
        global_balanced_accuracy: of the global model.
        cases: in words, on which cases all were judged.
        intervals: (low, high) of 95 % by site, where known.
        global_interval: likewise, of the global model.
    """

    balanced_accuracy: Mapping[str, float | None]
    global_balanced_accuracy: float | None
    cases: str = "the test cases of all sites"
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    global_interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float | None:
        """Mean over the sites whose model has a balanced accuracy."""
        known = [value for value in self.balanced_accuracy.values() if value is not None]
        return sum(known) / len(known) if known else None

    @property
    def global_beats_local(self) -> bool | None:
        """Whether the global model is better than the mean of the local ones; None where one is not known."""
        if self.mean is None or self.global_balanced_accuracy is None:
            return None
        return self.global_balanced_accuracy > self.mean


@dataclass(frozen=True)
class RoundRow:
    """One round of the ledger.

    Attributes:
        number: from 0.
        samples: training cases by the site whose update was accepted.
        rejected: reason by the site whose update was not.
        quadratic_kappa: on the validation cases, of the model with which the round began.
        loss: likewise.
    """

    number: int
    samples: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, str] = field(default_factory=dict)
    quadratic_kappa: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class AttendanceRow:
    """How a site took part over all rounds, and how odd its updates were.

    Attributes:
        site: its name.
        taken: rounds with an update of it in the average.
        refused: rounds in which its update was refused.
        absent: rounds without an answer.
        clipped: rounds in which its update was cut to the median length.
        largest_ratio: highest ratio of its update's length to the median; None where updates were not compared.
        least_cosine: lowest cosine of its update to the median update; likewise.
        mean_share: of it in the average, over the rounds in which it was taken; None where the ledger does not say.
    """

    site: str
    taken: int = 0
    refused: int = 0
    absent: int = 0
    clipped: int = 0
    largest_ratio: float | None = None
    least_cosine: float | None = None
    mean_share: float | None = None


@dataclass(frozen=True)
class CandidateRow:
    """A spot that the model looked at: where it is, in words or numbers, and its score if it has one."""

    place: str
    score: float | None = None


@dataclass(frozen=True)
class ExampleCase:
    """A graded case with a picture.

    Attributes:
        case_id: pseudonym.
        site: where it comes from.
        true_grade: label, or None where it is not known.
        predicted_grade: label.
        true_count: microbleeds, or None where it is not known.
        predicted_count: microbleeds.
        image: from ``slice_pair_png``; None shows "not computed".
        orientation: from ``orientation_words``.
        candidates: those worth listing.
        note: anything a reader should know of this case.

    Raises:
        ValueError: if ``image`` is not an inline PNG: the page loads nothing from anywhere.
    """

    case_id: str
    site: str
    true_grade: str | None
    predicted_grade: str | None
    true_count: int | None
    predicted_count: float | None
    image: str | None = None
    orientation: str = ""
    candidates: Sequence[CandidateRow] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.image is not None and not self.image.startswith(PNG_ADDRESS):
            raise ValueError(f"image must be an inline picture that begins with {PNG_ADDRESS}")


@dataclass(frozen=True)
class Analyses:
    """Parts of a result that a run may lack; each as JSON holds it, empty or None where the run has none.

    Attributes:
        worst_site: of result.json ``test``: the site with the lowest value of some metrics.
        calibration: of result.json.
        uncertainty: of result.json.
        subgroups: of result.json.
        matrix: of result.json ``comparison``: owner of a model, site of the test cases, evaluation.
        paired: of result.json.
        personalised: of result.json: evaluation by site of the model that the site trained further, on its own cases.
        explanation: explanation.json.
        associations: associations.json.
        software: of result.json ``reports``: what each site runs on.
        policy: facts of how the federation was run, by name.
    """

    worst_site: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    uncertainty: Mapping[str, Any] | None = None
    subgroups: Mapping[str, Any] | None = None
    matrix: Mapping[str, Any] | None = None
    paired: Mapping[str, Any] | None = None
    personalised: Mapping[str, Any] | None = None
    explanation: Mapping[str, Any] | None = None
    associations: Mapping[str, Any] | None = None
    software: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    policy: Mapping[str, str | int | float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """All that the page shows; what is None or empty is shown as "not computed".

    Attributes:
        title: of the page.
        simulated: whether the sites are simulated; the page then says that it is no evidence about patients.
        facts: what was run (versions, seed, rounds ...), in the order of the page; None is "not computed".
        scale: name of the grading scale, one of ``mhsev_monai.severity.SCALES`` for its bounds to be printed.
        sites: cases of each site.
        pooled: the global model on the test cases of all sites.
        per_site: the same model on those of each site.
        majority: ``SeverityMetrics.to_json()`` of always predicting the most frequent grade of the pooled test cases.
        local_models: the sites' own models.
        rounds: the ledger, in rising order.
        kept_round: the round whose starting model was kept.
        attendance: of each site over the rounds.
        examples: graded cases with pictures.
        failures: the test cases that were graded farthest from the truth, for the site's own eyes.
        n_misgraded: (misgraded, all) test cases that ``failures`` were chosen from; None where it was not looked.
        analyses: further parts of the result in the form of result.json, explanation.json and associations.json.
        notes: further sentences: cases left out and why, settings that matter.
        made_on: date of the report, printed as given; by default none is printed, so that equal data is an equal page.
    """

    title: str
    simulated: bool
    facts: Mapping[str, str | int | float | None] = field(default_factory=dict)
    scale: str = "paper"
    sites: Sequence[SiteCases] = ()
    pooled: Evaluation | None = None
    per_site: Sequence[Evaluation] = ()
    majority: Mapping[str, Any] | None = None
    local_models: LocalModels | None = None
    rounds: Sequence[RoundRow] = ()
    kept_round: int | None = None
    attendance: Sequence[AttendanceRow] = ()
    examples: Sequence[ExampleCase] = ()
    failures: Sequence[ExampleCase] = ()
    n_misgraded: tuple[int, int] | None = None
    analyses: Analyses = field(default_factory=lambda: Analyses())
    notes: Sequence[str] = ()
    made_on: str | None = None

    @property
    def global_beats_local(self) -> bool | None:
        """Whether the global model has the better balanced accuracy; None where it was not compared."""
        return None if self.local_models is None else self.local_models.global_beats_local
