"""Where a site's data lie, who decides it, and what a site says when they are not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mhsev_flare.site import COHORT_ROOT_VARIABLE, DATA_ROOT_VARIABLE, SITE_FILE, find_site_folders
from mhsev_flare.site_data import SiteData, SiteError, add_twins
from mhsev_monai.cases import Case, CaseList
from mhsev_monai.feature_cache import FeatureTable
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    monkeypatch.delenv(COHORT_ROOT_VARIABLE, raising=False)


def folder(parent: Path, *parts: str) -> Path:
    made = parent.joinpath(*parts)
    made.mkdir(parents=True)
    return made


def local_with(tmp_path: Path, content: dict[str, str]) -> Path:
    local = folder(tmp_path, "local")
    (local / SITE_FILE).write_text(json.dumps(content))
    return local


def test_places_are_asked_in_the_documented_order(tmp_path, monkeypatch):
    scope, stored, cohort, own, env_cohort = (folder(tmp_path, n, "site-2") for n in "abcde")
    local = local_with(tmp_path, {"data_root": str(stored), "cohort_root": str(cohort.parent)})
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(own))
    assert find_site_folders("site-2", {"mhsev_data_root": str(scope)}, local).data_root == scope
    assert find_site_folders("site-2", {}, local).data_root == stored
    (local / SITE_FILE).write_text(json.dumps({"cohort_root": str(cohort.parent)}))
    assert find_site_folders("site-2", None, local).data_root == cohort
    assert find_site_folders("site-2", None, None).data_root == own
    monkeypatch.delenv(DATA_ROOT_VARIABLE)
    monkeypatch.setenv(COHORT_ROOT_VARIABLE, str(env_cohort.parent))
    assert find_site_folders("site-2", None, None).data_root == env_cohort


def test_features_go_beside_the_scans_unless_the_site_says_otherwise(tmp_path):
    data, cache = folder(tmp_path, "data"), tmp_path / "cache"
    local = local_with(tmp_path, {"data_root": str(data)})
    assert find_site_folders("site-1", None, local).cache_root == data / "derivatives" / "mhsev" / "features"
    (local / SITE_FILE).write_text(json.dumps({"data_root": str(data), "cache_root": str(cache)}))
    assert find_site_folders("site-1", None, local).cache_root == cache


def test_two_variables_that_contradict_each_other_are_refused(monkeypatch, tmp_path):
    """All simulated sites would read the one folder of ``MHSEV_DATA_ROOT``, and nobody would notice."""
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    monkeypatch.setenv(COHORT_ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(SiteError, match="both set at site-1; unset one"):
        find_site_folders("site-1", None, None)


def test_a_relative_path_is_refused(monkeypatch, tmp_path):
    """FLARE changes its working folder, so the path would mean another place in each process."""
    folder(tmp_path, "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DATA_ROOT_VARIABLE, "data")
    with pytest.raises(SiteError, match="must be an absolute path"):
        find_site_folders("site-1", None, None)


def test_a_site_without_a_data_root_says_where_to_set_it():
    with pytest.raises(SiteError, match=r"site-2 has no data root: set data_root in local/mhsev_site\.json") as caught:
        find_site_folders("site-2", None, None)
    assert DATA_ROOT_VARIABLE in str(caught.value)
    assert COHORT_ROOT_VARIABLE in str(caught.value)


def test_a_folder_that_is_not_there_is_refused_without_its_path(tmp_path):
    local = local_with(tmp_path, {"data_root": str(tmp_path / "DOE_JANE")})
    with pytest.raises(SiteError, match="the data root of site-1 is not a folder") as caught:
        find_site_folders("site-1", None, local)
    assert "DOE" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [("{", "not valid JSON"), ("[1]", "must hold an object")])
def test_a_malformed_site_file_is_refused(tmp_path, text, words):
    local = folder(tmp_path, "local")
    (local / SITE_FILE).write_text(text)
    with pytest.raises(SiteError, match=words):
        find_site_folders("site-1", None, local)


def labelled_site() -> tuple[SiteData, CaseList]:
    """Four training cases with counts 1 to 4; nothing else matters here."""
    cases = tuple(Case(f"sub-{n}", Path(f"sub-{n}"), count=n) for n in (1, 2, 3, 4, 9))
    counts = torch.tensor([1.0, 2.0, 3.0, 4.0])
    train = LabelledFeatures(counts[:, None, None].repeat(1, 2, 3), counts)
    other = LabelledFeatures(torch.zeros(1, 2, 3), torch.tensor([9.0]))
    ids = ("sub-1", "sub-2", "sub-3", "sub-4")
    return SiteData(train, other, other, excluded={}, train_ids=ids), CaseList(cases, {})


def twin_table(*ids: str) -> FeatureTable:
    """Each twin says which case it is of, with the sign turned."""
    features = -np.array([float(i.removeprefix("sub-")) for i in ids], dtype=np.float32)
    return FeatureTable(ids, np.tile(features[:, None, None], (1, 2, 3)), ({},) * len(ids))


def test_training_goes_through_the_training_cases_and_their_twins_and_nothing_else():
    data, listed = labelled_site()
    found = add_twins(data, listed, twin_table("sub-9", "sub-4", "sub-1", "sub-3"))
    assert found.twins is not None
    assert found.twins.features[:, 0, 0].tolist() == [-1, -3, -4]
    assert found.twins.counts.tolist() == [1, 3, 4]
    assert found.lessons.features[:, 0, 0].tolist() == [1, 2, 3, 4, -1, -3, -4]
    assert found.lessons.counts.tolist() == [1, 2, 3, 4, 1, 3, 4]
    assert len(found.train) == 4
    assert found.summary(PAPER_SCALE)["cases"]["train"] == "1-4"  # fewer than five cases are told as a range


def test_without_twins_training_goes_through_the_training_cases():
    data, listed = labelled_site()
    assert data.lessons is data.train
    assert add_twins(data, listed, twin_table("sub-9")).lessons is data.train


def test_marks_of_twins_stand_beside_unknown_ones():
    data, listed = labelled_site()
    marks = {"sub-3": np.array([1, 0], dtype=np.float32)}
    lessons = add_twins(data, listed, twin_table("sub-3", "sub-4"), marks).lessons
    assert lessons.marks is not None
    assert lessons.marks[:4].isnan().all()
    assert lessons.marks[4].tolist() == [1, 0]
    assert lessons.marks[5].isnan().all()
