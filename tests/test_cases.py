"""Reading a BIDS root."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from mhsev_monai.cases import Case, content_hash, read_cases
from mhsev_monai.errors import CohortError
from mhsev_monai.scan_contrast import ScanContrast


def root_with(root: Path, scans: list[str], rows: dict[str, object] | None = None) -> Path:
    """A BIDS root with these files (a ``.bval`` beside each) and a table of counts."""
    root.mkdir(exist_ok=True)
    for scan in scans:
        path = root / scan
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scan.encode())
        (path.parent / f"{path.name.partition('.')[0]}.bval").write_text("0 1000")
    if rows is not None:
        lines = "".join(f"{subject}\t{count}\t70\n" for subject, count in rows.items())
        (root / "participants.tsv").write_text(f"participant_id\tmicrobleed_count\tage\n{lines}")
    return root


def dwi(subject: str, session: str = "", run: str = "", ending: str = ".nii.gz") -> str:
    folder = f"{subject}/{session}/dwi" if session else f"{subject}/dwi"
    return f"{folder}/{'_'.join(part for part in (subject, session, run, 'dwi') if part)}{ending}"


def test_cases_come_sorted_with_their_files_counts_and_clinical_values(tmp_path):
    root = root_with(
        tmp_path,
        [dwi("sub-10"), dwi("sub-02", ending=".nii"), dwi("sub-03", "ses-b"), dwi("sub-03", "ses-a")],
        {"sub-02": 0, "sub-10": 12, "sub-03": 4},
    )
    cases, excluded = read_cases(root)
    assert [(case.case_id, case.subject, case.count) for case in cases] == [
        ("sub-02", "sub-02", 0),
        ("sub-03_ses-a", "sub-03", 4),
        ("sub-03_ses-b", "sub-03", 4),
        ("sub-10", "sub-10", 12),
    ]
    assert cases[0].image == root / "sub-02/dwi/sub-02_dwi.nii"
    assert cases[1].bvals == root / "sub-03/ses-a/dwi/sub-03_ses-a_dwi.bval"
    assert all(case.clinical == {"age": 70.0} for case in cases)
    assert excluded == {}
    assert pickle.loads(pickle.dumps(cases)) == cases
    assert len(set(cases)) == 4


def test_a_count_of_the_session_goes_before_that_of_the_patient(tmp_path):
    root = root_with(tmp_path, [dwi("sub-1", "ses-1"), dwi("sub-1", "ses-2")], {"sub-1": 3})
    (root / "sub-1" / "sub-1_sessions.tsv").write_text("session_id\tmicrobleed_count\nses-1\tn/a\nses-2\t7\n")
    assert [case.count for case in read_cases(root).cases] == [3, 7]


def test_a_bval_file_of_the_whole_root_serves_each_case(tmp_path):
    root = root_with(tmp_path, [dwi("sub-1"), dwi("sub-2")], {"sub-1": 3, "sub-2": 1})
    (root / "sub-2/dwi/sub-2_dwi.bval").rename(root / "dwi.bval")
    assert [case.bvals for case in read_cases(root).cases] == [root / "sub-1/dwi/sub-1_dwi.bval", root / "dwi.bval"]


def test_a_case_without_a_bval_file_is_a_case(tmp_path):
    root = root_with(tmp_path, [dwi("sub-1")], {"sub-1": 3})
    (root / "sub-1/dwi/sub-1_dwi.bval").unlink()
    assert read_cases(root).cases[0].bvals is None


def test_the_first_run_is_taken_and_said_without_a_path(tmp_path, caplog):
    scans = [dwi("sub-1", run=run) for run in ("run-10", "run-2", "acq-x_run-3")]
    root = root_with(tmp_path, scans, {"sub-1": 3})
    (case,) = read_cases(root).cases
    assert case.image.name == "sub-1_run-2_dwi.nii.gz"
    assert "sub-1 has 3 dwi series" in caplog.text
    assert not any(str(tmp_path) in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "other",
    ["sub-1_part-phase_dwi.nii.gz", "sub-1_sbref.nii.gz", "sub-1_dwi.json", "._sub-1_dwi.nii.gz", "sub-1_ADC.nii.gz"],
)
def test_files_that_are_no_magnitude_series_are_passed_over(other, tmp_path, caplog):
    root = root_with(tmp_path, [f"sub-1/dwi/{other}", dwi("sub-1")], {"sub-1": 3})
    (case,) = read_cases(root).cases
    assert case.image.name == "sub-1_dwi.nii.gz"
    assert caplog.text == ""


def test_whoever_lacks_a_scan_a_row_or_a_count_is_excluded_with_the_reason(tmp_path, caplog):
    root = root_with(
        tmp_path,
        [dwi("sub-1"), dwi("sub-2"), dwi("sub-3"), dwi("sub-1_old")],
        {"sub-1": 3, "sub-3": "n/a", "sub-4": 1, "sub-5": 2},
    )
    cases, excluded = read_cases(root)
    assert [case.case_id for case in cases] == ["sub-1"]
    assert excluded == {
        "sub-1_old": "a folder name other than sub-<letters and digits>",
        "sub-2": "no row in participants.tsv",
        "sub-3": "no microbleed_count",
        "sub-4": "no scan *_dwi.nii.gz in its dwi folder",
        "sub-5": "no scan *_dwi.nii.gz in its dwi folder",
    }
    assert "cases: 1, left out: 5" in caplog.text
    assert "2 with no scan *_dwi.nii.gz in its dwi folder (sub-4, sub-5)" in caplog.text
    logged = "".join(record.getMessage() for record in caplog.records)
    assert str(tmp_path) not in logged
    # It may be a patient's name.
    assert "sub-1_old" not in logged


def test_a_case_between_two_bval_files_is_excluded_and_the_others_stay(tmp_path):
    root = root_with(tmp_path, [dwi("sub-1"), dwi("sub-2", run="run-1")], {"sub-1": 3, "sub-2": 1})
    (root / "sub-2/dwi/sub-2_run-1_dwi.bval").rename(root / "run-1_dwi.bval")
    (root / "sub-2_dwi.bval").write_text("0 1000")
    cases, excluded = read_cases(root)
    assert [case.case_id for case in cases] == ["sub-1"]
    assert "2 .bval files in one folder apply" in excluded["sub-2"]


def test_a_session_named_by_a_date_is_left_out_and_counted_without_the_date(tmp_path, caplog):
    root = root_with(tmp_path, [dwi("sub-1", "ses-1"), dwi("sub-1", "ses-1950-02-03")], {"sub-1": 3})
    assert [case.case_id for case in read_cases(root).cases] == ["sub-1_ses-1"]
    assert "sub-1: folders of sessions must be named" in caplog.text
    assert "1950" not in "".join(record.getMessage() for record in caplog.records)


def test_without_required_counts_every_scan_is_a_case(tmp_path):
    root = root_with(tmp_path, [dwi("sub-1"), dwi("sub-2"), dwi("sub-3")])
    assert [case.count for case in read_cases(root, require_counts=False).cases] == [None, None, None]
    root_with(tmp_path, [], {"sub-1": 3, "sub-2": "n/a"})
    assert [case.count for case in read_cases(root, require_counts=False).cases] == [3, None, None]
    (root / "participants.tsv").write_text("participant_id\tage\nsub-1\t70\n")
    assert read_cases(root, require_counts=False).cases[0].clinical == {"age": 70.0}


@pytest.mark.parametrize(
    ("scans", "rows", "words"),
    [
        ([dwi("sub-1")], None, "has no participants.tsv; add one with the columns participant_id and microbleed_count"),
        ([], {"sub-1": 1}, r"holds no dwi scan sub-\*/dwi/\*_dwi.nii.gz"),
        ([dwi("sub-1")], {"sub-2": 1}, r"no case can be used: 1 with no row.* \(sub-1\); 1 with no scan.* \(sub-2\)"),
        ([dwi(f"sub-{i}") for i in range(9)], {}, r"9 with no row .*\(sub-0, sub-1, sub-2, sub-3, sub-4 and 4 more\)"),
        ([dwi("sub-1")], {"sub-1": -1}, "microbleed_count of sub-1 is not a whole number"),
    ],
)
def test_a_root_without_a_usable_case_is_refused(scans, rows, words, tmp_path):
    with pytest.raises(CohortError, match=words) as caught:
        read_cases(root_with(tmp_path / "root", scans, rows))
    assert str(tmp_path) not in str(caught.value)


def test_a_root_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CohortError, match="not a folder that is there"):
        read_cases(tmp_path / "root")


def test_the_content_hash_follows_the_bytes_and_not_the_names(tmp_path):
    def case(name: str, image: bytes, bvals: bytes | None) -> Case:
        paths = tmp_path / f"{name}.nii", tmp_path / f"{name}.bval"
        paths[0].write_bytes(image)
        paths[1].write_bytes(bvals or b"")
        return Case(name, paths[0], paths[1] if bvals is not None else None)

    hashes = [
        content_hash(case(*arguments))
        for arguments in (
            ("sub-1", b"ab", b"c"),
            ("sub-2", b"ab", b"c"),
            ("sub-3", b"a", b"bc"),
            ("sub-4", b"abc", None),
            ("sub-5", b"ab", b"d"),
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    assert all(len(digest) == 64 for digest in hashes)


def test_nothing_is_logged_where_nothing_is_odd(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="mhsev_monai"):
        read_cases(root_with(tmp_path, [dwi("sub-1")], {"sub-1": 3}))
    assert caplog.text == ""


def test_nobody_is_expected_to_have_a_scan_of_another_contrast(tmp_path):
    root = root_with(tmp_path, [dwi("sub-1"), dwi("sub-2")], {"sub-1": 3, "sub-2": 1})
    (root / "sub-1" / "anat").mkdir()
    (root / "sub-1" / "anat" / "sub-1_T2starw.nii.gz").touch()
    listed = read_cases(root, require_counts=False, contrast=ScanContrast.T2STAR)
    assert [case.case_id for case in listed.cases] == ["sub-1"]
    assert listed.excluded == {}
