"""This site's own data: where it lies, which the site alone decides, and what of it can be trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsev_flare.site_data import SiteData, SiteError, add_twins, site_marks, split_site
from mhsev_monai.cases import Case, content_hash, read_cases
from mhsev_monai.errors import CohortError
from mhsev_monai.feature_cache import CaseInputs, FeatureTable, compute_features
from mhsev_monai.severity import GradingScale
from mhsev_monai.twin_inputs import TwinInputs

SITE_FILE = "mhsev_site.json"
DATA_ROOT_VARIABLE = "MHSEV_DATA_ROOT"
COHORT_ROOT_VARIABLE = "MHSEV_COHORT_ROOT"
CHECKPOINT_ROOT_VARIABLE = "MHSEV_CHECKPOINT_ROOT"
DERIVATIVES = Path("derivatives", "mhsev", "features")


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


def find_checkpoint_folder(local_folder: Path, workspace_root: Path) -> Path:
    """Where the server keeps the state of unfinished studies: outside the job, whose folder goes with it.

    ``checkpoint_root`` in ``local/mhsev_site.json`` of the server; else the environment variable
    ``MHSEV_CHECKPOINT_ROOT``; else ``mhsev_checkpoints`` in the server's workspace.

    Raises:
        SiteError: if the file cannot be read, or names a relative path.
    """
    named = _site_file("the server", local_folder).get("checkpoint_root") or os.environ.get(CHECKPOINT_ROOT_VARIABLE)
    if named and not Path(str(named)).is_absolute():
        raise SiteError(f"checkpoint_root must be an absolute path; correct it in local/{SITE_FILE} of the server")
    return Path(str(named)) if named else workspace_root / "mhsev_checkpoints"


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
