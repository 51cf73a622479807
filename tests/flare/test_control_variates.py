"""The server's control variates by hand, and the names under which FLARE's own parts look for them."""

from __future__ import annotations

import numpy as np
import pytest
from nvflare.app_common.app_constant import AlgorithmConstants

from mhsev_flare.control_variates import CONTROLS, added_controls, control_arrays, zero_controls
from mhsev_flare.protocol import BUFFERS, Meta


def extra(**controls) -> dict[str, np.ndarray]:
    return {CONTROLS + key: np.array(value, np.float32) for key, value in controls.items()}


def changes(**deltas) -> dict[str, np.ndarray]:
    return {key: np.array(value, np.float32) for key, value in deltas.items()}


def test_the_names_in_messages_are_flares():
    assert Meta.CONTROLS == AlgorithmConstants.SCAFFOLD_CTRL_GLOBAL
    assert Meta.CONTROL_DELTAS == AlgorithmConstants.SCAFFOLD_CTRL_DIFF
    assert Meta.FEDPROX_MU == AlgorithmConstants.FEDPROX_MU


@pytest.mark.parametrize(
    ("deltas", "n_sites", "expected"),
    [
        ([[3, 0], [0, 6], [3, 3]], 3, [1 + 6 / 3, 2 + 9 / 3]),
        ([[3, 0], [0, 6]], 3, [1 + 3 / 3, 2 + 6 / 3]),  # who did not answer counts in N, and changes nothing
        ([[3, 0]], 3, [2, 2]),
        ([], 3, [1, 2]),
        ([[3, 1]], 1, [4, 3]),
    ],
)
def test_changes_are_divided_by_all_sites_of_the_study(deltas, n_sites, expected):
    added = added_controls(extra(w=[1, 2]), [changes(w=delta) for delta in deltas], n_sites)
    assert added[CONTROLS + "w"].tolist() == expected
    assert added[CONTROLS + "w"].dtype == np.float32


def test_with_every_site_the_variate_stays_the_mean_of_the_sites_own():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(4, 6))
    server = extra(w=own.mean(axis=0))
    for _ in range(5):
        new = rng.normal(size=own.shape)
        server = added_controls(server, [changes(w=delta) for delta in new - own], len(own))
        own = new
        # 1e-6: five additions of float32 numbers of about 1.
        np.testing.assert_allclose(server[CONTROLS + "w"], own.mean(axis=0), atol=1e-6)


def test_a_layer_that_a_site_froze_keeps_its_part():
    """One of two sites sends no change of b: 1 + 4 / 2."""
    added = added_controls(extra(w=[0.0], b=[1.0]), [changes(w=[2.0], b=[4.0]), changes(w=[2.0])], 2)
    assert {key: value.tolist() for key, value in control_arrays(added).items()} == {"w": [2.0], "b": [3.0]}


def test_other_arrays_of_a_checkpoint_are_handed_through():
    other = np.array([7.0])
    before = {**extra(w=[1.0]), "momentum/w": other}
    added = added_controls(before, [changes(w=[1.0])], 1)
    assert added["momentum/w"] is other
    assert list(control_arrays(added)) == ["w"]
    assert before[CONTROLS + "w"].tolist() == [1.0]


def test_they_begin_at_zero_for_all_that_training_changes():
    model = {"w": np.ones((2, 3)), "b": np.float64(1.0), **{name: np.ones(4) for name in BUFFERS}}
    controls = zero_controls(model)
    assert set(controls) == {CONTROLS + "w", CONTROLS + "b"}
    found = control_arrays(controls)
    assert {key: value.shape for key, value in found.items()} == {"w": (2, 3), "b": ()}
    assert all(value.dtype == np.float32 and not value.any() for value in found.values())
