"""Who may take part: what must agree, in whose words it is said, and who never answered."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mhsev_flare.handshake import Admission, SiteReport, site_refusal, sort_answers
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.protocol import PROTOCOL_VERSION, Meta, Moments
from mhsev_flare.result import StudyStoppedError

OWN = SiteReport(mhsev="1.4.0", nvflare="2.9.0", torch="2.13.0", scale="paper", device="cpu")


def report(**changes: str) -> dict[str, str]:
    return dataclasses.replace(OWN, **changes).to_json()


def meta(**changes: Any) -> dict[str, Any]:
    good = {
        Meta.PROTOCOL: PROTOCOL_VERSION,
        Meta.REPORT: report(),
        Meta.FINGERPRINT: "f",
        Meta.N_SAMPLES: 20,
        Meta.SITE_SUMMARY: {"cases": {"train": 20}, "grades": {}, "excluded": 0, "twins": 0},
    }
    return {**good, **changes}


def sums(**changes: Any) -> dict[str, np.ndarray]:
    good = {
        Moments.N: np.array([20.0]),
        Moments.MEAN: np.array([1.0, -2.0, 0.5]),
        Moments.SQUARED_DEVIATION: np.array([20.0, 10.0, 5.0]),
        Moments.CLASS_COUNTS: np.array([5.0, 5.0, 6.0, 4.0]),
    }
    return {**good, **changes}


@dataclass
class Answer:
    """A site's answer."""

    meta: dict[str, Any]
    params: Any = field(default_factory=sums)


def answer(site: str, params: Any = None, **changes: Any) -> Answer:
    return Answer({"client_name": site, **meta(**changes)}, sums() if params is None else params)


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        (meta(), ""),
        (meta(**{Meta.PROTOCOL: 1}), f"speaks protocol 1 where {PROTOCOL_VERSION} is spoken; install the same mhsev"),
        ({}, f"speaks protocol None where {PROTOCOL_VERSION} is spoken; install the same mhsev"),
        (
            meta(**{Meta.REFUSAL: "has 3 training cases; 5 are needed"}),
            "has 3 training cases; 5 are needed",
        ),
        (meta(**{Meta.REFUSAL: ""}), ""),
        (meta(**{Meta.REPORT: None}), "did not say which versions it runs; install the same mhsev everywhere"),
        (meta(**{Meta.REPORT: "1.4.0"}), "did not say which versions it runs; install the same mhsev everywhere"),
        (
            meta(**{Meta.REPORT: report(mhsev="1.4.1")}),
            "runs mhsev 1.4.1 where the server runs 1.4.0; install the same version at every site and the server",
        ),
        (
            meta(**{Meta.REPORT: {}}),
            "runs mhsev None where the server runs 1.4.0; install the same version at every site and the server",
        ),
        (
            meta(**{Meta.REPORT: report(nvflare="2.8.4")}),
            "runs NVIDIA FLARE 2.8 where the server runs 2.9; install the same version at every site and the server",
        ),
        (
            meta(**{Meta.REPORT: report(nvflare="2.90.0")}),
            "runs NVIDIA FLARE 2.90 where the server runs 2.9; install the same version at every site and the server",
        ),
        (
            meta(**{Meta.REPORT: report(scale="boston")}),
            "grades by another scale than paper; send the job again",
        ),
        (
            meta(**{Meta.FINGERPRINT: "g"}),
            "computes other features than the server expects; install the same mhsev everywhere",
        ),
    ],
)
def test_what_must_agree_is_said_with_the_remedy(answered, reason):
    assert site_refusal(answered, "f", OWN) == reason


@pytest.mark.parametrize("version", ["2.9.0", "2.9.1", "2.9.0rc2", "2.9"])
def test_patch_versions_of_flare_agree(version):
    assert site_refusal(meta(**{Meta.REPORT: report(nvflare=version)}), "f", OWN) == ""


def test_device_and_torch_are_reported_and_not_compared():
    assert site_refusal(meta(**{Meta.REPORT: report(torch="2.11.0", device="NVIDIA H100")}), "f", OWN) == ""


def test_the_first_thing_to_mend_is_said_first():
    """Protocol before all, since nothing else can be read without; the site's own words before versions."""
    everything = {
        Meta.PROTOCOL: 1,
        Meta.REFUSAL: "no data",
        Meta.REPORT: report(mhsev="0", nvflare="1.0", scale="x"),
        Meta.FINGERPRINT: "g",
    }
    said = []
    for name, mended in [
        (Meta.PROTOCOL, PROTOCOL_VERSION),
        (Meta.REFUSAL, ""),
        (Meta.REPORT, report(nvflare="1.0", scale="x")),
        (Meta.REPORT, report(scale="x")),
        (Meta.REPORT, report()),
        (Meta.FINGERPRINT, "f"),
    ]:
        said.append(site_refusal(everything, "f", OWN).split()[:3])
        everything[name] = mended
    assert said == [
        ["speaks", "protocol", "1"],
        ["no", "data"],
        ["runs", "mhsev", "0"],
        ["runs", "NVIDIA", "FLARE"],
        ["grades", "by", "another"],
        ["computes", "other", "features"],
    ]
    assert site_refusal(everything, "f", OWN) == ""


def test_a_process_agrees_with_itself():
    own = SiteReport.of_this_machine("paper")
    assert own.device == "cpu"
    there = SiteReport.of_this_machine("paper", "a GPU").to_json()
    assert site_refusal(meta(**{Meta.REPORT: there}), "f", own) == ""


def test_sites_are_sorted_into_those_that_can_and_those_that_cannot():
    answers = [answer("d"), answer("b", **{Meta.FINGERPRINT: "g"}), answer("a")]
    accepted, refused = sort_answers(["a", "b", "c", "d", "e"], answers, "f", OWN, 3)
    assert accepted == {"a": answers[2], "d": answers[0]}
    assert refused == {
        "b": "computes other features than the server expects; install the same mhsev everywhere",
        "c": "did not answer; see the log of that site",
        "e": "did not answer; see the log of that site",
    }


def test_nobody_answers():
    assert sort_answers(["a"], [], "f", OWN, 3) == ({}, {"a": "did not answer; see the log of that site"})


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (None, "sent no moments of its features"),
        (sums(n=np.array([])), "it sent moments that are not arrays of numbers"),
        (sums(mean=np.array(["DOE^JANE_19500101"])), "it sent moments that are not arrays of numbers"),
        (sums(class_counts=np.ones(9)), "it sent moments whose shapes do not fit each other"),
        (sums(squared_deviation=np.array([-1.0, 1, 1])), "it sent sums of squares or numbers of cases that cannot be"),
        (
            sums(mean=np.zeros(5), squared_deviation=np.ones(5)),
            "sent moments of another number of features than 3",
        ),
        ({}, "it sent no n, mean, squared_deviation, class_counts"),
        ({k: v for k, v in sums().items() if k != Moments.CLASS_COUNTS}, "it sent no class_counts"),
        (sums(mean=np.array([np.nan, 0, 0])), "it sent moments that are not finite"),
        (sums(n=np.array([0.0])), "it sent moments of 0 cases where at least one is expected"),
        (sums(n=np.array([-4.0])), "it sent moments of -4 cases where at least one is expected"),
        (sums(class_counts=np.zeros(4)), "it sent sums of squares or numbers of cases that cannot be"),
    ],
)
def test_sums_that_no_model_can_be_standardised_by_are_refused(params, reason):
    answered = Answer({"client_name": "a", **meta()}, params)
    assert sort_answers(["a"], [answered], "f", OWN, 3) == ({}, {"a": reason})


@pytest.mark.parametrize("n_samples", [0, -1, 20.0, "20", None])
def test_a_site_must_tell_its_number_of_training_cases(n_samples):
    accepted, refused = sort_answers(["a"], [answer("a", **{Meta.N_SAMPLES: n_samples})], "f", OWN, 3)
    assert (accepted, refused) == ({}, {"a": "did not tell its number of training cases"})


def test_a_site_that_refuses_is_not_asked_for_sums():
    refusing = answer("a", {}, **{Meta.REFUSAL: "has no labels"})
    assert sort_answers(["a"], [refusing], "f", OWN, 3) == ({}, {"a": "has no labels"})


@pytest.mark.parametrize("summary", [None, {}, "none", {"cases": {}, "grades": {}, "excluded": float("nan")}])
def test_a_summary_that_no_result_file_can_hold_is_refused(summary):
    answered = [answer("a", **{Meta.SITE_SUMMARY: summary})]
    accepted, refused = sort_answers(["a"], answered, "f", OWN, 3)
    assert (accepted, refused) == ({}, {"a": "did not tell its numbers of cases by split and grade"})


ASKED = ("site-1", "site-2", "site-3")


def admission(min_sites: int) -> Admission:
    return Admission("f", 3, OWN, min_sites, RoundPolicy(min_sites=2))


def test_who_can_take_part_is_admitted_and_the_others_are_named():
    result: dict[str, Any] = {}
    lines: list[str] = []
    further = sums(**{Moments.MEAN: np.array([3.0, 0.0, 2.5])})
    answers = [
        answer("site-2", further, **{Meta.N_SAMPLES: 30}),
        answer("site-1"),
        answer("site-3", **{Meta.PROTOCOL: 1}),
    ]
    admitted = admission(min_sites=2).admit(ASKED, answers, result, lines.append)
    assert admitted.sites == ("site-1", "site-2")
    assert admitted.cases == {"site-1": 20, "site-2": 30}
    np.testing.assert_array_equal(admitted.buffers["feature_mean"], np.float32([2.0, -1.0, 1.5]))
    assert list(result["sites"]) == list(result["reports"]) == ["site-1", "site-2"]
    assert set(result["refused"]) == {"site-3"}
    assert lines == [f"site-3 does not take part: {result['refused']['site-3']}"]
    assert "status" not in result


def test_too_few_end_the_study_before_it_begins():
    result: dict[str, Any] = {}
    with pytest.raises(StudyStoppedError, match=r"2 of 3 sites can take part, 3 are needed .*site-3: did not answer"):
        admission(min_sites=0).admit(ASKED, [answer("site-1"), answer("site-2")], result, print)
    assert result["status"] == "refused"
    assert list(result["sites"]) == ["site-1", "site-2"]
