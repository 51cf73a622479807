"""Which of what a PACS lists is to be fetched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom import Dataset

import mhsev_monai.pacs
from mhsev_monai.pacs.gateway.config_sending import Destination, ReconcileConfig, WebSource, reconcile_target
from mhsev_monai.pacs.gateway.found_series import RESULT_BEGINS, RESULT_ENDS, FoundSeries, to_fetch


def mr(study: str, series: str, n: int | None = 60, description: str = "ep2d_diff") -> FoundSeries:
    return FoundSeries(study, series, "MR", description, n)


RESULT = FoundSeries("study-1", "result", "SR", "mhsev findings - RESEARCH USE ONLY", 1)
MAP = FoundSeries("study-1", "map", "MR", "mhsev feature map - RESEARCH USE ONLY", 1)


@pytest.mark.parametrize(
    ("found", "known", "fetched"),
    [
        ([mr("study-1", "a")], {}, ["a"]),
        ([mr("study-1", "a")], {"a": 60}, []),
        ([mr("study-1", "a"), RESULT], {}, []),  # another gateway graded it
        ([mr("study-1", "a"), MAP], {}, []),  # a result that is an MR object is a result
        ([mr("study-1", "a"), RESULT], {"a": 45}, ["a"]),  # a part came: the rest was lost on the way
        ([mr("study-1", "a"), mr("study-1", "late"), RESULT], {"a": 60}, ["late"]),  # the results are of the other
        ([mr("study-1", "a"), mr("study-2", "b"), RESULT], {"b": 60}, []),
        ([mr("study-1", "a", None)], {"a": 45}, []),  # the PACS does not say how many it has
        ([mr("study-1", "a"), mr("study-2", "b"), RESULT], {}, ["b"]),
        ([mr("study-1", "a"), mr("study-1", "a")], {}, ["a"]),
        ([FoundSeries("study-1", "a", "CT", "", 60)], {}, []),
        ([], {}, []),
    ],
)
def test_what_should_be_here_and_is_not_is_fetched(found, known, fetched):
    assert [one.series_uid for one in to_fetch(found, lambda uid: known.get(uid, 0))] == fetched


def test_a_scan_whose_name_speaks_of_research_is_no_result():
    assert not mr("s", "a", description="ep2d RESEARCH USE ONLY").is_result


def test_results_are_known_by_the_words_that_the_pipeline_writes():
    # Read, not imported: that takes torch with it.
    source = Path(mhsev_monai.pacs.__file__).with_name("context.py").read_text()
    descriptions = re.findall(r'\(900\d, "([^"]+)"\)', source)
    assert len(descriptions) == 6
    assert all(description.startswith(RESULT_BEGINS) for description in descriptions)
    assert f'RESEARCH = "{RESULT_ENDS}"' in source
    assert '"series_description": f"{description} - {RESEARCH}"' in source


def test_an_answer_may_leave_out_what_is_optional():
    answer = Dataset()
    answer.SeriesInstanceUID = "1.2"
    assert FoundSeries.of(answer, "1") == FoundSeries("1", "1.2", "", "", None)
    answer.NumberOfSeriesRelatedInstances, answer.Modality, answer.SeriesDescription = "7", "MR", "dwi"
    assert FoundSeries.of(answer, "1") == FoundSeries("1", "1.2", "MR", "dwi", 7)


PACS = Destination("pacs", host="127.0.0.1", port=104, ae_title="PACS")
WEB = WebSource("web", "http://127.0.0.1")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (ReconcileConfig("nobody"), "may be web, pacs"),
        (ReconcileConfig("pacs", "dicomweb"), "c-move or c-get"),
        (ReconcileConfig("web", "c-get"), "asked by dicomweb"),
    ],
)
def test_a_target_that_cannot_be_asked_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        reconcile_target(settings, (PACS,), (WEB,))


def test_a_target_is_found_by_its_name():
    assert reconcile_target(ReconcileConfig("pacs", "c-get"), (PACS,), (WEB,)) is PACS
    assert reconcile_target(ReconcileConfig("web"), (PACS,), (WEB,)) is WEB
