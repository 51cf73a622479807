"""The command that writes a model as a MONAI bundle: ``bundle export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mhsev_flare.commands import DONE, WRONG_CALL, complain, noun, verb


def add_bundle(verbs: Any) -> None:
    """``mhsev bundle export --model MODEL OUT``."""
    nouns = noun(verbs, "bundle", "models as MONAI bundles")
    parser = verb(nouns, "export", "write a model as a MONAI bundle", _export)
    parser.add_argument("out", type=Path, help="folder of the bundle; must not exist")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a run")
    parser.add_argument("--name", metavar="TEXT", help="heading of the model card")
    parser.add_argument("--version", metavar="X.Y.Z", help="of the bundle (default: 0.1.0)")
    parser.add_argument("--authors", metavar="TEXT", help="who made the model (default: not stated)")
    parser.add_argument("--license", type=Path, metavar="FILE", help="terms of the bundle (default: those of mhsev)")


def _export(options: argparse.Namespace) -> int:
    from mhsev_monai.bundle_export import BundleError, BundleLabels, export_bundle
    from mhsev_monai.model_file import ModelFileError

    said = {name: getattr(options, name) for name in ("name", "version", "authors")}
    labels = {name: value for name, value in said.items() if value is not None}
    try:
        if options.license is not None:
            labels["licence"] = options.license.read_text()
        export_bundle(options.model, options.out, BundleLabels(**labels))
    except ModelFileError as error:
        complain(f"{options.model}: {error}")
        return WRONG_CALL
    except BundleError as error:
        complain(f"{options.out}: {error}")
        return WRONG_CALL
    except (OSError, UnicodeDecodeError) as error:
        complain(f"{options.out}: no bundle was written ({type(error).__name__}); look at the paths")
        return WRONG_CALL
    print(f"wrote {options.out}; run it there with `python -m monai.bundle run --config_file configs/inference.json`")
    return DONE
