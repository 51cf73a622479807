"""The report as one HTML page that loads nothing: template, figures, and the sentences that state the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from mhsev_monai.page_template import template_environment
from mhsev_monai.report.data import Evaluation, LocalModels, ReportData
from mhsev_monai.report.svg import (
    Bar,
    Curve,
    class_mix_svg,
    confusion_matrix_svg,
    curve_svg,
    round_up,
    site_bars_svg,
)
from mhsev_monai.severity import SCALES, Severity

NOT_COMPUTED = Markup('<span class="none">not computed</span>')
UNDEFINED = Markup('<span class="none" title="the cases do not define it">undefined</span>')

GRADES = tuple(grade.label for grade in Severity)

RESEARCH_USE = "Research use only. Not a medical device."
SIMULATED = "Trained and tested on simulated hospitals; nothing here is evidence about patients."
WITH_PATIENTS = (
    "The examples are slices and results of single cases: this page may not leave the place that may see these cases."
)
DWI_LIMIT = (
    "DWI is not the standard sequence for microbleeds; what it shows depends on the type of lesion. Its b = 0 images "
    "showed punctate hemorrhages and linear cortical staining in 4 studies where T2*-GRE showed them in 37 (11 %; Lin "
    "et al. 2001), and 61 of 77 hemorrhagic lesions of several types (79 %; a study of 2013, where T2*-GRE showed 76). "
    "A scan graded “none” can have microbleeds that DWI does not show."
)

METRIC_ROWS = (
    ("balanced_accuracy", "Balanced accuracy", "mean sensitivity over the grades that occur"),
    ("quadratic_kappa", "Quadratic kappa", "agreement beyond chance; far-off grades weigh more"),
    ("macro_f1", "Macro F1", "over the grades that occur"),
    ("accuracy", "Accuracy", "depends on the mix of grades"),
    ("cohen_kappa", "Cohen's kappa", "agreement beyond chance, all errors alike"),
    ("macro_specificity", "Macro specificity", "one grade against the rest"),
    ("macro_auc", "Macro AUC", "one grade against the rest, from scores in bins"),
    ("off_by_two_rate", "Off by two grades or more", "share of cases; lower is better"),
    ("brier", "Brier score", "of the four probabilities, 0 to 2; lower is better"),
    ("rps", "Ranked probability score", "0 to 1; lower is better"),
    ("count_mae", "Count, mean absolute error", "microbleeds; lower is better"),
    ("count_bias", "Count, bias", "microbleeds; above 0 is too many"),
)
KEY_METRICS = ("balanced_accuracy", "quadratic_kappa", "accuracy", "count_mae")
SITE_METRICS = ("balanced_accuracy", "quadratic_kappa", "macro_f1", "accuracy", "macro_auc", "count_mae")
CLASS_METRICS = (
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("ppv", "PPV"),
    ("f1", "F1"),
    ("auc", "AUC"),
)


def render_report(data: ReportData) -> str:
    """The page as HTML text; equal data gives equal text."""
    page = _environment().get_template("page.html.jinja")
    return page.render(
        data=data,
        grades=GRADES,
        ranges=_grade_ranges(data.scale),
        warnings=_warnings(data),
        metric_rows=METRIC_ROWS,
        metric_names={name: label for name, label, _ in METRIC_ROWS},
        key_metrics=KEY_METRICS,
        site_metrics=SITE_METRICS,
        class_metrics=CLASS_METRICS,
        majority_grade=_majority_grade(data.pooled),
        mix_sentence=_mix_sentence(data.pooled),
        local_sentence=local_models_sentence(data.local_models),
        splits=list(dict.fromkeys(split for site in data.sites for split in site.splits)),
        figures=_figures(data),
    )


def local_models_sentence(local: LocalModels | None) -> str:
    """Whether the global model beats the sites' own, in words, with both numbers."""
    if local is None or local.mean is None or local.global_balanced_accuracy is None:
        return "The comparison of the global model with the sites' own models was not computed."
    verb = "beats" if local.global_beats_local else "does not beat"
    return (
        f"The global model {verb} the mean of the models that the sites train alone: balanced accuracy "
        f"{local.global_balanced_accuracy:.3f} against {local.mean:.3f}, on {local.cases}. "
        "Whether the difference could be chance was not tested."
    )


def _environment() -> Environment:
    return template_environment(Path(__file__).parent, score=_score, metric=_metric, interval=_interval, known=_known)


def _score(value: float | None, digits: int = 3) -> Markup:
    """The number rounded for the eye, whole for machines; "not computed" for None."""
    if value is None:
        return NOT_COMPUTED
    return Markup('<data value="{}">{}</data>').format(repr(value), f"{value:.{digits}f}")


def _metric(metrics: Mapping[str, Any] | None, name: str) -> Markup:
    if metrics is None or name not in metrics:
        return NOT_COMPUTED
    value = metrics[name]
    return UNDEFINED if value is None else _score(value, 2 if name.startswith("count_") else 3)


def _interval(evaluation: Evaluation, name: str) -> Markup:
    ends = evaluation.intervals.get(name)
    return NOT_COMPUTED if ends is None else Markup("{} to {}").format(_score(ends[0]), _score(ends[1]))


def _known(value: object) -> Markup:
    """The value as text, "not computed" for None and for nothing."""
    return NOT_COMPUTED if value is None or value == "" else escape(value)


def _warnings(data: ReportData) -> list[tuple[str, str]]:
    """(what to print bold, the rest) of each warning."""
    first = (RESEARCH_USE, SIMULATED if data.simulated else "")
    rest = [] if data.simulated or not data.examples else [("Single cases.", WITH_PATIENTS)]
    return [first, *rest, ("Limits of DWI.", DWI_LIMIT)]


def _grade_ranges(scale: str) -> list[tuple[str, str]]:
    """(grade, its counts) on a known scale; no entry for an unknown one."""
    if scale not in SCALES:
        return []
    bounds = (0, *SCALES[scale].lower_bounds)
    upper = [str(above - 1) for above in bounds[1:]]
    closed = [low if str(low) == high else f"{low}–{high}" for low, high in zip(bounds, upper, strict=False)]
    return list(zip(GRADES, [*map(str, closed), f"{bounds[-1]} or more"], strict=True))


def _majority_grade(pooled: Evaluation | None) -> str | None:
    counts = None if pooled is None else pooled.class_counts
    return None if not counts or not sum(counts) else GRADES[max(range(len(counts)), key=counts.__getitem__)]


def _mix_sentence(pooled: Evaluation | None) -> str | None:
    counts = None if pooled is None else pooled.class_counts
    if not counts or not sum(counts):
        return None
    total = sum(counts)
    parts = [f"{count} {grade} ({100 * count / total:.0f} %)" for grade, count in zip(GRADES, counts, strict=True)]
    return f"{total} test {'case' if total == 1 else 'cases'}: {', '.join(parts)}."


def _figures(data: ReportData) -> dict[str, Markup | None]:
    pooled = data.pooled
    confusion = None if pooled is None else pooled.confusion
    mixes = [(f"{site.site} {split}", counts) for site in data.sites for split, counts in site.splits.items()]
    return {
        "confusion": confusion_matrix_svg(confusion, GRADES, "confusion") if confusion else None,
        "mix": _mix_figure(pooled),
        "site_mix": class_mix_svg(mixes, GRADES, "site-mix") if mixes else None,
        "sites": _site_figure(data) if data.per_site else None,
        "kappa": curve_svg(_kappa_curve(data), "kappa", data.kept_round) if data.rounds else None,
        "loss": curve_svg(_loss_curve(data), "loss", data.kept_round) if data.rounds else None,
    }


def _kappa_curve(data: ReportData) -> Curve:
    points = [(row.number, row.quadratic_kappa) for row in data.rounds]
    floor = min((value for _, value in points if value is not None), default=0.0)
    return Curve("Validation quadratic kappa", points, (0.0 if floor >= 0 else -1.0, 1.0))


def _loss_curve(data: ReportData) -> Curve:
    points = [(row.number, row.loss) for row in data.rounds]
    return Curve("Validation loss", points, (0.0, round_up(max((v for _, v in points if v is not None), default=1.0))))


def _mix_figure(pooled: Evaluation | None) -> Markup | None:
    counts = None if pooled is None else pooled.class_counts
    return class_mix_svg([("test cases", counts)], GRADES, "mix") if counts else None


def _site_figure(data: ReportData) -> Markup:
    bars = [_site_bar(evaluation) for evaluation in [*_listed(data.pooled), *data.per_site]]
    majority = None if data.majority is None else data.majority.get("balanced_accuracy")
    reference = None if majority is None else ("always the most frequent grade", float(majority))
    return site_bars_svg(bars, "Balanced accuracy", "sites", reference)


def _listed(evaluation: Evaluation | None) -> Sequence[Evaluation]:
    return [] if evaluation is None else [evaluation]


def _site_bar(evaluation: Evaluation) -> Bar:
    low, high = evaluation.intervals.get("balanced_accuracy") or (None, None)
    return Bar(evaluation.name, evaluation.metric("balanced_accuracy"), low, high)
