"""The jobs as recipes: the same job as the exported one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mhsev_flare.jobs import JOBS, export_job
from mhsev_flare.recipes import SeverityRecipe


@pytest.mark.parametrize("name", list(JOBS))
def test_a_recipe_exports_the_job_of_its_name(tmp_path, name):
    SeverityRecipe(name).export(str(tmp_path / "recipe"))
    export_job(JOBS[name], tmp_path / "table")
    configs = [
        {
            path.name: json.loads(path.read_text())
            for path in sorted((tmp_path / folder / name).rglob("config_fed_*.json"))
        }
        for folder in ("recipe", "table")
    ]
    assert configs[0]
    assert configs[0] == configs[1]


def test_changes_are_those_of_the_row():
    recipe = SeverityRecipe("dsd_mlp", num_rounds=3)
    assert recipe.spec.num_rounds == 3
    assert JOBS["dsd_mlp"].num_rounds != 3
    assert SeverityRecipe(JOBS["cnn3d"]).name == "cnn3d"
    with pytest.raises(ValueError, match="there is no job called dream; there are dsd_mlp"):
        SeverityRecipe("dream")
    with pytest.raises(TypeError):
        SeverityRecipe("dsd_mlp", rounds=3)


def test_no_other_module_imports_flares_recipes():
    """Which would take arguments of their names out of the command line of any program."""
    code = "import sys, mhsev_flare.cli, mhsev_flare.jobs, mhsev_flare.executor, mhsev_flare.controller; "
    code += "print('nvflare.recipe.spec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
