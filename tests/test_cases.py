"""Reading a BIDS root, and the laws of a split."""

from __future__ import annotations

import itertools
import logging
import pickle
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhsev_monai.cases import Case, Split, content_hash, group_by_content, read_cases, split_cases
from mhsev_monai.errors import CohortError
from mhsev_monai.severity import ARIA_H_COUNTS, PAPER_SCALE, Severity


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
    assert "sub-1 has 3 diffusion series" in caplog.text
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
        "sub-4": "no scan *_dwi.nii.gz in a dwi folder",
        "sub-5": "no scan *_dwi.nii.gz in a dwi folder",
    }
    assert "cases: 1, left out: 5" in caplog.text
    assert "2 with no scan *_dwi.nii.gz in a dwi folder (sub-4, sub-5)" in caplog.text
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
        ([], {"sub-1": 1}, r"holds no scan sub-\*/dwi/\*_dwi.nii.gz"),
        ([dwi("sub-1")], {"sub-2": 1}, r"no case can be used: 1 with no row.* \(sub-1\); 1 with no scan.* \(sub-2\)"),
        ([dwi(f"sub-{i}") for i in range(9)], {}, r"9 with no row .*\(sub-0, sub-1, sub-2, sub-3, sub-4 and 4 more\)"),
        ([dwi("sub-1")], {"sub-1": -1}, "microbleed_count of sub-1 is -1"),
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


def cases_of(counts: dict[str, int]) -> list[Case]:
    return [Case(case_id, Path("x.nii.gz"), count=count) for case_id, count in counts.items()]


def test_sessions_and_copies_form_groups_even_through_each_other():
    cases = cases_of(dict.fromkeys(["sub-4", "sub-3", "sub-2_ses-1", "sub-2_ses-2", "sub-1_ses-1", "sub-1_ses-2"], 1))
    groups = group_by_content(cases, {"sub-1_ses-2": "aa", "sub-2_ses-1": "aa", "sub-3": "bb", "sub-4": "cc"})
    assert [[case.case_id for case in group] for group in groups] == [
        ["sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1", "sub-2_ses-2"],
        ["sub-3"],
        ["sub-4"],
    ]


def ids(split: Split) -> list[list[str]]:
    return [[case.case_id for case in part] for part in split]


# Counts by patient as real cohorts have them: most mild, some none, few severe.
COUNTS = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 6, 10, 11, 40]), max_size=70)
FRACTIONS = st.sampled_from(
    [(0.56, 0.14, 0.30), (0.7, 0.0, 0.3), (1 / 3, 1 / 3, 1 / 3), (0.8, 0.1, 0.1), (1.0, 0.0, 0.0)]
)
SEEDS = st.integers(0, 2**32)


@given(COUNTS, FRACTIONS, SEEDS)
@settings(max_examples=60, deadline=None)
def test_each_case_is_in_one_part_and_each_grade_within_one_of_its_fraction(counts, fractions, seed):
    cases = cases_of({f"sub-{i}": count for i, count in enumerate(counts)})
    split = split_cases(cases, seed, fractions)
    assert sorted(itertools.chain(*ids(split))) == sorted(case.case_id for case in cases)
    for grade in Severity:
        n = sum(PAPER_SCALE.grade(count) == grade for count in counts)
        for part, fraction in zip(split, fractions, strict=True):
            assert abs(sum(PAPER_SCALE.grade(case.count) == grade for case in part) - fraction * n) < 1
    for part, fraction in zip(split, fractions, strict=True):
        # Rounding errors of the four grades are set off against each other; alone they could add up to 4.
        assert abs(len(part) - fraction * len(cases)) < 1


@given(COUNTS, SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_cases_does_not_matter(counts, seed):
    cases = cases_of({f"sub-{i}": count for i, count in enumerate(counts)})
    shuffled = random.Random(seed).sample(cases, len(cases))
    assert split_cases(cases, seed) == split_cases(shuffled, seed)
    assert all(part == sorted(part) for part in ids(split_cases(shuffled, seed)))


def test_a_seed_decides_the_split():
    cases = cases_of({f"sub-{i:03}": i % 13 for i in range(100)})
    assert split_cases(cases, 1) == split_cases(cases, 1)
    assert len({tuple(map(tuple, ids(split_cases(cases, seed)))) for seed in range(20)}) == 20


def test_every_case_reaches_every_part_by_some_seed():
    cases = cases_of({f"sub-{i}": 1 for i in range(10)})
    parts = Counter(
        (part, case.case_id) for seed in range(300) for part, cs in enumerate(split_cases(cases, seed)) for case in cs
    )
    # 5 or 6, 1 or 2 and 3 of 10; the expected 0.1 * 300 for the smallest part lies 5 deviations above 6.
    assert len(parts) == 30
    assert min(parts.values()) > 6


def test_the_default_is_56_14_30_in_each_grade():
    counts = {f"sub-{grade}{i:02}": count for grade, count in enumerate([0, 3, 8, 20]) for i in range(50)}
    split = split_cases(cases_of(counts), 7)
    assert [Counter(case.count for case in part) for part in split] == [
        {0: 28, 3: 28, 8: 28, 20: 28},
        {0: 7, 3: 7, 8: 7, 20: 7},
        {0: 15, 3: 15, 8: 15, 20: 15},
    ]


def test_sessions_and_copies_stay_in_one_part():
    counts = {f"sub-{i:02}_ses-{s}": (i * s) % 13 for i in range(40) for s in (1, 2, 3)}
    copies = {f"sub-{i:02}_ses-1": f"hash{i % 20}" for i in range(40)}
    for seed in range(10):
        for part in split_cases(cases_of(counts), seed, content_hashes=copies):
            inside = {int(case.subject[4:]) % 20 for case in part}
            # 20 groups of two patients with three sessions each.
            assert len(part) == 6 * len(inside)


def test_a_patient_is_graded_by_the_gravest_session():
    counts = {f"sub-{i:02}_ses-{s}": (30 if s == 2 else 1) for i in range(10) for s in (1, 2)}
    counts |= {f"sub-{i:02}": 1 for i in range(10, 20)}
    split = split_cases(cases_of(counts), 0, (0.5, 0.0, 0.5))
    assert [sum(case.count == 30 for case in part) for part in split] == [5, 0, 5]
    assert [len(part) for part in split] == [15, 0, 15]


def test_the_scale_decides_the_strata():
    # Ten patients with 5, ten with 6: one grade apart in the paper's scale, one grade in ARIA-H's.
    cases = cases_of({f"sub-{i:02}": 5 + i % 2 for i in range(20)})
    by_paper = {
        Counter(case.count for case in split_cases(cases, seed, (0.5, 0.0, 0.5)).train)[5] for seed in range(20)
    }
    by_aria = {
        Counter(case.count for case in split_cases(cases, seed, (0.5, 0.0, 0.5), scale=ARIA_H_COUNTS).train)[5]
        for seed in range(20)
    }
    assert by_paper == {5}
    assert len(by_aria) > 1


def test_no_cases_split_into_nothing():
    assert split_cases([], 0) == Split((), (), ())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], -1), "seed must be 0 or more, got -1"),
        (([], 0, (0.5, 0.5, 0.5)), "sum to 1"),
        (([], 0, (1.2, -0.2, 0.0)), "from 0 up"),
        ((cases_of({"sub-1": 1}) * 2, 0), "got several of sub-1"),
        (([Case("sub-1", Path("x"))], 0), "microbleed_count .* leave out sub-1"),
    ],
)
def test_a_wrong_call_to_split_says_what_is_wrong(arguments, words):
    with pytest.raises(ValueError, match=words):
        split_cases(*arguments)


def test_nothing_is_logged_where_nothing_is_odd(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="mhsev_monai"):
        read_cases(root_with(tmp_path, [dwi("sub-1")], {"sub-1": 3}))
    assert caplog.text == ""
