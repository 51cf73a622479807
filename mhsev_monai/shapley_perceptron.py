"""Features of a ``SeverityMLP`` as players, several times faster than of a network that nothing is known of.

The first layer is a sum over features, so that of a mixture of a case and a background row is a part from the case and
a part from the row. The first is the same for all rows, and the second for all cases: neither is computed for each
pair, and what is left is an addition and the narrower layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mhsev_monai.networks import SeverityMLP
from mhsev_monai.shapley import MOST_ROWS, FeatureGame
from mhsev_monai.shapley_outputs import cumulative_outputs, grade_outputs


class PerceptronGame(FeatureGame):
    """``FeatureGame`` of the grade outputs of a ``SeverityMLP``, to rounding in its precision.

    Args:
        network: in evaluation mode.
        rows: see ``FeatureGame``.
        background: see ``FeatureGame``.
        groups: see ``FeatureGame``.
        most_rows: see ``FeatureGame``.

    Raises:
        ValueError: as ``FeatureGame``.
    """

    def __init__(
        self,
        network: SeverityMLP,
        rows: Tensor,
        background: Tensor,
        groups: Sequence[int] | None = None,
        most_rows: int = MOST_ROWS,
    ) -> None:
        super().__init__(lambda part: grade_outputs(network, part), rows, background, groups, most_rows)
        layers = [(layer.weight.T, layer.bias) for layer in network.layers if isinstance(layer, nn.Linear)]
        weight, bias = layers[-1]
        # The last output is the log count, which is not attributed.
        (self._weight, self._bias), *self._others = [*layers[:-1], (weight[:, :-1].contiguous(), bias[:-1])]
        with torch.no_grad():
            self._base = grade_outputs(network, background).mean(dim=0)
            self._outputs = torch.cat([grade_outputs(network, part) for part in rows.split(most_rows)])
        self._read_rows, self._read_background = network.standardised(rows), network.standardised(background)

    def answers(self, cases: range, players: Tensor) -> Tensor:
        """See ``shapley.Game``."""
        kept = players.to(self._rows.device)[:, self._groups].to(self._weight.dtype)
        theirs = ((1 - kept)[:, None] * self._read_background) @ self._weight + self._bias
        own = ((kept * self._read_rows[case]) @ self._weight for case in cases)
        # The outputs are sums and differences of P(grade > k), so that its mean may come first. The chain rule of
        # ``ordinal.corn_cumulative`` as a plain product, which takes a third of the time of its sum of logarithms.
        logits = (self._from_sum(theirs, each) for each in own)
        above = [torch.sigmoid(each).cumprod(dim=-1).mean(dim=1, dtype=torch.float64) for each in logits]
        found = cumulative_outputs(torch.stack(above))
        # Values add up to the difference of these two, which are therefore the network's own to the last bit.
        found[:, ~players.any(dim=1)] = self._base
        found[:, players.all(dim=1)] = self._outputs[cases.start : cases.stop, None]
        return found

    def _from_sum(self, theirs: Tensor, own: Tensor) -> Tensor:
        """The ordinal logits ``(k, m, num_classes - 1)`` where the first layer gives ``theirs + own[:, None]``."""
        for weight, bias in self._others:
            # relu(a + b) = max(a, -b) + b, with one pass over what is large.
            theirs, own = torch.maximum(theirs, -own[:, None]) @ weight, own @ weight + bias
        return theirs + own[:, None]
