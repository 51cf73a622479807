"""What a site lets jobs name: all that jobs are made of, classes alone, and nothing that leads further."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.workspace import Workspace
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer

from mhsev_flare.allowed_classes import ALLOWED_CLASSES, JOB_CLASSES, LEAKING_CLASSES
from mhsev_flare.job_spec import OPTIMISERS
from mhsev_flare.jobs import JOBS, export_job
from mhsev_flare.simulator import prepare_workspace
from mhsev_flare.site_policy_file import BLOCKER, CLEANSER, GUARD
from mhsev_monai.private_training import PrivacyParameters


def class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            yield value["path"]
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from class_paths(part)


def named_by(job: Path) -> set[str]:
    return {path for file in job.rglob("*.json") for path in class_paths(json.loads(file.read_text()))}


def private(spec):
    return dataclasses.replace(spec, twins=False, site_models=False, privacy=PrivacyParameters(1.0, 1.0, 1e-3))


VARIANTS = {
    **JOBS,
    **{f"with {name}": dataclasses.replace(JOBS["dsd_mlp"], optimiser=own) for name, own in OPTIMISERS.items()},
    "with privacy": private(JOBS["dsd_mlp_literal"]),
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_site_allows_every_class_that_a_job_names(tmp_path, name):
    named = named_by(export_job(VARIANTS[name], tmp_path))
    assert named
    assert named <= {*DEFAULT_CLASS_ALLOW_LIST, *ALLOWED_CLASSES}
    assert named.isdisjoint(LEAKING_CLASSES)


@pytest.mark.parametrize("path", ALLOWED_CLASSES)
def test_what_is_allowed_is_a_class_by_its_own_name(path):
    """FLARE would call a function as it calls a class."""
    pytest.importorskip("tenseal") if "encrypted" in path else None
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name)
    assert inspect.isclass(found)
    assert found.__module__ == module


def test_the_filters_of_a_policy_are_allowed():
    assert {GUARD, CLEANSER, BLOCKER} <= set(ALLOWED_CLASSES)


@pytest.mark.parametrize(
    "path", ["mhsev_flare.cli.main", "mhsev_flare.simulator.run_simulator", "mhsev_flare.executor.torch.load"]
)
def test_flare_refuses_functions_of_this_package(tmp_path, path):
    """A job that called the command line could rewrite the site's policy."""
    prepare_workspace(tmp_path / "workspace")
    (tmp_path / "workspace" / "startup").mkdir()
    workspace, authorizer = Workspace(str(tmp_path / "workspace"), "site-1"), ComponentPathAuthorizer()
    authorizer.authorize_component_config({"path": JOB_CLASSES[0], "args": {}}, workspace=workspace)
    with pytest.raises(UnsafeComponentError, match="not in allow_list"):
        authorizer.authorize_component_config({"path": path, "args": {}}, workspace=workspace)
