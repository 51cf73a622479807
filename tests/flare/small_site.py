"""A site without FLARE processes: a tiny BIDS root, inputs that any file serves, and the context FLARE hands over."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.fl_context import FLContext, FLContextManager

from mhsev_flare.executor import SeverityExecutor
from mhsev_monai.cases import Case
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import CaseFeatures
from mhsev_monai.networks import SeverityMLP


@dataclass(frozen=True)
class NumbersInFile:
    """Inputs that read the vector from the file itself."""

    feature_names: tuple[str, ...] = ("a", "b", "c")

    def fingerprint(self) -> str:
        # Of the form that real ones have, or a guard would block it.
        return hashlib.sha256(b"numbers-1").hexdigest()

    def computation(self) -> str:
        return self.fingerprint()

    def assemble(self, found: CaseFeatures) -> np.ndarray:
        return found.vector(self.feature_names)

    def __call__(self, case: Case) -> CaseFeatures:
        text = case.image.read_text()
        if not text:
            raise ScanError("the file is empty; copy it again")
        return CaseFeatures(dict(zip(self.feature_names, map(float, json.loads(text)), strict=True)), {})


@dataclass(frozen=True)
class VolumesOfFile:
    """Inputs that make a small volume of the numbers in the file: the first darkens it, the second is its gain."""

    feature_names: tuple[str, ...] = ("b0", "trace")
    size: tuple[int, int, int] = (10, 12, 8)

    def fingerprint(self) -> str:
        return hashlib.sha256(b"volumes-1").hexdigest()

    def computation(self) -> str:
        return self.fingerprint()

    def assemble(self, found: CaseFeatures) -> np.ndarray:
        return found.sets["volume"]

    def __call__(self, case: Case) -> CaseFeatures:
        dark, gain, curve = json.loads(case.image.read_text())
        brain = np.random.default_rng(int(abs(curve) * 1e6)).gamma(3.0, size=(*self.size, 2))
        brain[:2, ..., 0] *= np.exp(-dark)
        volume = ((2.0 + gain) * brain).astype(np.float16)
        volume[:, 0] = np.nan
        return CaseFeatures({}, {}, {"volume": volume})


class OneFolderWorkspace:
    """The two questions that the executor asks of FLARE's workspace."""

    def __init__(self, local: Path) -> None:
        self.local = local

    def get_site_config_dir(self) -> str:
        return str(self.local)

    def get_run_dir(self, job_id: str) -> str:
        return str(self.local.parent / "run" / job_id)


class OneFolderEngine:
    """What the executor asks of FLARE's engine; FLARE's own runs in the slow tests."""

    def __init__(self, local: Path) -> None:
        self.workspace = OneFolderWorkspace(local)

    def get_workspace(self) -> OneFolderWorkspace:
        return self.workspace

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Logging fires events, for which nobody listens here."""


def make_root(root: Path, n: int, seed: int) -> Path:
    """A BIDS root of ``n`` cases whose first number is the log of the count."""
    generator = np.random.default_rng(seed)
    rows = ["participant_id\tmicrobleed_count"]
    for i in range(n):
        count = int(generator.integers(0, 20))
        vector = [float(np.log1p(count)), *generator.normal(size=2).round(6).tolist()]
        image = root / f"sub-{i:03d}" / "dwi" / f"sub-{i:03d}_dwi.nii.gz"
        image.parent.mkdir(parents=True)
        image.write_text(json.dumps(vector))
        image.with_name(f"sub-{i:03d}_dwi.bval").write_text("0 1000")
        rows.append(f"sub-{i:03d}\t{count}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root


def context(site: str, local: Path) -> FLContext:
    manager = FLContextManager(
        engine=OneFolderEngine(local), identity_name=site, job_id="job", public_stickers={}, private_stickers={}
    )
    return manager.new_context()


def executor(**changes: Any) -> SeverityExecutor:
    arguments: dict[str, Any] = {
        "network": SeverityMLP(
            in_features=3, hidden_features=[8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=3
        ),
        "inputs": NumbersInFile(),
        "scale": "paper",
        "epochs": 1,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "batch_size": 1000,
        "count_weight": 1.0,
        "seed": 1,
        "twins": False,
        "ema_decay": 0.0,
    }
    return SeverityExecutor(**{**arguments, **changes})
