"""Subgroups of the test cases, pooled over the sites that told them. No FLARE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mhsev_monai.intervals import metric_intervals
from mhsev_monai.metrics import SeverityTable, severity_metrics
from mhsev_monai.roc_areas import area_entry
from mhsev_monai.subgroups import DIMENSIONS, HIDDEN, subgroup_labels

SiteSubgroups = Mapping[str, Mapping[str, SeverityTable | str]]
"""By dimension and label the table, or a word for why there is none."""

_FEWER = re.compile(r"<\d{1,7}")


def read_subgroups(value: Any) -> dict[str, dict[str, SeverityTable | str]]:
    """What a site sent; raises ``ValueError`` for dimensions, labels or words that are not ours."""
    known = subgroup_labels()
    if not isinstance(value, Mapping) or not set(value) <= set(DIMENSIONS):
        raise ValueError(f"subgroups must be a mapping with some of the entries {', '.join(DIMENSIONS)}")
    read: dict[str, dict[str, SeverityTable | str]] = {}
    for dimension, groups in value.items():
        if not isinstance(groups, Mapping) or not set(groups) <= set(known[dimension]):
            raise ValueError(f"{dimension} holds a label that is none of ours")
        read[dimension] = {label: _table_or_word(told) for label, told in groups.items()}
    return read


def _table_or_word(told: Any) -> SeverityTable | str:
    if not isinstance(told, str):
        return SeverityTable.from_json(told)
    if told != HIDDEN and not _FEWER.fullmatch(told):
        raise ValueError("a subgroup must be a table, or a word for why there is none")
    return told


def subgroup_results(
    by_site: Mapping[str, SiteSubgroups], least: Mapping[str, int], seed: int
) -> dict[str, Any] | None:
    """The ``subgroups`` of ``result.json``; None where no site told any.

    Args:
        by_site: what each site told.
        least: each site's fewest cases.
        seed: of the intervals.
    """
    if not by_site:
        return None
    result: dict[str, Any] = {"least": {site: least[site] for site in sorted(by_site) if site in least}}
    for dimension in DIMENSIONS:
        told = {site: by_site[site].get(dimension, {}) for site in sorted(by_site)}
        present = {label for groups in told.values() for label in groups}
        ordered = [label for label in subgroup_labels()[dimension] if label in present]
        result[dimension] = {label: _subgroup(label, told, seed) for label in ordered}
    return result


def _subgroup(label: str, told: Mapping[str, Mapping[str, SeverityTable | str]], seed: int) -> dict[str, Any]:
    own = {site: groups[label] for site, groups in told.items() if label in groups}
    tables = [part for part in own.values() if isinstance(part, SeverityTable)]
    entry: dict[str, Any] = {"n": sum(table.n for table in tables)}
    entry["sites"] = {site: part.n if isinstance(part, SeverityTable) else part for site, part in own.items()}
    if not tables:
        return {**entry, "table": None, "metrics": None, "intervals": None, "delong": None}
    pooled = tables[0]
    for table in tables[1:]:
        pooled = pooled + table
    metrics, intervals = severity_metrics(pooled).to_json(), metric_intervals(tables, seed)
    judged = {"table": pooled.to_json(), "metrics": metrics, "intervals": intervals, "delong": area_entry(pooled)}
    return {**entry, **judged}
