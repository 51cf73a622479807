"""Patients and scanners apart: to which subgroup a case belongs, and which subgroups a site may tell of.

A model that is right on the whole can be wrong for women, for the old, or on one make of scanner. A site sends the
table of a subgroup only where it holds enough cases; and since the table of all cases is known, what is left of it must
be none or enough too and leave open how many each holds, or the smallest subgroup that could be told is kept back as
well. One dimension at a time: what can be computed from two of them together is bounded by nothing but the number of
cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from mhsev_monai.cases import Case
from mhsev_monai.ingest.bvals import image_stem
from mhsev_monai.ingest.sidecar import VENDORS, allowed_sidecar

UNKNOWN, HIDDEN = "unknown", "hidden"
DIMENSIONS = ("sex", "age", "scanner")
SEXES = ("female", "male")
AGE_BANDS = ("<65", "65-74", ">=75")
FIELDS_TESLA = (0.5, 1.0, 1.5, 3.0, 5.0, 7.0)

_AGE_EDGES = (65, 75)
_SEX_OF = {"f": "female", "female": "female", "m": "male", "male": "male"}
_NEAR_TESLA = 0.2
"""Real fields lie a little beside the name, such as 2.89 for 3."""


def case_subgroups(case: Case) -> dict[str, str]:
    """The label of a case in each of ``DIMENSIONS``; what is not known, or is no word of ours, is ``unknown``."""
    sex = case.clinical.get("sex")
    return {
        "sex": _SEX_OF.get(str(sex).strip().lower(), UNKNOWN),
        "age": age_band(case.clinical.get("age")),
        "scanner": scanner_label(case),
    }


def age_band(age: float | str | None) -> str:
    """The band of an age in years, or of a group such as ``50-59`` or ``90+`` if it lies in one band as a whole."""
    if isinstance(age, str):
        low, _, high = age.strip().removesuffix("+").partition("-")
        ends = [int(end) for end in (low, high or low) if end.isdigit() and len(end) <= 3]
        bands = {_band(end) for end in ends} if len(ends) == 2 else set()
        return bands.pop() if len(bands) == 1 else UNKNOWN
    return UNKNOWN if age is None or not 0 <= age < 130 else _band(age)


def _band(age: float) -> str:
    return AGE_BANDS[sum(age >= edge for edge in _AGE_EDGES)]


def scanner_label(case: Case) -> str:
    """Make and field strength, such as ``Siemens 3 T``, from the sidecar of the scan, or the table of participants."""
    facts = allowed_sidecar({**_of_table(case), **_sidecar(case)})
    vendor = str(facts.get("Manufacturer", ""))
    field = facts.get("MagneticFieldStrength")
    near = [known for known in FIELDS_TESLA if field is not None and abs(known - field) <= _NEAR_TESLA]
    words = [word for word in (vendor, f"{near[0]:g} T" if near else "") if word]
    return " ".join(words) or UNKNOWN


def _of_table(case: Case) -> dict[str, object]:
    columns = {"manufacturer": "Manufacturer", "magnetic_field_strength": "MagneticFieldStrength"}
    return {name: case.clinical[column] for column, name in columns.items() if case.clinical.get(column) is not None}


def _sidecar(case: Case) -> dict[str, object]:
    stem = image_stem(case.image.name)
    try:
        found = json.loads(case.image.with_name(f"{stem}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def subgroup_labels() -> dict[str, tuple[str, ...]]:
    """Every label that can occur, by dimension: what a site may send, and no other word."""
    fields = [f"{field:g} T" for field in FIELDS_TESLA]
    scanners = [*VENDORS, *fields, *(f"{vendor} {field}" for vendor in VENDORS for field in fields)]
    return {"sex": (*SEXES, UNKNOWN), "age": (*AGE_BANDS, UNKNOWN), "scanner": (*scanners, UNKNOWN)}


def subgroup_rows(labels: Sequence[Mapping[str, str]]) -> dict[str, dict[str, np.ndarray]]:
    """Indices of the cases of each subgroup by dimension and label, of ``case_subgroups`` of each case."""
    rows: dict[str, dict[str, list[int]]] = {dimension: {} for dimension in DIMENSIONS}
    for row, own in enumerate(labels):
        for dimension in DIMENSIONS:
            rows[dimension].setdefault(own[dimension], []).append(row)
    return {d: {label: np.array(found) for label, found in sorted(groups.items())} for d, groups in rows.items()}


def tellable(sizes: Mapping[str, int], least: int) -> dict[str, int | str]:
    """What may be told of the subgroups of one dimension: a size where the table may leave, or why it does not.

    A reader who knows the total, what is told and this rule finds two sizes or more that fit each subgroup whose size
    is not told (a test goes through all small tables). Small subgroups alone do, where they are enough together and
    neither all 1 nor all ``least - 1``. Else the smallest other subgroup is kept back with them, and those as large as
    it, all under one word: which of them is the small one is then not known.

    Args:
        sizes: cases by label, each 1 or more.
        least: the fewest cases of a table.

    Returns:
        By label the size; ``<5`` and so on for fewer than ``least``; ``hidden`` for one of any size that is kept back
        together with others. Nothing where all subgroups are of one case and the total would say so.
    """
    small = {label: n for label, n in sizes.items() if n < least}
    together, most = sum(small.values()), len(small) * (least - 1)
    if not small or (len(small) > 1 and together >= least and len(small) < together < most):
        return {label: fewer_than(least) if label in small else n for label, n in sizes.items()}
    others = [n for label, n in sizes.items() if label not in small]
    if others:
        kept_back = min(others)
        return {label: HIDDEN if n <= kept_back else n for label, n in sizes.items()}
    if together < least:
        # The table of all cases is not told either.
        return dict.fromkeys(sizes, fewer_than(least))
    return dict.fromkeys(sizes, HIDDEN) if together == most else {}


def fewer_than(least: int) -> str:
    """How a number from 1 to ``least - 1`` is told."""
    return f"<{least}"
