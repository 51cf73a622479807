"""How large what a site answers may be: within these bounds the sums of many sites stay numbers. No FLARE."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_CASES_OF_A_SITE = 10**5
"""Of one site; a hundred of them are as many as a table holds (``checked_arrays.MOST_CASES``)."""

MOST_VECTORS = 10**8
"""Of second moments: each case may have hundreds of dark spots."""

LARGEST_VALUE = 1e9
"""Of a variable less its centre, or of a feature in standard deviations; the largest real ones are below a thousand."""

LARGEST_SUM = 1e15
"""Of sums over the cases of a site; the largest real ones are below 1e9."""


def check_cases(counts: Any, most: int = MOST_CASES_OF_A_SITE) -> None:
    """Raise ``ValueError`` where numbers of cases are not whole, below 0, or above ``most`` together."""
    array = np.asarray(counts)
    if array.dtype.kind not in "iu" or (array < 0).any() or (array > most).any() or array.sum() > most:
        raise ValueError(f"numbers of cases must be whole, 0 or more, and {most} together at most")


def check_sizes(values: Any, largest: float = LARGEST_SUM) -> None:
    """Raise ``ValueError`` where a number is not finite, or beyond ``largest`` on either side of 0."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or not (np.abs(array.astype(np.float64)) <= largest).all():
        raise ValueError(f"numbers must be finite, and {largest:g} in size at most")
