"""Names that the two ends of a federated run agree on: tasks, entries of messages, files of a run."""

from __future__ import annotations

PROTOCOL_VERSION = 3
"""Raised whenever the meaning of a message changes; both ends refuse another's."""

TASK_STANDARDISE = "standardise"
"""Before round 0: a site sends numbers of cases and moments of its features, or why it cannot take part."""

TASK_TRAIN = "train"
TASK_VALIDATE = "validate"
TASK_SUBMIT_MODEL = "submit_model"

TASK_PERSONALISE = "personalise"
"""At the end, where a job asks for it: a site trains the global model on for itself, and keeps what comes of it."""

TASK_COMPARE = "compare"
"""At the end: a site grades its test cases by the model that comes and by the one that it trained alone."""


class Meta:
    """Entries of a message beside its arrays; plain JSON values."""

    BASE = "mhsev_base"
    CALIBRATION = "mhsev_calibration"  # to a site: what is done with probabilities, see mhsev_monai.grade_calibration
    CALIBRATION_SUMS = "mhsev_calibration_sums"
    CONTROLS = "scaffold_c_global"  # this and the next are FLARE's own names
    CONTROL_DELTAS = "scaffold_c_diff"
    EPSILON = "mhsev_epsilon"
    FEDPROX_MU = "fedprox_mu"  # FLARE's own
    FINGERPRINT = "mhsev_fingerprint"
    KEEP = "mhsev_keep"
    LEAST = "mhsev_least"
    N_SAMPLES = "mhsev_n_samples"
    PAIRS = "mhsev_pairs"
    PROTOCOL = "mhsev_protocol"
    REFUSAL = "mhsev_refusal"
    REPORT = "mhsev_report"
    ROUND = "mhsev_round"
    SITE_SUMMARY = "mhsev_site_summary"
    SPLIT = "mhsev_split"
    SUBGROUPS = "mhsev_subgroups"
    TABLE = "mhsev_table"
    TEMPERATURE = "mhsev_temperature"  # to a site: at which calibration sums are asked for
    TRAIN_LOSS = "mhsev_train_loss"
    UNCERTAINTY = "mhsev_uncertainty"
    VALIDATION_LOSS = "mhsev_validation_loss"


class Moments:
    """Arrays that a site sends before round 0."""

    N = "n"
    MEAN = "mean"
    SQUARED_DEVIATION = "squared_deviation"
    CLASS_COUNTS = "class_counts"
    LANDMARK_CASES = "landmark_cases"  # this and the next where the network asks for Nyul's standard scale
    LANDMARK_SUMS = "landmark_sums"
    SCAN_N = "scan_n"  # this and the next two where the network asks which scans are usual
    SCAN_MEAN = "scan_mean"
    SCAN_SQUARED_DEVIATION = "scan_squared_deviation"


BUFFERS = ("feature_mean", "feature_scale", "class_weights", "standard_scale", "scan_mean", "scan_scale")
"""Entries of a model that the federation sets once, and that training never changes; the last three not in each."""

RUN_FOLDER = "mhsev"
RESULT_FILE = "result.json"
LEDGER_FILE = "ledger.jsonl"
MODEL_FILE = "model.pt"
RESULT_SCHEMA = "mhsev-result/1"
