"""The analyses in FLARE's own simulator, with a process a site: what they find is what all cases together give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from analysis_sites import CANARY, check_attributions, clinical_model, make_hospitals

from mhsev_flare.analysis.result import read_associations, read_explanation
from mhsev_flare.cli import main
from mhsev_monai.cases import read_cases
from mhsev_monai.clinical_covariates import CLINICAL_COVARIATES, read_clinical
from mhsev_monai.severity import PAPER_SCALE

pytestmark = pytest.mark.slow

SIZES = (220, 170, 110)


def run(job: str, folder: Path, cohort: Path, *options: str) -> int:
    return main(["simulator", "run", job, str(folder / "run"), "--cohort", str(cohort), *options])


def leaks(folder: Path) -> list[Path]:
    """Files of the server in which something of a patient stands."""
    files = [path for path in (folder / "run" / "server").rglob("*") if path.is_file()]
    files.append(folder / "run-simulator.log")
    return [path for path in files if CANARY.encode() in path.read_bytes() or b"sub-0001" in path.read_bytes()]


def test_the_regression_over_sites_is_that_of_all_cases_in_one_table_without_a_site_below_its_minimum(tmp_path, capsys):
    pytest.importorskip("statsmodels")
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    cohort = make_hospitals(tmp_path / "cohort", SIZES)
    (make_hospitals(tmp_path / "small", (30,)) / "site-1").rename(cohort / "site-4")
    assert run("associations", tmp_path, cohort) == 0
    reason = "fewer than 80 cases with all values known"
    assert f"refused        site-4: {reason}" in capsys.readouterr().out
    result = read_associations(tmp_path / "run")
    assert result["refused"] == {"site-4": reason}
    assert set(result["sites"]) == {"site-1", "site-2", "site-3"}
    assert str(cohort) not in json.dumps(result)
    assert result["rounds"]["regression"] <= 8
    tables = [
        read_clinical(read_cases(root).cases, CLINICAL_COVARIATES, PAPER_SCALE.lower_bounds).ordinal_data()
        for root in sorted(cohort.iterdir())[:3]
    ]
    site = np.repeat(np.arange(3), [table.grades.size for table in tables])
    pooled = np.column_stack([np.concatenate([t.covariates for t in tables]), site == 1, site == 2]).astype(float)
    grades = np.concatenate([table.grades for table in tables])
    model = OrderedModel(grades, pooled, distr="logit")
    start = model.fit(method="newton", disp=False, maxiter=50)
    # statsmodels' stopping rule leaves 1e-5; a second start from there leaves 1e-8.
    oracle = model.fit(start_params=start.params, method="bfgs", gtol=1e-9, disp=False)
    n_covariates = len(CLINICAL_COVARIATES)
    ratios = result["regression"]["odds_ratios"]
    np.testing.assert_allclose([r["coefficient"] for r in ratios], oracle.params[:n_covariates], rtol=0, atol=1e-6)
    np.testing.assert_allclose([r["standard_error"] for r in ratios], oracle.bse[:n_covariates], rtol=0, atol=1e-6)
    shifts = list(result["regression"]["site_shifts"].values())
    np.testing.assert_allclose(shifts, oracle.params[n_covariates : n_covariates + 2], rtol=0, atol=1e-6)
    assert result["regression"]["log_likelihood"] == pytest.approx(float(oracle.llf), abs=1e-6)
    assert leaks(tmp_path) == []


def test_pooled_attributions_are_those_of_all_cases_with_the_same_background(tmp_path):
    cohort = make_hospitals(tmp_path / "cohort", (60, 50, 40))
    path = clinical_model(tmp_path / "model.pt")
    assert run("explain", tmp_path, cohort, "--model", str(path)) == 0
    check_attributions(read_explanation(tmp_path / "run"), path, cohort, tmp_path / "cache")
    assert leaks(tmp_path) == []
