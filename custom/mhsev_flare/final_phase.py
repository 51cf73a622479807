"""The end of a study: calibration of the kept model, its test, and its comparison with what sites make alone.

Shared by the study in the clear and the one over ciphertexts; what the server asks of the sites is in
``final_evaluation``, how numbers stand in the result in ``result`` and ``subgroup_results``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from mhsev_flare.final_evaluation import MALFORMED, AskSites, FinalEvaluation, TestAnswers, Told
from mhsev_flare.result import (
    NoAnswerError,
    compare_with_site_models,
    evaluation_entry,
    paired_results,
    pool_tables,
    test_results,
    uncertainty_results,
)
from mhsev_flare.rounds import ledger_row
from mhsev_flare.study_record import StudyRecord
from mhsev_flare.subgroup_results import subgroup_results
from mhsev_monai.grade_calibration import (
    CalibrationCases,
    GradeCalibration,
    choose_temperature,
    loss_at,
)
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.severity import GradingScale

Weights = Mapping[str, np.ndarray]


class FinalPhase:
    """Asks the sites and makes the entries of the result.

    Args:
        ask: sends a task to the sites.
        scale: that grades counts.
        seed: of the intervals.
    """

    def __init__(self, ask: AskSites, scale: GradingScale, seed: int) -> None:
        self.evaluation = FinalEvaluation(ask)
        self.scale = scale
        self.seed = seed

    def average(self, record: StudyRecord, judges: Collection[str], weighting: str) -> dict[str, Any]:
        """Judge the average of the rounds' models, keep it if it is good enough, and make ``average`` of the result.

        Losses of two models are compared over the same cases alone, so it is not kept where other sites than
        ``judges`` answer now.

        Args:
            record: of the study, with the last model's row; changed where the average is kept.
            judges: the sites that judged the last model.
            weighting: of the sites, see ``ledger_row``.
        """
        tables, losses = self.evaluation.judge(record.average, "validation")
        n_models = record.next_round - 1  # the last row trained nothing
        row = ledger_row(n_models, (), pool_tables(tables), weighting, losses)
        kept = set(tables) == set(judges) and record.offer_average(row["validation"])
        return {"decay": record.ema_decay, "models": n_models, "validation": row["validation"], "kept": kept}

    def calibrate(self, weights: Weights) -> tuple[GradeCalibration | None, dict[str, Any] | None]:
        """The calibration of ``weights`` and the ``calibration`` of the result; None where no site told its sums.

        The temperature is chosen first, then the sets are made of scores at it: two questions, of which the second is
        left out where the temperature stays 1.

        Raises:
            NoAnswerError: if no site answered, or their sums do not add up; a study can go on without a calibration.
        """
        told = self.evaluation.calibration_cases(weights, 1.0)
        if not told.parts:
            return None, None
        pooled = _pooled(told.parts)
        temperature, reason = choose_temperature(pooled.temperatures)
        if temperature != 1:
            again = self.evaluation.calibration_cases(weights, temperature)
            if again.parts:
                told, pooled = again, _pooled(again.parts)
            else:
                temperature, reason = 1.0, "no site told its sums at the temperature that was chosen"
        calibration = pooled.calibration(temperature)
        sites = {**{site: part.n for site, part in told.parts.items()}, **told.without}
        entry = {
            "split": "validation",
            "sites": dict(sorted(sites.items())),
            "n": pooled.n,
            "reason": reason,
            "loss_before": loss_at(pooled.temperatures, 1.0),
            "loss_after": loss_at(pooled.temperatures, temperature),
            **calibration.to_json(),
        }
        return calibration, entry

    def test(
        self, weights: Weights, calibration: GradeCalibration | None, **meta: Any
    ) -> tuple[dict[str, SeverityTable], dict[str, Any]]:
        """The tables of the test cases by site, and ``test``, ``uncertainty`` and ``subgroups`` of the result."""
        answers = self.evaluation.test(weights, calibration or GradeCalibration(), **meta)
        sums = answers.uncertainty
        return dict(answers.tables), {
            "test": test_results(answers.tables, self.scale, self.seed, sums.parts),
            "uncertainty": uncertainty_results(sums.parts, sums.without, self.seed),
            "subgroups": _subgroups(answers, self.seed),
        }

    def site_models(self, weights: Weights, initial: Weights, tables: Mapping[str, SeverityTable]) -> dict[str, Any]:
        """``comparison`` and ``paired`` of the result.

        Args:
            weights: the global model.
            initial: what each site's own training begins from.
            tables: of the global model by site.
        """
        matrix = self.evaluation.site_models(initial)
        try:
            told = self.evaluation.pairs(weights, tables)
        except NoAnswerError:
            told = Told({}, {})
        paired = paired_results(tables, told.parts, self.seed)
        return {"comparison": compare_with_site_models(tables, matrix), "paired": {**paired, **_malformed(told)}}

    def majority_alone(self, tables: Mapping[str, SeverityTable]) -> dict[str, Any]:
        """``paired`` of the result where there are no site models."""
        return {"paired": paired_results(tables, {}, self.seed)}

    def personalised(self, weights: Weights) -> dict[str, Any]:
        """``personalised`` of the result: what each site's further training scores on that site's own test cases."""
        tables = self.evaluation.personalised(weights)
        return {"personalised": {site: evaluation_entry(tables[site]) for site in sorted(tables)}}


def _subgroups(answers: TestAnswers, seed: int) -> dict[str, Any] | None:
    """``subgroups`` of the result; names the sites whose answer was none, beside what the others told."""
    told = answers.subgroups
    entry = subgroup_results(told.parts, answers.least, seed)
    return {**entry, **_malformed(told)} if entry else entry


def _malformed(told: Told) -> dict[str, list[str]]:
    """The sites whose part was none, for the part's entry of the result; empty where there is no such site."""
    sites = sorted(site for site, reason in told.without.items() if reason == MALFORMED)
    return {"malformed": sites} if sites else {}


def _pooled(parts: Mapping[str, CalibrationCases]) -> CalibrationCases:
    try:
        return reduce(add, [parts[site] for site in sorted(parts)])
    except ValueError as error:  # such as more cases than any study has
        raise NoAnswerError(f"the sites' sums for calibration do not add up: {error}") from error
