"""A model card: what a model is for, what it was made with, how well it did, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence

from mhsev_monai.report.data import ReportData
from mhsev_monai.report.document import (
    Block,
    Bullets,
    Cell,
    Column,
    Document,
    Facts,
    Heading,
    Paragraph,
    Section,
    Table,
)
from mhsev_monai.report.federation_section import software_table
from mhsev_monai.report.limits_section import limits
from mhsev_monai.report.probability_sections import calibration_section, sets_section
from mhsev_monai.report.run_sections import cases_table, class_table, metrics_table, per_site_table
from mhsev_monai.report.words import mix_sentence, ranges_sentence, report_warnings

INTENDED = (
    "Research on grading the number of cerebral microbleeds from the b = 0 and diffusion-weighted images of adults, "
    "and on federated training. Users: researchers in neuroradiology and medical imaging, at sites that may look at "
    "their scans.",
    "Input: one diffusion series as NIfTI with its b-values, with at least one b = 0 volume over the whole brain.",
    "Output: a number of microbleeds with an interval, a severity grade with probabilities, and, for models that judge "
    "single spots, their places.",
)
OUT_OF_SCOPE = (
    "Diagnosis, treatment, triage, or any decision about a patient. The model is no medical device, and no authority "
    "has looked at it.",
    "ARIA monitoring: a grade of one scan does not tell new bleeds from old ones.",
    "Ruling microbleeds out: DWI does not show most of them.",
    "Superficial siderosis, hemorrhages of another kind, and causes such as amyloid angiopathy.",
    "Children, scans after operations or with large lesions, partial scans, and other sequences or scanners than "
    "those of the training sites: nothing is known there.",
)
PRIVACY = (
    "Scans stayed at their sites. The weights, the tables of graded cases and what the sites told of their cases left "
    "them. Weights can carry information about training cases; no bound on it is claimed unless a privacy budget "
    "stands among the facts."
)


def model_card(data: ReportData) -> Document:
    """The card of the model that a run trained."""
    warnings = report_warnings(data)
    job = data.facts.get("job", "severity model")
    return Document(
        kind="model card",
        title=f"Model card: {job}",
        subtitle="A model that grades cerebral micro-hemorrhages from brain DWI, trained over several hospitals",
        warnings=[warning for warning in warnings if warning[0] != "Single cases."],
        sections=[
            Section("details", "Model", [Facts(data.facts), *_rules(data)]),
            Section("intended-use", "Intended use", [Bullets(INTENDED)]),
            Section("out-of-scope", "Out of scope", [Bullets(OUT_OF_SCOPE)]),
            Section("data", "Data", _data(data)),
            Section("performance", "Performance", _performance(data)),
            *[part for part in (calibration_section(data), sets_section(data)) if part is not None],
            Section("privacy", "Privacy", [Paragraph(PRIVACY)]),
            Section("limits", "Limits", [Bullets(limits(data))]),
        ],
        footer=" ".join(warnings[0]).strip(),
    )


def _rules(data: ReportData) -> list[Block]:
    table = software_table(data)
    rules: list[Block] = [Heading("Training"), Facts(data.analyses.policy)] if data.analyses.policy else []
    return [*rules, *([table] if table else [])]


def _data(data: ReportData) -> list[Block]:
    origin = (
        "Simulated hospitals: heads, bleeds and clinical variables were drawn by a program."
        if data.simulated
        else "Cases of the sites named below, as their own tables list them; their origin stands with the sites."
    )
    blocks: list[Block] = [Paragraph(origin), Paragraph(ranges_sentence(data.scale) or "The scale is not known here.")]
    told = mix_sentence(data.pooled)
    mix: Sequence[Block] = [Paragraph(told)] if told else []
    notes: list[Block] = [Bullets(data.notes)] if data.notes else []
    return [*blocks, *mix, cases_table(data), *notes]


def _performance(data: ReportData) -> list[Block]:
    words = (
        "On test cases of the training sites, which were not trained with. Accuracy depends on the mix of grades; read "
        "balanced accuracy and quadratic kappa first, and the majority row beside them."
    )
    pooled = data.pooled
    confusion: list[Block] = []
    if pooled is not None and pooled.confusion:
        grades = [entry["severity"] for entry in (pooled.metrics or {}).get("per_class") or ()]
        rows: list[Sequence[Cell]] = [(f"truly {g}", *row) for g, row in zip(grades, pooled.confusion, strict=False)]
        columns = (Column("Cases"), *(Column(f"graded {grade}") for grade in grades))
        confusion = (
            [Table("confusion-table", "Confusion matrix, test cases of all sites", columns, rows)] if rows else []
        )
    return [Paragraph(words), metrics_table(data), *confusion, class_table(data), per_site_table(data)]
