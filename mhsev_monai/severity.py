"""Severity grades and the scales that turn a count of microbleeds into one.

The count is the finding; the grade is a policy over it. The paper grades 1-5, 6-10 and more than 10 (its section 2);
zero, which the paper leaves open, is graded ``NONE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """Severity of a scan, in rising order; the values are the class indices of every model and table."""

    NONE = 0
    MILD = 1
    MODERATE = 2
    SEVERE = 3

    @property
    def label(self) -> str:
        """The grade in lower case, as written in tables and reports."""
        return self.name.lower()


@dataclass(frozen=True)
class GradingScale:
    """A policy that grades a scan by its number of microbleeds.

    Attributes:
        name: how the scale is called in results.
        lower_bounds: the smallest count of MILD, MODERATE and SEVERE, strictly rising; below the first: NONE.
    """

    name: str
    lower_bounds: tuple[int, int, int]

    def __post_init__(self) -> None:
        first, second, third = self.lower_bounds
        if not 0 < first < second < third:
            raise ValueError(f"lower_bounds must be positive and strictly rising, got {self.lower_bounds}")

    def grade(self, count: float) -> Severity:
        """The grade of a scan with ``count`` microbleeds.

        Raises:
            ValueError: if ``count`` is negative or not a number.
        """
        if not count >= 0:
            raise ValueError(f"a count of microbleeds is 0 or more, got {count}")
        return Severity(sum(count >= bound for bound in self.lower_bounds))


PAPER_SCALE = GradingScale("paper", (1, 6, 11))
"""1-5 mild, 6-10 moderate, more than 10 severe (the paper, section 2)."""

ARIA_H_COUNTS = GradingScale("aria-h", (1, 5, 10))
"""The count bounds of ARIA-H; a true ARIA-H grade counts bleeds that are new since a baseline scan."""

SCALES = {scale.name: scale for scale in (PAPER_SCALE, ARIA_H_COUNTS)}


def severity_from_count(count: float, scale: GradingScale = PAPER_SCALE) -> Severity:
    """Grade a count on ``scale``, the paper's by default."""
    return scale.grade(count)
