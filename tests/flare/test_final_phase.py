"""The end of a study over three sites in one process, behind their guards: pooled figures are those of raw cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from asked_sites import ask_sites
from faulty_sites import of_so_many_cases
from nvflare.apis.dxo import from_shareable
from nvflare.apis.signal import Signal

from mhsev_flare.answers import note_absent, sites_to_ask
from mhsev_flare.entry_blocker import EntryBlocker
from mhsev_flare.final_phase import FinalPhase
from mhsev_flare.payload_guard import PayloadGuard
from mhsev_flare.protocol import Meta
from mhsev_flare.result import NoAnswerError, write_result
from mhsev_monai.evaluation import JudgedCases
from mhsev_monai.grade_calibration import choose_temperature
from mhsev_monai.metrics import SeverityTable, severity_metrics
from mhsev_monai.pair_table import PairTable
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.statistics import exact_mcnemar
from mhsev_monai.subgroups import case_subgroups

SIZES = {"site-1": 200, "site-2": 180, "site-3": 30}
"""Of 30 cases some four are for validation, fewer than a site tells sums of."""
CALIBRATING = ("site-1", "site-2")


def describe_patients(root: Path, seed: int) -> None:
    """Give every patient a sex and an age, and the scans of some a sidecar."""
    random = np.random.default_rng(seed)
    table = root / "participants.tsv"
    head, *rows = table.read_text().splitlines()
    lines = [f"{head}\tsex\tage"]
    for row in rows:
        lines.append(f"{row}\t{random.choice(['F', 'M'], p=[0.9, 0.1])}\t{random.integers(50, 90)}")
        subject = row.split("\t")[0]
        facts = {"Manufacturer": "Siemens", "MagneticFieldStrength": random.choice([1.5, 3.0])}
        (root / subject / "dwi" / f"{subject}_dwi.json").write_text(json.dumps(facts))
    table.write_text("\n".join(lines) + "\n")


@pytest.fixture
def sites(site, tmp_path):
    made = {name: site(name, n, seed, epochs=30) for seed, (name, n) in enumerate(SIZES.items())}
    for seed, name in enumerate(made):
        describe_patients(tmp_path / name / "data", seed)
    return made


def weights_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in network.state_dict().items()}


@pytest.fixture
def trained(sites):
    """Weights of a model that knows a little too well: trained by one site, with logits made larger."""
    made, fl_ctx = sites["site-1"]
    data = made._site_data(fl_ctx)
    made.network.feature_mean.copy_(data.train.features.mean(dim=0))
    for round_number in range(3):
        made._local(Signal()).fit(data, round_number)
    with torch.no_grad():
        last = made.network.layers[-1]
        last.weight[:3] *= 4.0
        last.bias[:3] *= 4.0
    return weights_of(made.network)


def raw(sites, weights, split) -> dict[str, JudgedCases]:
    """What no server sees: every case of the split by site."""
    found = {}
    for name, (made, fl_ctx) in sites.items():
        local = made._local(Signal())
        local.load(weights)
        found[name] = local.judge(split, made._site_data(fl_ctx), measure_odd=True)
    return found


def joined(cases: list[JudgedCases]) -> JudgedCases:
    return JudgedCases(**{k: np.concatenate([vars(one)[k] for one in cases]) for k in vars(cases[0])})


def phase_of(sites, filters=None, result=None) -> FinalPhase:
    guards = {name: [PayloadGuard()] for name in sites}
    return FinalPhase(ask_sites(sites, guards | (filters or {}), result=result), PAPER_SCALE, seed=1)


def test_the_calibration_is_that_of_all_cases_of_the_sites_that_told(sites, trained):
    calibration, entry = phase_of(sites).calibrate(trained)
    validation = raw(sites, trained, "validation")
    cases = joined([validation[name] for name in CALIBRATING])
    temperature, _ = choose_temperature(cases.calibration_cases(1.0).temperatures)
    assert temperature > 1.0
    expected = cases.calibration_cases(temperature)
    assert calibration == expected.calibration(temperature)
    assert entry["sites"] == {"site-1": len(validation["site-1"]), "site-2": len(validation["site-2"]), "site-3": "<5"}
    assert entry["n"] == len(cases)
    assert entry["temperature"] == temperature
    assert entry["loss_after"] < entry["loss_before"]
    truth = cases.probabilities[np.arange(len(cases)), cases.true_grades]
    assert entry["loss_before"] == pytest.approx(-np.log(np.maximum(truth, 1e-7)).mean(), rel=1e-6)


def test_pooled_figures_are_those_of_all_raw_cases(sites, trained, tmp_path):
    phase = phase_of(sites)
    calibration, entry = phase.calibrate(trained)
    tables, entries = phase.test(trained, calibration)
    tested = raw(sites, trained, "test")
    cases = joined(list(tested.values()))
    central = cases.table(calibration)
    told = entries["test"]["pooled"]
    assert SeverityTable.from_json(told["table"]).confusion.tolist() == central.confusion.tolist()
    assert told["table"]["score_histograms"] == central.score_histograms.tolist()
    for name, value in severity_metrics(central).to_json().items():
        if name != "per_class":
            assert told["metrics"][name] == pytest.approx(value, abs=1e-9), name
    uncertainty, expected = entries["uncertainty"], cases.uncertainty(calibration)
    assert uncertainty["pooled"]["n"] == len(cases)
    for when, sums in (("before", expected.before), ("after", expected.after)):
        assert uncertainty["pooled"][when]["ece"] == pytest.approx(sums.expected_error(), abs=1e-9)
        assert uncertainty["pooled"][when]["reliability"]["right"] == sums.right.tolist()
    assert uncertainty["pooled"]["before"]["brier"] == pytest.approx(expected.mean("brier_before"), abs=1e-9)
    assert uncertainty["pooled"]["sets"]["coverage"] == expected.sets.coverage()
    assert uncertainty["pooled"]["sets"]["mean_size"] == expected.sets.mean_size()
    assert uncertainty["pooled"]["n_odd"] == (cases.odd > calibration.odd_above).sum()
    assert uncertainty["sites"]["site-3"]["n"] == len(tested["site-3"])
    worst = min(tables, key=lambda name: severity_metrics(tables[name]).accuracy)
    assert entries["test"]["worst_site"]["accuracy"]["site"] == worst
    write_result(tmp_path, {**entries, "calibration": entry})


def test_a_temperature_changes_no_grade_and_no_count(sites, trained):
    phase = phase_of(sites)
    calibrated = phase.test(trained, phase.calibrate(trained)[0])[1]["test"]["pooled"]
    plain = phase.test(trained, None)[1]["test"]["pooled"]
    assert calibrated["table"]["confusion"] == plain["table"]["confusion"]
    changed = {k for k, v in calibrated["metrics"].items() if v != plain["metrics"][k]}
    assert {"brier", "rps"} <= changed <= {"brier", "rps", "macro_auc", "per_class"}
    same = {k for k, v in calibrated["intervals"].items() if v == plain["intervals"][k]}
    assert {"accuracy", "quadratic_kappa", "count_mae"} <= same


def test_subgroups_are_pooled_over_the_sites_that_may_tell_them(sites, trained):
    _, entries = phase_of(sites).test(trained, None)
    tested = raw(sites, trained, "test")
    sexes, n_hidden = entries["subgroups"]["sex"], 0
    assert entries["subgroups"]["least"] == dict.fromkeys(SIZES, 5)
    for name, (made, fl_ctx) in sites.items():
        labels = [case_subgroups(case)["sex"] for case in made._site_data(fl_ctx).test_cases]
        assert len(labels) == len(tested[name])
        for sex in set(labels):
            told = sexes[sex]["sites"][name]
            n_hidden += isinstance(told, str)
            assert told in ("hidden", "<5") or told == labels.count(sex) >= 5
    assert n_hidden > 0
    for entry in [entry for groups in ("sex", "age", "scanner") for entry in entries["subgroups"][groups].values()]:
        assert entry["n"] == sum(n for n in entry["sites"].values() if not isinstance(n, str))
        assert (entry["table"] is None) == (entry["n"] == 0)
        assert entry["table"] is None or entry["metrics"]["n"] == entry["n"] == entry["table"]["n"]
    assert set(entries["subgroups"]["scanner"]) == {"Siemens 1.5 T", "Siemens 3 T"}


def test_own_models_are_told_by_owner_and_site_and_paired_on_the_owners_cases(sites, trained):
    phase = phase_of(sites)
    tables, _ = phase.test(trained, None)
    start = weights_of(sites["site-1"][0].network)
    result = phase.site_models(trained, start, tables)
    matrix = result["comparison"]["matrix"]
    assert {owner: set(row) for owner, row in matrix.items()} == {owner: set(SIZES) for owner in SIZES}
    for owner, (_, fl_ctx) in sites.items():
        with np.load(Path(fl_ctx.get_engine().get_workspace().get_run_dir("job")) / "mhsev" / "own_model.npz") as own:
            weights = dict(own)
        alone = raw(sites, weights, "test")
        for name in SIZES:
            assert matrix[owner][name]["table"]["confusion"] == alone[name].table().confusion.tolist()
        pooled = np.sum([alone[name].table().confusion for name in SIZES], axis=0)
        assert result["comparison"]["site_models"][owner]["table"]["confusion"] == pooled.tolist()
        row = find(result["paired"], owner, "own model")
        cases, beside = raw(sites, trained, "test")[owner], alone[owner]
        p = exact_mcnemar(cases.grades == cases.true_grades, beside.grades == cases.true_grades)
        assert row["mcnemar"]["p"] == pytest.approx(p, abs=1e-9)
        assert row["n"] == len(cases)
    together = find(result["paired"], "all sites", "own model")
    assert together["n"] == sum(len(one) for one in raw(sites, trained, "test").values())


def find(paired, cases, second):
    (row,) = [r for r in paired["comparisons"] if (r["cases"], r["second"]) == (cases, second)]
    return row


def test_the_most_frequent_grade_is_a_comparison_without_site_models_too(sites, trained):
    phase = phase_of(sites)
    tables, _ = phase.test(trained, None)
    paired = phase.majority_alone(tables)["paired"]
    assert {row["second"] for row in paired["comparisons"]} == {"majority"}
    assert [row["cases"] for row in paired["comparisons"]] == ["all sites", *sorted(SIZES)]
    cases = joined(list(raw(sites, trained, "test").values()))
    frequent = np.bincount(cases.true_grades).argmax()
    p = exact_mcnemar(cases.grades == cases.true_grades, cases.true_grades == frequent)
    assert paired["comparisons"][0]["mcnemar"]["p"] == pytest.approx(p, abs=1e-9)


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


class Spoiled:
    """A site's last filter that puts another value, or what a function makes of the told one, in place of one entry."""

    def __init__(self, entry: str, value: object) -> None:
        self.entry, self.value = entry, value

    def process(self, reply, fl_ctx):  # noqa: ARG002 - FLARE's signature
        message = from_shareable(reply)
        if self.entry in message.meta:
            message.meta[self.entry] = self.value(message.meta[self.entry]) if callable(self.value) else self.value
        return message.to_shareable()


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


def ten_million_cases(sums):
    counts = [[10**7] + [0] * 49, *([0] * 50 for _ in range(3))]
    odd = {"counts": [10**7] + [0] * 63}
    return {"temperatures": {"n": 10**7, "losses": [0.0] * 56}, "scores": {"counts": counts}, "odd": odd}


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
    assert result["absent"] == {"validate": ["site-1"]}
    assert result["unusable"] == {"validate": {"site-1": reason}}


def test_subgroups_of_more_cases_than_the_table_cost_that_site_alone(sites, trained):
    def inflated(told):
        tables = {label: group for label, group in told["scanner"].items() if not isinstance(group, str)}
        assert tables
        return {**told, "scanner": {label: of_so_many_cases(table, 10**6) for label, table in tables.items()}}

    filters = {"site-1": [PayloadGuard(), Spoiled(Meta.SUBGROUPS, inflated)]}
    _, entries = phase_of(sites, filters).test(trained, None)
    assert entries["subgroups"]["malformed"] == ["site-1"]
    assert "site-1" in entries["test"]["sites"]


def test_models_are_compared_on_the_cases_of_sites_that_judged_them_all(sites, trained):
    phase = phase_of(sites)
    tables, _ = phase.test(trained, None)
    start = weights_of(sites["site-1"][0].network)
    whole = phase.site_models(trained, start, tables)["comparison"]
    assert whole["sites"] == sorted(SIZES)
    some = {site: table for site, table in tables.items() if site != "site-2"}
    result = phase.site_models(trained, start, some)["comparison"]
    assert result["sites"] == ["site-1", "site-3"]
    n = sum(table.n for table in some.values())
    assert {entry["metrics"]["n"] for entry in result["site_models"].values()} == {n}
    assert set(result["matrix"]["site-1"]) == set(SIZES), "what was told stays in the matrix"


def test_a_site_that_is_gone_is_not_waited_for_again_to_calibrate():
    result: dict = {}
    note_absent(result, "validate", ["b"])
    calibrating, testing = {Meta.SPLIT: "validation", Meta.TEMPERATURE: 1.0}, {Meta.SPLIT: "test"}
    assert sites_to_ask(["a", "b", "c"], result, "validate", calibrating) == ["a", "c"]
    assert sites_to_ask(["a", "b", "c"], result, "validate", testing) == ["a", "b", "c"]
    note_absent(result, "validate", ["a"])
    assert result == {"absent": {"validate": ["a", "b"]}}


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


def test_the_pair_table_is_of_the_very_cases(sites, trained):
    made, fl_ctx = sites["site-2"]
    ask = ask_sites({"site-2": (made, fl_ctx)}, {})
    own = ask("submit_model", weights_of(made.network))[0].params
    told = PairTable.from_json(ask("compare", trained)[0].meta[Meta.PAIRS])
    first, second = raw(sites, trained, "test")["site-2"], raw(sites, own, "test")["site-2"]
    expected = PairTable.from_grades(first.true_grades, first.grades, second.grades)
    assert told.counts.tolist() == expected.counts.tolist()
