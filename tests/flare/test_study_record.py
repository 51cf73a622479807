"""The record of a study: what a round leaves behind, and that a resumed study ends like one that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mhsev_flare.checkpoint import CheckpointError, StudyState, find_checkpoint, save_checkpoint
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.result import read_run, write_result
from mhsev_flare.rounds import BestRound
from mhsev_flare.study_record import StudyRecord, configuration_digest


def weights_of(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 2), value, np.float32), "class_weights": np.array([value])}


def assert_same_arrays(found, expected) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert np.asarray(found[key]).tobytes() == np.asarray(value).tobytes()
        assert found[key].dtype == value.dtype
        assert np.shape(found[key]) == np.shape(value)


def row(number: int, loss: float | None, refused=(), absent=()) -> dict[str, Any]:
    validation = {"n": 3, "quadratic_kappa": 0.1 * number, "balanced_accuracy": 0.5, "loss": loss}
    left_out = {"refused": dict.fromkeys(refused, "not finite"), "absent": list(absent)}
    return {"round": number, "sites": {}, **left_out, "validation": validation}


def record(tmp_path: Path, job: str, configuration: str = "c") -> StudyRecord:
    return StudyRecord(tmp_path / job / "mhsev", tmp_path / "checkpoints" / "study", job, configuration, ema_decay=0.5)


ROUNDS = [
    (row(0, 0.9, refused=["b"]), 1.0),
    (row(1, 0.4, absent=["a", "b"]), 2.0),
    (row(2, 0.7, refused=["b"]), 3.0),
    (row(3, 0.6), 4.0),
]


@pytest.mark.parametrize("crash_after", [1, 2, 3])
def test_a_resumed_study_ends_as_if_nothing_had_happened(tmp_path, crash_after):
    through, first, second = (record(tmp_path, job) for job in ("through", "first", "second"))
    for made in (through, first):
        made.sent, made.extra = weights_of(0.0), {"controls/w": np.ones(2, np.float32)}
    # A folder of its own, or the uninterrupted run would be what the second one finds.
    through.checkpoints = tmp_path / "others"
    aloud = [through.close_round(*rows) for rows in as_rounds(ROUNDS)]
    aloud_again = [first.close_round(*rows) for rows in as_rounds(ROUNDS[:crash_after])]
    found = second.resume()
    assert (found.job_id, found.next_round, second.next_round) == ("first", crash_after, crash_after)
    assert_same_arrays(second.sent, weights_of(float(crash_after)))
    aloud_again += [second.close_round(*rows) for rows in as_rounds(ROUNDS[crash_after:])]
    assert aloud == aloud_again == [(), (), ("b",), ()]
    assert second.ledger == through.ledger
    assert second.attendance == through.attendance
    assert second.best.round_number == through.best.round_number == 1
    assert_same_arrays(second.best.weights, weights_of(1.0))  # what was sent in round 1
    assert second.best.score == through.best.score
    assert_same_arrays(second.extra, through.extra)
    assert_same_arrays(second.average, through.average)
    # Models 1 to 4 with weights 1, 2, 4 and 8 fifteenths.
    assert second.average["class_weights"].tolist() == pytest.approx([49 / 15], rel=1e-6)
    for patience in range(4):
        policy = RoundPolicy(patience=patience)
        assert second.has_converged(policy) == through.has_converged(policy) == (patience in (1, 2))
    write_result(second.folder, {"status": "failed"})
    assert read_run(second.folder)[1] == through.ledger


@pytest.mark.parametrize(("loss", "kept"), [(0.6, True), (0.61, False), (None, False)])
def test_the_average_is_kept_unless_the_last_model_is_better_whatever_the_best_round_was(tmp_path, loss, kept):
    made = record(tmp_path, "job")
    made.sent = weights_of(0.0)
    for entries, weights in as_rounds(ROUNDS[:2]):
        made.close_round(entries, weights)
    made.close_last(row(2, 0.6))
    assert made.best.round_number == 1  # with a loss of 0.4
    assert made.offer_average({"quadratic_kappa": 0.5, "loss": loss}) == kept
    assert made.best.round_number == (2 if kept else 1)
    # Models 1 and 2 with weights 1 and 2 thirds; the second round began with the first.
    assert made.best.weights["class_weights"].tolist() == pytest.approx([5 / 3 if kept else 1.0], rel=1e-6)


def as_rounds(rounds):
    return [(entries, weights_of(value)) for entries, value in rounds]


def test_the_record_keeps_copies(tmp_path):
    made = record(tmp_path, "job")
    made.sent, new = weights_of(0.0), weights_of(1.0)
    made.close_round(row(0, 0.5), new)
    new["class_weights"][:] = 99
    assert made.sent["class_weights"].tolist() == [1.0]


def test_a_finished_study_leaves_no_checkpoint_and_others_stay(tmp_path):
    made = record(tmp_path, "job")
    made.close_round(row(0, 0.5), weights_of(1.0))
    other = StudyState("c", "other", 1, weights_of(1.0), [row(0, 0.5)], BestRound())
    save_checkpoint(tmp_path / "checkpoints" / "study" / "other", other)
    made.earlier_jobs = ("never-there", "", "..", "../study", "/")
    made.forget_checkpoints()
    assert [path.name for path in (tmp_path / "checkpoints" / "study").iterdir()] == ["other"]
    assert find_checkpoint(tmp_path / "checkpoints" / "study", "c").job_id == "other"


def test_all_runs_that_a_finished_one_went_on_from_are_forgotten(tmp_path):
    """Three jobs: the first two end before their end. Nothing of them may be resumed once the third has finished."""
    first = record(tmp_path, "first")
    first.close_round(row(0, 0.5), weights_of(1.0))
    second = record(tmp_path, "second")
    second.resume()
    second.close_round(row(1, 0.4), weights_of(2.0))
    third = record(tmp_path, "third")
    assert third.resume().job_id == "second"
    assert third.earlier_jobs == ("first", "second")
    third.forget_checkpoints()
    with pytest.raises(CheckpointError, match="no unfinished run"):
        record(tmp_path, "fourth").resume()


def test_nothing_to_resume_holds_no_path_and_changes_nothing(tmp_path):
    made = record(tmp_path, "job")
    made.checkpoints.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no unfinished run of this study") as error:
        made.resume()
    assert str(tmp_path) not in str(error.value)
    assert (made.ledger, made.sent, made.next_round) == ([], {}, 0)


def test_the_rounds_behind_are_those_that_resuming_would_not_repeat(tmp_path):
    assert record(tmp_path, "none").rounds_behind() == 0
    first = record(tmp_path, "first")
    for entries, weights in as_rounds(ROUNDS[:3]):
        first.close_round(entries, weights)
    second = record(tmp_path, "second")
    assert second.rounds_behind() == 3
    assert (second.ledger, second.next_round) == ([], 0)
    assert second.resume().next_round == 3


def test_a_study_with_other_settings_is_not_gone_on_with(tmp_path):
    record(tmp_path, "first").close_round(row(0, 0.5), weights_of(1.0))
    assert record(tmp_path, "second", configuration="d").rounds_behind() == 0
    with pytest.raises(CheckpointError, match="another network, other inputs, settings or seed") as error:
        record(tmp_path, "second", configuration="d").resume()
    assert str(tmp_path) not in str(error.value)


def test_the_last_row_judges_the_last_aggregate(tmp_path):
    made = record(tmp_path, "job")
    made.sent = weights_of(0.0)
    made.close_round(row(0, 0.9), weights_of(1.0))
    made.close_last(row(1, 0.5))
    assert made.best.round_number == 1
    assert made.best.weights["class_weights"].tolist() == [1.0]
    assert [entry["round"] for entry in made.ledger] == [0, 1]
    assert find_checkpoint(made.checkpoints, "c").next_round == 1  # nothing is left to be trained


def test_the_configuration_is_that_of_settings_and_initial_weights():
    settings, weights = {"seed": 1, "scale": "paper"}, {"w": np.zeros((2, 3), np.float32), "b": np.ones(2)}
    digest = configuration_digest(settings, weights)
    assert digest == configuration_digest(dict(reversed(settings.items())), dict(reversed(weights.items())))
    others = [
        configuration_digest({**settings, "seed": 2}, weights),
        configuration_digest({**settings, "more": None}, weights),
        configuration_digest(settings, {**weights, "w": np.zeros((3, 2), np.float32)}),
        configuration_digest(settings, {**weights, "b": np.array([1.0, 2.0])}),
        configuration_digest(settings, {"w": weights["w"], "c": weights["b"]}),
    ]
    assert len({digest, *others}) == 6
