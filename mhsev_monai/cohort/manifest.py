"""What a cohort on disk was made from, and a checksum of every file that was written for it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mhsev_monai._version import __version__
from mhsev_monai.cohort.disease import DIFFICULTIES
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.errors import CohortError

IMAGE_VERSION = 4
"""Raised whenever the same seed makes other images, so that old and new subjects do not come to lie in one folder."""

MANIFEST = "cohort.json"
CHECKSUMS = "manifest.sha256"
"""Lines of ``sha256sum``: ``sha256sum --check manifest.sha256`` works in the folder of the cohort."""

_LIBRARIES = ("numpy", "scipy", "nibabel", "nilearn")
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
# What is written for a cohort; features and other derivatives of its users are not.
_WRITTEN = ("*", "sub-*/**/*", "derivatives/truth/**/*")

Checksums = dict[str, str]
"""SHA-256 in hexadecimal by path under the folder of the cohort, with ``/``."""


class CohortCheck(NamedTuple):
    """How the files of a cohort compare with its checksums.

    Attributes:
        n_files: listed.
        missing: paths of files that are not there.
        changed: paths of files whose bytes are others.
        unlisted: paths of files among the cohort's own that are not listed.
    """

    n_files: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    unlisted: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.changed or self.unlisted)

    def __str__(self) -> str:
        lines = [f"files        {self.n_files}"]
        for name in ("missing", "changed", "unlisted"):
            paths = getattr(self, name)
            lines.append(f"{name:<13}{len(paths)}")
            lines += [f"  {path}" for path in paths]
        return "\n".join(lines)


def cohort_parameters(seed: int, hospitals: Sequence[Hospital], settings: CohortSettings) -> dict[str, Any]:
    """What decides a subject's bytes, as JSON gives it back.

    Args:
        seed: of everything random.
        hospitals: protocols and patients.
        settings: of the cohort; where backgrounds lie is not told, but how many they are and a checksum of them.

    Raises:
        CohortError: if the folder of backgrounds cannot be used.
    """
    chosen = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    if settings.backgrounds is not None:
        from mhsev_monai.cohort.backgrounds import background_summary

        chosen["backgrounds"] = background_summary(settings.backgrounds)
    parameters = {
        "seed": seed,
        **chosen,
        "bleeds": DIFFICULTIES[settings.difficulty]._asdict(),
        "image_version": IMAGE_VERSION,
        "hospitals": [dataclasses.asdict(hospital) for hospital in hospitals],
    }
    restored: dict[str, Any] = json.loads(json.dumps(parameters))
    return restored


def manifest_text(n_subjects: int, parameters: dict[str, Any]) -> str:
    """The text of ``cohort.json``."""
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    manifest = {"n_subjects": n_subjects, **parameters, "versions": {"mhsev": __version__, **versions}}
    return json.dumps(manifest, indent=2) + "\n"


def check_out(out: Path, parameters: dict[str, Any], n_subjects: int) -> None:
    """Refuse a folder that holds something else than a cohort of these parameters and of no more subjects.

    Raises:
        CohortError: with what is in the way.
    """
    if out.exists() and not out.is_dir():
        raise CohortError("the place for the cohort is a file; name a new or an empty folder")
    if not out.is_dir() or not any(not path.name.startswith(".") for path in out.iterdir()):
        return
    try:
        held = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        n_held = int(held["n_subjects"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        raise CohortError(
            "the folder for the cohort holds files that are no cohort; name a new or an empty folder"
        ) from None
    other = [name for name in parameters if held.get(name) != parameters[name]]
    if other:
        raise CohortError(
            f"the folder holds a cohort made with other parameters ({', '.join(other)}); choose another folder"
        )
    if n_held > n_subjects:
        raise CohortError(
            f"the folder holds a cohort of {n_held} subjects, {n_subjects} were asked for; "
            f"ask for {n_held} or more, or choose another folder"
        )


def checksums_text(out: Path, known: Checksums, sites: Iterable[str]) -> str:
    """The text of ``manifest.sha256`` for the files that are there.

    Args:
        out: folder of the cohort.
        known: checksums that stay as they are, such as those of subjects that were there before: so a file that was
            damaged since is found, not confirmed.
        sites: names of the hospitals' folders.
    """
    checksums = {
        path: known.get(path) or hashlib.sha256((out / path).read_bytes()).hexdigest() for path in written(out, sites)
    }
    # A listed file that is gone stays listed, for the check to miss it.
    return "".join(f"{digest}  {path}\n" for path, digest in sorted((known | checksums).items()))


def known_checksums(out: Path, is_kept: Callable[[str], bool]) -> Checksums:
    """The checksums in a cohort's folder of the paths for which ``is_kept``; none if there is no list."""
    try:
        listed = read_checksums(out)
    except FileNotFoundError:
        return {}
    return {path: digest for path, digest in listed.items() if is_kept(path)}


def read_checksums(out: Path) -> Checksums:
    """What ``manifest.sha256`` lists.

    Raises:
        FileNotFoundError: if there is none.
        CohortError: if a line of it is malformed.
    """
    lines = (out / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    matches = [_LINE.fullmatch(line) for line in lines]
    if not all(matches):
        number = matches.index(None) + 1
        raise CohortError(
            f"line {number} of {CHECKSUMS} is not a SHA-256, two blanks and a path; take the list from the original"
        )
    return {match.group(2): match.group(1) for match in matches if match}


def written(out: Path, sites: Iterable[str]) -> list[str]:
    """Paths of a cohort's own files, sorted; hidden ones only where BIDS has them."""
    found = {MANIFEST} if (out / MANIFEST).is_file() else set()
    for site in sites:
        for pattern in _WRITTEN:
            for path in (out / site).glob(pattern):
                relative = path.relative_to(out)
                hidden = any(part.startswith(".") and part != ".bidsignore" for part in relative.parts)
                if path.is_file() and not hidden:
                    found.add(relative.as_posix())
    return sorted(found)


def check_cohort(out: Path) -> CohortCheck:
    """Compare the files of a cohort with its checksums.

    Args:
        out: folder of the cohort.

    Raises:
        CohortError: if the folder is no finished cohort.
    """
    out = Path(out)
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        sites = [str(hospital["name"]) for hospital in manifest["hospitals"]]
        listed = read_checksums(out)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, TypeError):
        raise CohortError(
            f"the folder holds no finished cohort with {MANIFEST} and {CHECKSUMS}; "
            "name the folder that `mhsev cohort make` wrote, or finish it with the same command"
        ) from None
    present = {path for path in listed if (out / path).is_file()}
    changed = [path for path in present if hashlib.sha256((out / path).read_bytes()).hexdigest() != listed[path]]
    return CohortCheck(
        len(listed),
        tuple(sorted(set(listed) - present)),
        tuple(sorted(changed)),
        tuple(sorted(set(written(out, sites)) - set(listed))),
    )
