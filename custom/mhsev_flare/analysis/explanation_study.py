"""The server's part in the explanation of a model: the common background, the sites' sums, the result. No FLARE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mhsev_flare.analysis.asked_sites import AnalysisStoppedError, Answer, Answers, AskSites, Question, too_few
from mhsev_flare.analysis.association_study import MALFORMED
from mhsev_flare.analysis.explanation_arrays import moments_from_arrays, table_from_arrays
from mhsev_flare.analysis.explanation_plan import ExplanationPlan
from mhsev_flare.analysis.player_sizes import N_BINS, SizeMoments
from mhsev_flare.analysis.protocol import TASK_ATTRIBUTE, TASK_MEASURE, Entry
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.shapley_background import SecondMoments, common_background
from mhsev_monai.shapley_explain import Effort, ExplainError, Explanation, explain
from mhsev_monai.shapley_groups import feature_groups
from mhsev_monai.shapley_tables import ShapleyTable

NOT_TOLD = "did not tell second moments"
SERVER_TELLS = "sent sums that are none; see the log of that site"


@dataclass
class ExplanationStudy:
    """One explanation.

    Attributes:
        network: the trained one.
        names: of its features.
        plan: how it is explained.
        ask: asks sites.
        min_sites: fewest sites.
        result: what is known so far, as it stands in the result file.
    """

    network: nn.Module
    names: tuple[str, ...]
    plan: ExplanationPlan
    ask: AskSites
    min_sites: int
    result: dict[str, Any] = field(default_factory=dict)

    def run(self, sites: Sequence[str]) -> None:
        """Ask ``sites`` for all that is needed; the result is in :attr:`result`.

        Raises:
            AnalysisStoppedError: if too few sites take part, or the network cannot be explained.
        """
        self.result |= {"method": "permutation", "n_passes": self.plan.n_passes, "sites": {}, "refused": {}}
        n_players = len(feature_groups(self.names).names) + isinstance(self.network, CandidateMLP)
        sizes, moments, able = self._measure(sites, n_players)
        background = self._background(sizes, moments, able)
        usual = self._probe(background)
        edges = sizes.edges()
        self.result |= {
            "players": list(usual.players),
            "outputs": list(usual.outputs),
            "base": dict(zip(usual.outputs, usual.values.base[0].tolist(), strict=True)),
            "edges": dict(zip(usual.players, edges.tolist(), strict=True)),
        }
        tables = self._attribute(able, background, edges, usual)
        self.result["sites"] = {site: told_table(table) for site, table in tables.items()}
        self.result["pooled"] = told_table(reduce(add, tables.values()))

    def _probe(self, background: Tensor) -> Explanation:
        """The explanation of one row of the background itself: names, and the answer without any player."""
        try:
            groups = feature_groups(self.names)
            return explain(self.network, background[:1], background, groups, effort=Effort(n_passes=1))
        except (ExplainError, ValueError, RuntimeError) as error:
            raise AnalysisStoppedError(f"this model cannot be explained: {error}") from error

    def _weights(self) -> dict[str, NDArray[Any]]:
        return {key: value.detach().cpu().numpy().copy() for key, value in self.network.state_dict().items()}

    def _measure(
        self, sites: Sequence[str], n_players: int
    ) -> tuple[SizeMoments, Mapping[str, SecondMoments | str], list[str]]:
        """Moments of sizes, second moments or why there are none by site, and the sites that take part."""
        question = Question(self._weights(), {Entry.COVARIANCES: self.plan.covariances})
        answers = self.ask(TASK_MEASURE, dict.fromkeys(sites, question))
        self.result["refused"] |= answers.missing
        sizes: dict[str, SizeMoments] = {}
        moments: dict[str, SecondMoments | str] = {}
        for site, answer in answers.by_site.items():
            try:
                sizes[site] = self._sizes(answer, n_players)
                moments[site] = self._second_moments(answer)
            except MALFORMED:
                sizes.pop(site, None)
                self.result["refused"][site] = SERVER_TELLS
        self._enough(sizes)
        return reduce(add, sizes.values()), moments, list(sizes)

    def _sizes(self, answer: Answer, n_players: int) -> SizeMoments:
        sizes = SizeMoments.from_arrays(answer.arrays, n_players)
        # Background scans get so many dark spots, and all sites work on them.
        if isinstance(self.network, CandidateMLP) and not 0 <= sizes.mean[-1] <= MOST_PEAKS:
            raise ValueError(f"a scan has 0 to {MOST_PEAKS} dark spots")
        return sizes

    def _second_moments(self, answer: Answer) -> SecondMoments | str:
        if not self.plan.covariances:
            return ""
        if Entry.SECOND_MOMENTS in answer.beside:
            return moments_from_arrays(answer.beside[Entry.SECOND_MOMENTS], len(self.names))
        return str(answer.beside.get(Entry.WITHHELD, {}).get(Entry.SECOND_MOMENTS, NOT_TOLD))

    def _enough(self, taking_part: Mapping[str, Any]) -> None:
        problem = too_few(list(taking_part), self.result["refused"], self.min_sites)
        if problem:
            raise AnalysisStoppedError(problem, refused=True)

    def _background(
        self, sizes: SizeMoments, moments: Mapping[str, SecondMoments | str], able: Sequence[str]
    ) -> Tensor:
        """Of covariances where all sites told theirs; a part of the sites would not be the federation."""
        told = [value for site in able if isinstance(value := moments[site], SecondMoments)]
        withheld = {site: value for site in able if isinstance(value := moments[site], str) and value}
        pooled = reduce(add, told) if len(told) == len(able) else None
        is_set = isinstance(self.network, CandidateMLP)
        n_candidates = max(round(float(sizes.mean[-1])), 1) if is_set else None
        self.result["background"] = {
            "n_rows": self.plan.n_background,
            "n_candidates": n_candidates,
            "seed": self.plan.background_seed,
            "moments": "deviations" if pooled is None else "covariances",
            "withheld": withheld,
        }
        try:
            return common_background(
                self.network, self.plan.n_background, self.plan.background_seed, n_candidates or 1, pooled
            )
        except ValueError as error:
            raise AnalysisStoppedError(f"no background can be drawn: {error}") from error

    def _attribute(
        self, able: Sequence[str], background: Tensor, edges: NDArray[np.float64], usual: Explanation
    ) -> dict[str, ShapleyTable]:
        beside = {Entry.BACKGROUND: background.numpy(), Entry.EDGES: edges}
        answers: Answers = self.ask(TASK_ATTRIBUTE, dict.fromkeys(able, Question(self._weights(), beside)))
        self.result["refused"] |= answers.missing
        tables: dict[str, ShapleyTable] = {}
        for site, answer in answers.by_site.items():
            try:
                tables[site] = table_from_arrays(answer.arrays, (usual.players, usual.outputs), N_BINS)
            except MALFORMED:
                self.result["refused"][site] = SERVER_TELLS
        self._enough(tables)
        return tables


def told_table(table: ShapleyTable) -> dict[str, Any]:
    """A table as it stands in the result file, with what follows from it."""
    importance = {output: [row._asdict() for row in table.importance(output)] for output in table.outputs}
    return {"cases": table.n, "table": table.to_json(), "importance": importance}


def same_arguments(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two ``model_file.class_config`` describe the same object; lists and tuples count alike."""
    return bool(_plain(first) == _plain(second))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value
