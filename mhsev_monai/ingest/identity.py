"""Subject keys: pseudonyms that only the site can lead back to a patient.

A key is an HMAC-SHA-256 (RFC 2104) of the identifier under a secret of the site. Without the secret nobody can try
identifiers until one fits; with it the same patient gets the same key every time, so that all scans of one fall into
one part of a split. Secret and table lie in a folder of the site's own, outside of every data set.
"""

from __future__ import annotations

import csv
import hmac
import os
import secrets
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

SITE_FOLDER_VARIABLE = "MHSEV_SITE_FOLDER"
_SECRET, _TABLE, _UNREADABLE = "secret", "subject_keys.tsv", "unreadable_files.txt"
_SECRET_BYTES = 32
_SUBJECT_DIGITS, _SHORT_DIGITS = 16, 8


class SiteFolderError(ValueError):
    """The folder with the site's secret cannot be used."""


def default_site_folder() -> Path:
    """``MHSEV_SITE_FOLDER`` where it is set, else ``mhsev`` in the user's data folder (XDG base directories)."""
    chosen = os.environ.get(SITE_FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME")
    try:
        return Path(data) / "mhsev" if data else Path.home() / ".local" / "share" / "mhsev"
    except RuntimeError:
        raise SiteFolderError(
            f"there is no home folder for the site's secret; name a folder with --site-folder or {SITE_FOLDER_VARIABLE}"
        ) from None


class SubjectKeys:
    """The keys of one site.

    Args:
        folder: holds the secret (made at first use, 32 random bytes) and the table; readable by its owner alone. Back
            it up: with another secret every patient becomes a new subject.
        outside: folders that must not hold it, since they may be given away.

    Raises:
        SiteFolderError: if the folder lies inside one of ``outside``, cannot be written, or its secret is damaged.
    """

    def __init__(self, folder: Path, outside: tuple[Path, ...] = ()) -> None:
        folder = Path(folder).absolute()
        if any(folder.resolve().is_relative_to(other.resolve()) for other in outside):
            raise SiteFolderError(
                "the site folder lies inside the data set, so the secret would leave together with the data; "
                "name a folder elsewhere with --site-folder"
            )
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._secret = _secret(folder / _SECRET)
            self._known = _read_table(folder / _TABLE)
        except OSError as error:
            raise SiteFolderError(
                f"the site folder cannot be used ({type(error).__name__}); name another one with --site-folder"
            ) from None

    def subject(self, identifier: str) -> str:
        """``sub-<16 hexadecimal digits>`` of a patient, entered into the table at first sight.

        Args:
            identifier: what the hospital calls the patient: Patient ID with its issuer, or the name of a folder.
        """
        key = f"sub-{self._digest('patient', identifier, _SUBJECT_DIGITS)}"
        if key not in self._known:
            self._known.add(key)
            _append(self._folder / _TABLE, key, identifier)
        return key

    def session(self, patient: str, study: str) -> str:
        """``ses-<8 hexadecimal digits>`` of a study of a patient."""
        return f"ses-{self._digest('study', f'{patient}{chr(0)}{study}', _SHORT_DIGITS)}"

    def series(self, identifier: str) -> str:
        """8 hexadecimal digits that tell series of one study apart."""
        return self._digest("series", identifier, _SHORT_DIGITS)

    def note_unreadable(self, paths: Iterable[Path]) -> None:
        """Write down which files could not be read, for whoever may see their names."""
        descriptor = os.open(self._folder / _UNREADABLE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.writelines(f"{path}\n" for path in paths)

    def _digest(self, purpose: str, identifier: str, digits: int) -> str:
        message = f"{purpose}\0{identifier}".encode("utf-8", "surrogateescape")
        return hmac.new(self._secret, message, sha256).hexdigest()[:digits]


def _secret(path: Path) -> bytes:
    if not path.exists():
        made = secrets.token_bytes(_SECRET_BYTES)
        # Written beside and linked: of two processes that start together, one wins and both read its secret.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(made.hex() + "\n")
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    try:
        stored = bytes.fromhex(path.read_text().strip())
    except ValueError:
        stored = b""
    if len(stored) < _SECRET_BYTES:
        raise SiteFolderError(
            "the site's secret is damaged; restore it from its backup: a new one would give every patient a new key"
        )
    return stored


def _read_table(path: Path) -> set[str]:
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return {row[0] for row in csv.reader(stream, delimiter="\t") if row}


def _append(path: Path, key: str, identifier: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerow([key, identifier.replace("\0", " / ")])
