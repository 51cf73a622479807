"""The command that shows a graded scan in a local browser: ``view``."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsev_flare.commands import DATA_SAY_NO, DONE, WRONG_CALL, complain, opened_model, positive, verb

if TYPE_CHECKING:
    from mhsev_monai.viewer import ServedFile

IDLE_MINUTES = 30


def add_view(verbs: Any) -> None:
    """``mhsev view SCAN --model MODEL``."""
    parser = verb(verbs, "view", "show a scan with its map and findings in a browser on this computer", _view)
    parser.add_argument("scan", type=Path, metavar="SCAN", help="NIfTI of a diffusion series, .bval beside it")
    parser.add_argument("--model", type=Path, required=True, help="model.pt of a run")
    parser.add_argument("--bval", type=Path, help="b-values of the scan, where they are not beside it")
    parser.add_argument("--b0-only", action="store_true", help="every volume is b = 0; no b-values are looked for")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: one that is free)")
    parser.add_argument(
        "--minutes",
        type=positive,
        default=IDLE_MINUTES,
        metavar="N",
        help=f"without a request until it ends by itself (default: {IDLE_MINUTES})",
    )


def _view(options: argparse.Namespace) -> int:
    from mhsev_monai.errors import ScanError
    from mhsev_monai.prediction import grade_scan

    try:
        from mhsev_monai.viewer import viewer_files
    except ImportError as error:
        complain(f"the page needs {error.name}; install it with: pip install 'mhsev[report]'")
        return WRONG_CALL
    if (model := opened_model(options.model)) is None:
        return WRONG_CALL
    try:
        grade, entries = grade_scan(options.scan, model, options.bval, options.b0_only)
    except ScanError as error:
        complain(f"{options.scan}: {error}")
        return DATA_SAY_NO
    return _serve(viewer_files(grade, entries), options.port, options.minutes)


def _serve(files: dict[str, ServedFile], port: int, minutes: int) -> int:
    from mhsev_monai.viewer import ViewerServer

    try:
        server = ViewerServer(files, port, 60.0 * minutes)
    except (OSError, OverflowError) as error:
        complain(f"port {port} cannot be used ({type(error).__name__}); leave --port out, or name another")
        return WRONG_CALL
    with server:
        print(f"{server.address}   open it in a browser of this computer; who has this address sees the scan")
        print(f"Ctrl-C ends it, or {minutes} minutes without a request", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_until_idle()
    print("ended")
    return DONE
