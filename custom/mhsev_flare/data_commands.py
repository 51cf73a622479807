"""The commands that turn a site's own files into features: ``ingest``, ``preprocess``, ``qc``, ``features``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, add_workers, complain, verb

if TYPE_CHECKING:
    from mhsev_monai.ingest.site import IngestSummary

# Spelt out here, since the enumeration would import the package that ``--help`` must not wait for.
CONTRASTS = ("dwi", "se-epi", "t2star", "swi")


def _add_contrast(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--contrast", choices=CONTRASTS, default=CONTRASTS[0], help=f"{what} (default: dwi)")


def add_ingest(verbs: Any) -> None:
    """``mhsev ingest SOURCE BIDS_ROOT``."""
    parser = verb(verbs, "ingest", "bring DICOM or NIfTI files into a BIDS root, without names", _ingest)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of any depth and mixture, or one file")
    parser.add_argument("root", type=Path, metavar="BIDS_ROOT", help="folder that receives the scans; made if absent")
    _add_contrast(parser, "the kind of scan to bring in; other kinds are left out")
    parser.add_argument(
        "--b-value", type=float, metavar="B", help="s/mm^2, of trace images in files of their own that do not tell it"
    )
    parser.add_argument(
        "--trace", action="store_true", help="also take trace-weighted series that hold b = 0 (no originals archived)"
    )
    parser.add_argument(
        "--site-folder",
        type=Path,
        metavar="FOLDER",
        help="where the secret and the table of subject keys lie, outside of BIDS_ROOT; back it up "
        "(default: MHSEV_SITE_FOLDER, or mhsev in your data folder)",
    )


def _ingest(options: argparse.Namespace) -> int:
    from mhsev_flare.progress import bar
    from mhsev_monai.errors import CohortError, ScanError
    from mhsev_monai.ingest.identity import SiteFolderError, SubjectKeys, default_site_folder
    from mhsev_monai.ingest.site import bring_in
    from mhsev_monai.ingest.source import look_through
    from mhsev_monai.scan_contrast import ScanContrast

    try:
        keys = SubjectKeys(options.site_folder or default_site_folder(), (options.root, options.source))
        with bar("headers", "file") as progress:
            found = look_through(options.source, options.root, progress)
        contrast = ScanContrast(options.contrast)
        with bar("series", "series") as progress:
            summary = bring_in(
                found,
                options.root,
                keys,
                contrast=contrast,
                b_value=options.b_value,
                trace=options.trace,
                progress=progress,
            )
    except (SiteFolderError, ScanError, CohortError, ImportError) as error:
        complain(error)
        return WRONG_CALL
    except OSError as error:
        # Its own text holds a path, and paths of an archive hold names.
        complain(f"a file cannot be read or written ({type(error).__name__}); check the disk and the permissions")
        return WRONG_CALL
    return _tell_ingest(summary, options.root)


def _tell_ingest(summary: IngestSummary, root: Path) -> int:
    """Print what became of the series; the status says no where one was refused or none accepted."""
    for entry in summary.entries:
        if entry.outcome == "refused":
            complain(f"{entry.subject or 'unknown patient'} {entry.session} {entry.kind}: refused: {entry.reason}")
    accepted = [entry for entry in summary.entries if entry.outcome == "accepted"]
    kinds: dict[str, int] = {}
    for entry in summary.entries:
        if entry.outcome == "left out":
            kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
    print(f"series         {len(summary.entries)}")
    print(f"accepted       {len(accepted)}   scans of {len({entry.subject for entry in accepted})} subjects")
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    print(f"left out       {summary.count('left out')}" + (f"   ({listed})" if listed else ""))
    print(f"refused        {summary.count('refused')}")
    if summary.n_others:
        print(f"other files    {summary.n_others}   neither DICOM nor NIfTI")
    print(f"wrote          {root}")
    if not accepted:
        complain("no series was accepted; the reasons stand in derivatives/mhsev/ingest.json of the BIDS root")
    return DONE if accepted and not summary.count("refused") else DATA_SAY_NO


def add_preprocess(verbs: Any) -> None:
    """``mhsev preprocess BIDS_ROOT``."""
    parser = verb(verbs, "preprocess", "write brain masks, bias-corrected and standardised scans", _preprocess)
    parser.add_argument("root", type=Path, metavar="BIDS_ROOT", help="folder with sub-*")
    parser.add_argument("--out", type=Path, help="folder for the results (default: derivatives/mhsev-preproc)")
    _add_contrast(parser, "which scans of the root")
    add_workers(parser)


def _preprocess(options: argparse.Namespace) -> int:
    from mhsev_flare.progress import bar, cores
    from mhsev_monai.cases import read_cases
    from mhsev_monai.derivatives import DERIVATIVES, write_derivatives
    from mhsev_monai.errors import CohortError
    from mhsev_monai.preprocessing import Preprocessing
    from mhsev_monai.scan_contrast import ScanContrast

    contrast = ScanContrast(options.contrast)
    out = options.out or options.root / DERIVATIVES
    try:
        listed = read_cases(options.root, require_counts=False, contrast=contrast)
        with bar(options.root.name, "scan") as progress:
            summary = write_derivatives(
                listed.cases, out, Preprocessing(contrast.b0_only), options.workers or cores(), progress
            )
    except CohortError as error:
        complain(f"{options.root}: {error}")
        return DATA_SAY_NO
    excluded = {**listed.excluded, **summary.failed}
    for case_id, reason in sorted(excluded.items()):
        complain(f"{case_id}: {reason}")
    print(f"preprocessed   {len(summary.made)}")
    print(f"up to date     {len(summary.kept)}")
    print(f"excluded       {len(excluded)}")
    print(f"wrote          {out}")
    return DATA_SAY_NO if excluded else DONE


def add_qc(verbs: Any) -> None:
    """``mhsev qc BIDS_ROOT``."""
    parser = verb(verbs, "qc", "write a page that shows every scan, its masks, its measures and what was excluded", _qc)
    parser.add_argument("root", type=Path, metavar="BIDS_ROOT", help="folder with sub-*")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: derivatives/mhsev/qc.html)")
    _add_contrast(parser, "which scans of the root")
    add_workers(parser)


def _qc(options: argparse.Namespace) -> int:
    from mhsev_flare.progress import bar, cores
    from mhsev_monai.errors import CohortError
    from mhsev_monai.qc import write_qc
    from mhsev_monai.scan_contrast import ScanContrast

    contrast = ScanContrast(options.contrast)
    try:
        with bar(options.root.name, "scan") as progress:
            summary = write_qc(
                options.root, options.out, contrast=contrast, workers=options.workers or cores(), progress=progress
            )
    except CohortError as error:
        complain(f"{options.root}: {error}")
        return DATA_SAY_NO
    except ImportError as error:
        complain(error)
        return WRONG_CALL
    for row in summary.excluded:
        if row.refused:
            complain(f"{row.case_id or 'image'}{f' ({row.series})' if row.series else ''}: {row.reason}")
    print(f"accepted       {summary.n_accepted}")
    print(f"flagged        {len(summary.flags)}   look at them on the page")
    print(f"excluded       {len(summary.excluded)}   ({summary.n_refused} for a fault)")
    print(f"wrote          {summary.page}")
    print(f"wrote          {summary.numbers}")
    # A flag is a reason to look, and a localiser that was left out is no fault.
    usable = summary.n_accepted + len(summary.flags)
    return DONE if usable and not summary.n_refused else DATA_SAY_NO


def add_landmarks(verbs: Any) -> None:
    """``mhsev landmarks QC_JSON ...``."""
    parser = verb(verbs, "landmarks", "make one intensity scale of several sites' landmark sums", _landmarks)
    parser.add_argument("files", type=Path, nargs="+", metavar="QC_JSON", help="qc.json of each site, from mhsev qc")
    parser.add_argument("--image", choices=("b0", "trace"), default="b0", help="which contrast (default: b0)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the scale, for NyulStandardize")


def _landmarks(options: argparse.Namespace) -> int:
    from mhsev_monai.errors import CohortError
    from mhsev_monai.preprocess.nyul import read_landmark_sums, write_scale

    sites = []
    for file in options.files:
        try:
            sites.append(read_landmark_sums(file, options.image))
        except CohortError as error:
            complain(f"{file}: {error}")
    if len(sites) < len(options.files):
        return DATA_SAY_NO
    try:
        write_scale(options.out, options.image, sites)
    except OSError as error:
        complain(f"{options.out}: cannot be written ({type(error).__name__}); name another file with --out")
        return WRONG_CALL
    print(f"sites          {len(sites)}")
    print(f"scans          {sum(site.n_scans for site in sites)}")
    print(f"wrote          {options.out}")
    return DONE


def add_features(verbs: Any) -> None:
    """``mhsev features BIDS_ROOT ...``."""
    parser = verb(verbs, "features", "compute and keep the features of every scan of BIDS roots", _features)
    parser.add_argument(
        "roots", type=Path, nargs="*", metavar="BIDS_ROOT", help="folder with participants.tsv and sub-*"
    )
    parser.add_argument("--job", default="dsd_mlp", metavar="NAME", help="whose features (default: dsd_mlp)")
    parser.add_argument(
        "--list",
        action="store_true",
        help="print each feature of the fixed-length vector, and each descriptor, instead",
    )
    parser.add_argument(
        "--no-twins", action="store_true", help="leave out those of protocol twins, which training alone needs"
    )
    parser.add_argument("--cache", type=Path, help="folder for the features (default: derivatives/mhsev of each root)")
    add_workers(parser)


def _features(options: argparse.Namespace) -> int:
    from mhsev_flare.progress import bar, cores
    from mhsev_flare.site import DERIVATIVES
    from mhsev_monai.cases import read_cases
    from mhsev_monai.errors import CohortError
    from mhsev_monai.feature_cache import compute_features
    from mhsev_monai.twin_inputs import TwinInputs

    if options.list:
        return _list_features()
    from mhsev_flare.jobs import JOBS

    if options.job not in JOBS:
        complain(f"there is no job {options.job}; there are {', '.join(JOBS)}")
        return WRONG_CALL
    if not options.roots:
        complain("features needs at least one BIDS root, or --list")
        return WRONG_CALL
    spec, status = JOBS[options.job], DONE
    for root in options.roots:
        try:
            listed = read_cases(root)
        except CohortError as error:
            complain(f"{root}: {error}")
            status = DATA_SAY_NO
            continue
        cache = options.cache or root / DERIVATIVES
        workers = options.workers or cores()
        without_twin: dict[str, str] = {}
        try:
            with bar(root.name, "scan") as progress:
                table = compute_features(listed.cases, spec.inputs, cache, workers, progress)
            if spec.twins and not options.no_twins:
                with bar(f"{root.name}, protocol twins", "scan") as progress:
                    twins = compute_features(listed.cases, TwinInputs(spec.inputs), cache, workers, progress)
                without_twin = {name: why for name, why in twins.failed.items() if name not in table.failed}
        except OSError as error:
            complain(f"{cache}: features cannot be written ({type(error).__name__}); name another folder with --cache")
            return DATA_SAY_NO
        excluded = {**listed.excluded, **table.failed}
        print(f"{root}: features of {len(table.case_ids)} scans, {len(excluded)} excluded")
        for case_id, reason in sorted(excluded.items()):
            complain(f"{root.name} {case_id}: {reason}")
        for case_id, reason in sorted(without_twin.items()):
            complain(f"{root.name} {case_id} trains without a protocol twin: {reason}")
        if excluded:
            status = DATA_SAY_NO
    return status


def _list_features() -> int:
    from mhsev_monai.dsd.features import FEATURES
    from mhsev_monai.noise_inputs import REPLACED, ContrastNoiseInputs

    for name in (*ContrastNoiseInputs.NAMES, *REPLACED):
        print(f"candidate {name}")
    for spec in FEATURES:
        print(f"{spec.name:<20}{spec.unit:<20}{f'{spec.low:g} to {spec.high:g}':<12}{spec.definition}")
    return DONE
