"""The jobs as FLARE recipes: ``SeverityRecipe("dsd_mlp").execute(SimEnv(...))``, or with ``PocEnv`` or ``ProdEnv``.

Imported by nothing else here: ``nvflare.recipe`` takes ``--export`` and ``--export-dir`` out of ``sys.argv`` when it
is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvflare.recipe import SimEnv
from nvflare.recipe.spec import ExecEnv, Recipe

from mhsev_flare.job_spec import OPTIMISERS, JobSpec
from mhsev_flare.jobs import INSTALLED_PACKAGES, JOBS, severity_job
from mhsev_flare.simulator import prepare_workspace


class SeverityRecipe(Recipe):
    """A job of ``JOBS``, or one's own, for FLARE's execution environments.

    A site finds its data by itself (``mhsev_flare.site``): in the simulator by the environment variable
    ``MHSEV_COHORT_ROOT``. Provisioned sites have the classes of ``mhsev_flare.allowed_classes`` in their
    ``class_allow_list``; simulated ones get that list here. ``PocEnv`` takes ``poc/project.yml`` as its
    ``project_conf_path``, without which its sites refuse these jobs.

    Args:
        job: name of a job, or its row.
        installed: further packages that the sites have, such as that of a model of one's own; the source of any other
            class is put into the job, which then needs each site's permission to bring code.
        changes: other values of the row's attributes, such as ``num_rounds=5``; ``optimiser`` also by its name,
            ``fedavg``, ``fedprox``, ``fedopt`` or ``scaffold``.

    Raises:
        ValueError: if there is no job or optimiser of that name.
        TypeError: if a row has no such attribute.
    """

    def __init__(self, job: str | JobSpec = "dsd_mlp", installed: Sequence[str] = (), **changes: Any) -> None:
        if isinstance(job, str) and job not in JOBS:
            raise ValueError(f"there is no job called {job}; there are {', '.join(JOBS)}")
        spec = JOBS[job] if isinstance(job, str) else job
        if isinstance(named := changes.get("optimiser"), str):
            if named not in OPTIMISERS:
                raise ValueError(f"there is no optimiser called {named}; there are {', '.join(OPTIMISERS)}")
            changes["optimiser"] = OPTIMISERS[named]
        self.spec = dataclasses.replace(spec, **changes)
        made = severity_job(self.spec)
        made.set_app_packages([*INSTALLED_PACKAGES, *installed])
        super().__init__(made)

    def process_env(self, env: ExecEnv) -> None:
        """Let the simulator's sites load this package's classes.

        Raises:
            WorkspaceError: if FLARE's simulator would delete what lies in the workspace.
        """
        if isinstance(env, SimEnv):
            prepare_workspace(Path(env.workspace_root, self.name))
