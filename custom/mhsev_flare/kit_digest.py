"""The digest of a startup kit: what it held when it was made, so that a change on its way or at the site is seen.

FLARE 2.9 signs the files of kits for confidential computing and homomorphic encryption alone. Of a plain kit it checks
none: a changed ``authorization.json`` or ``fed_client.json`` is taken as it is. The digest is signed by the project's
root CA where the kit is made with that key at hand, and unsigned where a site packages its own kit. The start scripts
of a kit run this module on it and go no further where it differs.

FLARE reads ``local/NAME`` before ``local/NAME.default``, so that a file which is added changes what a kit does as much
as one that is edited. In ``startup`` and ``local/custom`` no site adds any, and there an addition is a difference. In
the rest of ``local`` a site writes its own decisions, which :func:`added_by_site` lists.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from nvflare.lighter.utils import sign_content, verify_content

DIGEST_FILE = "kit_digest.json"
ROOT_CERTIFICATE = Path("startup", "rootCA.pem")
FOLDERS = ("startup", "local")
NO_SITE_ADDS_TO = ("startup/", "local/custom/")
OVERRIDING = (
    "resources.json",
    "*_resources.json",
    "authorization.json",
    "log_config.json",
    "comm_config.json",
    "study_registry.json",
    "study_runtime.yaml",
    "python",
)
"""Names in ``local`` that FLARE 2.9, or our start script, reads instead of what the kit came with or beside it."""


class KitDigestError(ValueError):
    """A folder that is no kit, or whose digest cannot be read."""


class KitCheck(NamedTuple):
    """What a kit's digest says of it.

    Args:
        is_signed: whether the digest bears a signature. Without one it shows mistakes alone: who changes a file on
            purpose can change the digest too.
        differences: from the kit as it was made, one sentence each.
    """

    is_signed: bool
    differences: tuple[str, ...]


def write_digest(kit: Path, root_key: Any = None) -> None:
    """Write the digests of all files below ``startup`` and ``local`` into the kit.

    Args:
        kit: folder of one participant.
        root_key: private key of the project's root CA; None leaves the digest unsigned.
    """
    files = {name: _sha256(kit / name) for name in _files(kit)}
    signature = None if root_key is None else sign_content(_content(files), root_key)
    stored = {"format": 1, "files": files, "signature": signature}
    (kit / DIGEST_FILE).write_text(json.dumps(stored, indent=1) + "\n")


def check_digest(kit: Path) -> KitCheck:
    """Compare a kit with its digest.

    Files that a site adds to ``local`` are its own and make no difference, see :func:`added_by_site`. The signature is
    checked with the kit's own root certificate: whoever exchanged that as well has a kit that the server refuses.

    Raises:
        KitDigestError: where there is no digest, or none that can be read.
    """
    files, signature = _read(kit)
    found = []
    if signature is not None and not _is_signed(files, signature, kit / ROOT_CERTIFICATE):
        found.append(f"{DIGEST_FILE} is not signed by the root CA of this kit; ask for the kit again")
    for name, digest in sorted(files.items()):
        path = kit / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif _sha256(path) != digest:
            found.append(f"{name} is not as it was made")
    found += [f"{name} was added since it was made" for name in _added(kit, files) if _is_closed(name)]
    return KitCheck(signature is not None, tuple(found))


class Additions(NamedTuple):
    """Files of ``local`` that the digest lacks, and that nothing compares.

    Args:
        overriding: take the place of what was provisioned, or are read beside it (``OVERRIDING``).
        others: the rest, such as the site's ``privacy.json``.
    """

    overriding: tuple[str, ...]
    others: tuple[str, ...]

    def sentences(self) -> list[str]:
        """What was added, one sentence a kind."""
        told = []
        if self.overriding:
            told.append(f"added by this site: {', '.join(self.overriding)} (they override the kit's own)")
        if self.others:
            told.append(f"added by this site: {', '.join(self.others)}")
        return told


def added_by_site(kit: Path) -> Additions:
    """What a site, or somebody before it, added to ``local`` beside ``local/custom``.

    Raises:
        KitDigestError: as :func:`check_digest`.
    """
    names = [name for name in _added(kit, _read(kit)[0]) if not _is_closed(name)]
    overriding = [name for name in names if any(fnmatch(name, f"local/{pattern}") for pattern in OVERRIDING)]
    return Additions(tuple(overriding), tuple(name for name in names if name not in overriding))


def start_refusal(kit: Path) -> str | None:
    """Why a kit must not be started, in one sentence; None where nothing that was made is changed.

    What the site added to ``local`` does not count. Neither does a missing signature: a kit that its owner packaged has
    none.
    """
    try:
        differences = check_digest(kit).differences
    except KitDigestError as error:
        differences = (str(error),)
    if not differences:
        return None
    more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
    return (
        f"this kit is not started: {'; '.join(differences[:3])}{more}. Ask for the kit again; if it was you who "
        "changed it, put your setting into a file of its own in local, or start with MHSEV_KIT_CHECK=off"
    )


def _added(kit: Path, digested: Collection[str]) -> Sequence[str]:
    return [name for name in _files(kit) if name not in digested]


def _is_closed(name: str) -> bool:
    # `local/custom` itself may be a link in the place of the folder.
    return f"{name}/".startswith(NO_SITE_ADDS_TO)


def _files(kit: Path) -> Sequence[str]:
    """All that is no folder; a link to a folder counts as a file, since Python looks into it and ``rglob`` does not."""
    paths = (path for folder in FOLDERS for path in (kit / folder).rglob("*"))
    return sorted(path.relative_to(kit).as_posix() for path in paths if path.is_symlink() or not path.is_dir())


def _read(kit: Path) -> tuple[dict[str, str], str | None]:
    path = kit / DIGEST_FILE
    if not path.is_file():
        raise KitDigestError(f"{kit} has no {DIGEST_FILE}: it is no kit, or was made without SitePolicyBuilder")
    try:
        stored = json.loads(path.read_text())
        files = {str(name): str(digest) for name, digest in stored["files"].items()}
        signature = stored["signature"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KitDigestError(f"{path} cannot be read ({type(error).__name__}); ask for the kit again") from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise KitDigestError(f"{path} names files outside of the kit; ask for the kit again")
    return files, None if signature is None else str(signature)


def _is_signed(files: dict[str, str], signature: str, root_certificate: Path) -> bool:
    try:
        root = x509.load_pem_x509_certificate(root_certificate.read_bytes())
        verify_content(_content(files), signature, root.public_key())
    except (OSError, ValueError, InvalidSignature):
        return False
    return True


def _content(files: dict[str, str]) -> str:
    return json.dumps(files, sort_keys=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    refusal = start_refusal(Path(sys.argv[1]))
    if refusal is not None:
        sys.exit(f"mhsev: {refusal}")
