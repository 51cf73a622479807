"""The one table of the benchmark's rows; an ablation is one line more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mhsev_flare.benchmark.rules import LOG_COUNTS, CalibratedCount, MajorityBySite, NaiveCount, Rule
from mhsev_flare.job_spec import JobSpec
from mhsev_flare.jobs import GLOBAL_FEATURES, JOBS, context_of
from mhsev_monai.clinical_inputs import ClinicalInputs
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.inputs import DSDCandidateInputs, DSDInputs
from mhsev_monai.noise_inputs import ContrastNoiseInputs
from mhsev_monai.radiomics.spot_inputs import SpotRadiomicsInputs
from mhsev_monai.severity import SCALES, GradingScale

RULE_SCALE = SCALES[next(iter(JOBS.values())).scale]
"""Rules are graded on the scale of the jobs."""


_LOG_COUNTS = DSDInputs(features=LOG_COUNTS)


@dataclass(frozen=True)
class Row:
    """One way to grade.

    Attributes:
        name: of the row.
        method: a job, of which ``dataclasses.replace`` makes an ablation; or a rule without a network.
        note: what is particular about it, one clause.
        masks: whether training also sees which candidates are bleeds, from the masks of the simulation.
    """

    name: str
    method: JobSpec | Rule
    note: str
    masks: bool = False

    @property
    def inputs(self) -> CaseInputs:
        """What the row reads."""
        return self.method.inputs

    @property
    def all_inputs(self) -> tuple[CaseInputs, ...]:
        """Of the row, and of its protocol twins where it trains with them."""
        return self.method.all_inputs if isinstance(self.method, JobSpec) else (self.method.inputs,)

    @property
    def twins(self) -> bool:
        """Whether it trains with protocol twins."""
        return isinstance(self.method, JobSpec) and self.method.twins

    @property
    def gives_probabilities(self) -> bool:
        """Whether probabilities of the grades are more than a certain answer."""
        return isinstance(self.method, JobSpec)

    @property
    def scale(self) -> GradingScale:
        """What turns counts into grades."""
        return SCALES[self.method.scale] if isinstance(self.method, JobSpec) else RULE_SCALE


def _vector(spec: JobSpec, inputs: CaseInputs) -> JobSpec:
    """The paper's classifier on another vector."""
    return replace(spec.with_network(in_features=len(inputs.feature_names)), inputs=inputs)


_CANDIDATES, _LITERAL = JOBS["dsd_mlp"], JOBS["dsd_mlp_literal"]
# Twice the passes over half the cases: as many steps.
_UNTWINNED = replace(_CANDIDATES, twins=False, epochs=2 * _CANDIDATES.epochs)

_FUSED_NOISE = DSDCandidateInputs()
_BY_FUSED_NOISE = replace(
    _CANDIDATES.with_network(
        in_features=len(_FUSED_NOISE.feature_names), context_features=context_of(_FUSED_NOISE.feature_names)
    ),
    inputs=_FUSED_NOISE,
)

# From the paper's wording to the job that is shipped and beyond it, one change a row.
_ABLATION = (
    Row("fused contrast", _vector(_LITERAL, DSDInputs(features=GLOBAL_FEATURES)), "literal, on b0 and trace joined"),
    Row("fused, all 63 features", _vector(_LITERAL, DSDInputs()), "and counts of candidates by fixed rules"),
    Row("candidates, one member", _CANDIDATES.with_network(members=1), "dsd_mlp without its ensemble"),
    Row("candidates, count alone", _CANDIDATES.with_network(grade_weight=0.0), "dsd_mlp without the ordinal loss"),
    Row(
        "candidates, absolute",
        _CANDIDATES.with_network(yardstick="federation", max_deviation=4.0),
        "descriptors standardised over the federation alone",
    ),
    Row(
        "candidates, within the scan",
        _CANDIDATES.with_network(yardstick="scan"),
        "descriptors measured against the scan's other candidates alone",
    ),
    Row("candidates, no twins", _UNTWINNED, "dsd_mlp without protocol twins"),
    Row(
        "candidates, fixed window",
        replace(_UNTWINNED, inputs=ContrastNoiseInputs(dynamic=False)),
        "one window size; no twins",
    ),
    Row(
        "candidates, no threshold",
        replace(_UNTWINNED, inputs=ContrastNoiseInputs(kappa=0.0)),
        "every bin passes; no twins",
    ),
    Row(
        "candidates, no SVD",
        replace(_UNTWINNED, inputs=ContrastNoiseInputs(energy=0.9999)),
        "99.99 % of the energy; no twins",
    ),
    Row(
        "candidates, noise of the fused contrast",
        _BY_FUSED_NOISE,
        "noise of b0 and trace joined, in place of each by itself",
    ),
    Row("dsd_mlp with masks", _CANDIDATES, "trained with lesion masks beside the counts", masks=True),
)

_CLINICAL = replace(
    _LITERAL.with_network(in_features=len(ClinicalInputs().feature_names), hidden_features=[], dropout=0.0),
    inputs=ClinicalInputs(),
)

ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        *(Row(name, spec, "the job of this name") for name, spec in JOBS.items()),
        *_ABLATION,
        Row(
            "detector_count with masks",
            JOBS["detector_count"],
            "trained with lesion masks beside the counts",
            masks=True,
        ),
        Row("dsd_patches with masks", JOBS["dsd_patches"], "trained with lesion masks beside the counts", masks=True),
        Row(
            "radiomics of spots",
            _vector(JOBS["radiomics_mlp"], SpotRadiomicsInputs()),
            "radiomics_mlp on the 24 darkest spots, put together",
        ),
        Row("clinical variables", _CLINICAL, "age, sex and risk factors: an ordinal regression without the scan"),
        Row("majority by site", MajorityBySite(_LOG_COUNTS), "the most frequent grade of the site's training cases"),
        Row(
            "naive LoG count",
            NaiveCount(_LOG_COUNTS),
            "the number of dark spots at the best of four depths, graded as it is",
        ),
        Row(
            "calibrated LoG count",
            CalibratedCount(_LOG_COUNTS),
            "the best three cut points on the number of dark spots",
        ),
    )
}
