"""Runs the small job as a recipe in an environment of FLARE's, in a process of its own: ``run_recipe.py WHAT FOLDER``.

FLARE's recipes read ``sys.argv`` when they are imported, and its admin session keeps threads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nvflare.recipe import PocEnv, ProdEnv
from nvflare.recipe.spec import ExecEnv
from tiny_study import TEST_MODULES, tiny_spec

from mhsev_flare.recipes import SeverityRecipe
from mhsev_flare.result import read_run


def environment(what: str, where: Path) -> ExecEnv:
    """``poc`` with a project file, ``prod`` with an admin's kit; FLARE's 5 s to log in are few beside other work."""
    if what == "poc":
        return PocEnv(project_conf_path=str(where), extra={"login_timeout": 60.0})
    return ProdEnv(startup_kit_location=str(where), username=where.name, login_timeout=60.0)


def main(what: str, where: Path) -> None:
    """Run it to its end, and print what became of it."""
    # PocEnv submits as soon as FLARE's processes are started: the job itself has to wait for all three sites.
    spec = tiny_spec(num_rounds=2, min_sites=3 if what == "poc" else 0)
    recipe = SeverityRecipe(spec, installed=[module.rstrip(".") for module in TEST_MODULES])
    run = recipe.execute(environment(what, where))
    assert run is not None
    found = run.get_result(timeout=180.0, clean_up=False)
    assert found is not None
    result, ledger, model = read_run(Path(found))
    sites = ",".join(sorted(result["sites"]))
    print(f"ended {run.get_status()} {result['status']} {len(ledger)} {sites} {model.is_file()}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
