"""The laws of a split."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhsev_monai.cases import Case, Split, group_by_content, split_cases
from mhsev_monai.severity import ARIA_H_COUNTS, PAPER_SCALE, Severity


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
