"""What a site says of itself before round 0, and why the server would not train with it. No FLARE messages here."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import nvflare
import torch
from torch import nn

from mhsev_flare.gates import told
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.protocol import PROTOCOL_VERSION, Meta, Moments
from mhsev_flare.result import StudyStoppedError
from mhsev_flare.standardisation import NOTHING_MORE, Asked, pool_standardisation
from mhsev_monai._version import __version__
from mhsev_monai.feature_cache import CaseInputs

INSTALL = "install the same version at every site and the server"


@dataclass(frozen=True)
class SiteReport:
    """What must agree between the server and a site, and what is good to know.

    Attributes:
        mhsev: version of this package.
        nvflare: version of FLARE; the first two numbers must agree.
        torch: version of PyTorch; reported only.
        scale: name of the grading scale.
        device: where the site trains, ``cpu`` or the name of its GPU; reported only.
    """

    mhsev: str
    nvflare: str
    torch: str
    scale: str
    device: str = "cpu"

    @staticmethod
    def of_this_machine(scale: str, device: str = "cpu") -> SiteReport:
        """The report of the running process."""
        return SiteReport(__version__, str(nvflare.__version__), str(torch.__version__), scale, device)

    def versions(self) -> dict[str, str]:
        """Versions alone, for the result."""
        return {"mhsev": self.mhsev, "nvflare": self.nvflare, "torch": self.torch}

    def to_json(self) -> dict[str, str]:
        """Plain values, for a message."""
        return asdict(self)


def site_refusal(meta: Mapping[str, Any], fingerprint: str, own: SiteReport) -> str:
    """Why a site that answered so cannot take part, with the remedy; empty where it can.

    Args:
        meta: of the site's answer.
        fingerprint: of the feature schema that the server expects.
        own: the server's report.
    """
    if meta.get(Meta.PROTOCOL) != PROTOCOL_VERSION:
        theirs = told(meta.get(Meta.PROTOCOL))
        return f"speaks protocol {theirs} where {PROTOCOL_VERSION} is spoken; install the same mhsev"
    if meta.get(Meta.REFUSAL):
        return str(meta[Meta.REFUSAL])
    report = meta.get(Meta.REPORT)
    if not isinstance(report, Mapping):
        return "did not say which versions it runs; install the same mhsev everywhere"
    for what, version, ours in (
        ("mhsev", report.get("mhsev"), own.mhsev),
        ("NVIDIA FLARE", _minor(report.get("nvflare")), _minor(own.nvflare)),
    ):
        if version != ours:
            return f"runs {what} {told(version)} where the server runs {ours}; {INSTALL}"
    if report.get("scale") != own.scale:
        return f"grades by another scale than {own.scale}; send the job again"
    if meta.get(Meta.FINGERPRINT) != fingerprint:
        return "computes other features than the server expects; install the same mhsev everywhere"
    return ""


class AnswerLike(Protocol):
    """A site's answer: arrays and what came with them."""

    params: Any
    meta: Any


def sort_answers(
    asked: Sequence[str],
    answers: Sequence[AnswerLike],
    fingerprint: str,
    own: SiteReport,
    n_features: int,
    beside: Asked = NOTHING_MORE,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Answers of the sites that can take part, and the reason of each that cannot.

    Args:
        asked: names of all sites that were asked.
        answers: of those that answered; ``client_name`` of ``meta`` says who.
        fingerprint: of the feature schema that the server expects.
        own: the server's report.
        n_features: that a site's moments must have.
        beside: what else the network asks for.
    """
    refused = dict.fromkeys(asked, "did not answer; see the log of that site")
    accepted: dict[str, Any] = {}
    for answer in answers:
        site = str(answer.meta["client_name"])
        reason = site_refusal(answer.meta, fingerprint, own) or _sums_refusal(answer, n_features, beside)
        refused.pop(site, None)
        if reason:
            refused[site] = reason
        else:
            accepted[site] = answer
    return accepted, refused


def shortage(
    accepted: Collection[str], refused: Mapping[str, str], n_asked: int, min_sites: int, policy: RoundPolicy
) -> str:
    """Why a study cannot begin with these sites; empty where it can.

    Args:
        accepted: names of the sites that can take part.
        refused: the others' reasons, by name.
        n_asked: how many were asked.
        min_sites: fewest sites to begin with; 0: all.
        policy: of the rounds, which need a quorum of them.
    """
    needed = max(min_sites or n_asked, 1)
    needed = max(needed, policy.quorum(needed))
    absent = sorted(set(policy.mandatory_sites) - set(accepted))
    if len(accepted) >= needed and not absent:
        return ""
    reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(refused.items()))
    mandatory = f"; {', '.join(absent)} must take part" if absent else ""
    return f"{len(accepted)} of {n_asked} sites can take part, {needed} are needed{mandatory} ({reasons})"


@dataclass(frozen=True)
class Admitted:
    """Who takes part in a study.

    Attributes:
        sites: names in order.
        cases: training cases by site, as each told them.
        buffers: standardisation and class weights of all their training cases.
    """

    sites: tuple[str, ...]
    cases: Mapping[str, int]
    buffers: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Admission:
    """What a site must answer to take part in a study, and how many must.

    Attributes:
        fingerprint: of the feature schema.
        n_features: that a site's moments must have.
        own: the server's report.
        min_sites: fewest sites to begin with; 0: all.
        policy: of the rounds.
        beside: what else the network asks for.
    """

    fingerprint: str
    n_features: int
    own: SiteReport
    min_sites: int
    policy: RoundPolicy
    beside: Asked = NOTHING_MORE

    @classmethod
    def to(cls, network: nn.Module, inputs: CaseInputs, scale: str, min_sites: int, policy: RoundPolicy) -> Admission:
        """What a study asks that trains ``network`` on ``inputs``, with this process's versions."""
        own, n_features = SiteReport.of_this_machine(scale), len(inputs.feature_names)
        return cls(inputs.fingerprint(), n_features, own, min_sites, policy, Asked.by(network))

    def admit(
        self,
        asked: Sequence[str],
        answers: Sequence[AnswerLike],
        result: dict[str, Any],
        log_error: Callable[[str], None],
    ) -> Admitted:
        """Take in who can take part; all others are named in the result and in the log.

        Args:
            asked: names of all sites that were asked.
            answers: of those that answered.
            result: of the study; receives ``sites``, ``reports``, ``refused``, ``landmark_cases`` where landmarks are
                asked for, and its status where the study ends.
            log_error: writes a line of the server's log.

        Raises:
            StudyStoppedError: if too few can.
        """
        accepted, refused = sort_answers(asked, answers, self.fingerprint, self.own, self.n_features, self.beside)
        sites = tuple(sorted(accepted))
        result["sites"] = {site: accepted[site].meta[Meta.SITE_SUMMARY] for site in sites}
        result["reports"] = {site: accepted[site].meta[Meta.REPORT] for site in sites}
        result["refused"] = refused
        for site, reason in refused.items():
            log_error(f"{site} does not take part: {reason}")
        problem = shortage(accepted, refused, len(asked), self.min_sites, self.policy)
        if problem:
            result["status"] = "refused"
            raise StudyStoppedError(problem)
        cases = {site: int(accepted[site].meta[Meta.N_SAMPLES]) for site in sites}
        pooled = pool_standardisation({site: answer.params for site, answer in accepted.items()}, self.beside)
        if self.beside.landmark_channels:
            result["landmark_cases"] = list(pooled.landmark_cases)
        return Admitted(sites, cases, pooled.buffers())


def _sums_refusal(answer: AnswerLike, n_features: int, beside: Asked) -> str:
    if not isinstance(answer.params, Mapping):
        return "sent no moments of its features"
    try:
        pooled = pool_standardisation({"it": answer.params}, beside)
    except ValueError as error:
        return str(error)
    if len(answer.params[Moments.MEAN]) != n_features:
        return f"sent moments of another number of features than {n_features}"
    try:
        summary = json.loads(json.dumps(answer.meta.get(Meta.SITE_SUMMARY), allow_nan=False))
    except (ValueError, TypeError):
        summary = None
    if not isinstance(summary, dict) or not {"cases", "grades", "excluded"} <= set(summary):
        return "did not tell its numbers of cases by split and grade"
    samples = answer.meta.get(Meta.N_SAMPLES)
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        return "did not tell its number of training cases"
    # Sums of more cases than it has would draw the scale of all to its own.
    if max(pooled.landmark_cases, default=0) > samples:
        return "sent landmarks of more cases than it has"
    return "sent moments of more scans than it has" if pooled.scan_cases > samples else ""


def _minor(version: object) -> str:
    return ".".join(str(version).split(".")[:2])
