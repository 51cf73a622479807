"""The federated model: one small perceptron scores every candidate of a scan, and the scores make the count.

The paper's network is an MLP over DSD-derived features (section 2.2). Global summaries of a feature map know almost
nothing of a few dots of 2 to 3 mm, so here the MLP reads the descriptors of one candidate at a time, with the same
weights for all. What goes beyond the paper: this sharing, the count's distribution instead of a softmax (see
``count_distribution``), the small ensemble, and the two yardsticks: on scanners that trained, descriptors say most over
the whole federation; on others they mislead, and only how much a spot stands out of its own scan can be relied on.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from mhsev_monai.count_distribution import (
    candidate_count,
    count_log_likelihood,
    count_quantile,
    grade_logits,
)
from mhsev_monai.familiarity import familiarity, scan_means
from mhsev_monai.ordinal import corn_loss
from mhsev_monai.severity import GradingScale

FIRST_LOGIT = -4.0
"""Logit of a candidate before training: some 200 candidates then hold about four bleeds, as many as scans do."""
_FIRST_MISSED = -3.0
SCAN, FEDERATION, BOTH = "scan", "federation", "both"
YARDSTICKS = (SCAN, FEDERATION, BOTH)
_MOST_CONTEXT = 2.0
"""A scanner unlike all sites' is taken for the most extreme of theirs, or somewhat beyond, and no further."""


class CandidateMLP(nn.Module):
    """Perceptrons from the descriptors of a candidate to the probability of a bleed, and so to the count of a scan.

    Descriptors are standardised by ``feature_mean`` and ``feature_scale``, as in ``SeverityMLP``, over all candidates
    of the federation. ``class_weights`` weigh scans by their grade.

    Args:
        in_features: descriptors of a candidate.
        hidden_features: width of each hidden layer of a member.
        members: perceptrons of each yardstick that differ in their initial weights; each is trained by itself.
        num_classes: number of grades, none included.
        lower_bounds: least count of each grade above none.
        dropout: probability of dropping a hidden unit in training, in [0, 1).
        noise: standard deviation of the normal noise that training adds to standardised descriptors.
        grade_weight: weight of the ordinal loss beside the count's negative log-likelihood.
        mark_weight: weight of the cross-entropy of marked candidates, where a site has lesion masks.
        yardstick: ``federation``: descriptors are standardised over all its candidates. ``scan``: they are measured
            against the other candidates of the same scan (their median and quartiles), so that what counts is how much
            a spot stands out of its own scan's clutter, whatever the scanner. ``both``: ``members`` of either kind; of
            each scan's answer the share that is its ``familiarity`` comes from those of the federation, the rest from
            those of the scan. The buffers ``scan_mean`` and ``scan_scale`` say which scans are usual.
        context_features: indices of descriptors that all candidates of a scan share and that say how much it can show,
            noise and spacing. They are standardised over the federation and limited to -2 to 2, whatever the
            yardstick. The perceptrons read them so, and the number of bleeds missed for each that is found follows
            them: one number for all scanners makes the good ones overcount for what the poor ones miss.
        max_deviation: standardised descriptors are limited to this many standard deviations.
        seed: of the initial weights.
        max_federation_deviation: the same for the federation's yardstick where there are ``both``; None: no other one.

    Raises:
        ValueError: if a size is not positive, a share is outside its range, or the bounds do not fit the grades.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    class_weights: Tensor

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        members: int,
        num_classes: int,
        lower_bounds: Sequence[int],
        dropout: float,
        noise: float,
        grade_weight: float,
        mark_weight: float,
        yardstick: str,
        context_features: Sequence[int],
        max_deviation: float,
        seed: int,
        max_federation_deviation: float | None = None,
    ) -> None:
        super().__init__()
        limits = [max_deviation, max_deviation if max_federation_deviation is None else max_federation_deviation]
        if min([in_features, members, *hidden_features]) < 1 or not all(limit > 0 for limit in limits):
            raise ValueError("in_features, hidden_features, members and limits of deviation must be positive")
        if len(lower_bounds) != num_classes - 1:
            raise ValueError(f"{num_classes} grades need {num_classes - 1} lower_bounds, got {list(lower_bounds)}")
        if any(not 0 <= index < in_features for index in context_features):
            raise ValueError(f"context_features must be indices below {in_features}, got {list(context_features)}")
        if yardstick not in YARDSTICKS:
            raise ValueError(f"yardstick must be one of {', '.join(YARDSTICKS)}, got {yardstick!r}")
        if not 0 <= dropout < 1 or min(noise, grade_weight, mark_weight) < 0:
            raise ValueError(
                "dropout must be in [0, 1), noise, grade_weight and mark_weight not negative, "
                f"got {dropout}, {noise}, {grade_weight} and {mark_weight}"
            )
        self.in_features = in_features
        self.hidden_features = list(hidden_features)
        self.members = members
        self.num_classes = num_classes
        self.lower_bounds = list(lower_bounds)
        self.dropout = dropout
        self.noise = noise
        self.grade_weight = grade_weight
        self.mark_weight = mark_weight
        self.yardstick = yardstick
        self.context_features = list(context_features)
        self.max_deviation = max_deviation
        self.max_federation_deviation = max_federation_deviation
        self._limit = dict(zip((SCAN, FEDERATION), limits, strict=True)) if yardstick == BOTH else {}
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # With both yardsticks those of the scan come first.
            self.scorers = nn.ModuleList(self._scorer() for _ in range(members * (1 + (yardstick == BOTH))))
        n_scorers = len(self.scorers)
        # Softplus of these: bleeds that no candidate stands for, in any scan and for each bleed found; the latter rises
        # with the context by these slopes before the softplus.
        self.missed_base = nn.Parameter(torch.full((n_scorers,), _FIRST_MISSED))
        self.missed_per_found = nn.Parameter(torch.full((n_scorers,), _FIRST_MISSED))
        self.missed_by_context = nn.Parameter(torch.zeros(n_scorers, len(self.context_features)))
        self.register_buffer("feature_mean", torch.zeros(in_features))
        self.register_buffer("feature_scale", torch.ones(in_features))
        self.register_buffer("class_weights", torch.ones(num_classes))
        if yardstick == BOTH:
            self.register_buffer("scan_mean", torch.zeros(in_features))
            self.register_buffer("scan_scale", torch.ones(in_features))

    def _scorer(self) -> nn.Module:
        return nn.Sequential(*judging_layers(self.in_features, self.hidden_features, self.dropout))

    def forward(self, features: Tensor) -> Tensor:
        """Conditional logits of the grades and the log count, the form that ``networks.split_output`` reads.

        Args:
            features: ``(n, N, in_features)`` descriptors in their own units; rows of NaN stand for no candidate.

        Returns:
            ``(n, num_classes)``: ``num_classes - 1`` logits, then log(1 + median count).
        """
        pmf = self.count_distribution(features)
        logits = grade_logits(pmf, tuple(self.lower_bounds))
        return torch.cat([logits, torch.log1p(count_quantile(pmf, 0.5).to(logits.dtype))[:, None]], dim=1)

    def count_distribution(self, features: Tensor) -> Tensor:
        """``(n, MOST_COUNTED + 1)`` distribution of each scan's count: the mean of the members' distributions.

        With both yardsticks it is the mean of each kind's mean, weighted by how familiar the scan is.
        """
        return self.distribution_of(self.standardised(features))

    def distribution_of(self, standardised: Tensor, possible: Tensor | None = None) -> Tensor:
        """``(n, MOST_COUNTED + 1)`` distribution of the counts of scans that are standardised already.

        Args:
            standardised: from :meth:`standardised`.
            possible: ``(n, N)``: 1 for a candidate that is what its score says, 0 for one that is taken for no bleed;
                all are possible by default. With one scan, ``(k, N)`` gives k distributions of it.
        """
        scores = self._member_scores(standardised)
        if possible is not None:
            scores = [score * possible for score in scores]
        return self._mean_of_members(self._member_distributions(standardised, scores), standardised)

    def candidate_probabilities(self, features: Tensor) -> Tensor:
        """``(n, N)`` probability that each candidate is a bleed, the members' mean; 0 where there is none."""
        standardised = self.standardised(features)
        return self._mean_of_members(self._member_scores(standardised), standardised)

    def familiarity(self, features: Tensor) -> Tensor:
        """``(n,)`` share of each scan's answer that the federation's yardstick gives, 0 to 1."""
        return self._share_of_federation(self.standardised(features))

    def loss(
        self, standardised: Tensor, counts: Tensor, grades: Tensor, scale: GradingScale, marks: Tensor | None = None
    ) -> Tensor:
        """Mean over members of the counts' negative log-likelihood and the ordinal loss, weighted by class.

        Args:
            standardised: from :meth:`standardised`, once for a whole training.
            counts: ``(n,)`` true counts.
            grades: ``(n,)`` grades of these counts.
            scale: the grading scale, which must have this network's bounds.
            marks: ``(n, N)``: 1 for a bleed, 0 for none, NaN where it is not known; None: nothing is known.

        Raises:
            ValueError: if the scale grades counts otherwise than the network.
        """
        if list(scale.lower_bounds) != self.lower_bounds:
            raise ValueError(
                f"the network grades at {self.lower_bounds}, the scale {scale.name} at {list(scale.lower_bounds)}; "
                "give both the same bounds"
            )
        weights = self.class_weights[grades]
        scores = self._member_scores(standardised)
        total = standardised.new_zeros(())
        if marks is not None and self.mark_weight > 0:
            total = self.mark_weight * sum((_mark_loss(score, marks) for score in scores), start=total)
        for pmf in self._member_distributions(standardised, scores):
            likelihood = (weights * count_log_likelihood(pmf, counts)).sum() / weights.sum().clamp_min(1e-6)
            ordinal = corn_loss(grade_logits(pmf, tuple(self.lower_bounds)), grades, self.class_weights)
            total = total + self.grade_weight * ordinal - likelihood
        return total / len(self.scorers)

    def _mean_of_members(self, answers: Sequence[Tensor], standardised: Tensor) -> Tensor:
        """``(n, M)`` mean of ``(n, M)`` answers, one a member."""
        if self.yardstick != BOTH:
            return torch.stack(list(answers)).mean(dim=0)
        share = self._share_of_federation(standardised)[:, None]
        of_scan, of_federation = (
            torch.stack(list(part)).mean(dim=0) for part in (answers[: self.members], answers[self.members :])
        )
        return share * of_federation + (1 - share) * of_scan

    def _share_of_federation(self, standardised: Tensor) -> Tensor:
        if self.yardstick != BOTH:
            return standardised.new_full((len(standardised),), float(self.yardstick == FEDERATION))
        means = scan_means(standardised[..., self.in_features :]) * self.feature_scale + self.feature_mean
        return familiarity(means, self.get_buffer("scan_mean"), self.get_buffer("scan_scale"))

    def _member_scores(self, standardised: Tensor) -> list[Tensor]:
        present = ~standardised[..., 0].isnan()
        scores = []
        for part, read in enumerate(self._read(standardised)):
            values = read.nan_to_num(nan=0.0)
            if self.training and self.noise > 0:
                values = values + self.noise * torch.randn_like(values)
            own = self.scorers[part * self.members : (part + 1) * self.members]
            scores += [self._score(scorer, values, present) for scorer in own]
        return scores

    def _read(self, standardised: Tensor) -> list[Tensor]:
        """What the perceptrons of each yardstick read, ``(n, N, in_features)`` each."""
        if self.yardstick != BOTH:
            return [standardised]
        over_all = standardised[..., self.in_features :]
        return [standardised[..., : self.in_features], self._limited(over_all, over_all, FEDERATION)]

    def _member_distributions(self, standardised: Tensor, scores: Sequence[Tensor]) -> list[Tensor]:
        base = nn.functional.softplus(self.missed_base)
        # A scan without candidates has no context; it is taken for a usual one.
        context = standardised[:, 0, self.context_features].nan_to_num(nan=0.0)
        per_found = nn.functional.softplus(self.missed_per_found[:, None] + self.missed_by_context @ context.T)
        return [candidate_count(score, base[member], per_found[member]) for member, score in enumerate(scores)]

    def standardised(self, features: Tensor) -> Tensor:
        """What the perceptrons read, ``(n, N, len(descriptor_read))``; rows of NaN stay. Training does not change it.

        With both yardsticks the descriptors stand there twice, those of the federation without limits, so that how
        familiar a scan is can be read off them.
        """
        over_all = (features - self.feature_mean) / self.feature_scale
        if self.yardstick == FEDERATION:
            return self._limited(over_all, over_all, FEDERATION)
        within = self._limited(against_scan(features), over_all, SCAN)
        return within if self.yardstick == SCAN else torch.cat([within, over_all], dim=-1)

    @property
    def descriptor_read(self) -> list[int]:
        """For each column of :meth:`standardised` the index of the descriptor that it is made of."""
        return list(range(self.in_features)) * (1 + (self.yardstick == BOTH))

    def _limited(self, values: Tensor, over_all: Tensor, yardstick: str) -> Tensor:
        most = self._limit.get(yardstick, self.max_deviation)
        values = values.clamp(-most, most)
        values[..., self.context_features] = over_all[..., self.context_features].clamp(-_MOST_CONTEXT, _MOST_CONTEXT)
        return values

    def _score(self, scorer: nn.Module, values: Tensor, present: Tensor) -> Tensor:
        scores = torch.zeros(present.shape, dtype=values.dtype, device=values.device)
        scores[present] = torch.sigmoid(scorer(values[present])[:, 0])
        return scores


def judging_layers(width: int, hidden_features: Sequence[int], dropout: float) -> list[nn.Module]:
    """A perceptron from ``width`` numbers of a candidate to its logit, which begins at ``FIRST_LOGIT``."""
    layers: list[nn.Module] = []
    for next_width in hidden_features:
        layers += [nn.Linear(width, next_width), nn.SiLU(), nn.Dropout(dropout)]
        width = next_width
    last = nn.Linear(width, 1)
    nn.init.constant_(last.bias, FIRST_LOGIT)
    return [*layers, last]


_MEASURED: MutableMapping[Tensor, tuple[int, int | None, Tensor]] = WeakTensorKeyDictionary()
"""What :func:`against_scan` made of tensors that are still in use, with their version and how much of them it took."""


def against_scan(features: Tensor, n_descriptors: int | None = None) -> Tensor:
    """Each descriptor less its median over the scan's candidates, over their spread, the quartiles' distance / 1.349.

    Every round of a training asks for the same cases, and sorting them takes as long as learning from them: while a
    tensor is in use and unchanged, its result is kept.

    Args:
        features: ``(n, N, F)``; rows of NaN stand for no candidate, and stay.
        n_descriptors: the first so many of a row are measured, ``D``; None: all.

    Returns:
        ``(n, N, D)``, not to be changed; 0 for a descriptor that all candidates of a scan share.
    """
    if features.is_inference():
        # Such tensors do not tell whether they were changed.
        return _measured(features[..., :n_descriptors])
    known = _MEASURED.get(features)
    if known is None or known[:2] != (features._version, n_descriptors):
        known = features._version, n_descriptors, _measured(features[..., :n_descriptors])
        _MEASURED[features] = known
    return known[2]


@torch.no_grad()
def _measured(features: Tensor) -> Tensor:
    low, middle, high = features.nanquantile(torch.tensor([0.25, 0.5, 0.75]), dim=1, keepdim=True)
    spread = (high - low) / 1.349
    return torch.where(spread > 1e-6, (features - middle) / spread.clamp_min(1e-6), features * 0.0)


def _mark_loss(scores: Tensor, marks: Tensor) -> Tensor:
    """Cross-entropy of the marked candidates of a scan, summed, as the count's likelihood is; mean over scans."""
    known = ~marks.isnan()
    likely = scores[known].clamp(1e-6, 1 - 1e-6)
    return nn.functional.binary_cross_entropy(likely, marks[known], reduction="sum") / len(scores)
