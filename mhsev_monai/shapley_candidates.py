"""Players of a network that reads a scan's candidates: groups of descriptors, or the candidates themselves.

A candidate network reads up to 512 dark spots with 73 descriptors each; as players, 37,376 entries would say nothing to
anybody. Two questions have readers:

**Why this grade, for this scan and over many scans?** Players are groups of descriptors (``shapley_groups``). One that
does not take part has, in every candidate at once, the values of the candidates of a background scan. All candidates at
once, since the network measures each descriptor against the other candidates of its scan: column by column, so that a
replaced column has the background's own yardstick and the others keep theirs. One more player is the number of
candidates: without it the scan has as many as the background, chosen evenly along its order from deepest to least deep,
so that their mix stays. So the base is one number for all scans, and values can be averaged.

**Which spots made the count?** Players are the candidates. One that does not take part is taken for no bleed, and stays
among those that the others are measured against: what it adds is its own, not the clutter it makes. For the expected
count this value is its probability, and what is missed for each that is found on top (the count is linear in them). The
least likely candidates play as one. These values belong to one scan and are not averaged over scans.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.shapley import ShapleyValues, group_index, sample_shapley
from mhsev_monai.shapley_outputs import count_outputs

NUMBER = "number of dark spots"
"""Name of the player that is the number of candidates; it comes after the groups."""
MOST_CANDIDATES = 32768
"""Candidates that a network is given at once."""
_ANSWERS_AT_ONCE = 128
"""Distributions computed at once: the sum of found and missed takes a table of 101 x 101 for each."""


def evenly(n_from: int, n_to: int) -> Tensor:
    """``(n_to,)`` indices below ``n_from`` at even distances: all of them, in order, where the numbers are equal."""
    return (2 * torch.arange(n_to) + 1) * n_from // (2 * n_to)


class DescriptorGame:
    """Groups of descriptors and the number of candidates as players, for one scan.

    Args:
        network: in evaluation mode.
        scan: ``(N, in_features)`` descriptors; rows of NaN stand for no candidate.
        background: ``(m, N_background, in_features)`` scans without rows of NaN; every one has as many candidates.
        groups: for each descriptor the index of its group; the number of candidates plays last.
        most_candidates: that the network is given at once, at least; more only where one background takes more.

    Raises:
        ValueError: if the shapes do not fit each other, or the background holds NaN.
    """

    n_cases = 1

    def __init__(
        self,
        network: CandidateMLP,
        scan: Tensor,
        background: Tensor,
        groups: Sequence[int],
        most_candidates: int = MOST_CANDIDATES,
    ) -> None:
        n_features = network.in_features
        fits = scan.ndim == 2 and background.ndim == 3 and scan.shape[1] == background.shape[2] == n_features
        if not fits or 0 in background.shape or not background.isfinite().all():
            raise ValueError(
                f"a scan must be (N, {n_features}) and the background (m, N, {n_features}), finite, at least one scan "
                f"with a candidate; got {tuple(scan.shape)} and {tuple(background.shape)}"
            )
        present = scan[~scan[:, 0].isnan()]
        self._network = network
        indices = group_index(groups, n_features).to(scan.device)
        # A network may read a descriptor by two yardsticks; both go with it.
        self._groups = indices[network.descriptor_read]
        usual = network.standardised(background)
        # Where there is no candidate a row of NaN says so, and the groups have nothing to add.
        own = network.standardised((present if len(present) else scan.new_full((1, n_features), torch.nan))[None])
        n_own, n_usual = own.shape[1], usual.shape[1]
        self._empty = not len(present)
        self._own = {True: own, False: own[:, evenly(n_own, n_usual)]}
        self._usual = {True: usual[:, evenly(n_usual, n_own)], False: usual}
        self.n_players = int(self._groups.max()) + 2
        most = max(most_candidates // (len(background) * max(n_own, n_usual)), 1)
        self.sets_at_once = min(most, max(_ANSWERS_AT_ONCE // len(background), 1))

    def answers(self, cases: range, players: Tensor) -> Tensor:  # noqa: ARG002
        """See ``shapley.Game``; there is one case."""
        players = players.to(self._groups.device)
        parts = {own: self._with_number(players[players[:, -1] == own][:, :-1], own) for own in (True, False)}
        found = parts[True].new_zeros(len(players), parts[True].shape[1])
        for own, part in parts.items():
            found[players[:, -1] == own] = part
        return found[None]

    def _with_number(self, groups: Tensor, own: bool) -> Tensor:
        """Answers for sets of groups ``(k, n_groups)`` on the scan's own number of candidates, or the usual one."""
        usual, n_sets = self._usual[own], len(groups)
        kept = groups[:, self._groups][:, None, None]
        if self._empty:
            kept = torch.full_like(kept, own)
        mixed = torch.where(kept, self._own[own], usual).flatten(0, 1)
        outputs = count_outputs(self._network.distribution_of(mixed), self._network.lower_bounds)
        return outputs.reshape(n_sets, len(usual), outputs.shape[1]).mean(dim=1)


class LesionGame:
    """Candidates as players, for one scan; see the module's beginning.

    Args:
        network: in evaluation mode.
        scan: ``(N, in_features)`` descriptors; rows of NaN stand for no candidate.
        most_lesions: the likeliest candidates that play by themselves; the others play together, last.

    Attributes:
        candidates: row of the scan of each that plays by itself, most probable first.

    Raises:
        ValueError: if the shape does not fit the network, the scan has no candidate, or ``most_lesions`` is below 1.
    """

    n_cases = 1
    sets_at_once = _ANSWERS_AT_ONCE

    def __init__(self, network: CandidateMLP, scan: Tensor, most_lesions: int) -> None:
        if scan.ndim != 2 or scan.shape[1] != network.in_features or scan[:, 0].isnan().all() or most_lesions < 1:
            raise ValueError(
                f"a scan must be (N, {network.in_features}) with a candidate and most_lesions at least 1, "
                f"got {tuple(scan.shape)} and {most_lesions}"
            )
        self._network = network
        self._standardised = network.standardised(scan[None])
        with torch.no_grad():
            scores = network.candidate_probabilities(scan[None])[0]
        scores[scan[:, 0].isnan()] = -1.0
        n_present = int((scores >= 0).sum())
        order = scores.argsort(descending=True, stable=True)
        self.candidates = order[: min(most_lesions, n_present)].tolist()
        n_single = len(self.candidates)
        self.n_players = n_single + (n_present > n_single)
        self._player = torch.full((len(scan),), self.n_players - 1, device=scan.device)
        self._player[order[:n_single]] = torch.arange(n_single, device=scan.device)

    def answers(self, cases: range, players: Tensor) -> Tensor:  # noqa: ARG002
        """See ``shapley.Game``; there is one case."""
        possible = players.to(self._player.device)[:, self._player].to(self._standardised.dtype)
        pmf = self._network.distribution_of(self._standardised, possible)
        return count_outputs(pmf, self._network.lower_bounds)[None]


@torch.no_grad()
def explain_descriptors(
    network: CandidateMLP, scans: Tensor, background: Tensor, groups: Sequence[int], n_passes: int, seed: int
) -> ShapleyValues:
    """Values of groups of descriptors, and of the number of candidates as the last player.

    Args:
        network: its mode is set to evaluation.
        scans: ``(n, N, in_features)``; rows of NaN stand for no candidate.
        background: see :class:`DescriptorGame`.
        groups: see :class:`DescriptorGame`.
        n_passes: see ``shapley.sample_shapley``.
        seed: of the orders; the same for each scan.
    """
    network.eval()
    return ShapleyValues.join(
        [
            sample_shapley(
                DescriptorGame(network, scan, background, groups), n_passes, torch.Generator().manual_seed(seed)
            )
            for scan in scans
        ]
    )


@torch.no_grad()
def explain_lesions(
    network: CandidateMLP, scan: Tensor, n_passes: int, seed: int, most_lesions: int = 24
) -> tuple[list[int], ShapleyValues]:
    """Rows of one scan's likeliest candidates, and their values; one more player, if any, is all others together."""
    network.eval()
    game = LesionGame(network, scan, most_lesions)
    return game.candidates, sample_shapley(game, n_passes, torch.Generator().manual_seed(seed))
