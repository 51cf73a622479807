"""The end of a study with a site that blocks, spoils or inflates a part: that part of that site is lost, no more."""

from __future__ import annotations

import numpy as np
import pytest
from faulty_sites import of_so_many_cases
from judged_sites import SIZES, Spoiled, phase_of, ten_million_cases, weights_of

from mhsev_flare.answers import note_absent, sites_to_ask
from mhsev_flare.entry_blocker import EntryBlocker
from mhsev_flare.payload_guard import PayloadGuard
from mhsev_flare.protocol import Meta
from mhsev_flare.result import NoAnswerError


def test_a_site_that_blocks_a_part_costs_that_part_alone(sites, trained):
    withheld = [Meta.CALIBRATION_SUMS, Meta.UNCERTAINTY, Meta.SUBGROUPS, Meta.PAIRS]
    phase = phase_of(sites, {"site-1": [EntryBlocker(withheld), PayloadGuard()]})
    _, entry = phase.calibrate(trained)
    assert entry["sites"]["site-1"] == "not told"
    assert entry["n"] == entry["sites"]["site-2"]
    tables, entries = phase.test(trained, None)
    assert set(tables) == set(SIZES)
    assert entries["uncertainty"]["sites"]["site-1"] == "not told"
    assert entries["uncertainty"]["pooled"]["n"] == sum(tables[name].n for name in ("site-2", "site-3"))
    assert all("site-1" not in group["sites"] for group in entries["subgroups"]["sex"].values())
    result = phase.site_models(trained, weights_of(sites["site-2"][0].network), tables)
    assert {r["cases"] for r in result["paired"]["comparisons"] if r["second"] == "own model"} == {
        "all sites",
        "site-2",
        "site-3",
    }


def test_where_no_site_tells_sums_there_is_no_calibration_and_still_a_test(sites, trained):
    phase = phase_of(sites, {name: [EntryBlocker([Meta.CALIBRATION_SUMS]), PayloadGuard()] for name in sites})
    assert phase.calibrate(trained) == (None, None)
    _, entries = phase.test(trained, None)
    assert entries["uncertainty"]["pooled"]["sets"] is None
    assert entries["uncertainty"]["pooled"]["n_odd"] is None
    assert entries["uncertainty"]["pooled"]["before"]["ece"] == entries["uncertainty"]["pooled"]["after"]["ece"]


@pytest.mark.parametrize("value", [None, {"temperatures": 1, "scores": 2, "odd": 3}])
def test_a_malformed_part_costs_that_part_of_that_site(sites, trained, value):
    entries = (Meta.CALIBRATION_SUMS, Meta.UNCERTAINTY, Meta.SUBGROUPS)
    phase = phase_of(sites, {"site-1": [Spoiled(entry, value) for entry in entries]})
    _, entry = phase.calibrate(trained)
    assert entry["sites"]["site-1"] == "malformed"
    tables, entries = phase.test(trained, None)
    assert set(tables) == set(SIZES)
    assert entries["uncertainty"]["sites"]["site-1"] == "malformed"
    assert entries["subgroups"]["malformed"] == ["site-1"]


def in_fewer_bins(counts, n_bins: int):
    """Counts ``(..., B)`` with all bins from the last on in that one."""
    own = np.asarray(counts)
    return np.concatenate([own[..., : n_bins - 1], own[..., n_bins - 1 :].sum(-1, keepdims=True)], axis=-1).tolist()


@pytest.mark.parametrize("change", [
    lambda counts: in_fewer_bins(counts, 49),
    lambda counts: in_fewer_bins(counts, 40),
    lambda counts: [*counts, [0] * 50],
], ids=["49 bins", "40 bins", "5 grades"])  # fmt: skip
def test_calibration_sums_of_another_shape_cost_that_site_alone(sites, trained, change):
    spoil = Spoiled(
        Meta.CALIBRATION_SUMS, lambda sums: {**sums, "scores": {"counts": change(sums["scores"]["counts"])}}
    )
    _, entry = phase_of(sites, {"site-1": [PayloadGuard(), spoil]}).calibrate(trained)
    assert entry["sites"]["site-1"] == "malformed"
    assert entry["n"] == entry["sites"]["site-2"]


def in_seven_bins(sums):
    n = sum(sums["before"]["n"])
    return {**sums, "before": {"n": [n] + [0] * 6, "confidence": [0.1 * n] + [0.0] * 6, "right": [0] * 7}}


def of_three_grades(sums):
    n = sum(sums["before"]["n"])
    return {**sums, "sets": {"covered": [n, 0, 0], "sizes": [[0, n, 0, 0], [0] * 4, [0] * 4]}}


@pytest.mark.parametrize("change", [
    in_seven_bins,
    of_three_grades,
    lambda sums: {**sums, "sets": None},
    lambda sums: {**sums, "n_odd": None},
], ids=["7 bins", "3 grades", "no sets", "no odd scans"])  # fmt: skip
def test_uncertainty_that_does_not_fit_the_others_costs_that_site_alone(sites, trained, change):
    phase = phase_of(sites, {"site-1": [PayloadGuard(), Spoiled(Meta.UNCERTAINTY, change)]})
    calibration, _ = phase.calibrate(trained)
    tables, entries = phase.test(trained, calibration)
    told = entries["uncertainty"]
    assert told["sites"]["site-1"] == "malformed"
    others = sum(tables[site].n for site in ("site-2", "site-3"))
    assert (told["pooled"]["n"], sum(told["pooled"]["sets"]["sizes"])) == (others, others)
    assert told["pooled"]["n_odd"] is not None


def test_a_table_of_other_bins_is_no_answer_and_one_among_subgroups_costs_them_alone(sites, trained):
    def coarse(table):
        return {**table, "score_histograms": in_fewer_bins(table["score_histograms"], 40)}

    def coarse_groups(told):
        tables = {label: coarse(group) for label, group in told["scanner"].items() if not isinstance(group, str)}
        assert tables
        return {**told, "scanner": {**told["scanner"], **tables}}

    filters = {
        "site-1": [PayloadGuard(), Spoiled(Meta.TABLE, coarse)],
        "site-2": [PayloadGuard(), Spoiled(Meta.SUBGROUPS, coarse_groups)],
    }
    tables, entries = phase_of(sites, filters).test(trained, None)
    assert set(tables) == set(entries["test"]["sites"]) == {"site-2", "site-3"}
    assert entries["subgroups"]["malformed"] == ["site-2"]
    assert all("site-2" not in group["sites"] for group in entries["subgroups"]["sex"].values())


def test_calibration_sums_of_more_cases_than_a_site_judged_cost_that_site_alone(sites, trained):
    phase = phase_of(sites, {"site-1": [PayloadGuard(), Spoiled(Meta.CALIBRATION_SUMS, ten_million_cases)]})
    calibration, entry = phase.calibrate(trained)
    assert entry["sites"]["site-1"] == "malformed"
    assert entry["n"] == entry["sites"]["site-2"]
    assert calibration.temperature == entry["temperature"]


@pytest.mark.parametrize(
    ("n", "told", "reason"),
    [
        (10**7, None, "an evaluation table of 10000000 cases, where a site has 100000 at most"),
        (100, 42, "an evaluation table of 100 cases, where it had 42 at most in the handshake"),
    ],
)
def test_a_site_that_claims_too_many_cases_is_left_out_by_name_and_the_rest_pooled(sites, trained, n, told, reason):
    result = {} if told is None else {"sites": {"site-1": {"cases": {"test": told}}}}
    filters = {"site-1": [PayloadGuard(), Spoiled(Meta.TABLE, lambda table: of_so_many_cases(table, n))]}
    tables, entries = phase_of(sites, filters, result).test(trained, None)
    assert set(entries["test"]["sites"]) == {"site-2", "site-3"}
    assert entries["test"]["pooled"]["table"]["n"] == sum(table.n for table in tables.values())
    assert result["absent"] == {"validate test": ["site-1"]}
    assert result["unusable"] == {"validate test": {"site-1": reason}}


def test_subgroups_of_more_cases_than_the_table_cost_that_site_alone(sites, trained):
    def inflated(told):
        tables = {label: group for label, group in told["scanner"].items() if not isinstance(group, str)}
        assert tables
        return {**told, "scanner": {label: of_so_many_cases(table, 10**6) for label, table in tables.items()}}

    filters = {"site-1": [PayloadGuard(), Spoiled(Meta.SUBGROUPS, inflated)]}
    _, entries = phase_of(sites, filters).test(trained, None)
    assert entries["subgroups"]["malformed"] == ["site-1"]
    assert "site-1" in entries["test"]["sites"]


def test_a_site_that_is_gone_is_not_waited_for_again_to_calibrate():
    result: dict = {}
    note_absent(result, "validate validation", ["b"])
    calibrating, testing = {Meta.SPLIT: "validation", Meta.TEMPERATURE: 1.0}, {Meta.SPLIT: "test"}
    assert sites_to_ask(["a", "b", "c"], result, "validate", calibrating) == ["a", "c"]
    assert sites_to_ask(["a", "b", "c"], result, "validate", testing) == ["a", "b", "c"]
    note_absent(result, "validate validation", ["a"])
    assert result == {"absent": {"validate validation": ["a", "b"]}}


def test_without_an_answer_it_is_said(sites, trained):
    with pytest.raises(NoAnswerError, match="no site answered compare"):
        phase_of(sites).evaluation.pairs(trained, {})  # no site has trained a model of its own


@pytest.mark.parametrize(
    "asked",
    [
        {Meta.SPLIT: "test", Meta.TEMPERATURE: 1.0},
        {Meta.SPLIT: "train", Meta.TEMPERATURE: 1.0},
        {Meta.SPLIT: "validation", Meta.TEMPERATURE: "hot"},
        {Meta.SPLIT: "validation", Meta.CALIBRATION: {}},
        {Meta.SPLIT: "test", Meta.CALIBRATION: {"temperature": 2.0}},
    ],
)
def test_a_site_answers_no_question_of_another_form(sites, trained, asked):
    with pytest.raises(NoAnswerError):
        phase_of(sites).evaluation.ask("validate", trained, **asked)
