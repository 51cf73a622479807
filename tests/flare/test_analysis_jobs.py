"""The jobs that analyse: every argument, no code, the same bytes each time, a model as data, allowed classes alone."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from analysis_sites import clinical_model
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from test_allowed_classes import named_by

from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.analysis.jobs import (
    ANALYSIS_JOBS,
    BACKGROUND_ROWS,
    BACKGROUND_SCANS,
    analysis_executor,
    analysis_job,
    analysis_server,
    explanation_of,
)
from mhsev_flare.analysis.recipes import AnalysisRecipe
from mhsev_flare.cli import main
from mhsev_flare.jobs import write_job

ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def arguments(job: Path, side: str) -> dict[str, Any]:
    config = json.loads((job / "app" / "config" / f"config_fed_{side}.json").read_text())
    return config["workflows"][0]["args"] if side == "server" else config["executors"][0]["executor"]["args"]


def plain(value: Any) -> Any:
    """An argument as JSON has it: of an object the arguments that made it."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return {name: plain(getattr(value, name)) for name in inspect.signature(type(value)).parameters}


def stored(value: Any) -> Any:
    return stored(value["args"]) if isinstance(value, dict) and set(value) == {"path", "args"} else value


@pytest.mark.parametrize("name", list(ANALYSIS_JOBS))
def test_every_argument_is_in_the_job_as_it_was_given(tmp_path, name):
    job, spec = write_job(analysis_job(ANALYSIS_JOBS[name]), tmp_path), ANALYSIS_JOBS[name]
    for side, made in (("server", analysis_server(spec)), ("client", analysis_executor(spec))):
        told = arguments(job, side)
        expected = plain(made)
        assert set(told) == set(expected)
        for key, value in told.items():
            if key != "inputs":  # of which a job leaves out what is None
                assert stored(value) == expected[key], key


@pytest.mark.parametrize("name", list(ANALYSIS_JOBS))
def test_the_same_job_is_the_same_bytes_and_holds_no_code(tmp_path, name):
    first, second = (files(write_job(analysis_job(ANALYSIS_JOBS[name]), tmp_path / folder)) for folder in "ab")
    assert first == second
    assert not [file for file in first if file.endswith((".py", ".pyc"))]
    assert sum(map(len, first.values())) < 20_000
    if (ROOT / "jobs").is_dir():
        assert first == files(ROOT / "jobs" / name)


@pytest.mark.parametrize("name", list(ANALYSIS_JOBS))
def test_a_site_allows_every_class_that_an_analysis_names(tmp_path, name):
    named = named_by(write_job(analysis_job(ANALYSIS_JOBS[name]), tmp_path))
    assert named
    assert named <= {*DEFAULT_CLASS_ALLOW_LIST, *ALLOWED_CLASSES}


def test_a_model_travels_as_the_file_that_it_is_and_names_network_and_inputs(tmp_path, capsys):
    model = clinical_model(tmp_path / "model.pt")
    assert main(["jobs", "export", str(tmp_path / "jobs"), "--only", "explain", "--model", str(model)]) == 0
    job = tmp_path / "jobs" / "explain"
    assert f"wrote {job}" in capsys.readouterr().out
    assert (job / "app" / "config" / "model.pt").read_bytes() == model.read_bytes()
    assert not (job / "app" / "custom").exists()
    for side in ("server", "client"):
        assert arguments(job, side)["network"]["path"] == "mhsev_monai.networks.SeverityMLP"
        assert arguments(job, side)["inputs"]["args"] == {"columns": ["age", "sex", "hypertension", "prior_stroke"]}
        # A vector network's background is rows, a candidate network's scans.
        assert arguments(job, side)["plan"]["args"]["n_background"] == BACKGROUND_ROWS != BACKGROUND_SCANS
    # Exported again without, the model of before does not stay.
    assert main(["jobs", "export", str(tmp_path / "jobs"), "--only", "explain"]) == 0
    assert not (job / "app" / "config" / "model.pt").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "associations", "--model", "MODEL"], "--model goes with --only explain"),
        (["--model", "MODEL"], "--model goes with --only explain"),
        (["--only", "associations", "--encrypted"], "trains nothing"),
        (["--only", "explain", "--resume"], "trains nothing"),
        (["--only", "explain", "--model", "NONE"], "no model there"),
        (["--only", "explains"], "there is no job called explains; there are dsd_mlp"),
    ],
)
def test_a_call_that_cannot_be_is_refused_in_words(tmp_path, capsys, options, words):
    model = clinical_model(tmp_path / "model.pt")
    given = [{"MODEL": str(model), "NONE": str(tmp_path / "none" / "model.pt")}.get(word, word) for word in options]
    assert main(["jobs", "export", str(tmp_path / "jobs"), *given]) == 2
    assert words in capsys.readouterr().err


def test_a_simulator_that_has_no_sites_or_no_such_job_is_not_started(tmp_path, capsys):
    call = ["simulator", "run", "associations", str(tmp_path / "run"), "--cohort", str(tmp_path)]
    assert main(call) == 2
    assert "holds no folder site-1" in capsys.readouterr().err
    (tmp_path / "site-1").mkdir()
    assert main(["simulator", "run", "dream", *call[3:]]) == 2
    assert "there is no job called dream; there are dsd_mlp" in capsys.readouterr().err
    assert main([*call[:2], "dsd_mlp", *call[3:], "--model", "model.pt"]) == 2
    assert "dsd_mlp makes a model" in capsys.readouterr().err


def test_a_recipe_exports_the_job_of_its_name(tmp_path):
    for name in ANALYSIS_JOBS:
        AnalysisRecipe(name).export(str(tmp_path / "recipe"))
        table = write_job(analysis_job(ANALYSIS_JOBS[name]), tmp_path / "table")
        for side in ("server", "client"):
            assert arguments(tmp_path / "recipe" / name, side) == arguments(table, side)
    model = clinical_model(tmp_path / "model.pt")
    assert AnalysisRecipe("explain", model).spec.network.in_features == 8
    assert AnalysisRecipe("associations", cuts=(1, 6)).spec.cuts == (1, 6)
    with pytest.raises(ValueError, match="there is no analysis called dream"):
        AnalysisRecipe("dream")
    with pytest.raises(ValueError, match="associations has none"):
        AnalysisRecipe("associations", model)


def test_a_model_file_of_another_name_is_refused(tmp_path):
    model = clinical_model(tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"must be called model\.pt, got best\.pt"):
        explanation_of(model, ANALYSIS_JOBS["explain"])
