"""Names that the two ends of a federated run agree on: tasks, entries of messages, files of a run."""

from __future__ import annotations

PROTOCOL_VERSION = 2
"""Raised whenever the meaning of a message changes; both ends refuse another's."""

TASK_STANDARDISE = "standardise"
"""Before round 0: a site sends numbers of cases and moments of its features, or why it cannot take part."""

TASK_TRAIN = "train"
TASK_VALIDATE = "validate"
TASK_SUBMIT_MODEL = "submit_model"

TASK_PERSONALISE = "personalise"
"""At the end, where a job asks for it: a site trains the global model on for itself, and keeps what comes of it."""


class Meta:
    """Entries of a message beside its arrays; plain JSON values."""

    BASE = "mhsev_base"
    CONTROLS = "scaffold_c_global"  # this and the next are FLARE's own names
    CONTROL_DELTAS = "scaffold_c_diff"
    EPSILON = "mhsev_epsilon"
    FEDPROX_MU = "fedprox_mu"  # FLARE's own
    FINGERPRINT = "mhsev_fingerprint"
    KEEP = "mhsev_keep"
    N_SAMPLES = "mhsev_n_samples"
    PROTOCOL = "mhsev_protocol"
    REFUSAL = "mhsev_refusal"
    REPORT = "mhsev_report"
    ROUND = "mhsev_round"
    SITE_SUMMARY = "mhsev_site_summary"
    SPLIT = "mhsev_split"
    TABLE = "mhsev_table"
    TRAIN_LOSS = "mhsev_train_loss"
    VALIDATION_LOSS = "mhsev_validation_loss"


class Moments:
    """Arrays that a site sends before round 0."""

    N = "n"
    MEAN = "mean"
    SQUARED_DEVIATION = "squared_deviation"
    CLASS_COUNTS = "class_counts"


BUFFERS = ("feature_mean", "feature_scale", "class_weights")
"""Entries of a model that the federation sets once, and that training never changes."""

RUN_FOLDER = "mhsev"
RESULT_FILE = "result.json"
LEDGER_FILE = "ledger.jsonl"
MODEL_FILE = "model.pt"
RESULT_SCHEMA = "mhsev-result/1"
