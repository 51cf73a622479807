"""What a site does with the network: put weights in, train, judge. No FLARE messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mhsev_flare.model_average import averaged_models, is_kept
from mhsev_flare.privacy_account import PrivacyAccount
from mhsev_flare.protocol import BUFFERS
from mhsev_flare.rounds import BestRound, training_seed
from mhsev_flare.site_data import SiteData, SiteError
from mhsev_monai.evaluation import JudgedCases, evaluate_severity
from mhsev_monai.metrics import SeverityTable, severity_metrics
from mhsev_monai.private_training import PrivacyParameters, epsilon, planned_account, train_severity_privately
from mhsev_monai.severity import GradingScale
from mhsev_monai.training import TrainingHooks, TrainingParameters, severity_loss, train_severity


@dataclass(frozen=True)
class LocalTraining:
    """One site's training and judging of a network.

    Attributes:
        network: its weights change.
        scale: turns counts into grades.
        parameters: of training.
        seed: of the job; combined with the site's name and the round.
        site: its name.
        should_stop: asked before each step.
    """

    network: nn.Module
    scale: GradingScale
    parameters: TrainingParameters
    seed: int
    site: str
    should_stop: Callable[[], bool] = lambda: False

    def load(self, weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Put the arrays that came into the network, and return them in its shapes.

        Raises:
            SiteError: if they are not those of this network.
        """
        own = self.network.state_dict()
        if set(weights) != set(own):
            raise SiteError("the model that came is not the network of this job; install the same mhsev everywhere")
        # Filters such as homomorphic encryption hand arrays over flat, so shapes are the network's.
        shaped = {k: np.array(weights[k], dtype=np.float32).reshape(tuple(own[k].shape)) for k in own}
        self.network.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in shaped.items()})
        return shaped

    def update(self, received: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's weights less those that came; buffers, which training does not change, are left out."""
        return {
            key: (value.detach().cpu().numpy() - received[key]).astype(np.float32)
            for key, value in self.network.state_dict().items()
            if key not in BUFFERS
        }

    def fit(self, data: SiteData, round_number: int, hooks: TrainingHooks | None = None) -> int:
        """Train a round; the number of steps."""
        hooks = hooks or TrainingHooks(should_stop=self.should_stop)
        seed = training_seed(self.seed, self.site, round_number)
        return train_severity(self.network, data.lessons, self.scale, self.parameters, seed, hooks)

    def planned_epsilon(
        self, n_records: int, privacy: PrivacyParameters, account: PrivacyAccount, n_rounds: int = 1
    ) -> float:
        """What would have been spent on this site's cases after ``n_rounds`` more.

        Raises:
            SiteError: if the account cannot be read, or the package that keeps it is not installed.
        """
        try:
            planned = planned_account(account.read(), self.parameters, privacy, n_records, n_rounds)
            return epsilon(planned, privacy.delta)
        except ImportError as error:
            raise SiteError("opacus is not installed at this site; install mhsev with its extra dp") from error

    def fit_privately(
        self,
        data: SiteData,
        privacy: PrivacyParameters,
        account: PrivacyAccount,
        check_cost: Callable[[float], None] = lambda spent: None,
    ) -> tuple[int, float]:
        """Train a round with differential privacy of each scan; the number of steps and what is spent so far.

        The account of all steps on this site's cases is written before anything can leave. ``check_cost`` is called
        with what will have been spent, before anything is trained, and raises to refuse.
        """
        with account.locked():
            check_cost(self.planned_epsilon(len(data.train), privacy, account))
            steps, spent = train_severity_privately(
                self.network,
                data.train,
                self.scale,
                self.parameters,
                privacy,
                accountant_state=account.read(),
                should_stop=self.should_stop,
            )
            account.write(spent)
        return steps, epsilon(spent, privacy.delta)

    def train_alone(self, data: SiteData, rounds: int, ema_decay: float = 0.0) -> BestRound:
        """The best of the model that is loaded and what ``rounds`` of this site's own training make of it.

        With ``ema_decay`` the average of the rounds' models is kept unless the last is better, as in a federation.
        """
        best, average = BestRound(), dict[str, np.ndarray]()
        for round_number in range(rounds):
            self._offer(best, round_number, data)
            self.fit(data, round_number)
            if ema_decay:
                average = averaged_models(average, self._weights(), ema_decay, round_number + 1)
        last = self._offer(best, rounds, data)
        if average:
            self.load(average)
            mean = BestRound()
            if is_kept(self._offer(mean, rounds, data), last):
                return mean
        return best

    def _weights(self) -> dict[str, np.ndarray]:
        return {key: value.detach().cpu().numpy() for key, value in self.network.state_dict().items()}

    def _offer(self, best: BestRound, round_number: int, data: SiteData) -> float | None:
        table, loss = self.evaluate("validation", data)
        kappa = severity_metrics(SeverityTable.from_json(table)).quadratic_kappa
        best.offer(round_number, self._weights(), {"quadratic_kappa": kappa, "loss": loss})
        return loss if np.isfinite(loss) else None

    def evaluate(self, split: str, data: SiteData) -> tuple[dict[str, Any], float]:
        """Evaluation table and loss on the cases of a split."""
        table = evaluate_severity(self.network, data.split(split), self.scale)
        return table.to_json(), self.loss(split, data)

    def judge(self, split: str, data: SiteData, measure_odd: bool = False) -> JudgedCases:
        """What the network says of each case of a split; stays at the site."""
        return JudgedCases.of(self.network, data.split(split), self.scale, measure_odd)

    @torch.no_grad()
    def loss(self, split: str, data: SiteData) -> float:
        """Loss on the cases of a split."""
        self.network.eval()
        return float(severity_loss(self.network, data.split(split), self.scale, self.parameters.count_weight))
