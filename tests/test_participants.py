"""Tables of participants: what reads, what is refused, and that no cell leaks into a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhsev_monai.errors import CohortError
from mhsev_monai.participants import TableRow, read_table

PATIENT = "Roe Jane 1950-02-03"


def table(folder: Path, text: str, name: str = "participants.tsv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_cells_become_numbers_text_and_missing_values(tmp_path):
    text = "participant_id\tage\tsex\tmicrobleed_count\tnote\nsub-01\t71.5\tF\t3\tn/a\nsub-02\tn/a\tM\tn/a\t\n\n"
    assert read_table(table(tmp_path, text), "participant_id", require_counts=True) == {
        "sub-01": TableRow(3, {"age": 71.5, "sex": "F", "note": None}),
        "sub-02": TableRow(None, {"age": None, "sex": "M", "note": None}),
    }


@pytest.mark.parametrize(
    ("cell", "count"), [("0", 0), ("12", 12), ("3.0", 3), ("n/a", None), ("N/A", None), ("", None)]
)
def test_a_count_is_a_whole_number_or_missing(cell, count, tmp_path):
    text = f"participant_id\tmicrobleed_count\nsub-01\t{cell}\n"
    assert read_table(table(tmp_path, text), "participant_id", require_counts=True)["sub-01"].count == count


@pytest.mark.parametrize(
    "text", ["\ufeffparticipant_id\tage\r\nsub-01\t70\r\n", "participant_id \t age\nsub-01\t 70\n"]
)
def test_files_of_spreadsheets_read_alike(text, tmp_path):
    assert read_table(table(tmp_path, text), "participant_id", require_counts=False) == {
        "sub-01": TableRow(None, {"age": 70.0})
    }


@pytest.mark.parametrize("cell", ["nan", "inf", "-Infinity"])
def test_a_number_that_is_not_finite_is_missing(cell, tmp_path):
    text = f"participant_id\tage\nsub-01\t{cell}\n"
    assert read_table(table(tmp_path, text), "participant_id", require_counts=False)["sub-01"].clinical["age"] is None


def test_a_quotation_mark_is_a_character_like_any_other(tmp_path):
    text = 'participant_id\tnote\nsub-01\t"left\nsub-02\tright\n'
    rows = read_table(table(tmp_path, text), "participant_id", require_counts=False)
    assert [row.clinical["note"] for row in rows.values()] == ['"left', "right"]


REFUSED = {
    "empty": ("", ["participants.tsv is empty"]),
    "blank": ("\n\n", ["participants.tsv is empty"]),
    "no count column": ("participant_id\tage\nsub-01\t7\n", ["lacks the column microbleed_count"]),
    "no id column": ("subject\tmicrobleed_count\nsub-01\t7\n", ["lacks the column participant_id"]),
    "neither": ("a\tb\nc\td\n", ["lacks the column participant_id and the column microbleed_count"]),
    "commas": ("participant_id,microbleed_count\nsub-01,7\n", ["lacks", "commas", "tabs are accepted"]),
    "column twice": (
        "participant_id\tmicrobleed_count\tmicrobleed_count\nsub-01\t1\t2\n",
        ["column microbleed_count 2 times"],
    ),
    "short row": (
        f"participant_id\tmicrobleed_count\tname\nsub-01\t1\t{PATIENT}\nsub-02\t1\n",
        ["row 3", "2 cells", "header 3"],
    ),
    "long row": (f"participant_id\tmicrobleed_count\nsub-01\t1\t{PATIENT}\n", ["row 2", "3 cells", "header 2"]),
    "id without sub-": (f"participant_id\tmicrobleed_count\n{PATIENT}\t1\n", ["row 2", "sub-<letters and digits>"]),
    "id with underscore": ("participant_id\tmicrobleed_count\nsub-01_a\t1\n", ["row 2", "sub-<letters and digits>"]),
    "negative": ("participant_id\tmicrobleed_count\nsub-01\t-1\n", ["of sub-01 is not a whole number from 0", "n/a"]),
    "fraction": ("participant_id\tmicrobleed_count\nsub-01\t2.5\n", ["of sub-01 is not a whole number from 0"]),
    "nan": ("participant_id\tmicrobleed_count\nsub-01\tnan\n", ["of sub-01 is not a whole number from 0"]),
    "infinite": ("participant_id\tmicrobleed_count\nsub-01\tinf\n", ["of sub-01 is not a whole number from 0"]),
    "word": (f"participant_id\tmicrobleed_count\nsub-01\t{PATIENT}\n", ["sub-01 is not a number", "n/a"]),
    "id twice": (
        "participant_id\tmicrobleed_count\nsub-02\t1\nsub-01\t1\nsub-02\t1\nsub-01\t4\n",
        ["several rows for sub-01, sub-02", "one row each"],
    ),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_a_malformed_table_is_refused_without_a_word_of_its_cells(text, words, tmp_path):
    with pytest.raises(CohortError) as caught:
        read_table(table(tmp_path, text), "participant_id", require_counts=True)
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message
    assert not any(part in message for part in (*PATIENT.split(), str(tmp_path)))


def test_a_table_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "participants.tsv"
    path.write_bytes("participant_id\tname\nsub-01\tMüller\n".encode("latin-1"))
    with pytest.raises(CohortError, match="not text in UTF-8"):
        read_table(path, "participant_id", require_counts=False)


def test_a_table_of_sessions_has_ids_of_sessions(tmp_path):
    path = table(tmp_path, "session_id\tmicrobleed_count\nses-1\t4\n", "sub-01_sessions.tsv")
    assert read_table(path, "session_id", require_counts=False) == {"ses-1": TableRow(4, {})}
    table(tmp_path, "session_id\nsub-1\n", "sub-01_sessions.tsv")
    with pytest.raises(CohortError, match="ses-<letters and digits>"):
        read_table(path, "session_id", require_counts=False)
