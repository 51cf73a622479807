"""A site's labelled features by split, with the marks of candidates and the twins of training cases."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mhsev_flare.small_cells import FEWEST_TOLD, small_cell
from mhsev_monai.case_folds import fold_cases
from mhsev_monai.cases import Case, CaseList, split_cases
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import FeatureTable
from mhsev_monai.inputs import POSITION_SET
from mhsev_monai.lesion_marks import lesion_mask_path, mark_candidates, read_lesion_mask
from mhsev_monai.severity import GradingScale, Severity
from mhsev_monai.training import LabelledFeatures

logger = logging.getLogger(__name__)

LEAST_TRAINING_CASES = 5
"""The mean over fewer cases says too much about each of them, and is no statistic anyway."""


class SiteError(RuntimeError):
    """Why this site cannot take part. The message may leave the site: it names no path, no patient, no date."""


@dataclass(frozen=True)
class SiteData:
    """A site's labelled features by split, and what happened to the other cases.

    Attributes:
        train: the cases that local training sees.
        validation: the cases that choose the best round.
        test: the cases that the final result is about.
        excluded: case id to reason, for every case that is in none of the three; stays at the site.
        train_ids: ids of the training cases in their order; stay at the site.
        test_cases: the test cases in their order, for subgroups; stay at the site. Empty where they are not known.
        twins: protocol twins of training cases, which training sees beside them; None where a job asks for none.
    """

    train: LabelledFeatures
    validation: LabelledFeatures
    test: LabelledFeatures
    excluded: Mapping[str, str]
    train_ids: tuple[str, ...] = ()
    test_cases: tuple[Case, ...] = ()
    twins: LabelledFeatures | None = None

    # Kept: what is measured once of a tensor is found again by the tensor itself (see ``against_scan``).
    @cached_property
    def lessons(self) -> LabelledFeatures:
        """What training goes through: the training cases, and their twins where there are any."""
        return self.train if self.twins is None else LabelledFeatures.join([self.train, self.twins])

    def split(self, name: str) -> LabelledFeatures:
        """The split called ``train``, ``validation`` or ``test``."""
        if name not in ("train", "validation", "test"):
            raise SiteError(f"there is no split {name!r}; there are train, validation and test")
        return getattr(self, name)

    def summary(self, scale: GradingScale) -> dict[str, Any]:
        """Numbers of cases by split and grade: what the server may know of this site.

        A split of fewer than five cases is told as a range; ``SmallCellCleanser`` hides small numbers by grade too.
        """
        return {
            "cases": {name: small_cell(len(self.split(name))) for name in ("train", "validation", "test")},
            "grades": {
                name: grade_counts(self.split(name), scale).tolist() for name in ("train", "validation", "test")
            },
            "excluded": len(self.excluded),
            "twins": 0 if self.twins is None else len(self.twins),
        }


def grade_counts(data: LabelledFeatures, scale: GradingScale) -> np.ndarray:
    """``(4,)`` int64: number of cases of each ``Severity``."""
    return np.bincount(data.grades(scale).numpy(), minlength=len(Severity)).astype(np.int64)


def site_marks(
    listed: CaseList, table: FeatureTable, data_root: Path, folder: Path | None
) -> dict[str, NDArray[np.float32]]:
    """What a site's lesion masks say of its candidates, ``(N,)`` by case id; cases without a mask are not there.

    Args:
        listed: all cases of the site.
        table: their features.
        data_root: of the site.
        folder: the derivative with the masks; None: the site has none.

    Raises:
        SiteError: if a mask cannot be read.
    """
    marks: dict[str, NDArray[np.float32]] = {}
    if folder is None or table.features.ndim != 3:
        return marks
    by_id = {case.case_id: case for case in listed.cases}
    for row, case_id in enumerate(table.case_ids):
        path = lesion_mask_path(by_id[case_id], data_root, folder)
        if path is None:
            continue
        try:
            found = mark_candidates(table.sets[row][POSITION_SET], *read_lesion_mask(path))
        except ScanError as error:
            # The reason may leave the site; which case it is stays in its log.
            logger.error("the lesion mask of %s cannot be used: %s", case_id, error)
            raise SiteError(f"a lesion mask of this site cannot be used: {error}") from error
        marks[case_id] = np.full(table.features.shape[1], np.nan, dtype=np.float32)
        marks[case_id][: len(found)] = found[: table.features.shape[1]]
    return marks


def split_site(
    site: str,
    listed: CaseList,
    table: FeatureTable,
    contents: Mapping[str, str],
    seed: int,
    scale: GradingScale,
    marks: Mapping[str, NDArray[np.float32]] | None = None,
    n_folds: int = 0,
) -> SiteData:
    """The cases of ``table`` by split.

    Args:
        site: name, for the message.
        listed: all cases of the site, with their counts.
        table: features of those that can be used.
        contents: ``content_hash`` of those by case id.
        seed: of the split.
        scale: turns counts into grades.
        marks: of the candidates of some cases, see :func:`site_marks`.
        n_folds: 0: a random split by ``seed``. Otherwise the seeds 1 to ``n_folds`` are the folds of one partition of
            the cases, the next ``n_folds`` seeds those of another, and so on.

    Raises:
        SiteError: if there is nothing to train on; the message says what is missing.
    """
    data = _split(listed, table, contents, (seed, n_folds), scale, marks or {})
    if len(data.train) < LEAST_TRAINING_CASES or len(data.validation) == 0 or len(data.test) == 0:
        reasons = sorted(set(data.excluded.values()))
        because = f"; {_few(data.excluded)} were excluded, first reason: {reasons[0]}" if reasons else ""
        raise SiteError(
            f"{site} has {_few(data.train)} training, {_few(data.validation)} validation and {_few(data.test)} test "
            f"cases, where {LEAST_TRAINING_CASES}, 1 and 1 are the least{because}"
        )
    return data


def _few(cases: Sized) -> str:
    """A number of cases in a sentence that goes to the server, where small ones are not told."""
    cell = small_cell(len(cases))
    return f"fewer than {FEWEST_TOLD}" if isinstance(cell, str) else str(cell)


def _split(
    listed: CaseList,
    table: FeatureTable,
    contents: Mapping[str, str],
    drawn_by: tuple[int, int],
    scale: GradingScale,
    marks: Mapping[str, NDArray[np.float32]],
) -> SiteData:
    by_id = {case.case_id: case for case in listed.cases}
    usable = [by_id[case_id] for case_id in table.case_ids]
    seed, n_folds = drawn_by
    if n_folds:
        partition, fold = divmod(seed - 1, n_folds)
        split = fold_cases(usable, n_folds, 1 + partition, content_hashes=contents, scale=scale)[fold]
    else:
        split = split_cases(usable, seed, content_hashes=contents, scale=scale)
    return SiteData(
        train=_labelled(split.train, table, marks),
        validation=_labelled(split.validation, table, marks),
        test=_labelled(split.test, table, marks),
        excluded={**listed.excluded, **table.failed},
        train_ids=tuple(case.case_id for case in split.train),
        test_cases=split.test,
    )


def add_twins(
    data: SiteData, listed: CaseList, table: FeatureTable, marks: Mapping[str, NDArray[np.float32]] | None = None
) -> SiteData:
    """The site's data with the twins of its training cases; a case whose twin cannot be used goes without.

    Args:
        data: from :func:`split_site`.
        listed: all cases of the site.
        table: features of the twins by case id, of the training cases at least.
        marks: of the twins' candidates, see :func:`site_marks`.
    """
    by_id, known = {case.case_id: case for case in listed.cases}, set(table.case_ids)
    cases = [by_id[case_id] for case_id in data.train_ids if case_id in known]
    return dataclasses.replace(data, twins=_labelled(cases, table, marks or {}) if cases else None)


def _labelled(cases: Sequence[Case], table: FeatureTable, marks: Mapping[str, NDArray[np.float32]]) -> LabelledFeatures:
    row = {case_id: i for i, case_id in enumerate(table.case_ids)}
    rows = [row[case.case_id] for case in cases]
    counts = [float(case.count or 0) for case in cases]
    known = None
    if any(case.case_id in marks for case in cases):
        unknown = np.full(table.features.shape[1], np.nan, dtype=np.float32)
        known = torch.from_numpy(np.stack([marks.get(case.case_id, unknown) for case in cases]))
    features = torch.from_numpy(table.features[rows])
    return LabelledFeatures(features, torch.tensor(counts, dtype=torch.float32), known)
