"""The ledger, the choice of the best round and the result file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mhsev_flare.aggregator import Contribution
from mhsev_flare.protocol import Meta
from mhsev_flare.result import compare_with_site_models, pool_tables, read_run, test_results, write_ledger, write_result
from mhsev_flare.rounds import BestRound, ledger_row
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.severity import PAPER_SCALE

test_results.__test__ = False


def table(grades: list[int], counts: list[int]) -> SeverityTable:
    """Cases of the given true counts, graded as given with certainty."""
    probabilities = np.eye(4)[grades]
    truth = [int(PAPER_SCALE.grade(count)) for count in counts]
    return SeverityTable.from_predictions(probabilities, counts, counts, truth, predicted_grades=grades)


def test_a_ledger_row_names_who_took_part_and_who_did_not():
    good = Contribution(
        "site-1",
        30,
        True,
        "",
        {},
        {Meta.TRAIN_LOSS: 0.2, Meta.VALIDATION_LOSS: 0.5, Meta.TABLE: table([1, 3], [2, 15]).to_json()},
    )
    other = Contribution(
        "site-2",
        10,
        True,
        "",
        {},
        {Meta.TRAIN_LOSS: 0.3, Meta.VALIDATION_LOSS: 1.1, Meta.TABLE: table([1], [15]).to_json()},
    )
    bad = Contribution("site-3", 0, False, "values that are not finite", {}, {})
    pooled = table([1, 3, 1], [2, 15, 15])
    row = ledger_row(4, [good, other, bad], pooled, "samples")
    assert row["sites"] == {
        "site-1": {"n_samples": 30, "train_loss": 0.2},
        "site-2": {"n_samples": 10, "train_loss": 0.3},
    }
    assert row["refused"] == {"site-3": "values that are not finite"}
    # Losses are weighted by validation cases: (2 * 0.5 + 1 * 1.1) / 3.
    assert row["validation"]["loss"] == pytest.approx(0.7)
    assert row["validation"]["n"] == 3
    # Sensitivities 1 (mild) and 1/2 (severe).
    assert row["validation"]["balanced_accuracy"] == pytest.approx(0.75)


def test_best_round_is_the_lowest_loss_then_the_highest_kappa():
    best = BestRound()
    offers = [
        (0, 0.9, float("nan")),
        (0, 0.9, None),
        (1, 0.4, 0.8),
        (2, None, 0.6),
        (3, 0.5, 0.6),
        (4, 0.4, 0.6),
        (5, 0.7, 0.65),
    ]
    for round_number, kappa, loss in offers:
        best.offer(round_number, {"w": np.array([round_number])}, {"quadratic_kappa": kappa, "loss": loss})
    assert best.round_number == 3
    assert best.weights["w"].tolist() == [3]


def test_the_best_model_is_a_copy():
    weights = {"w": np.zeros(1)}
    best = BestRound()
    best.offer(0, weights, {"quadratic_kappa": 0.1, "loss": 1.0})
    weights["w"][0] = 7
    assert best.weights["w"].tolist() == [0]


def test_comparison_says_which_is_better_whichever_it_is():
    good, poor = table([1, 2, 3], [2, 7, 15]), table([1, 1, 1], [2, 7, 15])
    better = compare_with_site_models({"a": good}, {owner: {"a": poor} for owner in ("a", "b")})
    assert better["global_beats_site_models"] is True
    worse = compare_with_site_models({"a": poor}, {"a": {"a": good}, "b": {"a": poor}})
    assert worse["global_beats_site_models"] is False
    assert worse["site_models_mean_balanced_accuracy"] == pytest.approx((1 + 1 / 3) / 2)
    assert worse["matrix"]["b"]["a"]["table"] == poor.to_json()


def test_a_model_is_no_better_for_having_been_judged_on_other_cases():
    """The site's model errs at b, which did not answer for the global one; at a both are right."""
    easy, hard = table([1, 2, 3], [2, 7, 15]), table([1, 1, 1], [2, 7, 15])
    result = compare_with_site_models({"a": easy}, {"a": {"a": easy, "b": hard}, "b": {"a": easy}})
    assert result["sites"] == ["a"]
    assert result["global_beats_site_models"] is False
    assert result["site_models"]["a"]["table"] == easy.to_json()
    assert set(result["matrix"]["a"]) == {"a", "b"}


def test_without_a_site_in_common_there_is_no_comparison():
    good = table([1, 2, 3], [2, 7, 15])
    result = compare_with_site_models({"a": good}, {"a": {"b": good}})
    assert (result["sites"], result["global_beats_site_models"]) == ([], None)
    assert result["global_balanced_accuracy"] is result["site_models_mean_balanced_accuracy"] is None


def test_pooled_table_is_that_of_all_cases():
    first, second = table([1, 2], [2, 7]), table([3, 0], [15, 0])
    pooled = pool_tables({"b": second, "a": first})
    assert pooled.to_json() == table([1, 2, 3, 0], [2, 7, 15, 0]).to_json()
    results = test_results({"a": first, "b": second}, PAPER_SCALE, 1, {})
    assert results["pooled"]["metrics"]["n"] == 4
    assert results["majority"]["metrics"]["accuracy"] == pytest.approx(0.25)
    third = table([1, 1], [2, 7])
    worst = test_results({"a": first, "c": third}, PAPER_SCALE, 1, {})["worst_site"]
    assert worst["accuracy"] == {"site": "c", "value": 0.5, "n": 2}


def test_result_and_ledger_are_found_again(tmp_path):
    folder = tmp_path / "server" / "job" / "mhsev"
    write_result(folder, {"status": "completed"})
    write_ledger(folder, [{"round": 0}, {"round": 1}])
    result, ledger, model = read_run(tmp_path)
    assert result["status"] == "completed"
    assert [row["round"] for row in ledger] == [0, 1]
    assert model == folder / "model.pt"
    assert not list(folder.glob("*.tmp"))


def test_numbers_that_json_does_not_know_never_reach_the_result(tmp_path):
    write_result(tmp_path, {"status": "completed"})
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, {"accuracy": float("nan")})
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "completed"


def test_a_folder_without_a_run_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the job first"):
        read_run(tmp_path / "absent")
