"""The benchmark as JSON beside its page, without a path or a patient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mhsev_flare.benchmark.areas import AreaDifference, regime_areas, row_areas
from mhsev_flare.benchmark.comparison import (
    CohortReport,
    Comparison,
    compare_regimes,
    compare_rows,
    mean_scores,
    models_of,
    summaries_of,
)
from mhsev_flare.benchmark.costs import bytes_exchanged
from mhsev_flare.benchmark.graded import Setting
from mhsev_flare.benchmark.protocol import Regime
from mhsev_flare.benchmark.run import RowResults, Sizes
from mhsev_monai._version import __version__

SCHEMA = "mhsev-benchmark/1"


def to_json(command: str, n_repeats: int, reports: Sequence[CohortReport]) -> dict[str, Any]:
    """Everything that the page was made of: plain numbers, None where one is not defined."""
    content = {
        "schema": SCHEMA,
        "command": command,
        "mhsev": __version__,
        "repeats": n_repeats,
        "cohorts": [_cohort_json(report) for report in reports],
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def _cohort_json(report: CohortReport) -> dict[str, Any]:
    return {
        "name": report.cohort.name,
        "settings": report.cohort.settings,
        "reference": report.reference,
        "sites": {
            hospital.name: {
                "cases": len(hospital.contents),
                "excluded": len(hospital.listed.excluded),
                "test_grades": report.test_mix[hospital.name].tolist(),
            }
            for hospital in report.cohort.hospitals
        },
        "rows": [
            {
                "name": result.row.name,
                "note": result.row.note,
                "regimes": {str(regime): _regime_json(result, regime, report.sizes) for regime in result.repeats[0]},
                "bytes_exchanged": bytes_exchanged(result.row, len(report.cohort.hospitals)),
                "seconds_per_scan": report.seconds_per_scan.get(result.row.name),
            }
            for result in report.results
        ],
        "comparisons": {
            str(setting): [
                _comparison_json(c) for c in (*compare_rows(report, setting), *compare_regimes(report, setting))
            ]
            for setting in Setting
        },
        "areas": {
            str(setting): [_area_json(a) for a in (*row_areas(report, setting), *regime_areas(report, setting))]
            for setting in Setting
        },
    }


def _regime_json(result: RowResults, regime: Regime, sizes: Sizes) -> dict[str, Any]:
    """Of each setting the scores over repeats, and of each repeat its scores and the confusion table of each model."""
    entry: dict[str, Any] = {"seconds": result.seconds.get(regime)}
    for setting in Setting:
        repeats = []
        for outcomes in result.repeats:
            each = {name: model.table(setting).confusion.tolist() for name, model in outcomes[regime].items()}
            repeats.append({"scores": mean_scores(models_of(regime, outcomes[regime]), setting), "confusion": each})
        summaries = {name: vars(summary) for name, summary in summaries_of(result, regime, setting, sizes).items()}
        entry[str(setting)] = {"summary": summaries, "repeats": repeats}
    return entry


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    entry = dict(vars(comparison))
    entry["accuracy"] = comparison.accuracy._asdict()
    entry["quadratic_kappa"] = comparison.quadratic_kappa._asdict()
    entry["repeats"] = None if comparison.repeats is None else comparison.repeats._asdict()
    return entry


def _area_json(entry: AreaDifference) -> dict[str, Any]:
    return {**entry._asdict(), "found": entry.found._asdict()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
