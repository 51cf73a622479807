"""Checks of the software: the Python that starts the site, packages and their versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.report import FAIL, OK, WARN, Finding
from mhsev_flare.site_policy import REQUIRED

PACKAGE = "mhsev"
TOLD = ("mhsev", "nvflare", "monai", "torch")
PYTHON_VARIABLE = "MHSEV_PYTHON"

_QUESTION = """
import sys
from importlib import metadata
def of(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "no"
print(sys.version.split()[0], of("mhsev"), of("nvflare"))
"""


def check_python(facts: SiteFacts) -> Finding:
    """Whether the Python that the kit's start script would run has this package."""
    named = started_python(facts)
    path = shutil.which(named)
    remedy = "activate the environment of mhsev before start.sh, or put its bin folder first on PATH"
    if PYTHON_VARIABLE in facts.start_script():
        remedy = f"write {sys.executable} into local/python of the kit"
    if path is None:
        # A blank or a carriage return at the end is seen in quotes alone.
        told = named if named == named.strip() else repr(named)
        return Finding(FAIL, "python", f"the start script runs {told}, which is not there", remedy)
    try:
        asked = [path, "-c", _QUESTION]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout.split()
        python, mhsev, nvflare = said
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Finding(FAIL, "python", f"{path} does not answer ({type(error).__name__})", remedy)
    missing = [name for name, version in (("mhsev", mhsev), ("nvflare", nvflare)) if version == "no"]
    if missing:
        without = f"the start script runs {path} ({python}), which has no {' and no '.join(missing)}"
        return Finding(FAIL, "python", without, remedy)
    if mhsev != metadata.version(PACKAGE) or nvflare != metadata.version("nvflare"):
        other = f"the start script runs {path} with mhsev {mhsev} and nvflare {nvflare}, not this Python's"
        return Finding(WARN, "python", other, remedy)
    return Finding(OK, "python", f"{python}, {path}")


def started_python(facts: SiteFacts) -> str:
    """The Python of the kit's start script: FLARE's runs ``python3``, ours what the site names.

    The script takes the first line of ``local/python`` by ``head -n 1``, with all blanks that stand in it.
    """
    if PYTHON_VARIABLE not in facts.start_script():
        return "python3"
    try:
        first = (facts.kit.local / "python").read_bytes().split(b"\n", 1)[0]
    except OSError:
        first = b""
    # The shell leaves out null bytes.
    return os.environ.get(PYTHON_VARIABLE) or os.fsdecode(first.replace(b"\0", b"")) or "python3"


def check_packages(facts: SiteFacts) -> Finding:
    """Whether every package that mhsev needs is there in an accepted version."""
    extras = {"dp"} if facts.policy is not None and facts.policy.privacy.rule == REQUIRED else set()
    wanted = needed_packages(extras)
    wrong = [text for requirement in wanted if (text := version_complaint(requirement))]
    if wrong:
        extra = "[dp]" if extras else ""
        remedy = f"pip install -c constraints.txt '{PACKAGE}{extra}' in the environment of {Path(sys.prefix).name}"
        return Finding(FAIL, "packages", "; ".join(wrong), remedy)
    told = ", ".join(f"{name} {metadata.version(name)}" for name in TOLD)
    return Finding(OK, "packages", f"all {len(wanted)} are there: {told}")


def needed_packages(extras: set[str]) -> list[Requirement]:
    """What the installed mhsev needs, with these extras."""
    listed = [Requirement(line) for line in metadata.requires(PACKAGE) or []]
    environments = [{"extra": extra} for extra in ("", *sorted(extras))]
    return [r for r in listed if r.marker is None or any(r.marker.evaluate(e) for e in environments)]


def version_complaint(requirement: Requirement) -> str:
    """What is wrong with the installed version; empty where nothing is."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} where {requirement.specifier} is needed"
