"""Parameters of private training, and what an account says by itself."""

from __future__ import annotations

import math
import statistics
import sys

import pytest

from mhsev_monai.private_training import PrivacyParameters, epsilon


@pytest.fixture
def accountants():
    return pytest.importorskip("opacus.accountants", reason="needs opacus: pip install 'mhsev[dp]'")


def test_one_step_without_sampling_spends_no_less_than_the_gaussian_mechanism(accountants):
    """The exact delta of one draw (Balle and Wang 2018, theorem 8) at the epsilon that the account says."""
    spent = epsilon({"mechanism": "rdp", "history": [[2.0, 1.0, 1]]}, 1e-3)
    normal = statistics.NormalDist()
    exact = normal.cdf(0.25 - 2.0 * spent) - math.exp(spent) * normal.cdf(-0.25 - 2.0 * spent)
    assert 0 < exact <= 1e-3


@pytest.mark.parametrize(
    ("state", "spent"),
    [
        ({"mechanism": "rdp", "history": []}, 0.0),
        ({"mechanism": "rdp", "history": [[0.0, 0.5, 1]]}, math.inf),
        ({"mechanism": "rdp", "history": [[1.0, 0.5, 10], [0.0, 0.5, 1]]}, math.inf),
    ],
)
def test_no_step_spends_nothing_and_no_noise_everything(accountants, state, spent):
    assert epsilon(state, 1e-3) == spent


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((-1.0, 1.0, 1e-3), "noise_multiplier"),
        ((math.inf, 1.0, 1e-3), "noise_multiplier"),
        ((1.0, 0.0, 1e-3), "max_grad_norm"),
        ((1.0, math.nan, 1e-3), "max_grad_norm"),
        ((1.0, 1.0, 0.0), "delta"),
        ((1.0, 1.0, 1.0), "delta"),
    ],
)
def test_parameters_outside_their_range_are_refused(values, named):
    with pytest.raises(ValueError, match=f"{named} must be"):
        PrivacyParameters(*values)


def test_without_opacus_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(ImportError, match=r"mhsev\[dp\]"):
        epsilon({"mechanism": "rdp", "history": []}, 1e-3)
