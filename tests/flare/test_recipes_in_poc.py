"""A job as a recipe in FLARE's POC environment, with this package's project file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from poc_federation import free_port
from tiny_study import TEST_MODULES, make_sites

from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.site import COHORT_ROOT_VARIABLE

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2] / "poc" / "project.yml"


def project_of_tests(folder: Path) -> Path:
    """``poc/project.yml`` on a free port, whose sites take the classes of these tests too."""
    stored = yaml.safe_load(PROJECT.read_text())
    stored["participants"][0]["fed_learn_port"] = free_port()
    policy = next(b for b in stored["builders"] if b["path"].endswith("SitePolicyBuilder"))
    policy["args"]["allow"] = [*ALLOWED_CLASSES, *TEST_MODULES]
    path = folder / "project.yml"
    path.write_text(yaml.safe_dump(stored))
    return path


def test_a_recipe_runs_in_the_poc_environment(tmp_path):
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "NVFLARE_POC_WORKSPACE": str(tmp_path / "poc"),
        COHORT_ROOT_VARIABLE: str(make_sites(tmp_path / "cohort")),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, str(Path(__file__).with_name("run_recipe.py")), "poc", str(project_of_tests(tmp_path))]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "ended FINISHED:COMPLETED completed 3 site-1,site-2,site-3 True" in done.stdout, done.stdout + done.stderr
