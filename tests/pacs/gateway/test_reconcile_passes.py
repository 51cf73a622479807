"""What one pass through a PACS leaves for the next: what failed comes last, and what was settled is left alone."""

from __future__ import annotations

import struct
from datetime import date
from xml.etree.ElementTree import ParseError

import pytest
from journals import Notes
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from mhsev_monai.pacs.gateway.audit import Pseudonyms
from mhsev_monai.pacs.gateway.found_series import FoundSeries, NotTakenError
from mhsev_monai.pacs.gateway.query import _n_moved
from mhsev_monai.pacs.gateway.reconcile import Source, reconcile
from mhsev_monai.pacs.gateway.scu import Peer, PeerError

TODAY = date(2026, 1, 10)
PEER = Peer("127.0.0.1", 104, "PACS", "MHSEV")


class Passes:
    """A PACS that lists some series, of which some cannot be fetched, and a gateway that looks at it."""

    def __init__(self, n_series: int, failing: dict[int, Exception] | None = None) -> None:
        self.series = [FoundSeries(f"study-{n}", f"series-{n}", "MR", "", 2) for n in range(n_series)]
        self.failing = failing or {}
        self.known: dict[str, int] = {}
        self.tried: list[int] = []
        self._source = Source("pacs", lambda first, last: list(self.series), self._fetch, 1, 1.0)

    def _fetch(self, one: FoundSeries) -> int:
        number = int(one.series_uid.removeprefix("series-"))
        self.tried.append(number)
        if number in self.failing:
            raise self.failing[number]
        return 2

    def n_instances(self, series_uid: str) -> int:
        return self.known.get(series_uid, 0)

    def step(self) -> list[int]:
        """The series that one pass tries to fetch."""
        self.tried = []
        notes = Notes()
        notes.pseudonyms = Pseudonyms(b"key")
        reconcile(self._source, self, notes, TODAY)
        return self.tried


def test_what_stands_behind_series_that_always_fail_is_fetched_in_a_later_pass():
    passes = Passes(8, dict.fromkeys(range(6), PeerError("no")))
    assert passes.step() == [0, 1, 2]
    assert passes.step() == [3, 4, 5]
    assert passes.step() == [6, 7, 0, 1, 2]
    # Of those that failed, the one that was tried least.
    del passes.failing[3]
    assert passes.step() == [3, 4, 5, 0]


@pytest.mark.parametrize(
    "error",
    [InvalidDicomError(), EOFError(), TypeError(), struct.error(), ParseError(), NotTakenError("no room"), OSError()],
)
def test_whatever_one_series_raises_the_others_are_fetched_and_the_log_quotes_nothing(error, caplog):
    error.args = ("Canary^Patricia",) if not isinstance(error, NotTakenError) else error.args
    passes = Passes(3, {1: error})
    assert passes.step() == [0, 1, 2]
    assert "pacs: " in caplog.text
    assert "Canary" not in caplog.text


def test_what_was_fetched_and_not_taken_is_fetched_again_only_when_the_pacs_has_more_of_it():
    passes = Passes(2)
    assert passes.step() == [0, 1]
    assert passes.step() == []
    passes.series[1] = FoundSeries("study-1", "series-1", "MR", "", 3)
    assert passes.step() == [1]
    assert passes.step() == []


def test_what_was_here_whole_and_was_purged_is_not_fetched():
    passes = Passes(2)
    passes.known = {"series-0": 2, "series-1": 1}
    assert passes.step() == [1]
    passes.known = {}
    assert passes.step() == []


def test_what_failed_is_tried_until_it_is_fetched():
    passes = Passes(1, {0: NotTakenError("no room")})
    assert [passes.step(), passes.step()] == [[0], [0]]
    passes.failing.clear()
    assert [passes.step(), passes.step()] == [[0], []]


def ended(code: int, completed: int | None, failed: int):
    status = Dataset()
    status.Status, status.NumberOfFailedSuboperations = code, failed
    if completed is not None:
        status.NumberOfCompletedSuboperations = completed
    return iter([(status, None)])


@pytest.mark.parametrize(
    ("answer", "n_refused", "whole"),
    [
        ((0x0000, 2, 0), 0, True),
        ((0x0000, None, 0), 0, True),  # the numbers are optional
        ((0x0000, 0, 0), 0, False),  # it lists two, and gives none
        ((0xB000, 1, 1), 1, True),  # refused here for good: fetching it again would not help
        ((0xA702, 0, 2), 2, True),
        ((0xB000, 1, 1), 0, False),
        ((0xB000, 0, 2), 1, False),  # one of them was lost on the way, or found no room
        ((0xA900, 0, 0), 0, False),
    ],
)
def test_a_retrieval_is_whole_when_all_came_or_was_refused_for_good(answer, n_refused, whole):
    series = FoundSeries("1", "1.1", "MR", "", 2)
    if whole:
        assert _n_moved(ended(*answer), PEER, series, [0xA900] * n_refused) == (answer[1] or 0)
    else:
        with pytest.raises(PeerError):
            _n_moved(ended(*answer), PEER, series, [0xA900] * n_refused)
