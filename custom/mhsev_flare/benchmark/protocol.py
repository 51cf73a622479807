"""What every row of the benchmark is measured on: the hospitals, their usable cases, and repeated splits by patient."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhsev_flare.site import DERIVATIVES
from mhsev_flare.site_data import SiteData, add_twins, site_marks, split_site
from mhsev_monai.cases import CaseList, content_hash, read_cases
from mhsev_monai.errors import CohortError
from mhsev_monai.feature_cache import CaseInputs, FeatureTable, compute_features
from mhsev_monai.severity import GradingScale
from mhsev_monai.twin_inputs import TwinInputs

MANIFEST = "cohort.json"
TRUTH = Path("derivatives", "truth")
"""Masks of a simulated hospital."""
UNTOLD_SETTINGS = ("hospitals", "MadeBy")

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""From a title and a unit to a context with a function of (done, total), such as ``mhsev_flare.progress.bar``."""


class Regime(StrEnum):
    """Who trains with whom."""

    FEDERATED = "federated"
    CENTRAL = "central"
    LOCAL = "local"
    LEAVE_ONE_OUT = "leave one site out"
    RULE = "rule"
    """No network: a rule with few numbers that the pooled training cases set."""


@dataclass(frozen=True)
class Hospital:
    """One site: its cases, and their features by the fingerprint of the inputs.

    Attributes:
        name: of its folder, and so of the site in a job.
        listed: cases and what was left out of them.
        contents: hash of the scan by case id.
        tables: features by fingerprint; all tables hold the same cases, but for those of twins, which may hold fewer.
        marks: of the candidates by fingerprint and case id, from the masks of the simulation.
        n_folds: 0: each seed is a random split; otherwise seeds are folds, see ``split_site``.
    """

    name: str
    listed: CaseList
    contents: Mapping[str, str]
    tables: Mapping[str, FeatureTable]
    marks: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(default_factory=dict)
    n_folds: int = 0

    def split(
        self, inputs: CaseInputs, seed: int, scale: GradingScale, masks: bool = False, twins: bool = False
    ) -> SiteData:
        """The split of ``seed``, which is that of a job with this seed; raises ``SiteError`` for too few cases."""
        key = inputs.fingerprint()
        marks, table = self._marks(key, masks), self.tables[key]
        data = split_site(self.name, self.listed, table, self.contents, seed, scale, marks, self.n_folds)
        if not twins:
            return data
        key = TwinInputs(inputs).fingerprint()
        return add_twins(data, self.listed, self.tables[key], self._marks(key, masks))

    def _marks(self, key: str, masks: bool) -> Mapping[str, NDArray[np.float32]]:
        return self.marks.get(key, {}) if masks else {}


@dataclass(frozen=True)
class Cohort:
    """Hospitals that train together.

    Attributes:
        name: of its folder.
        settings: how it was made, of ``cohort.json``; empty for scans that nobody simulated.
        hospitals: sorted by name.
    """

    name: str
    settings: Mapping[str, Any]
    hospitals: tuple[Hospital, ...]

    def split(
        self, inputs: CaseInputs, seed: int, scale: GradingScale, masks: bool = False, twins: bool = False
    ) -> dict[str, SiteData]:
        """The splits of all sites by name; ``masks``: with the marks of their candidates; ``twins``: with these."""
        return {hospital.name: hospital.split(inputs, seed, scale, masks, twins) for hospital in self.hospitals}

    def in_folds(self, n_folds: int) -> Cohort:
        """The same hospitals, whose seeds are folds; 0: random splits."""
        hospitals = tuple(dataclasses.replace(hospital, n_folds=n_folds) for hospital in self.hospitals)
        return dataclasses.replace(self, hospitals=hospitals)


def load_cohort(folder: Path, all_inputs: Iterable[CaseInputs], workers: int, bar: Bar) -> Cohort:
    """Read the hospitals of ``folder`` and find or compute their features, where a site of a job keeps them.

    A case that one of the inputs cannot use is left out for all, so that all rows are judged by the same cases.

    Args:
        folder: holds one BIDS root a hospital.
        all_inputs: of every row.
        workers: processes for features.
        bar: shows the progress.

    Raises:
        CohortError: if there are fewer than two hospitals, or one cannot be read.
        OSError: if features cannot be written.
    """
    roots = sorted(path.parent for path in folder.glob("*/participants.tsv"))
    if len(roots) < 2:
        raise CohortError(
            f"the cohort holds {len(roots)} hospitals (folders with participants.tsv), where two are the least; "
            "make one with `mhsev cohort make`"
        )
    inputs = list({entry.fingerprint(): entry for entry in all_inputs}.values())
    hospitals = tuple(_load_hospital(root, inputs, workers, bar) for root in roots)
    return Cohort(folder.resolve().name, read_settings(folder / MANIFEST), hospitals)


def _load_hospital(root: Path, inputs: Sequence[CaseInputs], workers: int, bar: Bar) -> Hospital:
    listed = read_cases(root)
    tables, computed = {}, set()
    for number, entry in enumerate(inputs, start=1):
        with bar(f"features {number}/{len(inputs)} of {root.name}", "scan") as progress:
            # What an earlier row computed is only read again, for which processes take longer to start than to work.
            needed = 1 if entry.computation() in computed else workers
            tables[entry.fingerprint()] = compute_features(listed.cases, entry, root / DERIVATIVES, needed, progress)
        computed.add(entry.computation())
    # A scan without a twin trains without one; it is not left out.
    needed_by_all = [tables[entry.fingerprint()] for entry in inputs if not isinstance(entry, TwinInputs)]
    failed = {case_id: reason for table in needed_by_all for case_id, reason in table.failed.items()}
    contents = {case.case_id: content_hash(case) for case in listed.cases if case.case_id not in failed}
    tables = {key: _without(table, set(failed)) for key, table in tables.items()}
    masks = root / TRUTH if (root / TRUTH).is_dir() else None
    return Hospital(
        name=root.name,
        listed=CaseList(listed.cases, {**listed.excluded, **failed}),
        contents=contents,
        tables=tables,
        marks={key: site_marks(listed, table, root, masks) for key, table in tables.items()},
    )


def _without(table: FeatureTable, failed: set[str]) -> FeatureTable:
    kept = [row for row, case_id in enumerate(table.case_ids) if case_id not in failed]
    return dataclasses.replace(
        table,
        case_ids=tuple(table.case_ids[row] for row in kept),
        features=table.features[kept],
        quality=tuple(table.quality[row] for row in kept),
        sets=tuple(table.sets[row] for row in kept),
        failed={},
    )


def read_settings(manifest: Path) -> dict[str, Any]:
    """The settings of a simulated cohort, flat and without a path; empty where there is no manifest.

    Raises:
        CohortError: if the manifest is not a JSON object.
    """
    if not manifest.is_file():
        return {}
    try:
        stored = json.loads(manifest.read_text(encoding="utf-8"))
        flat = {**stored, **stored.pop("settings", {})}
    except (ValueError, AttributeError, TypeError) as error:
        raise CohortError(f"{MANIFEST} of the cohort is not a JSON object; make the cohort again") from error
    flat.pop("settings", None)
    return {key: _without_folder(value) for key, value in flat.items() if key not in UNTOLD_SETTINGS}


def _without_folder(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and "/" in value else value
