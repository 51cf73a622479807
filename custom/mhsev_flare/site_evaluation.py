"""What a site tells of a model that came: sums over its cases, and from how many cases on. No FLARE.

Tables of all validation and test cases leave as ever, since no study can be judged without. What goes beyond them, the
sums for calibration, the sums of uncertainty, the tables of subgroups and of pairs, leaves only where it is of as many
cases as the site's policy asks for, and of five in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhsev_flare.local_training import LocalTraining
from mhsev_flare.protocol import Meta
from mhsev_flare.site_data import SiteData, SiteError
from mhsev_flare.small_cells import FEWEST_TOLD
from mhsev_monai.evaluation import AS_IT_IS, JudgedCases
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.pair_table import PairTable
from mhsev_monai.subgroups import case_subgroups, subgroup_rows, tellable


@dataclass(frozen=True)
class SiteEvaluation:
    """Judges models on a site's cases.

    Attributes:
        local: with the model that is judged.
        data: the site's cases.
        least: fewest cases of what goes beyond the table of a split.
    """

    local: LocalTraining
    data: SiteData
    least: int

    @staticmethod
    def under(policy_least: int, local: LocalTraining, data: SiteData) -> SiteEvaluation:
        """With the fewest cases that the site's policy tells of; five where it hides nothing."""
        return SiteEvaluation(local, data, max(policy_least, FEWEST_TOLD))

    def answer(self, split: str, asked: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """What is sent beside a loss: the table of a split, and what the server asked for beyond it.

        Args:
            split: ``train``, ``validation`` or ``test``.
            asked: entries of the server's message.

        Raises:
            SiteError: if it asks for something of the wrong split, or in no form of ours.
        """
        meta: dict[str, Any] = {Meta.SPLIT: split, Meta.LEAST: self.least}
        calibration, temperature = asked_calibration(asked), _asked_temperature(asked)
        if temperature is not None and split != "validation":
            raise SiteError("a calibration is made with validation cases, and the server asked for others")
        if calibration is not None and split != "test":
            raise SiteError("a calibration is tried on test cases, and the server asked for others")
        beyond = temperature is not None or calibration is not None
        judged = self.local.judge(split, self.data, measure_odd=beyond)
        meta[Meta.TABLE] = judged.table(calibration or AS_IT_IS).to_json()
        if temperature is not None and len(judged) >= self.least:
            meta[Meta.CALIBRATION_SUMS] = judged.calibration_cases(temperature).to_json()
        if calibration is not None:
            meta |= self._of_test(judged, calibration)
        return meta, self.local.loss(split, self.data)

    def _of_test(self, judged: JudgedCases, calibration: GradeCalibration) -> dict[str, Any]:
        meta: dict[str, Any] = {Meta.SUBGROUPS: self._subgroups(judged, calibration)}
        if len(judged) >= self.least:
            meta[Meta.UNCERTAINTY] = judged.uncertainty(calibration).to_json()
        return meta

    def _subgroups(self, judged: JudgedCases, calibration: GradeCalibration) -> dict[str, dict[str, Any]]:
        """By dimension and label the table, or a word for why there is none."""
        labels = [case_subgroups(case) for case in self.data.test_cases]
        told: dict[str, dict[str, Any]] = {}
        for dimension, groups in subgroup_rows(labels).items():
            sizes = tellable({label: len(rows) for label, rows in groups.items()}, self.least)
            told[dimension] = {
                label: size if isinstance(size, str) else judged.take(groups[label]).table(calibration).to_json()
                for label, size in sizes.items()
            }
        return told

    def pairs(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The test cases by the model that came and by the site's ``own`` weights; the network holds these after."""
        first = self.local.judge("test", self.data)
        if len(first) < self.least:
            return {Meta.LEAST: self.least}
        self.local.load(own)
        second = self.local.judge("test", self.data)
        table = PairTable.from_grades(first.true_grades, first.grades, second.grades)
        return {Meta.LEAST: self.least, Meta.PAIRS: table.to_json()}


def _asked_temperature(asked: Mapping[str, Any]) -> float | None:
    """The temperature at which calibration sums are asked for; None where they are not; raises ``SiteError``."""
    try:
        return GradeCalibration(asked[Meta.TEMPERATURE]).temperature if Meta.TEMPERATURE in asked else None
    except ValueError as error:
        raise SiteError("the temperature that came is none; install the same mhsev everywhere") from error


def asked_calibration(asked: Mapping[str, Any]) -> GradeCalibration | None:
    """The calibration that a message holds; None where it holds none.

    Raises:
        SiteError: if it is malformed.
    """
    if Meta.CALIBRATION not in asked:
        return None
    try:
        return GradeCalibration.from_json(asked[Meta.CALIBRATION])
    except ValueError as error:
        raise SiteError("the calibration that came is none; install the same mhsev everywhere") from error
