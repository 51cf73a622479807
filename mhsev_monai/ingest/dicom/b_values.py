"""The b-value of a frame, from wherever its vendor writes it.

The standard's Diffusion b-value (0018,9087) comes first, then what the vendors write: Siemens (0019,100C) and the name
of the sequence, GE (0043,1039), Philips (2001,1003), UIH (0065,1009). GE writes its element on fMRI and field maps too,
with a first value of 0, so 0 there proves nothing; later GE software adds 1e9 to the b-value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mhsev_monai.ingest.dicom import tags

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_B_VALUE = 0x00189087
_MR_DIFFUSION = 0x00189117
_GE_OFFSET = 1_000_000_000
_LARGEST_B = 100_000.0
_SIEMENS_SEQUENCE = re.compile(r"\*?EP_B(\d+)(?:[#T].*)?")


def frame_b_value(datasets: Iterable[Dataset]) -> float | None:
    """The b-value in s/mm^2 that the first of some data sets knows; None if none does.

    Args:
        datasets: the most specific one first: a frame's functional groups, those shared, the file's own elements.
    """
    for dataset in datasets:
        for item in (dataset, *_nested(dataset)):
            found = _b_value(item)
            if found is not None:
                return found
    return None


def _nested(dataset: Dataset) -> list[Dataset]:
    """Where enhanced images keep it: the diffusion item, Philips' copy of classic elements, unconverted elements."""
    found = []
    for tag in (_MR_DIFFUSION, tags.PHILIPS_NESTED, tags.CONVERTED):
        value = tags.raw_value(dataset, tag)
        try:
            found += list(value)[:1] if value else []
        except TypeError:
            continue
    return found


def _b_value(dataset: Dataset) -> float | None:
    candidates = [tags.number(dataset, tag) for tag in (_B_VALUE, tags.SIEMENS_B)]
    candidates += [_ge_b_value(dataset)]
    candidates += [tags.number(dataset, tag) for tag in (tags.PHILIPS_B, tags.UIH_B)]
    candidates += [_siemens_sequence(dataset)]
    return next((value for value in candidates if value is not None and 0 <= value <= _LARGEST_B), None)


def _siemens_sequence(dataset: Dataset) -> float | None:
    """From the name of the sequence, ``ep_b1000#3``, which archives keep that drop private elements."""
    match = _SIEMENS_SEQUENCE.fullmatch(next(iter(tags.words(dataset, 0x00180024)), ""))
    return float(match[1]) if match else None


def _ge_b_value(dataset: Dataset) -> float | None:
    value = tags.number(dataset, tags.GE_B)
    if value is None:
        return None
    value = value % _GE_OFFSET if value >= _GE_OFFSET else value
    # 0 stands on every image of the system; b0 slices are told by the diffusion-weighted ones of their series.
    return value if value > 0 else None
