"""Three sites in one process with a model that one of them trained, and what no server sees of their cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from asked_sites import ask_sites
from nvflare.apis.dxo import from_shareable
from nvflare.apis.signal import Signal

from mhsev_flare.final_phase import FinalPhase
from mhsev_flare.payload_guard import PayloadGuard
from mhsev_monai.evaluation import JudgedCases
from mhsev_monai.severity import PAPER_SCALE

SIZES = {"site-1": 200, "site-2": 180, "site-3": 30}
"""Of 30 cases some four are for validation, fewer than a site tells sums of."""
CALIBRATING = ("site-1", "site-2")


def describe_patients(root: Path, seed: int) -> None:
    """Give every patient a sex and an age, and the scans of some a sidecar."""
    random = np.random.default_rng(seed)
    table = root / "participants.tsv"
    head, *rows = table.read_text().splitlines()
    lines = [f"{head}\tsex\tage"]
    for row in rows:
        lines.append(f"{row}\t{random.choice(['F', 'M'], p=[0.9, 0.1])}\t{random.integers(50, 90)}")
        subject = row.split("\t")[0]
        facts = {"Manufacturer": "Siemens", "MagneticFieldStrength": random.choice([1.5, 3.0])}
        (root / subject / "dwi" / f"{subject}_dwi.json").write_text(json.dumps(facts))
    table.write_text("\n".join(lines) + "\n")


def weights_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in network.state_dict().items()}


def raw(sites, weights, split) -> dict[str, JudgedCases]:
    """What no server sees: every case of the split by site."""
    found = {}
    for name, (made, fl_ctx) in sites.items():
        local = made._local(Signal())
        local.load(weights)
        found[name] = local.judge(split, made._site_data(fl_ctx), measure_odd=True)
    return found


def joined(cases: list[JudgedCases]) -> JudgedCases:
    return JudgedCases(**{k: np.concatenate([vars(one)[k] for one in cases]) for k in vars(cases[0])})


def phase_of(sites, filters=None, result=None) -> FinalPhase:
    guards = {name: [PayloadGuard()] for name in sites}
    return FinalPhase(ask_sites(sites, guards | (filters or {}), result=result), PAPER_SCALE, seed=1)


class Spoiled:
    """A site's last filter that puts another value, or what a function makes of the told one, in place of one entry."""

    def __init__(self, entry: str, value: object) -> None:
        self.entry, self.value = entry, value

    def process(self, reply, fl_ctx):  # noqa: ARG002 - FLARE's signature
        message = from_shareable(reply)
        if self.entry in message.meta:
            message.meta[self.entry] = self.value(message.meta[self.entry]) if callable(self.value) else self.value
        return message.to_shareable()


def ten_million_cases(sums):
    counts = [[10**7] + [0] * 49, *([0] * 50 for _ in range(3))]
    odd = {"counts": [10**7] + [0] * 63}
    return {"temperatures": {"n": 10**7, "losses": [0.0] * 56}, "scores": {"counts": counts}, "odd": odd}
