"""What the numbers do not show, and how to read them."""

from __future__ import annotations

from mhsev_monai.report.data import ReportData
from mhsev_monai.report.document import Block, Bullets, Paragraph, Section
from mhsev_monai.report.words import DWI_LIMIT


def limits(data: ReportData) -> list[str]:
    """One sentence a limit, the gravest first; those that depend on the run say its numbers."""
    pooled = data.pooled
    n = None if pooled is None or pooled.metrics is None else int(pooled.metrics["n"])
    n_sites = len(data.per_site)
    told = []
    if data.simulated:
        told.append("The hospitals and patients are simulated. Nothing here says how the model does on patients.")
    told.append(DWI_LIMIT)
    if n is not None:
        told.append(
            f"The test cases are {n} from {n_sites} {'site' if n_sites == 1 else 'sites'} that also trained the "
            "model. No site outside the federation was looked at, so nothing is known of other scanners, protocols "
            "or populations."
        )
    counts = None if pooled is None else pooled.class_counts
    if counts and n:
        few = [f"{count} {grade}" for grade, count in zip(("none", "mild", "moderate", "severe"), counts, strict=True)]
        told.append(
            f"The mix of grades ({', '.join(few)}) is that of these cases; accuracy, PPV and F1 change with it."
        )
    told += [
        "Intervals cover the draw of cases within these sites. They do not cover the choice of sites, of the split, "
        "of the seed, or errors of the reference.",
        "The reference is a count per scan. Readers disagree on such counts; this page does not say by how much.",
        "Cerebral superficial siderosis is not assessed, and the grade is not an ARIA grade, which counts bleeds that "
        "are new since an earlier scan.",
        "Federated training keeps scans at their sites; updates and tables still carry information about them.",
    ]
    return [*told, *_not_looked_at(data)]


def _not_looked_at(data: ReportData) -> list[str]:
    analyses = data.analyses
    missing = [
        words
        for words, there in (
            ("calibration of the probabilities", analyses.calibration),
            ("groups by sex, age or scanner", analyses.subgroups),
            ("paired tests against other models", analyses.paired),
            ("attributions", analyses.explanation),
            ("clinical associations", analyses.associations),
            ("single errors", data.n_misgraded),
        )
        if not there
    ]
    return [f"This report has no part about: {', '.join(missing)}."] if missing else []


def limits_section(data: ReportData) -> Section:
    """What the numbers do not show."""
    return Section("limits", "What the numbers do not show", [Bullets(limits(data))])


def reading_section(data: ReportData) -> Section:
    """Notes of the run, and how its numbers are meant."""
    notes: list[Block] = [Paragraph(note[:1].upper() + note[1:].rstrip(".") + ".") for note in data.notes]
    return Section("reading", "How to read this", [*notes, *_READING])


_READING = (
    Paragraph(
        "Where most cases have one grade, always answering it scores high; the majority row shows how high. Balanced "
        "accuracy and quadratic kappa do not reward that: the majority row has 1 over the number of grades, and 0.",
        "Accuracy needs its mix of grades.",
    ),
    Paragraph(
        "Each site sends counts of graded cases; all metrics follow from the sum of these tables. The AUC comes from "
        "probabilities in 50 bins and is off by at most half the share of pairs that fall into one bin. “Undefined” "
        "means that the cases do not define a metric, such as the sensitivity of a grade that none of them has; an "
        "interval is “not determined” where they do not tell how sure a number is, such as where no case is wrong.",
        "Tables, not patients.",
    ),
    Paragraph(
        "are percentile bootstrap intervals over cases, drawn within sites, unless another kind is named. They hold "
        "for these sites and do not cover the choice of sites, splits or seeds; with few cases they are too narrow.",
        "Intervals",
    ),
    Paragraph(
        "are the frequencies of the grades in the test cases, its number of microbleeds the smallest of its grade.",
        "Probabilities of the majority row",
    ),
)
