"""What a PACS lists, and which of it is to be fetched. No sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydicom import Dataset

# Series descriptions of results are such as "mhsev findings - RESEARCH USE ONLY", whatever their modality.
RESULT_BEGINS, RESULT_ENDS = "mhsev ", "RESEARCH USE ONLY"


OUT_OF_ROOM = "this gateway has no room for an image of a series; it is fetched again in the next pass"

FEWER_THAN_LISTED = "fewer images of a series came than the PACS lists; it is fetched again in the next pass"


class NotTakenError(Exception):
    """A series did not come here whole; worth another try."""


@dataclass(frozen=True)
class FoundSeries:
    """A series as a query tells it; ``n_instances`` is None where the PACS does not say."""

    study_uid: str
    series_uid: str
    modality: str
    description: str = ""
    n_instances: int | None = None

    @classmethod
    def of(cls, data: Dataset, study_uid: str) -> FoundSeries:
        """Read one answer of QIDO or C-FIND at the level of series.

        Raises:
            AttributeError: if the answer has no series UID.
        """
        number = data.get("NumberOfSeriesRelatedInstances")
        return cls(
            str(study_uid),
            str(data.SeriesInstanceUID),
            str(data.get("Modality") or ""),
            str(data.get("SeriesDescription") or ""),
            None if number in (None, "") else int(number),
        )

    @property
    def is_result(self) -> bool:
        """Whether it is one that this software made."""
        return self.description.startswith(RESULT_BEGINS) and self.description.strip().endswith(RESULT_ENDS)


def to_fetch(found: Iterable[FoundSeries], n_known: Callable[[str], int]) -> list[FoundSeries]:
    """The series of MR images that this gateway should have and has not.

    A series of which a part came is fetched again, since the rest of it was lost on the way. One of which nothing came
    is fetched unless its study has results of this software and nothing of the study is here: then another gateway, or
    this one before its journal was purged, has seen to it. Where another series of the study is here, the results are
    of that, and this one came to the PACS after it.

    Args:
        found: what the PACS lists; all series of each study together.
        n_known: how many instances of a series are here.
    """
    series = list(dict.fromkeys(found))
    here = {one.study_uid for one in series if n_known(one.series_uid)}
    served = {one.study_uid for one in series if one.is_result} - here

    def is_missing(one: FoundSeries) -> bool:
        known = n_known(one.series_uid)
        if known:
            return one.n_instances is not None and known < one.n_instances
        return one.study_uid not in served

    return [one for one in series if one.modality == "MR" and not one.is_result and is_missing(one)]
