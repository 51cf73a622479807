"""The record of what became of each series."""

from __future__ import annotations

import pytest

from mhsev_monai.errors import CohortError
from mhsev_monai.ingest.ledger import LEDGER, Ledger, LedgerEntry, read_ledger


def entry(series: str, outcome: str = "accepted", **rest: object) -> LedgerEntry:
    return LedgerEntry("sub-1", "ses-1", series, "diffusion", 3, outcome, **rest)


def test_a_root_without_a_record_has_no_entries(tmp_path):
    assert read_ledger(tmp_path) == ()


def test_entries_come_back_as_they_went(tmp_path):
    entries = (entry("a", scan="x", warnings=("odd", "odder")), entry("b", "refused", reason="why"))
    ledger = Ledger(tmp_path)
    for each in entries:
        ledger.add(each)
    ledger.save()
    assert read_ledger(tmp_path) == entries


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [
        ("refused", "accepted", "accepted"),
        ("left out", "refused", "refused"),
        ("accepted", "refused", "accepted"),  # the scan of before is still there
        ("accepted", "left out", "accepted"),  # asked for another contrast
    ],
)
def test_a_series_that_comes_again_has_one_entry(before, after, stays, tmp_path):
    ledger = Ledger(tmp_path)
    for each in (entry("a", before), entry("b"), entry("a", after)):
        ledger.add(each)
    ledger.save()
    assert [(e.series, e.outcome) for e in read_ledger(tmp_path)] == [("a", stays), ("b", "accepted")]


@pytest.mark.parametrize("content", ["", "{", '{"series": [{"subject": 1}]}', "[]"])
def test_a_damaged_record_is_a_sentence(content, tmp_path):
    (tmp_path / LEDGER).parent.mkdir(parents=True)
    (tmp_path / LEDGER).write_text(content)
    with pytest.raises(CohortError, match="damaged; delete it and ingest again"):
        read_ledger(tmp_path)
