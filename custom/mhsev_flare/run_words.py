"""What the report calls rules and weightings; the names are those of ``mhsev_flare.robust`` and ``weighting``."""

from __future__ import annotations

from collections.abc import Mapping

RULE_WORDS: Mapping[str, str] = {
    "mean": "weighted mean",
    "clip": "weighted mean, norms limited to twice the median norm",
    "median": "median of each weight",
    "trimmed_mean": "trimmed mean of each weight",
    "geometric_median": "geometric median",
    "multi_krum": "multi-Krum",
    "nnm_median": "median after mixing nearest neighbours",
    "nnm_trimmed_mean": "trimmed mean after mixing nearest neighbours",
}

WEIGHTING_WORDS: Mapping[str, str] = {
    "samples": "by number of training cases",
    "uniform": "all alike",
    "inverse": "by one over the number of training cases, scaled to sum to 1",
    "literal": "by one over the number of training cases, as the paper prints it",
}


def rule_words(name: str) -> str:
    """What a rule does, with the name that a job gives it; the name alone where it is another package's."""
    return f"{RULE_WORDS[name]} ({name})" if name in RULE_WORDS else name


def weighting_words(name: str) -> str:
    """How sites count, with the name that a job gives it; the name alone where it is another package's."""
    return f"{WEIGHTING_WORDS[name]} ({name})" if name in WEIGHTING_WORDS else name
