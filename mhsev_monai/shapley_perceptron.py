"""Features of a ``SeverityMLP`` as players, several times faster than of a network that nothing is known of.

The first layer is a sum over features, so that of a mixture of a case and a background row is a part from the case and
a part from the row. The first is the same for all rows, and the second for all cases: neither is computed for each
pair, and what is left is an addition and the narrower layers.

Where ``a`` is of the row and ``b`` of the case, relu(a + b) = max(a, -b) + b. The layer behind it is a sum again, so
that what it makes of ``b`` needs no pass over the rows either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mhsev_monai.networks import SeverityMLP
from mhsev_monai.shapley import MOST_ROWS, FeatureGame
from mhsev_monai.shapley_outputs import cumulative_outputs, grade_outputs


class _Layer(NamedTuple):
    """``weight`` ``(out, in)`` and ``bias`` ``(out, 1)``."""

    weight: Tensor
    bias: Tensor


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
        *hidden, last = (layer for layer in network.layers if isinstance(layer, nn.Linear))
        self._layers = [_Layer(layer.weight.detach(), layer.bias.detach()[:, None]) for layer in hidden]
        # The last output is the log count, which is not attributed.
        self._layers.append(_Layer(last.weight.detach()[:-1], last.bias.detach()[:-1, None]))
        self._most_rows = most_rows
        with torch.no_grad():
            self._base = grade_outputs(network, background).mean(dim=0)
            self._outputs = torch.cat([grade_outputs(network, part) for part in rows.split(most_rows)])
        self._read_rows, self._read_background = network.standardised(rows), network.standardised(background)

    def answers(self, cases: range, players: Tensor) -> Tensor:
        """See ``shapley.Game``."""
        # Features before sets and rows: what follows one another in memory is then long, whatever a layer's width.
        kept = players.to(self._rows.device)[:, self._groups].T.to(self._read_rows.dtype)
        mixed = (1 - kept)[:, :, None] * self._read_background.T[:, None]
        theirs = (self._layers[0].weight @ mixed.flatten(1)).reshape(-1, *mixed.shape[1:])
        parts = self._read_rows[cases.start : cases.stop].split(max(self._most_rows // max(len(players), 1), 1))
        found = torch.cat([cumulative_outputs(self._above(theirs, kept, part)) for part in parts])
        # Values add up to the difference of these two, which are therefore the network's own to the last bit.
        found[:, ~players.any(dim=1)] = self._base
        found[:, players.all(dim=1)] = self._outputs[cases.start : cases.stop, None]
        return found

    def _above(self, theirs: Tensor, kept: Tensor, rows: Tensor) -> Tensor:
        """``(n, k, num_classes - 1)`` P(grade > k), mean over the background.

        The outputs are sums and differences of them, so that the mean may come first. The chain rule of
        ``ordinal.corn_cumulative`` is a plain product here, which takes a third of the time of its sum of logarithms.

        Args:
            theirs: ``(width, k, m)`` the rows' part of the first layer's sums, by set and row.
            kept: ``(n_features, k)`` 1 where the case's own value is kept.
            rows: ``(n, n_features)`` cases as the first layer reads them.
        """
        above = self._logits(theirs, self._shifts(kept, rows)).sigmoid_()
        for lower, upper in zip(above.unbind(1)[:-1], above.unbind(1)[1:], strict=True):
            upper *= lower
        return above.mean(dim=-1, dtype=torch.float64).transpose(1, 2)

    def _shifts(self, kept: Tensor, rows: Tensor) -> list[Tensor]:
        """For each layer ``(n, width, k, 1)``: what its sums are shifted by in each case."""
        shift = (rows.T[:, :, None] * kept[:, None]).flatten(1)
        found = []
        for weight, bias in self._layers:
            shift = weight @ shift + bias
            found.append(shift.reshape(len(weight), len(rows), -1, 1).transpose(0, 1).contiguous())
        return found

    def _logits(self, theirs: Tensor, shifts: Sequence[Tensor]) -> Tensor:
        """The ordinal logits ``(n, num_classes - 1, k, m)`` where each layer's sums are shifted by ``shifts``."""
        # The same memory for all cases, so that it stays in the cache of a processor.
        sums = [theirs, *(theirs.new_empty(len(layer.weight), *theirs.shape[1:]) for layer in self._layers[1:])]
        active = [torch.empty_like(theirs), *sums[1:-1]]
        steps = [
            (below, floor.neg().unbind(), read, layer.weight, read.flatten(1), above.flatten(1))
            for below, floor, read, layer, above in zip(sums, shifts, active, self._layers[1:], sums[1:], strict=False)
        ]
        logits = theirs.new_empty(len(shifts[-1]), *sums[-1].shape)
        for case, (shift, found) in enumerate(zip(shifts[-1].unbind(), logits.unbind(), strict=True)):
            for below, floors, read, weight, flat, above in steps:
                torch.maximum(below, floors[case], out=read)
                torch.mm(weight, flat, out=above)
            torch.add(sums[-1], shift, out=found)
        return logits
