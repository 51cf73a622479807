"""What an exported job holds: every argument, no code unless it is asked for, the same bytes each time."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import mhsev_flare
import mhsev_monai
from mhsev_flare.aggregator import SeverityAggregator
from mhsev_flare.controller import SeverityFedAvg
from mhsev_flare.executor import SeverityExecutor
from mhsev_flare.job_spec import OPTIMISERS
from mhsev_flare.jobs import JOBS, export_job
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.recipes import SeverityRecipe


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def arguments(job: Path, side: str) -> dict[str, Any]:
    config = json.loads((job / "app" / "config" / f"config_fed_{side}.json").read_text())
    return config["workflows"][0]["args"] if side == "server" else config["executors"][0]["executor"]["args"]


def names(cls: type) -> set[str]:
    parameters = inspect.signature(cls).parameters.values()
    return {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("name", list(JOBS))
def test_every_argument_is_in_the_job_as_it_was_given(tmp_path, name):
    """FLARE reads arguments back from attributes of their names, and drops those that it does not find."""
    job, spec = export_job(JOBS[name], tmp_path), JOBS[name]
    server, client = arguments(job, "server"), arguments(job, "client")
    # What is None is left out, and None is what it then is.
    assert names(SeverityFedAvg) - set(server) <= {"fedprox_mu", "server_optimiser"}
    assert names(SeverityExecutor) - set(client) <= {"privacy"}
    assert set(server["aggregator"]["args"]) == names(SeverityAggregator)
    assert set(server["policy"]["args"]) == names(RoundPolicy)
    for key in ("num_rounds", "min_sites", "site_models", "seed", "scale", "personalise", "resume", "ema_decay"):
        assert server[key] == getattr(spec, key), key
    for key in ("epochs", "learning_rate", "weight_decay", "batch_size", "count_weight", "seed", "twins", "ema_decay"):
        assert client[key] == getattr(spec, key), key
    policy = server["policy"]["args"]
    assert RoundPolicy(**{**policy, "mandatory_sites": tuple(policy["mandatory_sites"])}) == spec.policy


def test_the_same_job_is_the_same_bytes_and_holds_no_code(tmp_path):
    first, second = (files(export_job(JOBS["dsd_mlp"], tmp_path / folder)) for folder in "ab")
    assert first == second
    assert not [name for name in first if name.endswith((".py", ".pyc"))]
    assert sum(map(len, first.values())) < 50_000


def test_a_job_that_brings_code_brings_both_packages_whole(tmp_path):
    job = export_job(JOBS["dsd_mlp"], tmp_path, bring_code=True)
    for package in (mhsev_flare, mhsev_monai):
        own = Path(str(package.__file__)).parent
        brought = files(job / "app" / "custom" / own.name)
        assert "__init__.py" in brought
        assert {name for name in brought if name.endswith(".py")} == {
            str(path.relative_to(own)) for path in own.rglob("*.py")
        }
    # Exported again without, none of it stays.
    export_job(JOBS["dsd_mlp"], tmp_path)
    assert not (job / "app" / "custom").exists()


def test_an_optimiser_is_part_of_the_job(tmp_path):
    SeverityRecipe("dsd_mlp", optimiser="fedopt").export(str(tmp_path))
    server = arguments(tmp_path / "dsd_mlp", "server")
    expected = {"name": "SGD", "arguments": OPTIMISERS["fedopt"].server_arguments}
    assert server["server_optimiser"]["args"] == expected
    SeverityRecipe("dsd_mlp", optimiser="fedprox").export(str(tmp_path))
    assert arguments(tmp_path / "dsd_mlp", "server")["fedprox_mu"] == OPTIMISERS["fedprox"].fedprox_mu
    with pytest.raises(ValueError, match="no optimiser called adam; there are fedavg"):
        SeverityRecipe("dsd_mlp", optimiser="adam")


def test_a_run_is_resumed_with_its_own_settings_alone():
    spec = JOBS["dsd_mlp"]
    own = spec.settings_digest()
    changes = (
        {"epochs": 3},
        {"learning_rate": 1e-3},
        {"rule": "median"},
        {"twins": False},
        {"optimiser": OPTIMISERS["fedprox"]},
    )
    others = {dataclasses.replace(spec, **change).settings_digest() for change in changes}
    assert len(others | {own}) == 1 + len(changes)
    # How long to wait, and for whom, may change.
    assert dataclasses.replace(spec, resume=True, policy=RoundPolicy(min_sites=1)).settings_digest() == own


def test_a_studys_name_cannot_lead_out_of_its_folder():
    """FLARE's own export refuses such names; a job that somebody wrote by hand must not have one either."""
    spec = JOBS["dsd_mlp_literal"]
    for name in ("/etc", "../..", "", "a/b"):
        with pytest.raises(ValueError, match="study must be a name"):
            SeverityFedAvg(name, 1, spec.network, spec.inputs, spec.scale, SeverityAggregator(), RoundPolicy())
