"""What an honest but curious server can compute from what a site sends: its cases' features, and who was among them.

Such a server follows the protocol, and keeps all that passes. It knows the network, the job's numbers and seed, hence
the order of a site's cases in every epoch and which hidden units dropout took.

Reconstruction: in closed form from the first layer (Phong et al. 2018, "Privacy-preserving deep learning via additively
homomorphic encryption", section III), or by a search for cases that would have sent the same (Zhu, Liu, Han 2019, "Deep
leakage from gradients"; with the cosine for a distance Geiping et al. 2020, "Inverting gradients"). The search may also
go through a site's whole training, as in Dimitrov et al. 2022, "Data leakage in federated averaging". It is given the
true counts in their order, which is more than a server knows; so labels need no guessing.

Membership: by the loss (Yeom et al. 2018), or by a likelihood ratio whose two distributions come from trainings with
and without the case (LiRA, Carlini et al. 2022, "Membership inference attacks from first principles", section V). Ours
takes the log of the loss, not the odds of the grade alone, since training lowers the loss of the count too.

A search that fails proves nothing: a longer one may succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mhsev_monai.networks import SeverityMLP, run_network, split_output
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, severity_loss

Arrays = NDArray[np.float64]
Sent = Sequence[Tensor]
"""One array for each parameter of the network, in its order."""
Simulation = Callable[[LabelledFeatures], Sent]
"""From cases to what a site with these cases sends, differentiable in their features."""
Distance = Callable[[Tensor, Tensor], Tensor]

_BETAS, _EPS = (0.9, 0.999), 1e-8
"""AdamW's own, which jobs leave as they are."""


def standardised(network: SeverityMLP, features: Tensor) -> Tensor:
    """``(n, in_features)`` as the first layer reads them: all that weights can tell of a case."""
    values = (features - network.feature_mean) / network.feature_scale
    return values.clamp(-network.max_deviation, network.max_deviation)


def first_layer_inputs(sent: Sent) -> Tensor:
    """What each unit of the first layer tells of its input: the change of its weights over that of its bias.

    For a gradient of one case every row is that case's input, exactly. For more, it is their mean, weighted by how much
    each case's loss depends on the unit, so that a unit that is active for one case alone still tells that case.

    Args:
        sent: a gradient, or an update, whose first two arrays are weight and bias of the first layer.

    Returns:
        ``(m, in_features)`` for the ``m`` units whose bias changed, those that changed most first.
    """
    weight, bias = sent[0].double(), sent[1].double()
    active = bias.abs().argsort(descending=True)[: int((bias != 0).sum())]
    return (weight[active] / bias[active, None]).float()


def case_from_moments(with_case: FeatureMoments, without: FeatureMoments) -> Arrays:
    """``(in_features,)`` features of the one case by which two handshakes of a site differ."""
    return with_case.n * with_case.mean - without.n * without.mean


class _LossModule(nn.Module):
    """The loss as a module, so that weights which autograd follows can be put into it."""

    def __init__(self, network: nn.Module, count_weight: float) -> None:
        super().__init__()
        self.network = network
        self.count_weight = count_weight

    def forward(self, data: LabelledFeatures) -> Tensor:
        return severity_loss(self.network, data, PAPER_SCALE, self.count_weight)


def gradient_simulation(network: SeverityMLP, count_weight: float) -> Simulation:
    """The gradient of all cases' loss, without dropout: what one step of plain descent sends, but for its length."""
    loss, weights = _LossModule(network, count_weight), list(network.parameters())

    def simulate(data: LabelledFeatures) -> Sent:
        loss.eval()
        return torch.autograd.grad(loss(data), weights, create_graph=True)

    return simulate


def training_simulation(network: SeverityMLP, parameters: TrainingParameters, seed: int) -> Simulation:
    """The update of ``train_severity`` with the same arguments, every step of which autograd can follow."""
    loss = _LossModule(network, parameters.count_weight)
    names = [name for name, _ in loss.named_parameters()]
    start = [weight.detach().clone() for weight in loss.parameters()]

    def simulate(data: LabelledFeatures) -> Sent:
        steps = _AdamW(parameters, [weight.clone().requires_grad_() for weight in start])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            loss.train()
            for _ in range(parameters.epochs):
                for batch in torch.randperm(len(data)).split(parameters.batch_size):
                    bound = dict(zip(names, steps.weights, strict=True))
                    value = functional_call(loss, bound, (data.take(batch),))
                    steps.step(torch.autograd.grad(value, steps.weights, create_graph=True))
        return [after - before for after, before in zip(steps.weights, start, strict=True)]

    return simulate


class _AdamW:
    """AdamW out of place (Loshchilov and Hutter 2019, algorithm 2)."""

    def __init__(self, parameters: TrainingParameters, weights: list[Tensor]) -> None:
        self.rate, self.decay = parameters.learning_rate, parameters.weight_decay
        self.weights, self.n_steps = weights, 0
        self.first = [torch.zeros_like(w) for w in weights]
        self.second = [torch.zeros_like(w) for w in weights]

    def step(self, gradient: Sequence[Tensor]) -> None:
        self.n_steps += 1
        (one, two), n = _BETAS, self.n_steps
        self.first = [one * m + (1 - one) * g for m, g in zip(self.first, gradient, strict=True)]
        self.second = [two * v + (1 - two) * g * g for v, g in zip(self.second, gradient, strict=True)]
        # The tiny number keeps the root's slope finite where a unit was never active.
        lengths = [(v / (1 - two**n) + 1e-24).sqrt() + _EPS for v in self.second]
        moves = [m / (1 - one**n) / length for m, length in zip(self.first, lengths, strict=True)]
        shrink = 1 - self.rate * self.decay
        self.weights = [w * shrink - self.rate * move for w, move in zip(self.weights, moves, strict=True)]


def squared_distance(made: Tensor, sent: Tensor) -> Tensor:
    """Zhu et al. 2019, relative to what was sent."""
    return (made - sent).square().sum() / sent.square().sum()


def cosine_distance(made: Tensor, sent: Tensor) -> Tensor:
    """Geiping et al. 2020, equation 4, without their prior for images."""
    return 1 - F.cosine_similarity(made, sent, dim=0)


@dataclass(frozen=True)
class Search:
    """How cases are looked for: Adam from small random numbers, with a learning rate that falls to 0 as a cosine."""

    n_steps: int
    seed: int
    learning_rate: float = 0.1
    start_deviation: float = 0.3

    def find(
        self, sent: Sent, simulate: Simulation, distance: Distance, network: SeverityMLP, counts: Tensor
    ) -> tuple[Tensor, float]:
        """``(n, in_features)`` standardised features of cases with ``counts``, and how far from ``sent`` they lead."""
        generator = torch.Generator().manual_seed(self.seed)
        guess = self.start_deviation * torch.randn(len(counts), network.in_features, generator=generator)
        guess.requires_grad_()
        optimiser = torch.optim.Adam([guess], lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.n_steps)
        target, best, least = _flat(sent).detach(), guess.detach().clone(), float("inf")
        for _ in range(self.n_steps):
            features = network.feature_mean + network.feature_scale * guess
            far = distance(_flat(simulate(LabelledFeatures(features, counts))), target)
            if float(far.detach()) < least:
                best, least = guess.detach().clone(), float(far.detach())
            (guess.grad,) = torch.autograd.grad(far, guess)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                guess.clamp_(-network.max_deviation, network.max_deviation)
        return best, least


def _flat(sent: Sent) -> Tensor:
    return torch.cat([part.flatten() for part in sent])


class Nearest(NamedTuple):
    """The best that any guess says of each of ``n`` cases, both ``(n,)``.

    Attributes:
        correlation: largest Pearson correlation over the features of the case, -1 to 1.
        error: least sum of squared errors over the sum of squares; 1 is what the federation's mean would get.
    """

    correlation: Arrays
    error: Arrays


def nearest(guesses: Tensor, cases: Tensor) -> Nearest:
    """How well ``(m, d)`` guesses know ``(n, d)`` cases; for cases that were not there, what chance gives."""
    m, n = len(guesses), len(cases)
    if m == 0:
        return Nearest(np.zeros(n), np.full(n, np.inf))
    between = np.corrcoef(guesses.double().numpy(), cases.double().numpy())[:m, m:]
    errors = torch.cdist(guesses.double(), cases.double()).square() / cases.double().square().sum(dim=1)
    return Nearest(np.nan_to_num(between, nan=-1.0).max(axis=0), errors.min(dim=0).values.numpy())


@torch.no_grad()
def case_losses(network: nn.Module, data: LabelledFeatures, count_weight: float) -> Arrays:
    """``(n,)`` what training lowers, of each case by itself: ``severity_loss`` of a batch of it alone."""
    network.eval()
    logits, log_count = split_output(run_network(network, data.features))
    grades, steps = data.grades(PAPER_SCALE)[:, None], torch.arange(logits.shape[1])
    asked, above = (grades >= steps).float(), (grades > steps).float()
    answers = F.binary_cross_entropy_with_logits(logits, above, reduction="none")
    ordinal = (asked * answers).sum(dim=1) / asked.sum(dim=1)
    count = F.smooth_l1_loss(log_count, torch.log1p(data.counts), reduction="none")
    return (ordinal + count_weight * count).double().numpy()


def likelihood_ratios(statistics: Arrays, inside: NDArray[np.bool_]) -> Arrays:
    """LiRA's score of each case in each training, from all the other trainings.

    One standard deviation serves all cases, as Carlini et al. advise for few trainings (section V-C). A training on
    exactly the other cases is left out too: with it, who was there would be in fewer of the others than who was not.

    Args:
        statistics: ``(trainings, n)``, such as minus the log of :func:`case_losses` of each trained network.
        inside: ``(trainings, n)`` whether the case was among those trained on; in and out for each in those compared.

    Returns:
        ``(trainings, n)`` log likelihood ratios; above 0 speaks for a member.
    """
    scores = np.empty(statistics.shape)
    for k in range(len(statistics)):
        others = ~(inside == inside[k]).all(axis=1) & ~(inside != inside[k]).all(axis=1)
        told, there = statistics[others], inside[others]
        means = [np.where(there == side, told, 0).sum(axis=0) / (there == side).sum(axis=0) for side in (True, False)]
        variance = (told - np.where(there, means[0], means[1])).var() + 1e-12
        scores[k] = ((statistics[k] - means[1]) ** 2 - (statistics[k] - means[0]) ** 2) / (2 * variance)
    return scores


class Rate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


class Membership(NamedTuple):
    """How well a score tells members from others: 0.5 and about ``MOST_FALSE`` by chance."""

    auc: Rate
    true_positives: Rate


MOST_FALSE = 0.05
"""Share of the others that may be taken for members, where true positives are counted."""


def membership(scores: Sequence[tuple[Arrays, Arrays]], seed: int, n_draws: int = 1000) -> Membership:
    """Means over trainings of AUC and true positives, with percentile bootstrap intervals.

    Trainings are drawn with replacement, and within each its members and its others.

    Args:
        scores: of members and of others for each training; a higher score says member.
        seed: of the draws.
        n_draws: how many.
    """
    random = np.random.default_rng(seed)
    found = np.array([_rates(m, o, *(np.arange(len(x))[None] for x in (m, o)))[:, 0] for m, o in scores]).mean(axis=0)
    drawn = [_rates(*pair, *(random.integers(0, len(x), (n_draws, len(x))) for x in pair)) for pair in scores]
    chosen = random.integers(0, len(scores), (len(scores), n_draws))
    means = np.array(drawn).transpose(1, 0, 2)[:, chosen, np.arange(n_draws)].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    rates = (Rate(*map(float, numbers)) for numbers in zip(found, low, high, strict=True))
    return Membership(*rates)


def _rates(members: Arrays, others: Arrays, of_members: NDArray[np.int_], of_others: NDArray[np.int_]) -> Arrays:
    """``(2, draws)`` AUC and true positive rate, each draw of indices into the scores."""
    wins = (members[:, None] > others) + (members[:, None] == others) / 2
    times = np.apply_along_axis(np.bincount, 1, of_members, minlength=len(members))
    # A drawn member beats a drawn other as often as the two were drawn: no pair is compared twice.
    won = np.take_along_axis(times @ wins, of_others, axis=1).sum(axis=1)
    threshold = np.sort(others[of_others], axis=1)[:, -1 - int(MOST_FALSE * len(others))]
    hits = (members[of_members] > threshold[:, None]).mean(axis=1)
    return np.stack([won / (len(members) * len(others)), hits])
