"""What the checks of a site look at, found once and shared by them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from mhsev_flare.job_spec import JobSpec
from mhsev_flare.site import SiteFolders, find_site_folders
from mhsev_flare.site_config import Kit
from mhsev_flare.site_policy import PolicyError, SitePolicy
from mhsev_flare.site_policy_file import default_scope, read_privacy_file, stored_policy
from mhsev_monai.cases import CaseList, read_cases


@dataclass(frozen=True)
class SiteFacts:
    """A site before it joins.

    Attributes:
        kit: its startup kit.
        spec: the job that is to run.
    """

    kit: Kit
    spec: JobSpec

    @cached_property
    def stored(self) -> dict[str, Any]:
        """Its ``privacy.json``; raises ``PolicyError`` where that is malformed."""
        return read_privacy_file(self.kit.privacy_file)

    @cached_property
    def policy(self) -> SitePolicy | None:
        """Its policy; None where there is none that can be read, which ``check_policy`` tells."""
        try:
            return stored_policy(self.stored)
        except PolicyError:
            return None

    @cached_property
    def folders(self) -> SiteFolders:
        """Where its scans are, found as the executor finds them; raises ``SiteError`` and ``PolicyError``."""
        properties = (default_scope(self.stored) or {}).get("properties")
        return find_site_folders(self.kit.site, properties, self.kit.local)

    @cached_property
    def cases(self) -> CaseList:
        """Its cases; raises what :attr:`folders` raises, and ``CohortError``."""
        return read_cases(self.folders.data_root)

    def local_json(self, name: str) -> dict[str, Any]:
        """``local/NAME``, or the default that came with the kit; empty where neither is there or can be read."""
        for path in (self.kit.local / name, self.kit.local / f"{name}.default"):
            if path.is_file():
                try:
                    stored = json.loads(path.read_text())
                except (OSError, ValueError):
                    return {}
                return stored if isinstance(stored, dict) else {}
        return {}

    def start_script(self) -> str:
        """The script that starts the site; empty where it is not there."""
        path = self.kit.startup / "sub_start.sh"
        return path.read_text() if path.is_file() else ""

    def processes(self) -> list[psutil.Process]:
        """Those of the site that run: FLARE hands them the kit as the value of ``-m``.

        The kit's ``pid.fl`` is no sign of them: ``sub_start.sh --once`` writes none. A site in a container has another
        folder there and is not seen.
        """
        kit, found = os.path.realpath(self.kit.folder), []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            values = [value for option, value in pairwise(words) if option == "-m" and value.startswith("/")]
            if any(os.path.realpath(value) == kit for value in values):
                found.append(process)
        return found


def existing_folder(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
