"""This site's own data: where it lies, which the site alone decides, and what of it can be trained on."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mhsev_monai.cases import Case, CaseList, content_hash, read_cases, split_cases
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.feature_cache import CaseInputs, FeatureTable, compute_features
from mhsev_monai.inputs import POSITION_SET
from mhsev_monai.lesion_marks import lesion_mask_path, mark_candidates, read_lesion_mask
from mhsev_monai.severity import GradingScale, Severity
from mhsev_monai.training import LabelledFeatures
from mhsev_monai.twin_inputs import TwinInputs

SITE_FILE = "mhsev_site.json"
DATA_ROOT_VARIABLE = "MHSEV_DATA_ROOT"
COHORT_ROOT_VARIABLE = "MHSEV_COHORT_ROOT"
LEAST_TRAINING_CASES = 5
"""The mean over fewer cases says too much about each of them, and is no statistic anyway."""

DERIVATIVES = Path("derivatives", "mhsev", "features")


class SiteError(RuntimeError):
    """Why this site cannot take part. The message may leave the site: it names no path, no patient, no date."""


@dataclass(frozen=True)
class SiteFolders:
    """Where this site keeps its scans, where mhsev may write features, and where its lesion masks are."""

    data_root: Path
    cache_root: Path
    lesion_masks: Path | None = None


def find_site_folders(site: str, scope_properties: Mapping[str, Any] | None, local_folder: Path | None) -> SiteFolders:
    """The site's folders, from the first of the places that name them.

    In this order: ``mhsev_data_root`` in the properties of the site's privacy scope (``privacy.json``); ``data_root``
    in ``local/mhsev_site.json`` of the startup kit or workspace; the folder called ``site`` under ``cohort_root`` there
    (the simulator, where one machine plays all hospitals); the environment variable ``MHSEV_DATA_ROOT``; the folder
    called ``site`` under ``MHSEV_COHORT_ROOT``. ``mhsev_cache_root`` or ``cache_root`` says where features go, by
    default ``derivatives/mhsev/features`` of the data root. ``mhsev_lesion_masks`` or ``lesion_masks`` names a
    derivative with masks of microbleeds, such as ``derivatives/lesions``, relative to the data root; without it the
    site trains from its counts alone.

    Args:
        site: FLARE's name of this site.
        scope_properties: the properties of the job's privacy scope at this site.
        local_folder: the ``local`` folder of the site's workspace.

    Raises:
        SiteError: if no place names a folder, or the named one is not there.
    """
    if os.environ.get(DATA_ROOT_VARIABLE) and os.environ.get(COHORT_ROOT_VARIABLE):
        raise SiteError(
            f"{DATA_ROOT_VARIABLE} (the folder of one site) and {COHORT_ROOT_VARIABLE} (a folder of all sites) are "
            f"both set at {site}; unset one"
        )
    properties = dict(scope_properties or {})
    stored = _site_file(site, local_folder)
    root = (
        properties.get("mhsev_data_root")
        or stored.get("data_root")
        or _in_cohort(stored.get("cohort_root"), site)
        or os.environ.get(DATA_ROOT_VARIABLE)
        or _in_cohort(os.environ.get(COHORT_ROOT_VARIABLE), site)
    )
    if not root:
        raise SiteError(
            f"{site} has no data root: set data_root in local/{SITE_FILE} of this site, or the environment variable "
            f"{DATA_ROOT_VARIABLE} (one site) or {COHORT_ROOT_VARIABLE} (a folder that holds one folder per site)"
        )
    data_root = Path(str(root))
    if not data_root.is_absolute():
        # FLARE changes its working folder, so a relative path would mean another folder in each process.
        raise SiteError(
            f"the data root of {site} must be an absolute path; correct it in local/{SITE_FILE} or the environment"
        )
    if not data_root.is_dir():
        raise SiteError(
            f"the data root of {site} is not a folder that can be read; make it, or correct data_root in "
            f"local/{SITE_FILE}, {DATA_ROOT_VARIABLE} or {COHORT_ROOT_VARIABLE} at this site"
        )
    cache = properties.get("mhsev_cache_root") or stored.get("cache_root") or data_root / DERIVATIVES
    masks = properties.get("mhsev_lesion_masks") or stored.get("lesion_masks")
    if masks and not (data_root / str(masks)).is_dir():
        raise SiteError(
            f"lesion_masks of {site} is no folder under its data root; correct it in local/{SITE_FILE}, or leave it out"
        )
    return SiteFolders(data_root, Path(cache), data_root / str(masks) if masks else None)


def _in_cohort(cohort_root: str | None, site: str) -> str | None:
    return str(Path(cohort_root) / site) if cohort_root else None


def _site_file(site: str, local_folder: Path | None) -> dict[str, Any]:
    path = local_folder / SITE_FILE if local_folder else None
    if path is None or not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise SiteError(f"local/{SITE_FILE} of {site} is not valid JSON; correct it") from error
    if not isinstance(stored, dict):
        raise SiteError(f'local/{SITE_FILE} of {site} must hold an object such as {{"data_root": "..."}}')
    return stored


@dataclass(frozen=True)
class SiteData:
    """A site's labelled features by split, and what happened to the other cases.

    Attributes:
        train: the cases that local training sees.
        validation: the cases that choose the best round.
        test: the cases that the final result is about.
        excluded: case id to reason, for every case that is in none of the three; stays at the site.
        train_ids: ids of the training cases in their order; stay at the site.
        twins: protocol twins of training cases, which training sees beside them; None where a job asks for none.
    """

    train: LabelledFeatures
    validation: LabelledFeatures
    test: LabelledFeatures
    excluded: Mapping[str, str]
    train_ids: tuple[str, ...] = ()
    twins: LabelledFeatures | None = None

    @property
    def lessons(self) -> LabelledFeatures:
        """What training goes through: the training cases, and their twins where there are any."""
        return self.train if self.twins is None else LabelledFeatures.join([self.train, self.twins])

    def split(self, name: str) -> LabelledFeatures:
        """The split called ``train``, ``validation`` or ``test``."""
        if name not in ("train", "validation", "test"):
            raise SiteError(f"there is no split {name!r}; there are train, validation and test")
        return getattr(self, name)

    def summary(self, scale: GradingScale) -> dict[str, Any]:
        """Numbers of cases by split and grade: what the server may know of this site."""
        return {
            "cases": {name: len(self.split(name)) for name in ("train", "validation", "test")},
            "grades": {
                name: grade_counts(self.split(name), scale).tolist() for name in ("train", "validation", "test")
            },
            "excluded": len(self.excluded),
        }


def grade_counts(data: LabelledFeatures, scale: GradingScale) -> np.ndarray:
    """``(4,)`` int64: number of cases of each ``Severity``."""
    return np.bincount(data.grades(scale).numpy(), minlength=len(Severity)).astype(np.int64)


def load_site_data(
    site: str,
    folders: SiteFolders,
    inputs: CaseInputs,
    split_seed: int,
    scale: GradingScale,
    progress: Callable[[int, int], None] = lambda done, total: None,
    twins: bool = False,
) -> SiteData:
    """Read the site's cases, compute or find their features, and split them by patient.

    Args:
        site: name, for messages.
        folders: of the site.
        inputs: what a network reads of a case.
        split_seed: of the split.
        scale: turns counts into grades.
        progress: called with the number of scans done and the total.
        twins: also compute the protocol twins of the training cases.

    Raises:
        SiteError: if there is nothing to train on; the message says what is missing.
    """
    try:
        listed = read_cases(folders.data_root)
    except CohortError as error:
        raise SiteError(f"the data root of {site} cannot be used: {error}") from error
    table = _features(site, listed.cases, inputs, folders, progress)
    usable = set(table.case_ids)
    # A scan that was copied under two names must not stand in training and test at once.
    contents = {case.case_id: content_hash(case) for case in listed.cases if case.case_id in usable}
    marks = site_marks(listed, table, folders.data_root, folders.lesion_masks)
    data = split_site(site, listed, table, contents, split_seed, scale, marks)
    if not twins:
        return data
    chosen = set(data.train_ids)
    cases = [case for case in listed.cases if case.case_id in chosen]
    table = _features(site, cases, TwinInputs(inputs), folders, progress)
    return add_twins(data, listed, table, site_marks(listed, table, folders.data_root, folders.lesion_masks))


def _features(
    site: str,
    cases: Sequence[Case],
    inputs: CaseInputs,
    folders: SiteFolders,
    progress: Callable[[int, int], None],
) -> FeatureTable:
    try:
        return compute_features(cases, inputs, folders.cache_root, progress=progress)
    except OSError as error:
        raise SiteError(
            f"{site} cannot write features ({type(error).__name__}): set cache_root in local/{SITE_FILE} to a folder "
            "that can be written"
        ) from error


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
            raise SiteError(f"{case_id}: {error}") from error
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

    Raises:
        SiteError: if there is nothing to train on; the message says what is missing.
    """
    data = _split(listed, table, contents, seed, scale, marks or {})
    if len(data.train) < LEAST_TRAINING_CASES or len(data.validation) == 0 or len(data.test) == 0:
        reasons = sorted(set(data.excluded.values()))
        because = f"; {len(data.excluded)} were excluded, first reason: {reasons[0]}" if reasons else ""
        raise SiteError(
            f"{site} has {len(data.train)} training, {len(data.validation)} validation and {len(data.test)} test "
            f"cases, where {LEAST_TRAINING_CASES}, 1 and 1 are the least{because}"
        )
    return data


def _split(
    listed: CaseList,
    table: FeatureTable,
    contents: Mapping[str, str],
    seed: int,
    scale: GradingScale,
    marks: Mapping[str, NDArray[np.float32]],
) -> SiteData:
    by_id = {case.case_id: case for case in listed.cases}
    usable = [by_id[case_id] for case_id in table.case_ids]
    split = split_cases(usable, seed, content_hashes=contents, scale=scale)
    return SiteData(
        train=_labelled(split.train, table, marks),
        validation=_labelled(split.validation, table, marks),
        test=_labelled(split.test, table, marks),
        excluded={**listed.excluded, **table.failed},
        train_ids=tuple(case.case_id for case in split.train),
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
