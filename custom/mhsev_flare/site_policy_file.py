"""A site's policy in FLARE's ``privacy.json``: read, merged into what stands there, and found by a running job.

A scope of that file has properties, which reach the executor, and filters, which FLARE runs on all that leaves the site
before any filter that a job names. A job may ask for a scope by name; without a name it gets the default one. FLARE
refuses a name that the file did not hold when the site was started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import CACHE_ROOT, DATA_ROOT, LESION_MASKS, POLICY, PolicyError, SitePolicy

PRIVACY_FILE = "privacy.json"
DEFAULT_SCOPE = "default"
FILTERS = ("task_data_filters", "task_result_filters")

GUARD = "mhsev_flare.payload_guard.PayloadGuard"
CLEANSER = "mhsev_flare.small_cell_cleanser.SmallCellCleanser"
BLOCKER = "mhsev_flare.entry_blocker.EntryBlocker"


def policy_filters(policy: SitePolicy) -> list[dict[str, Any]]:
    """The filters that enforce a policy, in the order in which a message meets them."""
    filters: list[dict[str, Any]] = []
    if policy.blocked:
        filters.append({"path": BLOCKER, "args": {"entries": list(policy.blocked)}})
    if policy.least:
        filters.append({"path": CLEANSER, "args": {"least": policy.least, "base": policy.base}})
    return [*filters, {"path": GUARD, "args": {}}]


def read_privacy_file(path: Path) -> dict[str, Any]:
    """What a ``privacy.json`` holds; an empty mapping where there is none.

    Raises:
        PolicyError: if it is not what FLARE reads.
    """
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text())
    except OSError as error:
        raise PolicyError(f"{PRIVACY_FILE} cannot be read ({type(error).__name__}); check its permissions") from error
    except ValueError as error:
        raise PolicyError(f"{PRIVACY_FILE} is not valid JSON; correct it, or move it away and begin anew") from error
    scopes = stored.get("scopes") if isinstance(stored, dict) else None
    if not isinstance(scopes, list) or not all(isinstance(s, dict) and isinstance(s.get("name"), str) for s in scopes):
        raise PolicyError(f"{PRIVACY_FILE} must hold scopes, a list of objects with a name each; correct it")
    if not all(isinstance(s.get("properties", {}), dict) for s in scopes):
        raise PolicyError(f"properties of a scope of {PRIVACY_FILE} are not an object; correct them")
    for key in FILTERS:
        if not all(isinstance(s.get(key, []), list) for s in scopes):
            raise PolicyError(f"{key} of a scope of {PRIVACY_FILE} are not a list; correct them")
        if not all(_is_filter(entry) for s in scopes for entry in s.get(key, [])):
            raise PolicyError(
                f"a filter in {key} of {PRIVACY_FILE} is not an object with a path, a text, and where it has a "
                "direction, one of in, out and inout; correct it"
            )
    return stored


def _is_filter(entry: Any) -> bool:
    # FLARE takes an empty direction for none.
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("path"), str)
        and isinstance(direction := entry.get("direction") or "out", str)
        and direction.lower() in ("in", "out", "inout")
    )


def default_scope(stored: Mapping[str, Any]) -> dict[str, Any] | None:
    """The scope of a job that names none; None where there is none."""
    return next((s for s in stored.get("scopes", []) if s["name"] == stored.get("default_scope")), None)


def stored_policy(stored: Mapping[str, Any]) -> SitePolicy | None:
    """The policy of the default scope; None where it has none.

    Raises:
        PolicyError: if it is malformed.
    """
    scope = default_scope(stored)
    properties = (scope or {}).get("properties", {})
    return SitePolicy.from_properties(properties) if POLICY in properties else None


def filter_complaint(stored: Mapping[str, Any]) -> str:
    """Why the filters of the default scope do not enforce its policy; empty where they do."""
    policy, scope = stored_policy(stored), default_scope(stored) or {}
    if policy is None:
        return "the default scope holds no policy of mhsev"
    found = [entry for entry in scope.get("task_result_filters", []) if _runs(entry)]
    paths = [entry.get("path") for entry in found]
    for expected in policy_filters(policy):
        same = [entry for entry in found if entry.get("path") == expected["path"]]
        if len(same) != 1 or (expected["path"] != GUARD and same[0].get("args") != expected["args"]):
            return f"the filters hold {len(same)} {expected['path'].rpartition('.')[2]} of what the policy says, not 1"
    if paths[-1] != GUARD:
        return "a filter stands behind PayloadGuard, which must be the last"
    if any((entry.get("direction") or "out").lower() not in ("out", "inout") for entry in found):
        return "a filter works on what comes in, not on what leaves"
    return ""


def _runs(entry: Any) -> bool:
    """Whether FLARE 2.9 builds the filter: it leaves out one that says ``"disabled": true``."""
    return isinstance(entry, dict) and entry.get("disabled") is not True


def merged(stored: Mapping[str, Any], policy: SitePolicy) -> dict[str, Any]:
    """``stored`` with the policy in its default scope; other scopes, filters and properties stay as they are.

    Filters of the site's own stand before ours, of which ``PayloadGuard`` keeps its arguments.
    """
    name = stored.get("default_scope") or DEFAULT_SCOPE
    scopes = [dict(scope) for scope in stored.get("scopes", [])]
    scope = next((s for s in scopes if s["name"] == name), None)
    if scope is None:
        scope = {"name": name}
        scopes.append(scope)
    ours = (DATA_ROOT, CACHE_ROOT, LESION_MASKS, POLICY)
    kept = {key: value for key, value in scope.get("properties", {}).items() if key not in ours}
    scope["properties"] = {**kept, **policy.properties()}
    found = scope.get("task_result_filters", [])
    paths = (GUARD, CLEANSER, BLOCKER)
    others = [entry for entry in found if not isinstance(entry, dict) or entry.get("path") not in paths]
    guard = next((entry for entry in found if _runs(entry) and entry.get("path") == GUARD), None)
    own = policy_filters(policy)
    scope["task_result_filters"] = [*others, *own[:-1], guard or own[-1]]
    return {**stored, "scopes": scopes, "default_scope": name}


def write_privacy_file(path: Path, content: Mapping[str, Any]) -> bool:
    """Write the file whole or not at all; whether it changed.

    Raises:
        OSError: if it cannot be written.
    """
    text = json.dumps(content, indent=2) + "\n"
    if path.is_file() and path.read_text() == text:
        return False
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
    return True


def policy_in_force(scope_properties: Mapping[str, Any] | None, local_folder: Path) -> SitePolicy:
    """The policy under which a job runs at this site; one without demands where the site has none.

    Args:
        scope_properties: the properties of the job's privacy scope, as FLARE hands them over.
        local_folder: the ``local`` folder of the site's workspace.

    Raises:
        SiteError: if the policy is malformed, or the job came by a scope that is not the policy's.
    """
    properties = scope_properties or {}
    try:
        if POLICY in properties:
            return SitePolicy.from_properties(properties)
        stored = read_privacy_file(local_folder / PRIVACY_FILE)
    except PolicyError as error:
        raise SiteError(
            "the policy of this site cannot be read, and nothing is done without it; write it with mhsev site-config"
        ) from error
    if any(POLICY in scope.get("properties", {}) for scope in stored.get("scopes", [])):
        raise SiteError("the job names a privacy scope without the policy of this site; send it without a scope")
    # A site that was set up by hand: its filters, if any, are all of its policy.
    return SitePolicy(least=0)
