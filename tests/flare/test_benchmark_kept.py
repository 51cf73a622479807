"""What a stopped benchmark has graded is found again, and nothing is found that another setting or case made."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import mhsev_flare
from mhsev_flare.benchmark.kept import FEDERATED_SOURCE, digest_sites, outcome_key, read_outcome, write_outcome
from mhsev_flare.benchmark.protocol import Regime
from mhsev_flare.benchmark.run import Task, _run_parts
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.site_data import SiteData
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import LabelledFeatures

VECTOR = DSDInputs(features=["focal_count_12", "focal_count_20"])
JOB = JobSpec("short", VECTOR, SeverityMLP(2, [4], 4, 0.0, 3.0, 1), num_rounds=1, epochs=1)
REGIMES = frozenset({Regime.FEDERATED, Regime.CENTRAL, Regime.LOCAL})


def cases(seed: int) -> LabelledFeatures:
    rng = np.random.default_rng(seed)
    counts = torch.from_numpy(rng.integers(0, 15, size=12).astype(np.float32))
    return LabelledFeatures(torch.log1p(counts)[:, None].repeat(1, 2), counts)


@pytest.fixture
def task() -> Task:
    sites = {f"site-{n}": SiteData(cases(3 * n), cases(3 * n + 1), cases(3 * n + 2), {}) for n in (1, 2)}
    return Task(JOB, PAPER_SCALE, sites, REGIMES)


class StopError(Exception):
    pass


def same(one, other) -> bool:
    return all(
        np.array_equal(graded.grading.probabilities, other.outcomes[regime][name].grading.probabilities)
        and graded.sites.tolist() == other.outcomes[regime][name].sites.tolist()
        for regime, models in one.outcomes.items()
        for name, graded in models.items()
    )


def test_a_stopped_run_goes_on_where_it_was(task, tmp_path, monkeypatch):
    seen = []

    def stop_after_one(done, total):
        seen.append((done, total))
        if done == 1:
            raise StopError

    with pytest.raises(StopError):
        _run_parts(task.parts(), 1, stop_after_one, tmp_path)
    assert seen == [(0, 3), (1, 3)]
    again = []
    resumed = _run_parts(task.parts(), 1, lambda done, total: again.append((done, total)), tmp_path)
    assert again == [(1, 3), (2, 3), (3, 3)]
    afresh = _run_parts(task.parts(), 1, lambda *_: None, None)
    assert all(same(a, b) for a, b in zip(resumed, afresh, strict=True))

    def forbidden(self):
        raise AssertionError("trained again")

    monkeypatch.setattr(Task, "run", forbidden)
    found = _run_parts(task.parts(), 1, lambda *_: None, tmp_path)
    assert [set(part.outcomes) for part in found] == [{r} for r in Regime if r in REGIMES]
    assert all(same(a, b) for a, b in zip(found, afresh, strict=True))
    assert [part.seconds for part in found] == [part.seconds for part in resumed]


def test_a_damaged_file_is_computed_again(task, tmp_path, caplog):
    first = _run_parts(task.parts(), 1, lambda *_: None, tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:100])
    second = _run_parts(task.parts(), 1, lambda *_: None, tmp_path)
    assert "damaged" in caplog.text
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize(
    "changed",
    [
        dataclasses.replace(JOB, seed=2),
        dataclasses.replace(JOB, learning_rate=1e-3),
        dataclasses.replace(JOB, network=SeverityMLP(2, [5], 4, 0.0, 3.0, 1)),
        dataclasses.replace(JOB, inputs=DSDInputs(features=["focal_count_12", "focal_count_30"])),
    ],
)
def test_another_setting_is_another_entry(changed):
    assert outcome_key(JOB, "federated", "data") != outcome_key(changed, "federated", "data")


def test_what_a_row_is_called_does_not_matter_and_who_trains_does():
    assert outcome_key(JOB, "local", "d") == outcome_key(dataclasses.replace(JOB, name="x"), "local", "d")
    assert outcome_key(JOB, "local", "d") != outcome_key(JOB, "central", "d")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_other_case_in_any_split_is_other_data(task, split):
    site = task.sites["site-2"]
    longer = LabelledFeatures.join([site.split(split), cases(50)])
    changed = {**task.sites, "site-2": dataclasses.replace(site, **{split: longer})}
    assert digest_sites(changed) != digest_sites(task.sites)


def test_marks_are_data(task):
    site = task.sites["site-1"]
    sets = dataclasses.replace(site.train, features=torch.zeros(12, 3, 2))
    digests = set()
    for marks in (None, torch.zeros(12, 3), torch.ones(12, 3)):
        train = dataclasses.replace(sets, marks=marks)
        digests.add(digest_sites({**task.sites, "site-1": dataclasses.replace(site, train=train)}))
    assert len(digests) == 3


def test_what_was_never_kept_is_not_found(tmp_path):
    assert read_outcome(tmp_path, "0" * 64) is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path, task):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write_outcome(tmp_path / "file" / "inside", "0" * 64, task.parts()[0].run()[Regime.FEDERATED], 1.0)


def test_every_file_that_training_goes_through_is_in_the_key():
    """What the listed files import of the federated side is listed, or its part in a result is hashed by itself."""
    hashed_by_content = {"mhsev_flare.jobs"}
    only_finds_or_keeps = {"mhsev_flare.benchmark.kept", "mhsev_flare.benchmark.protocol", "mhsev_flare.benchmark.rows"}
    listed = {f"mhsev_flare.{name.removesuffix('.py').replace('/', '.')}" for name in FEDERATED_SOURCE}
    folder = Path(str(mhsev_flare.__file__)).parent
    for name in FEDERATED_SOURCE:
        tree = ast.parse((folder / name).read_text())
        imported = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        own = {module for module in imported if module.startswith("mhsev_flare.")}
        assert own <= listed | hashed_by_content | only_finds_or_keeps, name
