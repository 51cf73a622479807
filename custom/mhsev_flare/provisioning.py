"""Startup kits from a ``project.yml``: FLARE's own provisioning, behind a check that the site policy is part of it."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from mhsev_flare.kit_digest import ROOT_CERTIFICATE

EXAMPLE = Path(__file__).with_name("hospitals.yml")
"""A ``project.yml`` to begin with: a server, three hospitals with an admin each, a lead and a project admin."""

POLICY = "mhsev_flare.provision.SitePolicyBuilder"
STATIC_FILES = "nvflare.lighter.impl.static_file.StaticFileBuilder"
CERTS = "nvflare.lighter.impl.cert.CertBuilder"
CERTIFICATES = "*/startup/*.crt"
"""Below a folder of kits: one a kit."""


class ProjectError(ValueError):
    """A project that cannot be provisioned."""


@dataclass(frozen=True)
class Participant:
    """Who gets a kit.

    Args:
        name: of the kit's folder.
        kind: ``server``, ``client`` or ``admin``.
        org: organisation.
        role: of an admin; empty for others.
        is_new: whether its certificate is in no earlier kit of this project.
    """

    name: str
    kind: str
    org: str
    role: str
    is_new: bool


@dataclass(frozen=True)
class Kits:
    """What one provisioning made.

    Args:
        folder: holds a folder a participant.
        state: holds the root CA's private key and every participant's.
        valid_until: day on which the root CA's certificate ends; no participant's ends later.
        participants: in the order of the project.
    """

    folder: Path
    state: Path
    valid_until: datetime.date
    participants: tuple[Participant, ...]


def provision(project: Path, workspace: Path) -> Kits:
    """Make kits with ``nvflare provision``, in a new ``prod_NN`` where the project was provisioned there before.

    Args:
        project: a ``project.yml`` that names :class:`mhsev_flare.provision.SitePolicyBuilder` in the right place.
        workspace: folder of the kits and of the CA; made where it is absent.

    Raises:
        ProjectError: where the project or FLARE's provisioning of it is wrong.
        OSError: where the workspace cannot be written.
    """
    stored = read_project(project)
    base = workspace.resolve() / stored["name"]
    before = _generations(base)
    _close(base / "state")
    said = _nvflare("provision", "-p", str(project.resolve()), "-w", str(workspace.resolve()), "--force")
    made = sorted(set(_generations(base)) - set(before))
    if not made:
        raise ProjectError(f"FLARE could not provision it: {last_words(said)}")
    known = {certificate.read_bytes() for generation in before for certificate in generation.glob(CERTIFICATES)}
    participants = tuple(
        Participant(p["name"], p["type"], p["org"], p.get("role", ""), _certificate(made[-1] / p["name"]) not in known)
        for p in stored["participants"]
    )
    root = x509.load_pem_x509_certificate((made[-1] / participants[0].name / ROOT_CERTIFICATE).read_bytes())
    return Kits(made[-1], base / "state", root.not_valid_after_utc.date(), participants)


def read_project(path: Path) -> dict[str, Any]:
    """The project, checked for what FLARE would not miss: the site policy behind the files and before the certificates.

    Raises:
        ProjectError: where it cannot be read, or the builder is absent or in the wrong place.
    """
    if not path.is_file():
        raise ProjectError("there is no such file; write one with `mhsev provision --example FILE`")
    try:
        stored = yaml.safe_load(path.read_text())
        paths = [str(builder["path"]) for builder in stored["builders"]]
        name = stored["name"]
        whole = bool(name) and all({"name", "type", "org"} <= set(p) for p in stored["participants"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ProjectError(
            f"it is no project of FLARE's ({type(error).__name__}); see `mhsev provision --example FILE`"
        ) from error
    if not whole:
        raise ProjectError("the project has no name, or a participant without name, type or org; add it")
    # FLARE makes a folder of this name in the workspace.
    if not isinstance(name, str) or Path(name).name != name or name == "..":
        raise ProjectError(
            f"the project's name must be a text that can name a folder, such as mhsev_study, got {name!r}"
        )
    if POLICY not in paths:
        raise ProjectError(
            f"its builders lack {POLICY}, without which no site takes this package's jobs; add it before {CERTS}"
        )
    around = [paths.index(name) if name in paths else None for name in (STATIC_FILES, POLICY, CERTS)]
    if None in around or around != sorted(around, key=lambda place: place or 0):
        raise ProjectError(f"{POLICY} must stand behind {STATIC_FILES} and before {CERTS}; move it there")
    return dict(stored)


def _close(state: Path) -> None:
    """Let nobody else into the folder before FLARE writes into it.

    FLARE leaves the CA's private key there readable for every user of the machine, and does so too where it fails
    afterwards.
    """
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)


def _certificate(kit: Path) -> bytes:
    return next(iter(kit.glob("startup/*.crt"))).read_bytes()


def _generations(base: Path) -> list[Path]:
    return sorted(base.glob("prod_*"))


def _nvflare(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nvflare.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    return done.stdout + done.stderr


def last_words(said: str) -> str:
    """The last line of what FLARE's command printed that tells what was wrong."""
    told = [line for line in said.splitlines() if line.strip() and not line.startswith(("Hint", "Code"))]
    return told[-1] if told else "it said nothing"
