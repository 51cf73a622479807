"""``explain``: Shapley values of a trained network, by our own engine or by the ``shap`` package.

``permutation`` is ours, and takes any network. ``kernel`` is ``shap.KernelExplainer``, for vector networks.
``deep`` is ``shap.DeepExplainer``: its rules are right for few modules, so it explains a network of these alone, and
its answer is refused where it does not add up. On LayerNorm and SiLU it is wrong by more than the values themselves
(shap issues 3438 and 4251). Its rules do not cover products either, and a grade's probability is one: what it
attributes is the network's own output, conditional logits and log count.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.shapley import MOST_ROWS, FeatureGame, ShapleyValues, sample_shapley
from mhsev_monai.shapley_candidates import NUMBER, explain_descriptors
from mhsev_monai.shapley_groups import FeatureGroups
from mhsev_monai.shapley_outputs import COUNT_OUTPUTS, GRADE_OUTPUTS, grade_outputs
from mhsev_monai.shapley_perceptron import PerceptronGame

METHODS = ("permutation", "deep", "kernel")
DEEP_MODULES = (nn.Linear, nn.ReLU, nn.GELU, nn.Dropout, nn.BatchNorm1d, nn.Identity, nn.Flatten)
DEEP_TOLERANCE = 1e-4
"""Largest distance of base and values from an output, over 1 + its size; single precision leaves some 1e-5."""


class ExplainError(ValueError):
    """A network that cannot be explained in the way asked for."""


class Effort(NamedTuple):
    """How much is computed.

    Attributes:
        n_passes: pairs of orders, see ``shapley.sample_shapley``; for ``kernel`` 2,048 + 2 sets a feature are drawn.
        seed: of the drawn orders and sets.
        most_rows: rows that the network is given at once.
    """

    n_passes: int = 10
    seed: int = 0
    most_rows: int = MOST_ROWS


class Explanation(NamedTuple):
    """Shapley values with the names of what they belong to.

    Attributes:
        players: names, in the order of the values.
        outputs: names, likewise.
        values: of the cases.
    """

    players: tuple[str, ...]
    outputs: tuple[str, ...]
    values: ShapleyValues


def explain(
    network: nn.Module,
    rows: Tensor,
    background: Tensor,
    groups: FeatureGroups,
    method: str = "permutation",
    effort: Effort = Effort(),  # noqa: B008
) -> Explanation:
    """Attribute a network's answers on some cases to groups of their features.

    Of a vector network the features are the players, and the values of a group are summed. Of a candidate network the
    groups are the players, with the number of candidates (see ``shapley_candidates``).

    Args:
        network: with its weights; its mode is set to evaluation. A candidate network must be on the CPU.
        rows: ``(n, n_features)``, or ``(n, N, n_features)`` for a candidate network.
        background: see ``shapley_background.common_background``.
        groups: of the features, from ``shapley_groups.feature_groups``.
        method: one of ``METHODS``.
        effort: how much is computed.

    Raises:
        ExplainError: if the method does not fit the network, or its values do not add up.
        ValueError: if the shapes do not fit each other.
    """
    if method not in METHODS:
        raise ExplainError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    network.eval()
    if isinstance(network, CandidateMLP):
        if method != "permutation":
            raise ExplainError(f"method {method} explains networks that read one vector a case; use permutation")
        values = explain_descriptors(network, rows, background, groups.group_of, effort.n_passes, effort.seed)
        return Explanation((*groups.names, NUMBER), COUNT_OUTPUTS, values)
    if rows.ndim != 2:
        raise ExplainError(f"{type(network).__name__} reads volumes, which have no features to attribute to")
    device = next(network.parameters()).device
    rows, background = rows.to(device), background.to(device)
    if method == "deep":
        values = deep_shapley(network, rows, background)
        names = tuple(f"output {number}" for number in range(values.outputs.shape[1]))
    elif method == "kernel":
        names, values = GRADE_OUTPUTS, kernel_shapley(network, rows, background, effort)
    else:
        generator = torch.Generator().manual_seed(effort.seed)
        game = feature_game(network, rows, background, effort.most_rows)
        names, values = GRADE_OUTPUTS, sample_shapley(game, effort.n_passes, generator)
    return Explanation(groups.names, names, values.summed(groups.group_of))


def feature_game(network: nn.Module, rows: Tensor, background: Tensor, most_rows: int = MOST_ROWS) -> FeatureGame:
    """Single features of a vector network as players, by the fastest way that there is for it."""
    if isinstance(network, SeverityMLP):
        return PerceptronGame(network, rows, background, most_rows=most_rows)
    return FeatureGame(lambda part: grade_outputs(network, part), rows, background, most_rows=most_rows)


class _UnfoldedMLP(nn.Module):
    """A ``SeverityMLP`` whose limits are two ReLUs, which DeepExplainer has a rule for, instead of a clamp."""

    def __init__(self, network: SeverityMLP) -> None:
        super().__init__()
        self.network, self.low, self.high = network, nn.ReLU(), nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        most = self.network.max_deviation
        standardised = (features - self.network.feature_mean) / self.network.feature_scale
        return self.network.layers(self.low(standardised + most) - self.high(standardised - most) - most)


def deep_shapley(network: nn.Module, rows: Tensor, background: Tensor) -> ShapleyValues:
    """``shap.DeepExplainer`` on a network's own output; the network is left as it is.

    Raises:
        ExplainError: if the network has a module that is not in ``DEEP_MODULES``, or the values do not add up.
    """
    unfit = sorted({type(m).__name__ for m in network.modules() if not list(m.children()) and not _is_deep(m)})
    if unfit:
        raise ExplainError(
            f"method deep is not right for {', '.join(unfit)}; use permutation, which is for any network"
        )
    import shap

    # DeepExplainer hangs hooks into the modules.
    copied = copy.deepcopy(network).eval()
    model = _UnfoldedMLP(copied) if isinstance(copied, SeverityMLP) else copied
    with torch.no_grad():
        outputs, base = model(rows).double().cpu(), model(background).double().mean(dim=0).cpu()
    found = shap.DeepExplainer(model, background).shap_values(rows, check_additivity=False)
    values = _from_shap(found, base, outputs)
    gap = (values.base + values.values.sum(dim=1) - outputs).abs() / (1 + outputs.abs())
    if not bool((gap <= DEEP_TOLERANCE).all()):
        raise ExplainError(
            f"the values of method deep miss the output by {float(gap.max()):.1e} where {DEEP_TOLERANCE:g} is "
            "accepted; use permutation, which is for any network"
        )
    return values


def _is_deep(module: nn.Module) -> bool:
    return isinstance(module, DEEP_MODULES)


def kernel_shapley(network: nn.Module, rows: Tensor, background: Tensor, effort: Effort) -> ShapleyValues:
    """``shap.KernelExplainer`` on the probabilities of the grades and the expected severity."""
    import shap

    def predict(values: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(values).to(rows).split(effort.most_rows)
        with torch.no_grad():
            return torch.cat([grade_outputs(network, part) for part in parts]).cpu().numpy()

    cases, others = rows.cpu().numpy(), background.cpu().numpy()
    outputs, base = predict(cases), predict(others).mean(axis=0)
    explainer = shap.KernelExplainer(predict, others)
    # The explainer draws from NumPy's one global generator, which others draw from too.
    state = np.random.get_state()
    np.random.seed(effort.seed)
    try:
        found = explainer.shap_values(cases, l1_reg=0, silent=True)
    finally:
        np.random.set_state(state)
    return _from_shap(found, torch.from_numpy(base), torch.from_numpy(outputs))


def _from_shap(found: np.ndarray | Sequence[np.ndarray], base: Tensor, outputs: Tensor) -> ShapleyValues:
    """What shap returned: ``(n, n_features, n_outputs)``, in whatever form its version has."""
    array = np.stack(list(found), axis=-1) if isinstance(found, list) else np.asarray(found)
    values = torch.from_numpy(array.astype(np.float64)).reshape(len(outputs), -1, outputs.shape[1])
    return ShapleyValues(values, base.expand_as(outputs), outputs, torch.full_like(values, torch.nan))
