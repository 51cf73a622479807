"""The analyses as FLARE recipes: ``AnalysisRecipe("associations").execute(SimEnv(...))``, or with another environment.

Imported by nothing else here: ``nvflare.recipe`` takes ``--export`` and ``--export-dir`` out of ``sys.argv`` when it
is imported.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nvflare.recipe import SimEnv
from nvflare.recipe.spec import ExecEnv, Recipe

from mhsev_flare.analysis.jobs import ANALYSIS_JOBS, AnalysisSpec, ExplanationSpec, analysis_job, explanation_of
from mhsev_flare.simulator import prepare_workspace


class AnalysisRecipe(Recipe):
    """A job of ``ANALYSIS_JOBS``, or one's own.

    Args:
        job: name of a job, or its row.
        model: of a finished run, for the job ``explain``.
        changes: other values of the row's attributes, such as ``cuts=(1, 6)``.

    Raises:
        ValueError: if there is no job of that name, or a model goes with another job than ``explain``.
        TypeError: if a row has no such attribute.
    """

    def __init__(self, job: str | AnalysisSpec, model: Path | None = None, **changes: Any) -> None:
        if isinstance(job, str) and job not in ANALYSIS_JOBS:
            raise ValueError(f"there is no analysis called {job}; there are {', '.join(ANALYSIS_JOBS)}")
        spec = ANALYSIS_JOBS[job] if isinstance(job, str) else job
        if model is not None:
            if not isinstance(spec, ExplanationSpec):
                raise ValueError(f"a model goes with the job explain, and {spec.name} has none")
            spec = explanation_of(model, spec)
        self.spec: AnalysisSpec = dataclasses.replace(spec, **changes)
        super().__init__(analysis_job(self.spec))

    def process_env(self, env: ExecEnv) -> None:
        """Let the simulator's sites load this package's classes.

        Raises:
            WorkspaceError: if FLARE's simulator would delete what lies in the workspace.
        """
        if isinstance(env, SimEnv):
            prepare_workspace(Path(env.workspace_root, self.name))
