"""Checks of what jobs may do here: classes, code, logs, and the site's policy."""

from __future__ import annotations

import os
import re

from mhsev_flare.allowed_classes import ALLOWED_CLASSES, LEAKING_CLASSES
from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.report import FAIL, OK, WARN, Finding
from mhsev_flare.site_config import describe_privacy
from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import PolicyError
from mhsev_flare.site_policy_file import PRIVACY_FILE, filter_complaint

SECURE_LOGGING = "NVFLARE_SECURE_LOGGING"
_EXPORTED = re.compile(rf"^\s*export {SECURE_LOGGING}=[\"']?(1|true)[\"']?\s*$", re.MULTILINE | re.IGNORECASE)


def check_classes(facts: SiteFacts) -> Finding:
    """Whether jobs may name what this package's jobs are made of, and nothing that leads further."""
    resources = facts.local_json("resources.json")
    allowed = resources.get("class_allow_list") or []
    wide = [path for path in allowed if path == "*" or re.fullmatch(r"mhsev_(flare|monai)\.?", path)]
    if wide:
        found = f"class_allow_list holds {' and '.join(wide)}: a job may call any function of them, the commands too"
        return Finding(FAIL, "classes", found, "take it out of local/resources.json, or ask for the kit anew")
    missing = [path for path in ALLOWED_CLASSES if path not in allowed]
    if missing:
        found = f"class_allow_list lacks {len(missing)} of the classes of mhsev's jobs, such as {missing[0]}"
        return Finding(FAIL, "classes", found, "ask for the kit anew: `mhsev provision` writes them")
    leaking = [path for path in LEAKING_CLASSES if path in allowed]
    if leaking:
        found = f"class_allow_list holds {' and '.join(leaking)}: a job may send this site's logs and events away"
        return Finding(WARN, "classes", found, "take them out of class_allow_list of local/resources.json")
    mode = resources.get("class_list_enforcement_mode", "enforce")
    if mode != "enforce":
        found = f"class_list_enforcement_mode is {mode}: a job may name any class that is installed"
        return Finding(WARN, "classes", found, "set it to enforce in local/resources.json")
    return Finding(OK, "classes", "jobs may name the classes of mhsev and FLARE's own list")


def check_code(facts: SiteFacts) -> Finding:
    """Whether a job may bring code of its own."""
    permissions = facts.local_json("authorization.json").get("permissions")
    if not isinstance(permissions, dict):
        found = "local/authorization.json is not there or cannot be read"
        return Finding(FAIL, "code of jobs", found, "ask the server's administrator for the kit anew")
    # A role may be one word for all of its rights.
    rights = {
        role: right.get("byoc", "none") if isinstance(right, dict) else right for role, right in permissions.items()
    }
    may = sorted(role for role, right in rights.items() if right != "none")
    if may:
        found = f"{', '.join(may)} may send code of their own, which can read all that this account can"
        return Finding(WARN, "code of jobs", found, 'set "byoc" to "none" for each role in local/authorization.json')
    return Finding(OK, "code of jobs", "no role may send any")


def check_logs(facts: SiteFacts) -> Finding:
    """Whether logs stay here, and exceptions keep their texts."""
    resources = facts.local_json("resources.json")
    components = [entry.get("id") for entry in resources.get("components", []) if isinstance(entry, dict)]
    if resources.get("allow_log_streaming", True) is not False or "site_log_streamer" in components:
        found = "FLARE sends this site's error log to the server, with paths and names that stand in it"
        remedy = "set allow_log_streaming to false and take out site_log_streamer in local/resources.json"
        return Finding(FAIL, "logs", found, remedy)
    said = os.environ.get(SECURE_LOGGING, "").lower() in ("1", "true")
    if not said and not _EXPORTED.search(facts.start_script()):
        found = f"they stay here, but {SECURE_LOGGING} is not set: exceptions of FLARE are logged with their texts"
        return Finding(WARN, "logs", found, f"export {SECURE_LOGGING}=1 where the site is started")
    return Finding(OK, "logs", "they stay here, without the texts of exceptions")


def check_policy(facts: SiteFacts) -> Finding:
    """Whether the site's policy is written, whole, and can be loaded by FLARE."""
    write = "write it with `mhsev site-config`"
    try:
        stored = facts.stored
        complaint = filter_complaint(stored) if stored else ""
    except PolicyError as error:
        return Finding(FAIL, "policy", str(error), write)
    if not stored or facts.policy is None:
        found = f"there is none in local/{PRIVACY_FILE}: what leaves this site is for the jobs to decide"
        return Finding(WARN, "policy", found, write)
    if complaint:
        return Finding(FAIL, "policy", complaint, write)
    broken = _load_as_flare_does(facts)
    if broken:
        return Finding(FAIL, "policy", f"FLARE cannot load local/{PRIVACY_FILE} ({broken})", write)
    policy, others = facts.policy, len(stored["scopes"]) - 1
    numbers = f"numbers below {policy.least} hidden" if policy.least else "numbers of cases told exactly"
    blocked = f"; withheld: {', '.join(policy.blocked)}" if policy.blocked else ""
    found = f"{numbers}{blocked}; private training: {describe_privacy(policy.privacy)}"
    if others:
        found += f"; {others} other scopes, in which mhsev does nothing"
    try:
        policy.check_job(facts.spec.privacy)
    except SiteError as refusal:
        remedy = "agree with the study on such a job, or change the policy with `mhsev site-config`"
        return Finding(WARN, "policy", f"it would refuse {facts.spec.name} as it is shipped: {refusal}", remedy)
    return Finding(OK, "policy", found)


def _load_as_flare_does(facts: SiteFacts) -> str:
    """Type of the exception that loading ends with; empty where it ends well."""
    from nvflare.apis.workspace import Workspace
    from nvflare.private.fed.app.fl_conf import create_privacy_manager

    try:
        create_privacy_manager(Workspace(str(facts.kit.folder), facts.kit.site), names_only=False)
    except Exception as error:
        return type(error).__name__
    return ""
