"""Whether a site can take part: one finding a check, in the order in which a site is set up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from mhsev_flare.job_spec import JobSpec
from mhsev_flare.site_check.data import check_data_root, check_masks, check_participants, check_scans
from mhsev_flare.site_check.environment import check_packages, check_python
from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.kit import check_certificate, check_files, check_integrity, check_key
from mhsev_flare.site_check.machine import (
    check_cache,
    check_cores,
    check_disk,
    check_gpu,
    check_kit_writable,
    check_memory,
)
from mhsev_flare.site_check.network import check_server
from mhsev_flare.site_check.report import FAIL, Finding
from mhsev_flare.site_check.rights import check_classes, check_code, check_logs, check_policy
from mhsev_flare.site_config import Kit

Check = Callable[[SiteFacts], Finding]


def checks(network: bool = True) -> dict[str, Check]:
    """The checks by their names, in order."""
    return {
        "python": check_python,
        "packages": check_packages,
        "kit": check_files,
        "private key": check_key,
        "certificate": check_certificate,
        "integrity": check_integrity,
        "server": partial(check_server, network=network),
        "classes": check_classes,
        "code of jobs": check_code,
        "logs": check_logs,
        "policy": check_policy,
        "data root": check_data_root,
        "scans": check_scans,
        "participants": check_participants,
        "lesion masks": check_masks,
        "cache": check_cache,
        "kit folder": check_kit_writable,
        "disk": check_disk,
        "memory": check_memory,
        "cores": check_cores,
        "GPU": check_gpu,
    }


def check_site(kit: Kit, spec: JobSpec, network: bool = True) -> Iterator[Finding]:
    """All findings, each as soon as it is there.

    Args:
        kit: startup kit of the site.
        spec: the job that is to run.
        network: whether to try the connection to the server.
    """
    facts = SiteFacts(kit, spec)
    for name, check in checks(network).items():
        try:
            yield check(facts)
        except Exception as error:
            # One check that fails in an unforeseen way must not hide the others; its text could name a case.
            found = f"the check itself failed with {type(error).__name__}"
            yield Finding(FAIL, name, found, "report it to the authors of mhsev, with the versions above")
