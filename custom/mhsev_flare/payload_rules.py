"""What may leave a site, task by task: kinds, keys, types and sizes of all that a reply holds. No FLARE.

The rules say what ``SeverityExecutor`` and the executors of ``analysis`` send and nothing else, so whatever is
new must be written down here first. They bound form and size; numbers of an allowed form can still tell of patients,
which is what differential privacy is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mhsev_flare.analysis.payload_forms import Shaped, analysis_forms
from mhsev_flare.payload_forms import (
    AnyOf,
    Array,
    Entries,
    Form,
    NamedAlike,
    Nothing,
    Number,
    Record,
    Sentence,
    Text,
    kind_of,
    one_of,
    size_in_bytes,
)
from mhsev_flare.protocol import (
    BUFFERS,
    TASK_COMPARE,
    TASK_PERSONALISE,
    TASK_STANDARDISE,
    TASK_SUBMIT_MODEL,
    TASK_TRAIN,
    TASK_VALIDATE,
    Meta,
    Moments,
)
from mhsev_monai.severity import SCALES
from mhsev_monai.subgroups import HIDDEN, subgroup_labels

WEIGHT_KEYS = (
    r"layers\.\d{1,3}\.(weight|bias)",
    r"scorers\.\d{1,3}\.\d{1,3}\.(weight|bias)",
    r"missed_(base|by_context|per_found)",
    r"layers\.(layer\d\.\d{1,3}\.)?(conv\d|bn\d|fc|downsample\.\d)\.(weight|bias)",
)
"""Patterns of the names of weights: of the vector networks, the candidate networks, and MONAI's ResNet."""

MOST_BYTES = 16 * 2**20
"""Of a message with weights; the 3-D network's are 3.6 MB, and it may send its control variates beside them."""

_MOST_BYTES_OF_NUMBERS = 2**20

FLOATS = ("float32", "float64")

KNOWN_FILTERS = ("EntryBlocker", "SmallCellCleanser", "ExcludeVars", "PercentilePrivacy", "SVTPrivacy")
"""Filters that may stand before in the chain; FLARE notes their names in the message."""

REFUSAL_NAMES = re.compile(
    "|".join(
        (
            r"<=|=|b0|b=\d{1,4}|_b1000\.nii\.gz|nii\.gz|n/a|s/mm\^2|digits>|sub-|(sub|ses)-<letters|t2star|dcm2niix",
            r"ADC|BIDS|DICOM|DWI|ID|Instance|JSON|MONOCHROME2|NIfTI|NaN|Patient|SHA-256|SOP|Study|SWI|UID|UTF-8",
            r"MHSEV_(COHORT|DATA)_ROOT|(cache|checkpoint|data)_root|lesion_masks|(max|min)_volume_ml",
            r"microbleed_count|participant_id|participants\.tsv|mhsev\[(cohort|dicom)\]|--[a-z0-9-]{1,12}",
            r"e4|prior_stroke|apoe_e4",
            r"local/mhsev_site\.json|derivatives/mhsev/ingest\.json|(sub-\*/(ses-\*/)?dwi/)?\*_dwi\.nii\.gz",
        )
    )
)
"""Words of refusals beside plain lower-case ones and numbers."""

_COUNT, _HEX = Number(whole=True), Text(re.compile("[0-9a-f]{64}"))
_CELL = AnyOf((_COUNT, Text(re.compile(r"1-\d{1,2}|\d{1,2}\+"), 5), Nothing()))
_SPLITS = ("train", "validation", "test")
_VERSION = Text(re.compile(r"\d{1,2}(\.\d{1,4}){1,2}(\.?(dev|post|rc|a|b)\d{1,3})?(\+[a-z]{2,4}\d{0,3})?"), 32)
_GPU_WORD = r"(NVIDIA|AMD|Tesla|GeForce|Quadro|Radeon|Instinct|TITAN|RTX|GTX|PCIe|NVL|Ti|SUPER|MIG|Laptop|GPU|Ada|"
_DEVICE = Text(re.compile(rf"cpu|cuda|mps|{_GPU_WORD}Generation|[A-Z]{{0,3}}\d{{1,4}}[A-Za-z]{{0,2}}|[ -])+"), 64)

_SUMMARY = Record(
    {
        "cases": Record(dict.fromkeys(_SPLITS, _CELL)),
        "grades": Record(dict.fromkeys(_SPLITS, Entries(_CELL))),
        "excluded": _CELL,
        "twins": _CELL,
    }
)
_REPORT = Record(
    {**dict.fromkeys(("mhsev", "nvflare", "torch"), _VERSION), "scale": one_of(*SCALES), "device": _DEVICE}
)
_TABLE = Record(
    {
        "n": _COUNT,
        **dict.fromkeys(("confusion", "score_histograms", "true_count_sums"), Entries(_COUNT)),
        **dict.fromkeys(("count_absolute_error", "count_error", "brier_sum", "rps_sum"), Number()),
    }
)
_COUNTS = Record({"counts": Entries(_COUNT)})
_RELIABILITY = Record({"n": Entries(_COUNT), "confidence": Entries(Number()), "right": Entries(_COUNT)})
_UNCERTAINTY = Record(
    {
        **dict.fromkeys(("before", "after"), _RELIABILITY),
        "moments": Entries(Number()),
        "sets": AnyOf((Record(dict.fromkeys(("covered", "sizes"), Entries(_COUNT))), Nothing())),
        "n_odd": AnyOf((_COUNT, Nothing())),
    }
)
_SUBGROUP = AnyOf((_TABLE, Text(re.compile(rf"<\d{{1,7}}|{HIDDEN}"), 8)))
_BEYOND_THE_TABLE: dict[str, Form] = {
    Meta.LEAST: _COUNT,
    Meta.CALIBRATION_SUMS: Record(
        {
            "temperatures": Record({"n": _COUNT, "losses": Entries(Number())}),
            **dict.fromkeys(("scores", "odd"), _COUNTS),
        }
    ),
    Meta.UNCERTAINTY: _UNCERTAINTY,
    Meta.SUBGROUPS: Record({d: Record(dict.fromkeys(labels, _SUBGROUP)) for d, labels in subgroup_labels().items()}),
}
"""What the end of a study asks for of validation and test cases, see ``mhsev_flare.site_evaluation``."""

_ALWAYS: dict[str, Form] = {
    Meta.PROTOCOL: _COUNT,
    Meta.FINGERPRINT: _HEX,
    "filter_history": Entries(one_of(*KNOWN_FILTERS)),
}


@dataclass(frozen=True)
class TaskRule:
    """What a reply to one task may hold.

    Attributes:
        kind: FLARE's word for what the data are, such as ``WEIGHT_DIFF``.
        data: form of the data.
        meta: form of the entries beside them.
        most_bytes: of data and meta together.
    """

    kind: str
    data: Form
    meta: Form
    most_bytes: int


def task_rules(
    site: str = "", weight_keys: Iterable[str] = WEIGHT_KEYS, most_bytes: int = MOST_BYTES
) -> dict[str, TaskRule]:
    """The rules of all tasks by their names.

    Args:
        site: this site's name, which its refusals hold.
        weight_keys: regular expressions of the names of weights, each for a whole name.
        most_bytes: of a message with weights.

    Raises:
        ValueError: if ``most_bytes`` is not positive, or there is no name that a weight may have.
    """
    patterns = list(weight_keys)
    if most_bytes < 1 or not patterns:
        raise ValueError(f"most_bytes must be positive and weight_keys not empty, got {most_bytes} and {patterns}")
    weights, numbers = re.compile("|".join(f"(?:{p})" for p in patterns)), _MOST_BYTES_OF_NUMBERS
    whole_model = re.compile("|".join([f"(?:{p})" for p in patterns] + list(BUFFERS)))
    moments = [Moments.N, Moments.MEAN, Moments.SQUARED_DEVIATION, Moments.CLASS_COUNTS]
    moments += [Moments.LANDMARK_CASES, Moments.LANDMARK_SUMS]
    moments += [Moments.SCAN_N, Moments.SCAN_MEAN, Moments.SCAN_SQUARED_DEVIATION]
    loss = Record({"loss": Number()})
    table: dict[str, Form] = {Meta.TABLE: _TABLE, Meta.SPLIT: one_of(*_SPLITS)}
    return {
        TASK_STANDARDISE: TaskRule(
            "WEIGHTS", Record(dict.fromkeys(moments, Array(("float64",)))), Record(_standardise_meta(site)), numbers
        ),
        TASK_TRAIN: TaskRule(
            "WEIGHT_DIFF", NamedAlike(weights, Array(FLOATS)), Record(_train_meta(weights)), most_bytes
        ),
        TASK_VALIDATE: TaskRule("METRICS", loss, Record({**_ALWAYS, **table, **_BEYOND_THE_TABLE}), numbers),
        TASK_PERSONALISE: TaskRule("METRICS", loss, Record({**_ALWAYS, **table}), numbers),
        TASK_COMPARE: TaskRule("METRICS", loss, Record({**_ALWAYS, Meta.LEAST: _COUNT, Meta.PAIRS: _COUNTS}), numbers),
        TASK_SUBMIT_MODEL: TaskRule(
            "WEIGHTS", NamedAlike(whole_model, Array(FLOATS)), Record({**_ALWAYS, Meta.N_SAMPLES: _COUNT}), most_bytes
        ),
        **_analysis_rules(site),
    }


def _analysis_rules(site: str) -> dict[str, TaskRule]:
    refusal = Sentence(REFUSAL_NAMES, site)
    common: dict[str, Form] = {**_ALWAYS, Meta.REPORT: _REPORT, Meta.REFUSAL: refusal}
    data = Record({Moments.N: Shaped("float64", (1,))})
    forms = analysis_forms(refusal, _CELL)
    return {task: TaskRule("WEIGHTS", data, Record({**common, **own}), most) for task, (own, most) in forms.items()}


def _standardise_meta(site: str) -> dict[str, Form]:
    own: dict[str, Form] = {
        Meta.REFUSAL: Sentence(REFUSAL_NAMES, site),
        Meta.SITE_SUMMARY: _SUMMARY,
        Meta.REPORT: _REPORT,
    }
    return {**_ALWAYS, **own, Meta.N_SAMPLES: _COUNT}


def _train_meta(weights: re.Pattern[str]) -> dict[str, Form]:
    counts = dict.fromkeys((Meta.N_SAMPLES, Meta.ROUND, "NUM_STEPS_CURRENT_ROUND"), _COUNT)
    losses = dict.fromkeys((Meta.TRAIN_LOSS, Meta.VALIDATION_LOSS, Meta.EPSILON), Number())
    deltas = NamedAlike(weights, Array(FLOATS))
    return {**_ALWAYS, **counts, **losses, Meta.BASE: _HEX, Meta.TABLE: _TABLE, Meta.CONTROL_DELTAS: deltas}


def payload_complaint(task: str, message: Mapping[str, Any], rules: Mapping[str, TaskRule]) -> str:
    """Why a reply must not leave the site; empty where it may.

    Args:
        task: name of the task that it replies to.
        message: ``kind``, ``data`` and ``meta``, as FLARE sends them.
        rules: from :func:`task_rules`.

    Returns:
        One sentence on positions, kinds and sizes. It holds nothing of the content, and no key that is not ours.
    """
    rule = rules.get(task) if type(task) is str else None
    if rule is None:
        return "it replies to a task that is not on the list"
    if type(message) is not dict or set(message) != {"kind", "data", "meta"}:
        return "it is not made of kind, data and meta"
    # FLARE's kinds are members of a class that derives from str; what is sent is their value.
    if message["kind"] != rule.kind:
        return f"its kind is {kind_of(getattr(message['kind'], 'value', message['kind']))}, not {rule.kind}"
    size = size_in_bytes(message["data"]) + size_in_bytes(message["meta"])
    if size > rule.most_bytes:
        return f"it holds {size} bytes where {rule.most_bytes} are the most"
    for name, form in (("data", rule.data), ("meta", rule.meta)):
        complaint = form(message[name])
        if complaint:
            return f"its {name} {complaint}"
    return ""
