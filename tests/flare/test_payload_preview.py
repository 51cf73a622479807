"""What a site is told would leave it: exactly what its executor and its filters make, and what FLARE would send."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nvflare.apis.dxo import from_shareable
from nvflare.fuel.utils import fobs
from small_site import make_root
from tiny_study import tiny_spec

from mhsev_flare.cli import main
from mhsev_flare.payload_preview import describe_payload, preview_payload
from mhsev_flare.small_cell_cleanser import SmallCellCleanser


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "data", 40, 0)


def preview(root, filters=(), **changes):
    spec = tiny_spec(site_models=True, **changes)
    return preview_payload(spec, "site-1", root / "local", {"mhsev_data_root": str(root)}, filters)


def entries(message):
    return {entry.name: entry for entry in message.entries}


def test_every_message_is_listed_with_all_its_entries(root):
    messages = preview(root)
    tasks = ["standardise", "train", "validate", "validate", "submit_model", "compare"]
    assert [message.task for message in messages] == tasks
    assert not any(message.blocked for message in messages)
    told = entries(messages[0])
    # Three features, four grades, in float64.
    assert {name: entry.n_bytes for name, entry in told.items() if "beside" not in name} == {
        "n": 8,
        "mean": 24,
        "squared_deviation": 24,
        "class_counts": 32,
    }
    update = {name: entry for name, entry in entries(messages[1]).items() if "beside" not in name}
    # 3 inputs, 8 hidden, 3 thresholds of an ordinal head and a count: whatever the network has, in float32.
    network = dict(tiny_spec().network.named_parameters())
    assert {name: entry.n_bytes for name, entry in update.items()} == {k: 4 * v.numel() for k, v in network.items()}


def test_what_the_end_of_a_study_asks_for_is_listed(root):
    """Of 40 cases, 5 or 6 are for validation and 12 for the test: enough for all but some subgroups."""
    messages = preview(root)
    calibration, test, comparison = (entries(messages[number]) for number in (2, 3, 5))
    assert "beside: mhsev_calibration_sums.temperatures.losses" in calibration
    assert {"beside: mhsev_uncertainty.moments", "beside: mhsev_uncertainty.sets.sizes"} <= set(test)
    assert {name for name in test if name.startswith("beside: mhsev_subgroups.")}
    assert "beside: mhsev_pairs.counts" in comparison


def test_the_size_is_that_of_the_message_and_no_entry_is_missing(root):
    """The sum of the arrays is a lower bound of what is sent; what comes on top is names and entries beside them."""
    message = preview(root)[1]
    arrays = sum(entry.n_bytes for entry in message.entries if "beside" not in entry.name)
    assert arrays < message.n_bytes < arrays + 8000


def test_what_the_sites_filters_take_out_is_not_listed(root):
    plain, filtered = preview(root)[0], preview(root, [SmallCellCleanser(5, 5)])[0]
    exact = json.loads(entries(plain)["beside: mhsev_site_summary.grades.test"].example)
    hidden = json.loads(entries(filtered)["beside: mhsev_site_summary.grades.test"].example)
    assert all(isinstance(n, int) for n in exact)
    assert min(n for n in exact if n) < 5
    assert hidden != exact
    rounded = [float(n) for n in entries(filtered)["class_counts"].example.removesuffix(", ...").split(", ")]
    assert all(n % 5 == 0 for n in rounded)


def test_a_filter_that_blocks_leaves_nothing_to_list(root):
    from mhsev_flare.payload_guard import PayloadGuard

    messages = {message.task: message for message in preview(root, [PayloadGuard(weight_keys=["none"])])}
    for task in ("train", "submit_model"):
        assert messages[task].n_bytes == 0
        assert messages[task].entries == ()
        assert "nothing of it was sent" in messages[task].blocked
    # These hold no weights.
    assert messages["standardise"].entries
    assert messages["validate"].entries


def test_a_site_that_cannot_take_part_shows_its_one_sentence(tmp_path):
    (tmp_path / "data").mkdir()
    (message,) = preview_payload(tiny_spec(), "site-1", tmp_path, {"mhsev_data_root": str(tmp_path / "data")})
    assert "participants.tsv" in entries(message)["beside: mhsev_refusal"].example


def test_the_preview_leaves_no_file_at_the_site_beside_features(root):
    before = {path for path in root.rglob("*") if path.is_file() and "derivatives" not in path.parts}
    preview(root)
    after = {path for path in root.rglob("*") if path.is_file() and "derivatives" not in path.parts}
    assert after == before


def test_the_text_has_a_line_an_entry(root):
    messages = preview(root)
    lines = describe_payload(messages).splitlines()
    assert len(lines) == len(messages) + sum(len(message.entries) for message in messages)


def test_flares_own_serialisation_gives_the_arrays_back(root):
    """So the size that is told is of what can be sent."""
    from mhsev_flare import payload_preview

    sent = []
    original, payload_preview._n_sent = payload_preview._n_sent, lambda reply: sent.append(reply) or 0
    try:
        preview(root)
    finally:
        payload_preview._n_sent = original
    back = from_shareable(fobs.loads(fobs.dumps(sent[1])))
    for key, value in from_shareable(sent[1]).data.items():
        assert np.array_equal(back.data[key], value)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["site-payload"], "say which scans"),
        (["site-payload", "x", "--kit", "y"], "say which scans"),
        (["site-payload", "--kit", "nowhere"], "no startup kit"),
        (["site-payload", "x", "--job", "none"], "there is no job none; there are dsd_mlp"),
    ],
)
def test_a_wrong_call_says_what_is_accepted(capsys, arguments, complaint):
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err
