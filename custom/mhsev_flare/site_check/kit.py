"""Checks of the startup kit: its files, its key, its certificate, and whether it is as it was made."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.report import FAIL, OK, WARN, Finding

STARTUP_FILES = ("fed_client.json", "client.crt", "client.key", "rootCA.pem", "start.sh", "sub_start.sh")
KEY, CERTIFICATE, ROOT = "client.key", "client.crt", "rootCA.pem"
ANEW = "ask the server's administrator for the kit anew"
DAYS_BEFORE = 30
"""A study takes weeks; a certificate that ends sooner ends the study."""


def check_files(facts: SiteFacts) -> Finding:
    """Whether the kit has the files that FLARE starts with."""
    missing = [name for name in STARTUP_FILES if not (facts.kit.startup / name).is_file()]
    resources = [facts.kit.local / name for name in ("resources.json", "resources.json.default")]
    if not any(path.is_file() for path in resources):
        missing.append("local/resources.json.default")
    if missing:
        return Finding(FAIL, "kit", f"the kit of {facts.kit.site} lacks {', '.join(missing)}", ANEW)
    return Finding(OK, "kit", f"the kit of {facts.kit.site} is complete")


def check_key(facts: SiteFacts) -> Finding:
    """Whether the private key is this certificate's, and nobody else may read it."""
    path = facts.kit.startup / KEY
    if not path.is_file():
        return Finding(FAIL, "private key", "there is none", ANEW)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        found = f"others on this machine may read it (mode {mode:04o})"
        return Finding(FAIL, "private key", found, f"chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((facts.kit.startup / CERTIFICATE).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        return Finding(FAIL, "private key", f"key or certificate cannot be read ({type(error).__name__})", ANEW)
    if key.public_key() != certificate.public_key():
        return Finding(FAIL, "private key", "it does not belong to the certificate", ANEW)
    return Finding(OK, "private key", f"belongs to the certificate, mode {mode:04o}")


def check_certificate(facts: SiteFacts) -> Finding:
    """Whether the certificate is valid today, for a while to come, and by the kit's own root."""
    try:
        own, root = (x509.load_pem_x509_certificate((facts.kit.startup / n).read_bytes()) for n in (CERTIFICATE, ROOT))
    except (OSError, ValueError) as error:
        return Finding(FAIL, "certificate", f"it cannot be read ({type(error).__name__})", ANEW)
    try:
        own.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        return Finding(FAIL, "certificate", "it is not of this kit's rootCA.pem", ANEW)
    now = datetime.now(UTC)
    begin = max(own.not_valid_before_utc, root.not_valid_before_utc)
    end = min(own.not_valid_after_utc, root.not_valid_after_utc)
    if now < begin:
        return Finding(FAIL, "certificate", f"valid from {begin:%Y-%m-%d} on only", "check the clock of this machine")
    if now > end:
        return Finding(FAIL, "certificate", f"ended on {end:%Y-%m-%d}", ANEW)
    days = (end - now).days
    found = f"valid until {end:%Y-%m-%d}, {days} days"
    return (
        Finding(WARN, "certificate", found, f"{ANEW} in time")
        if days < DAYS_BEFORE
        else Finding(OK, "certificate", found)
    )


def check_integrity(facts: SiteFacts) -> Finding:
    """Whether the kit's files are as they were made, where FLARE signed them or the kit has a digest."""
    from nvflare.fuel.sec.security_content_service import LoadResult, SecurityContentManager

    from mhsev_flare.kit_digest import DIGEST_FILE

    manager = SecurityContentManager(str(facts.kit.startup))
    changed = [name for name in manager.signature if manager.load_content(name)[1] != LoadResult.OK]
    if changed:
        return Finding(FAIL, "integrity", f"not as they were signed: {', '.join(sorted(changed))}", ANEW)
    # FLARE's signatures say nothing of files that they do not list, so the digest is asked beside them.
    if (facts.kit.folder / DIGEST_FILE).is_file():
        return _digest_finding(facts.kit.folder)
    if manager.signature:
        return Finding(OK, "integrity", f"{len(manager.signature)} files are as FLARE signed them")
    found = f"the kit has no {DIGEST_FILE} and no signatures: nothing shows whether it was changed"
    return Finding(WARN, "integrity", found, f"if it had one, {ANEW}")


def _digest_finding(kit: Path) -> Finding:
    from mhsev_flare.kit_digest import DIGEST_FILE, KitDigestError, added_by_site, check_digest

    try:
        digest, added = check_digest(kit), added_by_site(kit)
    except KitDigestError as error:
        return Finding(FAIL, "integrity", str(error), ANEW)
    told = [*digest.differences, *added.sentences()]
    if digest.differences:
        return Finding(WARN, "integrity", "; ".join(told), f"if nobody here changed it, {ANEW}")
    told.insert(0, f"all files are as {DIGEST_FILE} says, which is {'signed' if digest.is_signed else 'not signed'}")
    if not digest.is_signed:
        remedy = f"it shows mistakes, not intent; if you did not package the kit yourself, {ANEW}"
        return Finding(WARN, "integrity", "; ".join(told), remedy)
    if added.overriding:
        return Finding(WARN, "integrity", "; ".join(told), "look at them, and remove what nobody here wrote")
    return Finding(OK, "integrity", "; ".join(told))
