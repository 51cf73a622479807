"""The table of areas under the ROC curve: both of their intervals beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhsev_monai.report.data import Evaluation
from mhsev_monai.report.document import UNDEFINED, UNDETERMINED, Cell, Column, Interval, Number, Table
from mhsev_monai.report.words import GRADES, METRIC_NAMES
from mhsev_monai.roc_areas import area_entry
from mhsev_monai.severity_table import SeverityTable

_CAPTION = (
    "Areas under the ROC curve, one grade against the rest, test cases of all sites, from scores in bins. The "
    "bootstrap draws cases within each site. DeLong's interval takes all cases for draws from the mix of the sites, "
    "and is made on the logit scale. How the areas of the grades vary together is not known: the error of the macro "
    "AUC is the largest that it can be, and both of its intervals are too wide."
)


def area_table(evaluation: Evaluation | None) -> Table | None:
    """Area, intervals and standard error of each grade and of their mean; None without a table of cases."""
    if evaluation is None or evaluation.table is None:
        return None
    # They follow from the table alone, so that results of versions that did not write them have them too.
    found = area_entry(SeverityTable.from_json(evaluation.table))
    rows = [
        (grade, n, *_cells(entry, evaluation.class_number(position, "auc")))
        for position, (grade, n, entry) in enumerate(
            zip(GRADES, evaluation.class_counts or (), found["per_class"], strict=True)
        )
    ]
    n = sum(evaluation.class_counts or ())
    rows.append((METRIC_NAMES["macro_auc"], n, *_cells(found["macro_auc"], evaluation.number("macro_auc"))))
    columns = (
        Column("Grade"),
        Column("Cases"),
        Column("AUC"),
        Column("Bootstrap", "95 % interval"),
        Column("DeLong", "95 % interval"),
        Column("DeLong", "standard error"),
    )
    return Table("areas", _CAPTION, columns, rows)


def _cells(entry: Mapping[str, Any], drawn: Number) -> Sequence[Cell]:
    low, high = entry["interval"] or (None, None)
    return (
        Number(entry["auc"], missing=UNDEFINED),
        drawn.ends(),
        Interval(low, high, missing=UNDETERMINED),
        Number(entry["standard_error"], 4, missing=UNDETERMINED),
    )
