"""The commands of simulated hospitals: ``cohort make`` and ``cohort check``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, add_workers, complain, noun, positive, verb

# Spelt out here, since the settings would import the package that ``--help`` must not wait for.
DIFFICULTIES = ("easy", "moderate", "realistic", "hard")
MIXES = ("balanced", "lognormal")
LABELS = ("visible", "all")
CONTRASTS = ("dwi", "swi")
SIZES = ("full", "small")


def add_cohort(verbs: Any) -> None:
    """``mhsev cohort make OUT`` and ``mhsev cohort check OUT``."""
    nouns = noun(verbs, "cohort", "simulated hospitals")
    _add_make(nouns)
    check = verb(nouns, "check", "compare the files of simulated hospitals with their checksums", _check)
    check.add_argument("out", type=Path, help="folder that `mhsev cohort make` wrote")


def _add_make(nouns: Any) -> None:
    parser = verb(nouns, "make", "make simulated hospitals, one BIDS root each", _make)
    parser.add_argument("out", type=Path, help="folder for the hospitals")
    parser.add_argument("--subjects", type=positive, default=180, metavar="N", help="in all hospitals (default: 180)")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default: 1)")
    choices = (
        ("--difficulty", DIFFICULTIES, "size and contrast of bleeds, noise, and what looks like bleeds"),
        ("--mix", MIXES, "of counts: every severity about equally common, or as in real cohorts"),
        ("--label", LABELS, "what counts: bleeds that b = 0 shows, or every planted one"),
        ("--contrast", CONTRASTS, "diffusion, or gradient echo with full blooming"),
        ("--size", SIZES, "voxels of the protocol, or coarse ones for quick trials"),
    )
    for name, accepted, meaning in choices:
        parser.add_argument(name, choices=accepted, default=accepted[0], help=f"{meaning} (default: {accepted[0]})")
    parser.add_argument(
        "--negatives", type=float, default=0.1, metavar="SHARE", help="of subjects without a bleed (default: 0.1)"
    )
    parser.add_argument(
        "--backgrounds",
        type=Path,
        metavar="FOLDER",
        help="real diffusion scans to plant bleeds in, not simulated heads",
    )
    add_workers(parser)


def _make(options: argparse.Namespace) -> int:
    from mhsev_flare.progress import bar, cores
    from mhsev_monai.cohort import make_cohort
    from mhsev_monai.cohort.settings import CohortSettings

    try:
        settings = CohortSettings(
            difficulty=options.difficulty,
            mix=options.mix,
            negatives=options.negatives,
            label=options.label,
            contrast=options.contrast,
            size=options.size,
            backgrounds=options.backgrounds,
        )
        with bar("subjects", "subject") as progress:
            summary = make_cohort(
                options.out,
                options.subjects,
                options.seed,
                settings=settings,
                workers=options.workers or cores(),
                progress=progress,
            )
    except (ValueError, OSError, ImportError) as error:
        complain(error)
        return WRONG_CALL
    print(summary)
    return DONE


def _check(options: argparse.Namespace) -> int:
    from mhsev_monai.cohort.manifest import check_cohort

    try:
        check = check_cohort(options.out)
    except (ValueError, OSError) as error:
        complain(error)
        return WRONG_CALL
    print(check)
    return DONE if check.intact else DATA_SAY_NO
