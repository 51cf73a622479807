"""``mhsev provision``: startup kits for a server and hospitals, a project to begin with, and the check of a kit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, verb

if TYPE_CHECKING:
    from mhsev_flare.provisioning import Kits, Participant


def add_provision(verbs: Any) -> None:
    """Add ``mhsev provision``."""
    parser = verb(verbs, "provision", "make the startup kits of a server and its hospitals", _run)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("project", type=Path, nargs="?", help="project.yml of FLARE with this package's site policy")
    what.add_argument("--example", type=Path, metavar="FILE", help="write a project with three hospitals to begin with")
    what.add_argument("--verify", type=Path, metavar="KIT", help="tell what was changed in a kit since it was made")
    parser.add_argument(
        "--unsigned", action="store_true", help="with --verify: of a kit that its owner packaged, which nobody signed"
    )
    parser.add_argument(
        "--workspace", type=Path, default=Path("kits"), help="folder of the kits and of the CA (default: kits)"
    )


def _run(options: argparse.Namespace) -> int:
    if options.unsigned and options.verify is None:
        complain("--unsigned says how --verify looks at a kit; name the kit with --verify KIT, or leave it out")
        return WRONG_CALL
    if options.example is not None:
        return _write_example(options.example)
    if options.verify is not None:
        return _verify(options.verify, options.unsigned)
    return _provision(options.project, options.workspace)


def _provision(project: Path, workspace: Path) -> int:
    from mhsev_flare.provisioning import ProjectError, provision

    try:
        kits = provision(project, workspace)
    except (ProjectError, OSError) as error:
        complain(f"{project}: {error}")
        return WRONG_CALL
    print(describe_kits(kits))
    return DONE


def describe_kits(kits: Kits) -> str:
    """One kit a line: what it is, and who gets it."""
    lines = [f"kits    {kits.folder}"]
    lines += [f"  {p.name:<24}  {_receiver(p)}" for p in kits.participants if p.is_new]
    known = [p.name for p in kits.participants if not p.is_new]
    if known:
        lines.append(f"as before, with the same keys: {', '.join(known)}")
    lines += [
        "A kit holds its owner's private key: hand it over encrypted, to its owner alone.",
        f"keep    {kits.state}   (the CA's private key and all others: it makes members; never hand it over)",
        f"until   {kits.valid_until}   (the certificates end; before, provision into another workspace)",
    ]
    return "\n".join(lines)


def _receiver(participant: Participant) -> str:
    if participant.kind == "admin":
        return f"{participant.role} of {participant.org}, a person: `nvflare ... --startup-kit KIT`"
    what = "the server" if participant.kind == "server" else "the hospital's machine"
    return f"{what}, at {participant.org}: startup/start.sh"


def _write_example(path: Path) -> int:
    from mhsev_flare.provisioning import EXAMPLE

    if path.exists():
        complain(f"{path} exists; name a file that does not")
        return WRONG_CALL
    try:
        path.write_text(EXAMPLE.read_text())
    except OSError as error:
        complain(f"{path} cannot be written ({type(error).__name__}); name another file")
        return WRONG_CALL
    print(f"wrote {path}: change names, organisations and the server's host, then `mhsev provision {path}`")
    return DONE


def _verify(kit: Path, may_be_unsigned: bool) -> int:
    from mhsev_flare.kit_digest import KitDigestError, added_by_site, check_digest

    try:
        check, added = check_digest(kit), added_by_site(kit).sentences()
    except KitDigestError as error:
        complain(error)
        return WRONG_CALL
    complaints = list(check.differences)
    if not check.is_signed and not may_be_unsigned:
        complaints.append(
            "its digest is not signed, so that it shows mistakes, not intent; ask for the kit again, or add --unsigned "
            "for a kit that its owner packaged"
        )
    for sentence in complaints:
        complain(f"{kit}: {sentence}")
    for sentence in added:
        print(sentence)
    if added:
        print("What was added was not compared with anything: look at it, and remove what nobody here wrote.")
    if complaints:
        return DATA_SAY_NO
    proof = "signed by its project's CA" if check.is_signed else "which is not signed: it shows mistakes, not intent"
    print(f"{kit} is as its digest says, {proof}")
    return DONE
