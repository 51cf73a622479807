"""The job ``explain`` without FLARE's transport: pooled sums are of all cases, and what a site refuses to tell."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from analysis_sites import (
    CANARY,
    COLUMNS,
    SiteInProcess,
    clinical_model,
    clinical_network,
    make_hospitals,
    run_in_one_process,
)
from nvflare.apis.dxo import DXO, DataKind, from_shareable

from mhsev_flare.analysis.asked_sites import AnalysisStoppedError, Answer, Answers
from mhsev_flare.analysis.explanation_plan import ExplanationPlan
from mhsev_flare.analysis.explanation_site import ExplanationSite, load_weights
from mhsev_flare.analysis.explanation_study import ExplanationStudy
from mhsev_flare.analysis.jobs import (
    ANALYSIS_JOBS,
    ExplanationSpec,
    analysis_executor,
    analysis_server,
    explanation_of,
)
from mhsev_flare.analysis.payload_forms import analysis_forms
from mhsev_flare.analysis.player_sizes import SizeMoments, player_sizes
from mhsev_flare.analysis.protocol import TASK_MEASURE, Entry
from mhsev_flare.analysis.result import read_explanation
from mhsev_flare.jobs import JOBS
from mhsev_flare.payload_forms import one_of
from mhsev_flare.protocol import Meta
from mhsev_flare.result import file_digest
from mhsev_flare.site import SiteFolders, load_site_data
from mhsev_flare.site_data import SiteError
from mhsev_flare.site_policy import PrivacyDemand, SitePolicy
from mhsev_monai.model_file import load_model
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.shapley_background import SecondMoments, common_background
from mhsev_monai.shapley_explain import Effort, explain
from mhsev_monai.shapley_groups import feature_groups
from mhsev_monai.shapley_tables import ShapleyTable, quantile_edges

SIZES = (60, 50, 40)
PLAN = ExplanationPlan("all", n_passes=4, n_background=20, background_seed=5, covariances=False)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    return make_hospitals(tmp_path_factory.mktemp("hospitals"), SIZES)


def federation(hospitals, folder, plan=PLAN, policies=None, columns=COLUMNS):
    """Runs the job with each site's policy, if any; sites, result and the model's path."""
    model = clinical_model(folder / "app" / "config" / "model.pt", columns)
    spec = explanation_of(model, dataclasses.replace(ANALYSIS_JOBS["explain"], plan=plan))
    spec = dataclasses.replace(spec, plan=plan)
    sites = {}
    for root in sorted(hospitals.iterdir()):
        properties = (policies or {}).get(root.name, SitePolicy()).properties()
        made = explanation_of(model, spec)
        executor = analysis_executor(dataclasses.replace(made, plan=plan))
        sites[root.name] = SiteInProcess(root.name, root, folder / "sites", executor, properties)
    result = run_in_one_process(analysis_server(spec), sites, folder / "server", folder / "app")
    return sites, result, model


@pytest.fixture(scope="module")
def found(hospitals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return (*federation(hospitals, folder), folder)


def cases_of(hospitals, inputs):
    """Features of all cases of each site, by its name."""
    rows = {}
    for root in sorted(hospitals.iterdir()):
        data = load_site_data(root.name, SiteFolders(root, root / "cache"), inputs, 1, PAPER_SCALE)
        rows[root.name] = torch.cat([data.train.features, data.validation.features, data.test.features])
    return rows


def test_the_pooled_table_is_that_of_all_cases_with_the_same_background(found, hospitals):
    _, result, model, _ = found
    network, inputs = load_model(model).network, load_model(model).inputs
    rows = torch.cat(list(cases_of(hospitals, inputs).values()))
    groups = feature_groups(inputs.feature_names)
    background = common_background(network, PLAN.n_background, PLAN.background_seed)
    central = explain(network, rows, background, groups, effort=Effort(n_passes=PLAN.n_passes))
    sizes = player_sizes(network, rows, groups)
    edges = quantile_edges(sizes.mean(axis=0), sizes.std(axis=0), 5)
    names = (central.players, central.outputs)
    table = ShapleyTable.of(names, central.values.values.numpy(), central.values.outputs.numpy(), sizes, edges)
    pooled = ShapleyTable.from_json(result["pooled"]["table"])
    assert (pooled.players, pooled.outputs, pooled.n) == (*names, sum(SIZES))
    # Values are rounded to 2^-30, and the network's own arithmetic differs by batch in single precision.
    for name in ("absolute_sum", "value_sum", "square_sum", "output_sum"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(table, name), rtol=0, atol=len(rows) * 1e-6)
    assert np.abs(table.absolute_sum).max() > 1
    base = [result["base"][name] for name in central.outputs]
    np.testing.assert_allclose(base, central.values.base[0].numpy(), rtol=0, atol=1e-6)


def test_edges_are_those_of_all_cases_together(found, hospitals):
    _, result, model, _ = found
    network, inputs = clinical_network()
    sizes = player_sizes(
        network, torch.cat(list(cases_of(hospitals, inputs).values())), feature_groups(inputs.feature_names)
    )
    expected = quantile_edges(sizes.mean(axis=0), sizes.std(axis=0), 5)
    assert list(result["edges"]) == result["players"] == list(COLUMNS)
    np.testing.assert_allclose(list(result["edges"].values()), expected, rtol=1e-9, atol=1e-12)
    assert result["model"]["digest"] == file_digest(model)


def test_the_sites_tables_add_up_to_the_pooled_one(found):
    _, result, _, folder = found
    tables = [ShapleyTable.from_json(entry["table"]) for entry in result["sites"].values()]
    assert [table.n for table in tables] == list(SIZES)
    assert (tables[0] + tables[1] + tables[2]).to_json() == result["pooled"]["table"]
    first = result["pooled"]["importance"]["expected severity"][0]
    column = result["outputs"].index("expected severity")
    sizes = np.array(result["pooled"]["table"]["absolute_sum"])[:, column] / sum(SIZES)
    assert (first["player"], first["mean_absolute"]) == (result["players"][int(sizes.argmax())], sizes.max())
    counts = np.concatenate([table.bin_counts.ravel() for table in tables])
    assert not ((counts > 0) & (counts < 5)).any()
    assert read_explanation(folder / "server" / "mhsev" / "explanation.json") == result


def test_a_site_below_its_minimum_sends_nothing_and_the_result_says_so(tmp_path, hospitals):
    policies = {"site-3": SitePolicy(least=41)}
    sites, result, _ = federation(hospitals, tmp_path, policies=policies)
    assert result["status"] == "completed"
    assert result["refused"] == {"site-3": "fewer than 41 cases to explain"}
    assert set(result["sites"]) == {"site-1", "site-2"}
    assert result["pooled"]["cases"] == sum(SIZES[:2])
    (task, reply), *further = sites["site-3"].sent
    assert (task, further) == (TASK_MEASURE, [])
    assert set(from_shareable(reply).meta) == {Meta.PROTOCOL, Meta.FINGERPRINT, Meta.REPORT, Meta.REFUSAL}


@pytest.mark.parametrize("split", ["train", "all"])
def test_a_site_that_requires_privacy_explains_no_training_cases(tmp_path, hospitals, split):
    policies = {"site-3": SitePolicy(privacy=PrivacyDemand("required", max_epsilon=8.0))}
    _, result, _ = federation(hospitals, tmp_path, dataclasses.replace(PLAN, split=split, n_passes=1), policies)
    assert result["status"] == "completed"
    assert "requires differential privacy of its training cases" in result["refused"]["site-3"]
    assert set(result["sites"]) == {"site-1", "site-2"}


def test_a_site_that_requires_privacy_explains_test_cases(tmp_path, hospitals):
    policies = {"site-3": SitePolicy(privacy=PrivacyDemand("required", max_epsilon=8.0))}
    _, result, _ = federation(hospitals, tmp_path, dataclasses.replace(PLAN, split="test", n_passes=1), policies)
    assert result["refused"] == {}
    assert set(result["sites"]) == {"site-1", "site-2", "site-3"}


@pytest.mark.parametrize(("n_without", "refused"), [(0, False), (1, True), (4, True), (5, False)])
def test_few_scans_without_a_dark_spot_do_not_follow(n_without, refused):
    network, inputs = JOBS["dsd_mlp"].network, JOBS["dsd_mlp"].inputs
    features = torch.randn(20, 6, len(inputs.feature_names), generator=torch.Generator().manual_seed(0))
    features[:n_without] = torch.nan
    site = ExplanationSite(network, tuple(inputs.feature_names), features)
    moments = SizeMoments.of(player_sizes(network, features, feature_groups(inputs.feature_names)))
    form = analysis_forms(one_of(CANARY), one_of(CANARY))[TASK_MEASURE][0][Entry.SIZES]
    if refused:
        with pytest.raises(SiteError, match="without a dark spot, and fewer than 5"):
            site.measured()
        assert form(moments.to_arrays()) == "holds arrays that do not fit each other"
    else:
        assert site.measured()["n"].max() == 20
        assert form(site.measured()) == ""


@pytest.mark.parametrize("n_spots", [-1.0, 1e6])
def test_a_number_of_dark_spots_that_no_scan_has_makes_no_background(n_spots):
    """All sites would work on scans with so many."""
    network, inputs = JOBS["dsd_mlp"].network, JOBS["dsd_mlp"].inputs
    n_players = len(feature_groups(inputs.feature_names).names) + 1

    def ask(task, questions):
        assert task == TASK_MEASURE
        n = np.full(n_players, 10)
        sizes = {site: {"n": n, "mean": n * 0.0, "squared_deviation": n * 1.0} for site in questions}
        sizes["site-2"]["mean"][-1] = n_spots
        return Answers({site: Answer(own) for site, own in sizes.items()}, {})

    study = ExplanationStudy(network, tuple(inputs.feature_names), PLAN, ask, min_sites=2)
    with pytest.raises(AnalysisStoppedError, match="1 of 2 sites can take part"):
        study.run(["site-1", "site-2"])
    assert set(study.result["refused"]) == {"site-2"}


def test_covariances_are_of_all_sites_or_none(tmp_path, hospitals):
    """Two variables and their flags ask for forty cases."""
    plan = dataclasses.replace(PLAN, covariances=True)
    columns = ("age", "hypertension")
    sites, result, model = federation(hospitals, tmp_path / "all", plan, columns=columns)
    assert result["background"]["moments"] == "covariances"
    rows = cases_of(hospitals, load_model(model).inputs)
    moments = SecondMoments.of(torch.cat(list(rows.values())))
    network = load_model(model).network
    background = common_background(network, plan.n_background, plan.background_seed, moments=moments)
    found = explain(network, background[:1], background, feature_groups(load_model(model).inputs.feature_names))
    np.testing.assert_allclose(list(result["base"].values()), found.values.base[0].numpy(), rtol=0, atol=1e-6)

    policies = {"site-2": SitePolicy(blocked=(Entry.SECOND_MOMENTS,))}
    sites, result, _ = federation(hospitals, tmp_path / "one", plan, policies, columns)
    assert result["background"]["moments"] == "deviations"
    assert result["background"]["withheld"] == {"site-2": "the policy of this site withholds second moments"}
    assert set(result["sites"]) == {"site-1", "site-2", "site-3"}
    assert Entry.SECOND_MOMENTS not in from_shareable(sites["site-2"].sent[0][1]).meta


def test_few_cases_for_many_features_tell_no_second_moments(tmp_path, hospitals):
    plan = dataclasses.replace(PLAN, covariances=True)
    _, result, _ = federation(hospitals, tmp_path, plan)
    reason = "second moments of so many features are told of 80 cases at least"
    assert result["background"]["withheld"] == dict.fromkeys(("site-1", "site-2", "site-3"), reason)
    assert result["background"]["moments"] == "deviations"


def test_a_job_without_its_model_or_with_another_says_so(tmp_path, hospitals):
    _, result, _ = federation(hospitals, tmp_path / "first")
    assert result["status"] == "completed"
    for what, columns, words in (
        ("none", None, "this job holds no model"),
        ("another", ("age", "sex"), "another SeverityMLP than the job names"),
    ):
        app = tmp_path / what / "app"
        if columns:
            clinical_model(app / "config" / "model.pt", columns)
        network, inputs = clinical_network()
        spec = ExplanationSpec("explain", network, inputs, PLAN)
        result = run_in_one_process(analysis_server(spec), {}, tmp_path / what, app)
        assert result["status"] == "failed"
        assert words in result["reason"]


def test_a_question_is_answered_once_and_with_fitting_weights_alone(tmp_path, hospitals):
    sites, _, _ = federation(hospitals, tmp_path)
    site = sites["site-1"]
    before = len(site.sent)
    network, _ = clinical_network()
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    request = DXO(DataKind.WEIGHTS, data=weights, meta={}).to_shareable()
    refusal = from_shareable(site.answer("explain_attribute", request)).meta[Meta.REFUSAL]
    assert "answers 1 times at most" in refusal
    assert len(site.sent) == before + 1
    for bad in ({}, {**weights, "more": np.zeros(1)}, {**weights, "feature_mean": np.zeros(3)}):
        with pytest.raises(SiteError, match="are not those of the network"):
            load_weights(network, bad)


def test_a_model_that_reads_volumes_is_refused():
    with pytest.raises(ValueError, match="reads volumes"):
        ExplanationSpec("explain", JOBS["cnn3d"].network, JOBS["cnn3d"].inputs, PLAN)
    with pytest.raises(ValueError, match="split must be one of"):
        dataclasses.replace(PLAN, split="some")


def test_sizes_of_a_candidate_network_are_means_over_its_spots_and_their_number():
    network, inputs = JOBS["dsd_mlp"].network, JOBS["dsd_mlp"].inputs
    groups = feature_groups(inputs.feature_names)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 6, len(inputs.feature_names), generator=generator)
    features[0, 4:] = torch.nan
    features[2] = torch.nan
    sizes = player_sizes(network, features, groups)
    assert sizes.shape == (3, len(groups.names) + 1)
    assert sizes[:, -1].tolist() == [4, 6, 0]
    members = [index for index, group in enumerate(groups.group_of) if group == 1]
    assert sizes[0, 1] == pytest.approx(float(features[0, :4][:, members].double().mean()), abs=1e-9)
    assert np.isnan(sizes[2, :-1]).all()
    moments = SizeMoments.of(sizes)
    assert moments.n.tolist() == [2] * len(groups.names) + [3]
    parts = SizeMoments.of(sizes[:1]) + SizeMoments.of(sizes[1:])
    np.testing.assert_allclose(parts.mean, moments.mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(parts.squared_deviation, moments.squared_deviation, rtol=0, atol=1e-12)
    json.dumps(moments.edges().tolist(), allow_nan=False)
