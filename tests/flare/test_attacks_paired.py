"""The paired part of the attacks' page: intervals beside SciPy's, words for them, and rows from made-up outcomes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from attack_trials import Outcome
from scipy.stats import ttest_rel

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
from attacks_page import Measured
from attacks_paired import Interval, difference, paired_interval, paired_rows, summary, verdict
from benchmark_attacks import Run, key_of, read_kept

from mhsev_flare.combination import Combination

BASE = Outcome(accuracy=0.7, kappa=0.75, backdoor=0.0, lies_refused=0.0, honest_refused=0.0, best_round=3, stopped="")


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.7, 0.05, 20), rng.normal(0.68, 0.05, 20)
    expected = ttest_rel(first, second).confidence_interval(0.95)
    found = paired_interval(first - second)
    assert found == pytest.approx(((first - second).mean(), expected.low, expected.high), abs=1e-12)


def test_equal_trainings_have_an_interval_without_width():
    assert paired_interval(np.zeros(5)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.0, 0.0, 0.0), "the same model"),
        (Interval(0.01, 0.001, 0.02), "better"),
        (Interval(-0.01, -0.02, -0.001), "worse"),
        (Interval(0.0, -0.02, 0.02), "equal within two points"),
        (Interval(0.0, -0.021, 0.02), "not decided"),
        (Interval(0.0, -0.02, 0.021), "not decided"),
    ],
)
def test_a_difference_is_put_into_words(interval, words):
    assert verdict(interval) == words


def outcomes(accuracies: dict[tuple[str, str], list[float]]):
    return {
        key: {seed: replace(BASE, accuracy=value) for seed, value in enumerate(values, start=1)}
        for key, values in accuracies.items()
    }


MADE_UP = outcomes(
    {
        ("mean", "none"): [0.70, 0.72, 0.74],
        ("clip", "none"): [0.70, 0.72, 0.74],
        ("mean", "nan"): [0.68, 0.70, 0.72],
        ("clip", "nan"): [0.68, 0.70, 0.72],
        ("mean", "replay"): [0.50, 0.53, 0.53],
        ("clip", "replay"): [0.50, 0.53, 0.53],
    }
)


def test_pairs_are_made_seed_by_seed_over_the_seeds_that_both_have():
    short = {**MADE_UP, ("clip", "nan"): {1: MADE_UP["clip", "nan"][1], 3: MADE_UP["clip", "nan"][3]}}
    assert difference(short, ("clip", "nan"), ("mean", "replay")).mean == pytest.approx((0.18 + 0.19) / 2)


def test_what_a_gate_refuses_is_shown_as_the_rule_and_as_a_run_meets_it():
    rows = paired_rows(MADE_UP, ["none", "nan", "replay"])
    assert [row[0] for row in rows] == ["`none`", "`nan`", "`replay`", "`replay`, refused by its gate"]
    assert rows[0][1] == "–"
    assert rows[1][1] == "-0.020 (-0.020 to -0.020)"
    assert rows[2][4] == "the same model"
    assert rows[3][2].startswith("+0.180 (")
    assert rows[3][4] == "better"


def test_the_summary_tells_apart_what_does_no_harm_and_what_is_not_helped():
    made_up = {**MADE_UP, **outcomes({("mean", "backdoor"): [0.6, 0.6, 0.6], ("clip", "backdoor"): [0.6, 0.6, 0.6]})}
    made_up |= outcomes({("mean", "zero"): [0.71, 0.70, 0.75], ("clip", "zero"): [0.71, 0.70, 0.75]})
    assert summary(made_up, ["none", "nan", "replay", "backdoor", "zero"]) == [
        "In a FLARE run the default is the same model: `none`, `nan`, `backdoor`, `zero`.",
        "In a FLARE run the default is better: `replay`.",
        "No harm to plain averaging is shown of: `zero`.",
        "Harm is shown of, and the default is not shown to be better under: `nan`, `backdoor`.",
    ]


def test_a_last_line_that_was_cut_off_is_trained_again(tmp_path):
    made = Measured("two of nine", "clip", "zero", 4, BASE, 1.5)
    path = tmp_path / "kept.jsonl"
    line = json.dumps(asdict(made)) + "\n"
    path.write_text(line + line[:40])
    assert read_kept(path) == {key_of(made): made}
    assert read_kept(tmp_path / "none.jsonl") == {}
    assert key_of(Run("two of nine", "clip", "zero", 4, Combination())) == key_of(made)
