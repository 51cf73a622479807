"""A study goes on from what a crash left: whole, the newest that can be read, and never another study's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mhsev_flare.checkpoint import (
    ARRAYS_FILE,
    KEPT,
    STATE_FILE,
    CheckpointError,
    StudyState,
    find_checkpoint,
    save_checkpoint,
)
from mhsev_flare.control_variates import zero_controls
from mhsev_flare.rounds import BestRound

NOTHING = "there is no unfinished run of this study to resume; send the job without resume to begin anew"
UNREADABLE = "no checkpoint of the unfinished run can be read; send the job without resume to begin anew"
OTHER = (
    "the unfinished run has another network, other inputs, settings or seed than this job; export the job "
    "with the settings of that run, or send it without resume to begin anew"
)


def weights_of(value: float) -> dict[str, np.ndarray]:
    return {
        "layers.0.weight": np.array([[value, -0.0], [1e-45, 1 / 3]], np.float32),  # a bit pattern of each kind
        "class_weights": np.array([value]),
        "scalar": np.float32(value),
    }


def state(next_round: int, configuration: str = "c", **changes: Any) -> StudyState:
    best = BestRound()
    best.offer(0, weights_of(-1.0), {"quadratic_kappa": 0.5, "loss": 0.25})
    values: dict[str, Any] = {
        "configuration": configuration,
        "job_id": "job",
        "next_round": next_round,
        "weights": weights_of(float(next_round)),
        "ledger": [{"round": n, "validation": {"loss": None}} for n in range(next_round)],
        "best": best,
        "left_out": {"site-1": 2},
        "extra": zero_controls(weights_of(0.0)),
    }
    return StudyState(**{**values, **changes})


def assert_same_arrays(found, expected) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert np.asarray(found[key]).tobytes() == np.asarray(value).tobytes()
        assert found[key].dtype == value.dtype
        assert np.shape(found[key]) == np.shape(value)


def age(folder: Path, seconds: float) -> None:
    """Make a checkpoint older, since a file system's clock may be coarser than two saves are apart."""
    time = folder.stat().st_mtime - seconds
    os.utime(folder, (time, time))


def test_a_state_comes_back_as_it_was(tmp_path):
    saved = state(3)
    save_checkpoint(tmp_path / "job", saved)
    found = find_checkpoint(tmp_path, "c")
    for name in ("configuration", "job_id", "next_round", "ledger", "left_out"):
        assert getattr(found, name) == getattr(saved, name)
    assert_same_arrays(found.weights, saved.weights)
    assert_same_arrays(found.extra, saved.extra)
    assert found.best.round_number == 0
    assert_same_arrays(found.best.weights, saved.best.weights)


@pytest.mark.parametrize(
    ("validation", "score"),
    [
        (None, (None, None)),  # nothing was offered yet
        ({"quadratic_kappa": 0.5, "loss": -1.25}, (1.25, 0.5)),
        ({"quadratic_kappa": None, "loss": 0.5}, (-0.5, 0.0)),
        ({"quadratic_kappa": 0.5, "loss": None}, (None, 0.5)),
        ({"quadratic_kappa": -0.1, "loss": float("nan")}, (None, -0.1)),
    ],
)
def test_the_best_round_is_compared_after_as_before(tmp_path, validation, score):
    best = BestRound()
    if validation is not None:
        best.offer(1, weights_of(1.0), validation)
    assert best.score == score
    save_checkpoint(tmp_path / "job", state(2, best=best))
    found = find_checkpoint(tmp_path, "c").best
    assert found == BestRound(best.round_number, found.weights, best._score)
    offers = [{"quadratic_kappa": k, "loss": v} for k in (None, -0.5, 0.5, 0.6) for v in (None, 0.6, 0.5, -1.25, -2.0)]
    for offer in offers:
        taken = []
        for one in (best, found):
            copied = BestRound(one.round_number, dict(one.weights), one._score)
            copied.offer(9, weights_of(9.0), offer)
            taken.append(copied.round_number == 9)
        assert taken[0] == taken[1], offer


def test_only_the_two_newest_rounds_are_kept(tmp_path):
    for next_round in range(1, 13):
        save_checkpoint(tmp_path / "job", state(next_round))
        assert len(list((tmp_path / "job").iterdir())) == min(next_round, KEPT) <= 2
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["round-0011", "round-0012"]


def test_a_round_that_is_saved_again_is_the_later_one(tmp_path):
    save_checkpoint(tmp_path / "job", state(3))
    save_checkpoint(tmp_path / "job", state(3, weights=weights_of(7.0)))
    assert_same_arrays(find_checkpoint(tmp_path, "c").weights, weights_of(7.0))


def truncate(name: str, n_bytes: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:n_bytes])


def change_state(**changes: Any):
    def change(folder: Path) -> None:
        stored = json.loads((folder / STATE_FILE).read_text())
        stored = {key: value for key, value in {**stored, **changes}.items() if value is not None}
        (folder / STATE_FILE).write_text(json.dumps(stored))

    return change


def flip_last_bit(folder: Path) -> None:
    content = bytearray((folder / ARRAYS_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / ARRAYS_FILE).write_bytes(bytes(content))


DAMAGE = {
    "arrays cut short": truncate(ARRAYS_FILE, 100),
    "arrays empty": truncate(ARRAYS_FILE, 0),
    "arrays gone": lambda folder: (folder / ARRAYS_FILE).unlink(),
    "one bit of the arrays": flip_last_bit,
    "state cut short": truncate(STATE_FILE, 50),
    "state empty": truncate(STATE_FILE, 0),
    "state gone": lambda folder: (folder / STATE_FILE).unlink(),
    "garbage": lambda folder: (folder / STATE_FILE).write_text("{not json"),
    "no text": lambda folder: (folder / STATE_FILE).write_bytes(b"\xff\xfe\x00"),
    "a list": lambda folder: (folder / STATE_FILE).write_text("[1, 2]"),
    "another checksum": change_state(sha256="0" * 64),
    "another schema": change_state(schema="mhsev-checkpoint/0"),
    "an entry missing": change_state(ledger=None),
    "no score": change_state(best={"round": 0, "score": "x"}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_behind_a_damaged_checkpoint_lies_the_one_before(tmp_path, damage):
    age(save_checkpoint(tmp_path / "job", state(1)), 10)
    damage(save_checkpoint(tmp_path / "job", state(2)))
    found = find_checkpoint(tmp_path, "c")
    assert found.next_round == 1
    assert_same_arrays(found.weights, weights_of(1.0))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_where_all_are_damaged_it_is_said(tmp_path, damage):
    damage(save_checkpoint(tmp_path / "job", state(2)))
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path, "c")
    assert str(error.value) == UNREADABLE


def test_what_was_half_written_is_no_checkpoint(tmp_path):
    whole = save_checkpoint(tmp_path / "job", state(2))
    whole.rename(whole.with_name(".round-0002.tmp"))
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path, "c")
    assert str(error.value) == NOTHING
    save_checkpoint(tmp_path / "job", state(2, weights=weights_of(7.0)))
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["round-0002"]


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path):
    save_checkpoint(tmp_path / "job", state(1))
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path / "job", state(2, ledger=[{"loss": float("nan")}]))
    assert find_checkpoint(tmp_path, "c").next_round == 1


@pytest.mark.parametrize("made", ["", "study", "study/job"])
def test_where_nothing_lies_it_is_said(tmp_path, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path / "study", "c")
    assert str(error.value) == NOTHING


def test_the_newest_of_another_configuration_is_refused_and_not_passed_over(tmp_path):
    age(save_checkpoint(tmp_path / "earlier", state(5)), 10)
    save_checkpoint(tmp_path / "later", state(2, configuration="d"))
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path, "c")
    assert str(error.value) == OTHER
    assert str(tmp_path) not in OTHER


def test_the_newest_is_the_last_written_whichever_job_wrote_it(tmp_path):
    age(save_checkpoint(tmp_path / "z-first", state(9, job_id="z-first")), 20)
    save_checkpoint(tmp_path / "a-second", state(4, job_id="a-second"))
    assert find_checkpoint(tmp_path, "c").job_id == "a-second"
