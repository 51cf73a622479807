"""The server's workflow of the job ``associations``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mhsev_flare.analysis.analysis_controller import AnalysisController
from mhsev_flare.analysis.association_design import Design
from mhsev_flare.analysis.association_study import AssociationStudy
from mhsev_flare.analysis.protocol import ASSOCIATIONS_FILE, ASSOCIATIONS_SCHEMA
from mhsev_monai.severity import PAPER_SCALE


class AssociationController(AnalysisController):
    """Relates clinical variables to the grade over sites that send sums; ends with ``associations.json``.

    Args:
        study: see ``AnalysisController``.
        columns: variables, of the tables of participants.
        cuts: least number of microbleeds of each grade above the lowest.
        min_sites: see ``AnalysisController``.
        round_timeout: see ``AnalysisController``.
        task_check_period: see ``AnalysisController``.

    Raises:
        ValueError: if a variable is not known, grades are malformed, or as ``AnalysisController``.
    """

    file_name: ClassVar[str] = ASSOCIATIONS_FILE
    schema: ClassVar[str] = ASSOCIATIONS_SCHEMA

    def __init__(
        self,
        study: str,
        columns: Sequence[str],
        cuts: Sequence[int],
        min_sites: int,
        round_timeout: float,
        task_check_period: float,
    ) -> None:
        super().__init__(study, min_sites, round_timeout, task_check_period)
        self.columns = list(columns)
        self.cuts = list(cuts)
        self._design = Design(tuple(columns), tuple(cuts))

    def analyse(self, sites: Sequence[str]) -> None:
        """See ``AnalysisController``."""
        AssociationStudy(self._design, self.ask, self.min_sites, self.result).run(sites)

    def fingerprint(self) -> str:
        """Of variables and grades."""
        return self._design.digest()

    def scale_name(self) -> str:
        """Grades are the job's own; the name says only that both ends are of one version."""
        return PAPER_SCALE.name
