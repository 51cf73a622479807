"""Federated ordinal regression against statsmodels, published fits, numerical derivatives and laws."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels
from scipy import optimize, stats
from statsmodels.miscmodels.ordinal_model import OrderedModel

from mhsev_monai.cohort.clinical import AGE_ODDS_RATIO, RISK_FACTORS
from mhsev_monai.cohort.hospitals import HOSPITALS
from mhsev_monai.cohort.subject import draw_record
from mhsev_monai.proportional_odds import OrdinalData, OrdinalSite, OrdinalSums, StaysOutError, ordinal_sums
from mhsev_monai.proportional_odds_check import SlopeSums, check_proportional_odds, parallel_tests, slope_sums
from mhsev_monai.proportional_odds_fit import FitError, NewtonFit, fit_federated
from mhsev_monai.proportional_odds_result import Layout, likelihood_ratio
from mhsev_monai.severity import severity_from_count

NAMES = ("age", "hypertension", "anticoagulant")
EFFECTS = np.array([0.5, 0.7, -0.4])

# Ratings 1 to 9 of four cheese additives (McCullagh and Nelder 1989, Generalized Linear Models, p. 175).
CHEESE = np.array(
    [
        [0, 0, 1, 7, 8, 8, 19, 8, 1],
        [6, 9, 12, 11, 7, 6, 1, 0, 0],
        [1, 1, 6, 8, 23, 7, 5, 1, 0],
        [0, 0, 0, 1, 3, 7, 14, 16, 11],
    ]
)


def simulated_site(seed, n, shift, age_mean=0.0):
    rng = np.random.default_rng(seed)
    covariates = np.c_[rng.normal(age_mean, 1, n), rng.random(n) < 0.5, rng.random(n) < 0.2].astype(float)
    risk = covariates @ EFFECTS + shift + rng.logistic(size=n)
    return OrdinalData(np.searchsorted([-1.0, 1.0, 2.5], risk), covariates, NAMES, 4)


@pytest.fixture(scope="module")
def sites():
    """Three hospitals whose patients differ in age and in grades: 500 cases as in the paper."""
    return {
        "a": simulated_site(1, 220, 0.0),
        "b": simulated_site(2, 170, 1.5, age_mean=0.8),
        "c": simulated_site(3, 110, -0.8, age_mean=-0.5),
    }


@pytest.fixture(scope="module")
def fit(sites):
    return fit_federated(sites, NAMES, 4)


def pooled(sites):
    """Grades, covariates and an indicator of each site but the first, in one table."""
    grades = np.concatenate([data.grades for data in sites.values()])
    which = np.repeat(np.arange(len(sites)), [data.grades.size for data in sites.values()])
    covariates = np.concatenate([data.covariates for data in sites.values()])
    return grades, covariates, (which[:, None] == np.arange(1, len(sites))).astype(float)


def cheese():
    grades = np.concatenate([np.repeat(np.arange(9), row) for row in CHEESE])
    additive = np.repeat(np.arange(4), CHEESE.sum(axis=1))
    data = OrdinalData(grades, np.eye(4)[additive][:, :3], ("first", "second", "third"), 9)
    site = OrdinalSite(data, least=1)
    return fit_federated({"dairy": site}, data.names, 9), site


def test_three_sites_give_what_statsmodels_gives_on_all_cases_in_at_most_8_rounds(sites, fit):
    grades, covariates, indicators = pooled(sites)
    model = OrderedModel(grades, np.c_[covariates, indicators], distr="logit")
    start = model.fit(method="newton", disp=False, maxiter=50)
    # statsmodels' stopping rule leaves 1e-5; a second start from there leaves 1e-8.
    peer = model.fit(start_params=start.params, method="bfgs", gtol=1e-9, disp=False)
    np.testing.assert_allclose(fit.estimates[3:], peer.params[:5], atol=1e-6)
    np.testing.assert_allclose(fit.thresholds, model.transform_threshold_params(peer.params)[1:-1], atol=1e-6)
    # Its standard errors come from a numerical Hessian.
    np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance))[3:], peer.bse[:5], atol=1e-6)
    np.testing.assert_allclose([ratio.p_value for ratio in fit.odds_ratios()], peer.pvalues[:3], atol=1e-6)
    assert fit.log_likelihood == pytest.approx(peer.llf, abs=1e-9)
    assert fit.n_rounds <= 8


@pytest.mark.parametrize("shifts", [(0, 0, 0), (3, -2, 0), (-2, 2.5, 1), (-2.5, -2.5, -2.5)])
def test_mixes_far_apart_and_rare_grades_settle_in_at_most_8_rounds(shifts):
    hospitals = {str(seed): simulated_site(seed, 150, shift) for seed, shift in enumerate(shifts)}
    open_sites = {name: OrdinalSite(data, least=1) for name, data in hospitals.items()}
    assert fit_federated(open_sites, NAMES, 4).n_rounds <= 8


def test_fit_of_the_sites_is_the_fit_of_one_table_with_indicators(sites, fit):
    grades, covariates, indicators = pooled(sites)
    one = OrdinalData(grades, np.c_[covariates, indicators], (*NAMES, "b", "c"), 4)
    central = fit_federated({"all": one}, one.names, 4)
    np.testing.assert_allclose(fit.estimates, central.estimates, atol=1e-12)
    np.testing.assert_allclose(fit.covariance, central.covariance, atol=1e-12)
    assert fit.n == 500


def test_published_cheese_fit_is_found():
    """SAS/STAT User's Guide, LOGISTIC, "Ordinal Logistic Regression": 1.6128, 4.9645, 3.3227, signs the other way."""
    found, _ = cheese()
    np.testing.assert_allclose(
        [ratio.coefficient for ratio in found.odds_ratios()], [-1.6128, -4.9646, -3.3227], atol=1e-4
    )


def test_published_graduate_school_fit_is_found():
    """Data that statsmodels carries; its tests hold R's MASS::polr: 1.0476, -0.0587, 0.6157."""
    path = Path(statsmodels.__file__).parent / "miscmodels" / "tests" / "results" / "ologit_ucla.csv"
    if not path.is_file():
        pytest.skip("this build of statsmodels has no test data")
    grade_of = {"unlikely": 0, "somewhat likely": 1, "very likely": 2}
    rows = [line.split(",") for line in path.read_text().split("\n")[1:] if line]
    data = OrdinalData(
        [grade_of[row[0]] for row in rows],
        np.array([row[1:] for row in rows], dtype=float),
        ("pared", "public", "gpa"),
        3,
    )
    found = fit_federated({"all": data}, data.names, 3)
    np.testing.assert_allclose(
        [ratio.coefficient for ratio in found.odds_ratios()], [1.0476, -0.0587, 0.6157], atol=1e-4
    )


def test_gradient_and_hessian_are_derivatives_of_the_log_likelihood(sites):
    data, point, h = sites["a"], np.array([-1.0, 0.3, 1.7, 0.2, -0.5, 0.4]), 1e-5

    def at(vector):
        return ordinal_sums(data, vector[:3], vector[3:])

    here = at(point)
    steps = np.eye(6) * h
    slope = [(at(point + e).log_likelihood - at(point - e).log_likelihood) / (2 * h) for e in steps]
    curve = [(at(point + e).gradient - at(point - e).gradient) / (2 * h) for e in steps]
    # Central differences of sums of 220 terms: h^2 of truncation, 1e-11 / h of rounding.
    np.testing.assert_allclose(here.gradient, slope, atol=1e-5)
    np.testing.assert_allclose(here.hessian, curve, atol=1e-5)


def test_log_likelihood_is_exact_far_out_in_the_tails():
    """At a linear predictor of 800 a difference of two logistic values is 0, and its logarithm is not."""
    data = OrdinalData([1], [[1.0]], ("x",), 3)
    found = ordinal_sums(data, [0.0, 1.0], [-800.0])
    assert found.log_likelihood == pytest.approx(-800 + np.log1p(-np.exp(-1)), rel=1e-12)


def test_one_grade_more_is_a_binary_regression_by_hand():
    """Two grades and one variable of 0 and 1: the odds ratio is the cross ratio of the 2 by 2 table."""
    grades = np.repeat([0, 1, 0, 1], [30, 10, 15, 20])
    data = OrdinalData(grades, np.repeat([0.0, 1.0], [40, 35])[:, None], ("x",), 2)
    ratio = fit_federated({"all": data}, ("x",), 2).odds_ratios()[0]
    assert ratio.odds_ratio == pytest.approx(30 * 20 / (10 * 15), rel=1e-9)
    assert ratio.standard_error == pytest.approx(np.sqrt(1 / 30 + 1 / 10 + 1 / 15 + 1 / 20), rel=1e-9)
    assert ratio.low == pytest.approx(4 * np.exp(-1.959963984540054 * ratio.standard_error), rel=1e-9)


def test_likelihood_ratio_is_the_gain_over_the_fit_without_the_variables(sites, fit):
    grades, covariates, indicators = pooled(sites)
    peer = OrderedModel(grades, np.c_[covariates[:, :1], indicators], distr="logit").fit(
        method="bfgs", disp=False, gtol=1e-8
    )
    reduced = fit_federated(sites, NAMES, 4, kept=["age"])
    found = likelihood_ratio(fit, reduced)
    assert found.statistic == pytest.approx(2 * (fit.log_likelihood - peer.llf), abs=1e-8)
    assert found.degrees_of_freedom == 2
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 2), rel=1e-12)
    with pytest.raises(ValueError, match="fewer variables"):
        likelihood_ratio(reduced, fit)


def test_simulated_cohort_gives_back_the_odds_ratios_it_was_made_with():
    """Each hospital has thresholds of its own and is fitted by itself; 16 intervals of 99.9 %."""
    truth = np.log([AGE_ODDS_RATIO, *(factor.odds_ratio for factor in RISK_FACTORS.values())])
    for hospital in HOSPITALS[:2]:
        records = [draw_record(hospital, 7, index) for index in range(1, 1501)]
        rows = [
            [
                (r.clinical.age - 70) / 10,
                r.clinical.sex == "M",
                *(getattr(r.clinical, name) for name in list(RISK_FACTORS)[1:]),
            ]
            for r in records
        ]
        grades = [int(severity_from_count(r.n_microbleeds)) for r in records]
        data = OrdinalData(grades, np.array(rows, dtype=float), ("age", *RISK_FACTORS), 4)
        for ratio, true in zip(fit_federated({"x": data}, data.names, 4).odds_ratios(0.999), truth, strict=True):
            assert ratio.low < np.exp(true) < ratio.high, (hospital.name, ratio.name)


def test_score_test_of_a_saturated_model_is_pearsons_chi_square():
    """With an indicator for each group the wider model fits any table; Rao's test is then Pearson's."""
    found, site = cheese()
    expected = 0.0
    for row, shift in zip(CHEESE, [*found.estimates[8:], 0.0], strict=True):
        shares = np.diff(np.r_[0.0, 1 / (1 + np.exp(-(found.thresholds - shift))), 1.0])
        expected += ((row - 52 * shares) ** 2 / (52 * shares)).sum()
    overall = check_proportional_odds(found, {"dairy": site})[0]
    assert (overall.name, overall.degrees_of_freedom) == ("all", 21)
    assert overall.statistic == pytest.approx(expected, rel=1e-9)
    assert overall.p_value == pytest.approx(stats.chi2.sf(expected, 21), rel=1e-9)


def test_score_test_is_near_the_likelihood_ratio_of_the_wider_model(sites, fit):
    grades, covariates, indicators = pooled(sites)

    def negative(vector):
        slopes = vector[3:12].reshape(3, 3)
        predictors = vector[:3] - covariates @ slopes.T - (indicators @ vector[12:])[:, None]
        cumulative = np.c_[np.zeros(grades.size), 1 / (1 + np.exp(-predictors)), np.ones(grades.size)]
        rows = np.arange(grades.size)
        return -np.log(np.clip(cumulative[rows, grades + 1] - cumulative[rows, grades], 1e-12, None)).sum()

    start = np.r_[fit.thresholds, np.tile(fit.estimates[3:6], 3), fit.estimates[6:]]
    wider = optimize.minimize(negative, start, method="BFGS")
    ratio = 2 * (-fit.log_likelihood - wider.fun)
    overall, *single = check_proportional_odds(fit, sites)
    assert overall.degrees_of_freedom == 6
    # The two agree as n grows; at 500 cases their difference is of the order of 1 / sqrt(n) of the statistic.
    assert overall.statistic == pytest.approx(ratio, rel=0.15)
    assert [test.name for test in single] == list(NAMES)
    assert all(test.degrees_of_freedom == 2 and test.statistic <= overall.statistic + 1e-9 for test in single)


def test_score_test_holds_its_level_and_sees_a_violation():
    """200 data sets with proportional odds, rejected at 5 % within a binomial bound of 1e-4; then one without."""
    rejected = 0
    for seed in range(200):
        data = simulated_site(seed, 300, 0.0)
        site = OrdinalSite(data, least=1)
        rejected += check_proportional_odds(fit_federated({"x": site}, NAMES, 4), {"x": site})[0].p_value < 0.05
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], 200, 0.05)
    assert low <= rejected <= high
    rng = np.random.default_rng(0)
    group = np.repeat([0.0, 1.0], 300)
    grades = np.r_[rng.choice(4, 300, p=[0.25] * 4), rng.choice(4, 300, p=[0.5, 0.0, 0.0, 0.5])]
    data = OrdinalData(grades, group[:, None], ("x",), 4)
    assert check_proportional_odds(fit_federated({"x": data}, ("x",), 4), {"x": data})[0].p_value < 1e-6


def test_check_of_the_sites_is_the_check_of_one_table(sites, fit):
    grades, covariates, indicators = pooled(sites)
    one = OrdinalData(grades, np.c_[covariates, indicators], (*NAMES, "b", "c"), 4)
    central = fit_federated({"all": one}, one.names, 4)
    by_name = {test.name: test for test in check_proportional_odds(central, {"all": one})}
    for test in check_proportional_odds(fit, sites)[1:]:
        assert test[1:] == pytest.approx(by_name[test.name][1:], rel=1e-9)


def test_step_that_lowers_the_likelihood_is_halved():
    """No data set of 1109 tried made a step too long, so the answers are made up."""
    fit = NewtonFit(Layout(3, (), (), ()))
    start = fit.proposal
    fit.receive({"a": OrdinalSums([10, 10, 10], -30.0, [0.0, 0.0], -np.eye(2))})
    step = np.array([0.5, 1.0])
    fit.receive({"a": OrdinalSums([10, 10, 10], -29.0, step, -np.eye(2))})
    best = fit.proposal - step
    fit.receive({"a": OrdinalSums([10, 10, 10], -40.0, [9.0, 9.0], -np.eye(2))})
    np.testing.assert_allclose(fit.proposal, best + step / 2, atol=1e-12)
    assert fit.n_rounds == 3
    np.testing.assert_allclose(start, [-np.log(2), np.log(2)], atol=1e-12)


def test_step_after_which_thresholds_would_not_rise_is_halved_without_asking():
    fit = NewtonFit(Layout(3, (), (), ()))
    fit.receive({"a": OrdinalSums([10, 10, 10], -30.0, [0.0, 0.0], -np.eye(2))})
    before = fit.proposal
    fit.receive({"a": OrdinalSums([10, 10, 10], -29.0, [2.0, -2.0], -np.eye(2))})
    # 1.39 lies between the thresholds; 4 or 2 less would leave nothing, 1 less does.
    np.testing.assert_allclose(fit.proposal, before + np.array([0.5, -0.5]), atol=1e-12)
    assert fit.n_rounds == 2


def test_site_with_few_cases_sends_nothing_and_is_named(sites):
    few = simulated_site(9, 9, 0.0)
    found = fit_federated({**sites, "tiny": few}, NAMES, 4)
    assert found.sites == ("a", "b", "c")
    assert found.left_out == {"tiny": "fewer than 10 cases with all values known"}
    assert found.to_json()["left_out"] == dict(found.left_out)


@pytest.mark.parametrize(
    ("grades", "column", "reason"),
    [
        ([0] * 16 + [1] * 4, [0.0, 1.0] * 10, "a grade with fewer than 5 cases"),
        ([0, 1] * 10, [0.0] * 17 + [1.0] * 3, "a category of sex with fewer than 5 cases"),
    ],
)
def test_small_grades_and_categories_keep_a_site_out(grades, column, reason):
    site = OrdinalSite(OrdinalData(grades, np.array(column)[:, None], ("sex",), 3))
    with pytest.raises(StaysOutError, match=reason):
        site([0.0, 1.0], [0.0])
    assert site.n_answers == 0


def test_ten_cases_are_enough():
    site = OrdinalSite(OrdinalData([0, 1] * 5, np.ones((10, 1)), ("sex",), 2))
    assert site([0.0], [0.0]).grade_counts.sum() == 10


def test_grades_and_categories_that_nobody_has_keep_no_site_out():
    site = OrdinalSite(OrdinalData([0, 1] * 10, np.ones((20, 1)), ("sex",), 3))
    assert site([0.0, 1.0], [0.0]).grade_counts.tolist() == [10, 10, 0]


def test_site_stops_after_its_answers(sites):
    site = OrdinalSite(sites["a"], most_answers=2)
    with pytest.raises(FitError, match="a stopped taking part: the site gave its 2 answers"):
        fit_federated({"a": site}, NAMES, 4)


def test_sums_tell_the_table_of_a_variable_of_0_and_1_as_the_module_says(sites):
    """Without effects, what a case adds to the Hessian depends on its grade alone: four unknown numbers."""
    data, thresholds = sites["a"], [-1.0, 0.5, 2.0]
    sums = ordinal_sums(data, thresholds, np.zeros(3))
    one_case = [
        ordinal_sums(OrdinalData([grade], [[0.0, 1.0, 0.0]], NAMES, 4), thresholds, np.zeros(3)) for grade in range(4)
    ]
    # Column 4 is of hypertension: thresholds, then itself.
    rows = np.array([[*case.hessian[:3, 4], case.hessian[4, 4], case.gradient[4]] for case in one_case]).T
    told = np.linalg.lstsq(rows, [*sums.hessian[:3, 4], sums.hessian[4, 4], sums.gradient[4]])[0]
    np.testing.assert_allclose(told, np.bincount(data.grades[data.covariates[:, 1] == 1], minlength=4), atol=1e-6)


def test_answers_have_the_stated_number_of_floats():
    data = OrdinalData(np.arange(40) % 4, np.random.default_rng(0).normal(size=(40, 8)), tuple("abcdefgh"), 4)
    sums = ordinal_sums(data, [-1.0, 0.0, 1.0], np.zeros(8))
    d = sums.gradient.size
    assert 1 + d + d * (d + 1) // 2 + sums.grade_counts.size == 82
    wide = slope_sums(data, [-1.0, 0.0, 1.0], np.zeros(8)).gradient.size
    assert wide + wide * (wide + 1) // 2 == 405


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: np.c_[d.grades >= 2, d.covariates[:, 1:]], "effect of age .*separates the grades"),
        (lambda d: np.c_[np.ones(d.grades.size), d.covariates[:, 1:]], "do not tell the effect of age"),
        (lambda d: np.c_[d.covariates[:, 1], d.covariates[:, 1:]], "do not tell the effect of age, hypertension"),
    ],
    ids=["separation", "constant", "twice the same"],
)
def test_what_has_no_estimate_is_said_in_one_sentence(sites, change, message):
    data = dataclasses.replace(sites["a"], covariates=np.asarray(change(sites["a"]), dtype=float))
    with pytest.raises(FitError, match=message) as caught:
        fit_federated({"a": data}, NAMES, 4)
    assert "\n" not in str(caught.value)


def test_site_whose_cases_all_have_the_highest_grade_is_named(sites):
    only = OrdinalData(np.full(40, 3), sites["a"].covariates[:40], NAMES, 4)
    with pytest.raises(FitError, match="the effect of severe-only "):
        fit_federated({**sites, "severe-only": OrdinalSite(only, least=1)}, NAMES, 4)


def test_grade_that_no_site_has_is_named(sites):
    data = dataclasses.replace(sites["a"], grades=np.minimum(sites["a"].grades, 2))
    with pytest.raises(FitError, match="case of grade 3"):
        fit_federated({"a": data}, NAMES, 4)


def test_without_a_site_there_is_no_fit(sites):
    with pytest.raises(FitError, match=r"no site takes part \(tiny: fewer than 10 cases"):
        fit_federated({"tiny": simulated_site(9, 9, 0.0)}, NAMES, 4)


def test_answers_survive_json_and_refuse_what_cannot_be(sites):
    sums = ordinal_sums(sites["a"], [-1.0, 0.5, 2.0], EFFECTS)
    again = OrdinalSums.from_json(json.loads(json.dumps(sums.to_json())))
    np.testing.assert_array_equal(again.hessian, sums.hessian)
    assert again.log_likelihood == sums.log_likelihood
    good = sums.to_json()
    for bad, message in (
        ({**good, "log_likelihood": 3.0}, "0 or less"),
        ({**good, "log_likelihood": float("nan")}, "finite"),
        ({**good, "gradient": good["gradient"][:-1]}, "hessian must have the shape"),
        ({**good, "hessian": (-sums.hessian).tolist()}, "no eigenvalue above 0"),
        ({**good, "grade_counts": [1, 2, -3, 4]}, "whole numbers"),
        ({**good, "patients": []}, "unknown .'patients'"),
        ([], "must be a mapping"),
    ):
        with pytest.raises(ValueError, match=message):
            OrdinalSums.from_json(bad)
    slopes = slope_sums(sites["a"], [-1.0, 0.5, 2.0], EFFECTS)
    np.testing.assert_array_equal(SlopeSums.from_json(slopes.to_json()).information, slopes.information)
    with pytest.raises(ValueError, match="no eigenvalue below 0"):
        SlopeSums(slopes.gradient, -slopes.information)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: ordinal_sums(d, [0.0, 0.0, 1.0], np.zeros(3)), "thresholds must rise"),
        (lambda d: ordinal_sums(d, [0.0, 1.0], np.zeros(3)), "thresholds must have the shape"),
        (lambda d: fit_federated({"a": d}, NAMES, 4, kept=["weight"]), "kept must name variables"),
        (lambda d: fit_federated({"a": d}, NAMES[:2], 4), "coefficients must have the shape"),
        (lambda d: fit_federated({"a": d}, NAMES, 4).odds_ratios(1.0), "level must be in"),
        (lambda d: parallel_tests(fit_federated({"a": d}, NAMES, 4), {}), "an answer of each site"),
        (lambda d: dataclasses.replace(d, names=("age", "age", "sex")), "names differ"),
        (lambda d: dataclasses.replace(d, covariates=np.full((d.grades.size, 3), np.nan)), "finite"),
        (lambda d: OrdinalSite(d, least=0), "least and least_in_all"),
    ],
)
def test_wrong_calls_are_refused(sites, call, message):
    with pytest.raises(ValueError, match=message):
        call(sites["a"])
