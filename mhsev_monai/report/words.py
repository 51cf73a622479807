"""Sentences and names that the forms of the report share."""

from __future__ import annotations

from mhsev_monai.report.data import Evaluation, LocalModels, ReportData
from mhsev_monai.severity import SCALES, Severity

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
METRIC_NAMES = {name: label for name, label, _ in METRIC_ROWS}
CLASS_METRICS = (
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("ppv", "PPV"),
    ("f1", "F1"),
    ("auc", "AUC"),
)


def report_warnings(data: ReportData) -> list[tuple[str, str]]:
    """(what to print bold, the rest) of each warning."""
    first = (RESEARCH_USE, SIMULATED if data.simulated else "")
    single = not data.simulated and (data.examples or data.failures)
    rest = [("Single cases.", WITH_PATIENTS)] if single else []
    return [first, *rest, ("Limits of DWI.", DWI_LIMIT)]


def local_models_sentence(local: LocalModels | None, tested: bool = False) -> str:
    """Whether the global model beats the sites' own, in words, with both numbers."""
    if local is None or local.mean is None or local.global_balanced_accuracy is None:
        return "The comparison of the global model with the sites' own models was not computed."
    verb = "beats" if local.global_beats_local else "does not beat"
    chance = (
        "Whether that difference could be chance was not tested; the paired comparisons below are of accuracy and "
        "kappa, of each own model on its own site's cases."
        if tested
        else "Whether the difference could be chance was not tested."
    )
    return (
        f"The global model {verb} the mean of the models that the sites train alone: balanced accuracy "
        f"{local.global_balanced_accuracy:.3f} against {local.mean:.3f}, on {local.cases}. {chance}"
    )


def grade_ranges(scale: str) -> list[tuple[str, str]]:
    """(grade, its counts) on a known scale; no entry for an unknown one."""
    if scale not in SCALES:
        return []
    bounds = (0, *SCALES[scale].lower_bounds)
    upper = [str(above - 1) for above in bounds[1:]]
    closed = [low if str(low) == high else f"{low}–{high}" for low, high in zip(bounds, upper, strict=False)]
    return list(zip(GRADES, [*map(str, closed), f"{bounds[-1]} or more"], strict=True))


def ranges_sentence(scale: str) -> str:
    """The grades by number of microbleeds; empty for an unknown scale."""
    ranges = grade_ranges(scale)
    told = ", ".join(f"{grade} {counts}" for grade, counts in ranges)
    return f"Grades by number of microbleeds ({scale} scale): {told}." if ranges else ""


def majority_grade(pooled: Evaluation | None) -> str | None:
    """The most frequent grade of the pooled test cases."""
    counts = None if pooled is None else pooled.class_counts
    return None if not counts or not sum(counts) else GRADES[max(range(len(counts)), key=counts.__getitem__)]


def mix_sentence(pooled: Evaluation | None) -> str | None:
    """How many test cases have each grade."""
    counts = None if pooled is None else pooled.class_counts
    if not counts or not sum(counts):
        return None
    total = sum(counts)
    parts = [f"{count} {grade} ({100 * count / total:.0f} %)" for grade, count in zip(GRADES, counts, strict=True)]
    return f"{total} test {'case' if total == 1 else 'cases'}: {', '.join(parts)}."
