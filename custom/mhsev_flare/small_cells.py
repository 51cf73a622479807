"""Numbers of cases so small that they say something of a person: hidden for reports, rounded for sums. No FLARE.

A table of a hospital in which one patient has a severe grade tells of that patient to whoever knows who was scanned.
Rules of this kind are usual in official statistics (Hundepool et al. 2012, Statistical Disclosure Control, chapter 4).
Ours hides more than theirs: which number covers a small one must not depend on the numbers, or a reader who knows the
rule counts back. What such a reader can find out is stated below, and tested by going through all tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Cell = int | str | None
"""A number that may be told, a range such as ``1-4`` or ``5+``, or None where not even the range may be told."""

FEWEST_TOLD = 5
"""With a lower ``least``, some tables with nothing but None in them follow from their total."""


def suppress_small_cells(counts: Sequence[int], least: int = FEWEST_TOLD) -> list[Cell]:
    """The counts of one table, without those from 1 to ``least - 1``, for readers who know their total.

    Small numbers become a range such as ``1-4``, and all others that are not zero become ``5+``, since the total less
    the others is the small one. For a reader who knows the total and this rule, a small number can then be anything in
    its range. Where the total is so low that this would not hold, all of the table becomes None.

    Args:
        counts: cases by category, whole numbers from 0 on.
        least: the smallest number above 0 that may be told, 5 or more.

    Returns:
        One cell for each count; a table without small numbers stays itself.

    Raises:
        ValueError: if a count is negative or ``least`` below 5.
    """
    _check(counts)
    cells = [small_cell(count, least) for count in counts]
    n_small, n_large = sum(isinstance(cell, str) for cell in cells), sum(count >= least for count in counts)
    if n_small == 0:
        return cells
    # One small number can be the highest of its range only if the total leaves the least possible to all others ...
    enough = sum(counts) >= (least - 1) + (n_small - 1) + n_large * least
    # ... and 1 only if the others can hold the rest, which numbers without an upper end always can.
    room = n_large > 0 or sum(counts) <= 1 + (n_small - 1) * (least - 1)
    if not (enough and room):
        return [None] * len(cells)
    return [f"{least}+" if count >= least else cell for count, cell in zip(counts, cells, strict=True)]


def small_cell(count: int, least: int = FEWEST_TOLD) -> Cell:
    """One number by itself: a range if it is from 1 to ``least - 1``.

    Raises:
        ValueError: if ``least`` is below 5.
    """
    if least < FEWEST_TOLD:
        raise ValueError(f"least must be {FEWEST_TOLD} or more, got {least}")
    return f"1-{least - 1}" if 0 < count < least else int(count)


def round_counts(counts: Sequence[int], base: int) -> list[int]:
    """Each count to the nearest multiple of ``base``, halves up; one that is not 0 becomes ``base`` at least.

    For sums over sites, such as those of which class weights are made: a range cannot be added. That a grade occurs at
    all stays known, since a grade of weight 0 would not be trained. Rounded numbers need not add up to a rounded total.

    Args:
        counts: whole numbers from 0 on.
        base: 1 or more; 1 changes nothing.

    Raises:
        ValueError: if a count is negative or ``base`` below 1.
    """
    if base < 1:
        raise ValueError(f"base must be 1 or more, got {base}")
    _check(counts)
    return [max((2 * int(count) + base) // (2 * base) * base, base) if count else 0 for count in counts]


def cleanse_summary(summary: Mapping[str, Any], least: int) -> dict[str, Any]:
    """What a site says of its cases (``SiteData.summary``), without small numbers.

    Grades of a split add up to its cases, so a split with few cases shows no grades at all. Twins are made of training
    cases: where a few of these have none, the difference would tell how many, and the number of twins is hidden.

    Args:
        summary: ``cases`` and ``grades`` by split, ``excluded`` and ``twins``.
        least: the smallest number above 0 that may be told, 5 or more.

    Returns:
        The same entries; further ones are left out.
    """
    # A site's own summary tells small splits as ranges already.
    cases: dict[str, Cell] = dict(summary["cases"])
    shown = {split: small_cell(n, least) if isinstance(n, int) else n for split, n in cases.items()}
    grades = {
        split: [None] * len(counts) if isinstance(shown[split], str) else suppress_small_cells(counts, least)
        for split, counts in summary["grades"].items()
    }
    trained = cases["train"]
    hidden = not isinstance(trained, int) or 0 < trained - summary["twins"] < least
    twins = None if hidden else small_cell(summary["twins"], least)
    return {"cases": shown, "grades": grades, "excluded": small_cell(summary["excluded"], least), "twins": twins}


def _check(counts: Sequence[int]) -> None:
    if any(count < 0 for count in counts):
        raise ValueError("counts must be whole numbers from 0 on, a negative one came")
