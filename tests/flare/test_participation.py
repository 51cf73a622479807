"""When a round counts, when it closes, and which absences are said aloud."""

from __future__ import annotations

import itertools

import pytest

from mhsev_flare.participation import LOUD_AFTER, Attendance, RoundClock, RoundPolicy

SITES = frozenset({"a", "b", "c", "d"})


def clock(policy: RoundPolicy, patient: bool = False, started: float = 100.0) -> RoundClock:
    return RoundClock(policy, SITES, started, patient)


@pytest.mark.parametrize(
    ("min_sites", "mandatory", "answered", "reason"),
    [
        (0, (), "abcd", ""),
        (0, (), "abc", "3 usable answers where 4 are needed"),  # 0: every site
        (2, (), "ab", ""),
        (2, (), "abcd", ""),
        (2, (), "a", "1 usable answers where 2 are needed"),
        (2, (), "aa", "1 usable answers where 2 are needed"),  # one site that answers twice is one site
        (2, (), "", "0 usable answers where 2 are needed"),
        (2, ("c",), "ab", "c must take part and gave no usable answer"),
        (2, ("d", "c"), "ab", "c, d must take part and gave no usable answer"),
        (2, ("c",), "bc", ""),
        (2, ("c",), "c", "1 usable answers where 2 are needed"),
        (1, ("a", "b"), "ab", ""),
    ],
)
def test_a_round_counts_with_the_quorum_and_all_mandatory_sites(min_sites, mandatory, answered, reason):
    assert RoundPolicy(min_sites=min_sites, mandatory_sites=mandatory).missing(answered, 4) == reason


@pytest.mark.parametrize(("min_sites", "n_sites", "quorum"), [(0, 4, 4), (0, 0, 1), (3, 4, 3), (1, 4, 1)])
def test_the_quorum_is_every_site_unless_said_and_never_none(min_sites, n_sites, quorum):
    assert RoundPolicy(min_sites=min_sites).quorum(n_sites) == quorum


@pytest.mark.parametrize("name", ["min_sites", "grace_seconds", "round_timeout", "patience", "least_improvement"])
def test_negative_numbers_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be 0 or more, got -1"):
        RoundPolicy(**{name: -1})
    assert getattr(RoundPolicy(**{name: 0}), name) == 0


def test_grace_begins_with_the_answer_that_makes_the_quorum():
    made = clock(RoundPolicy(min_sites=2, grace_seconds=10.0))
    made.answer("a", 150.0)
    assert not made.must_close(1e9)
    made.answer("b", 200.0)
    assert not made.must_close(209.9)
    assert made.must_close(210.0)


def test_a_later_answer_does_not_lengthen_the_grace():
    made = clock(RoundPolicy(min_sites=2, grace_seconds=10.0))
    for site, now in [("a", 200.0), ("b", 200.0), ("c", 209.0)]:
        made.answer(site, now)
    assert made.must_close(210.0)


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_grace_waits_for_the_mandatory_site_whoever_is_faster(order):
    made = clock(RoundPolicy(min_sites=2, mandatory_sites=["c"], grace_seconds=10.0))
    for second, site in enumerate(order):
        made.answer(site, 200.0 + second)
    complete = 200.0 + max(order.index("c"), 1)
    assert not made.must_close(complete + 9.9)
    assert made.must_close(complete + 10.0)


def test_repeated_answers_of_one_site_make_no_quorum():
    made = clock(RoundPolicy(min_sites=2, grace_seconds=0.0))
    made.answer("a", 101.0)
    made.answer("a", 102.0)
    assert not made.must_close(1e9)


@pytest.mark.parametrize("answers", ["", "a", "abd"])
def test_without_a_time_limit_a_round_never_closes_before_its_quorum(answers):
    made = clock(RoundPolicy(min_sites=2, mandatory_sites=["c"], grace_seconds=0.0))
    for site in answers:
        made.answer(site, 101.0)
    assert not made.must_close(1e12)


@pytest.mark.parametrize("answers", ["", "a", "ab"])
def test_the_time_limit_closes_a_round_with_what_there_is(answers):
    made = clock(RoundPolicy(min_sites=2, grace_seconds=1000.0, round_timeout=60.0), started=100.0)
    for site in answers:
        made.answer(site, 101.0)
    assert not made.must_close(159.9)
    assert made.must_close(160.0)


def test_grace_may_end_before_the_time_limit():
    made = clock(RoundPolicy(min_sites=1, grace_seconds=5.0, round_timeout=60.0))
    made.answer("a", 110.0)
    assert not made.must_close(114.9)
    assert made.must_close(115.0)


def test_a_clock_that_starts_at_zero_counts_like_any_other():
    made = clock(RoundPolicy(min_sites=1, grace_seconds=5.0), started=0.0)
    made.answer("a", 0.0)
    assert not made.must_close(4.9)
    assert made.must_close(5.0)


def test_a_patient_clock_closes_neither_by_grace_nor_by_time():
    made = clock(RoundPolicy(min_sites=1, grace_seconds=0.0, round_timeout=1.0), patient=True)
    made.answer("a", 100.0)
    assert not made.must_close(1e9)


def test_two_clocks_do_not_share_their_answers():
    first, second = (clock(RoundPolicy(min_sites=1, grace_seconds=0.0)) for _ in range(2))
    first.answer("a", 100.0)
    assert first.must_close(100.0)
    assert not second.must_close(1e9)


def test_a_site_is_said_aloud_from_its_third_absence_on_and_only_when_absent():
    assert LOUD_AFTER == 2
    attendance = Attendance()
    rounds = [["b", "a"], ["a"], [], ["a", "b"], ["b"], ["a", "a"]]
    aloud = [attendance.note(left_out) for left_out in rounds]
    assert aloud == [(), (), (), ("a",), ("b",), ("a",)]
    assert attendance.left_out == {"a": 4, "b": 3}


def test_sites_said_aloud_are_sorted():
    attendance = Attendance()
    for _ in range(LOUD_AFTER):
        assert attendance.note(iter(["d", "b", "c"])) == ()
    assert attendance.note(iter(["d", "b", "c"])) == ("b", "c", "d")
