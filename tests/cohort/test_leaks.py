"""Nothing but the bleeds tells how many there are: no header, no background, no noise, no file size.

What comes with age and hypertension, such as wide sulci, tells a little about the count in patients as well: it is no
leak. So grades are guessed from what must not tell, against the rate of a guesser that knows each hospital's commonest
grade; and the same subject is scanned with and without bleeds.
"""

from __future__ import annotations

import json
from functools import lru_cache

import nibabel as nib
import numpy as np
import pytest
import torch
from scan_values import background_values, file_values, header_values, mask_values, noise_values
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mhsev_monai.cohort import HOSPITALS, simulate_subject
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.subject import draw_record, random_streams, subject_protocol
from mhsev_monai.cohort.writer import subject_id, write_subject
from mhsev_monai.preprocess.functional import dwi_brain_mask, mean_b0, select_shells, trace_weighted
from mhsev_monai.severity import severity_from_count

SEED = 31
SETTINGS = CohortSettings(size="small", difficulty="easy")
PER_SITE = 36
N_BLEEDS = 12
# One-sided 0.1 % of a binomial: of the few dozen comparisons here none should go wrong by chance.
NORMAL_QUANTILE = 3.1
NORMAL_MAD = 1.4826
# Beyond this, mm, of the middle of any bleed: the field of a core of 6 mm has faded there.
FAR = 20.0


def classifiers():
    yield make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    yield RandomForestClassifier(n_estimators=40, min_samples_leaf=3, random_state=0)


def guesses(features, grades, sites):
    """Cross-validated guesses of each classifier, which are told the site."""
    known = np.column_stack([features, *(sites == site for site in np.unique(sites))]).astype(float)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return [cross_val_predict(classifier, known, grades, cv=folds) for classifier in classifiers()]


def majority_by_site(grades, sites):
    """Share right of the guess that knows the commonest grade of each site, in the very subjects that it guesses."""
    right = sum(np.bincount(grades[sites == site]).max() for site in np.unique(sites))
    return right / len(grades)


def limit(grades, sites):
    """The most that a guesser without a clue reaches by chance."""
    rate = majority_by_site(grades, sites)
    return rate + NORMAL_QUANTILE * np.sqrt(rate * (1 - rate) / len(grades))


# ---- the same subject with and without bleeds


@lru_cache(maxsize=len(HOSPITALS))
def scanned_twice(number):
    """A hospital and one of its subjects, without bleeds and with twelve."""
    hospital = HOSPITALS[number]
    with_none, with_some = (
        simulate_subject(hospital, SEED, 1, settings=SETTINGS, count=count) for count in (0, N_BLEEDS)
    )
    return hospital, with_none, with_some


@pytest.fixture(params=[0, 1, pytest.param(2, marks=pytest.mark.slow)], ids=lambda number: HOSPITALS[number].name)
def pair(request):
    return scanned_twice(request.param)


def distance_to_bleeds(hospital, subject):
    grid = hospital.scaled(SETTINGS.size).grid
    positions = np.stack(np.meshgrid(*(grid.axis(axis) for axis in range(3)), indexing="ij"), axis=-1)
    return np.min([np.linalg.norm(positions - bleed.body.centre, axis=-1) for bleed in subject.bleeds], axis=0)


def noise_of(hospital, subject):
    """Standard deviation of the noise of b = 0 in stored units, by the difference of two weighted volumes."""
    brain = subject.anatomy.brain_depth > 5
    first, second = (subject.images[..., volume][brain].astype(float) for volume in (1, 2))
    difference = first - second
    return NORMAL_MAD * np.median(np.abs(difference - np.median(difference))) / np.sqrt(2)


def test_bleeds_change_no_noise_far_from_them(pair):
    """A slice read in k-space spreads each voxel along its rows, so "no change" means: lost in the noise."""
    hospital, without, with_some = pair
    change = np.abs(with_some.images.astype(float) - without.images)
    far = distance_to_bleeds(hospital, with_some) > FAR
    noise = noise_of(hospital, without)
    assert far.mean() > 0.5
    assert change[~far].max() > 3 * noise
    assert np.sqrt((change[far] ** 2).mean()) < 0.02 * noise
    # Where k-space is cut off, the bright heap beside a strong bleed rings along the phase encoding, and in voxels of
    # 3.4 mm farther than 20 mm: half a standard deviation at the worst voxel of site-2.
    assert change[far].max() < 0.75 * noise


def test_where_nothing_is_interpolated_far_voxels_are_equal_but_for_rounding():
    hospital, without, with_some = scanned_twice(0)
    assert hospital.acquired == hospital.shape[:2]
    change = np.abs(with_some.images.astype(int) - without.images)
    far = distance_to_bleeds(hospital, with_some) > FAR
    # Transforms in single precision carry the last digit of a bleed everywhere; a stored unit then rounds otherwise.
    assert change[far].max() <= 2
    assert (change[far] > 0).mean() < 1e-3


def test_bleeds_change_nothing_else_of_a_subject(pair):
    _, without, with_some = pair
    assert with_some.record.clinical == without.record.clinical
    assert len(with_some.bleeds) >= N_BLEEDS > len(without.bleeds) == 0
    assert header_values(with_some) == header_values(without)
    for some, none in zip(with_some.anatomy, without.anatomy, strict=True):
        np.testing.assert_array_equal(some, none)
    assert repr(with_some.mimics) == repr(without.mimics)


def test_bleeds_change_no_header_and_no_sidecar(pair, tmp_path):
    hospital, without, with_some = pair
    held = []
    for name, subject in (("none", without), ("some", with_some)):
        write_subject(tmp_path / name, 1, hospital, subject)
        stem = tmp_path / name / subject_id(1) / "dwi" / f"{subject_id(1)}_dwi"
        texts = [stem.with_suffix(ending).read_text() for ending in (".json", ".bval", ".bvec")]
        held.append((nib.load(stem.with_suffix(".nii.gz")).header.binaryblock, *texts))
        assert "microbleed" not in json.dumps(json.loads(texts[0])).lower()
    assert held[0] == held[1]


def test_bleeds_change_no_measure_that_must_not_tell(pair):
    _, without, with_some = pair
    for measure in (background_values, noise_values):
        # Edges of bleeds are a per cent or two of those of the head; the noise of two scans of a site differs by ten.
        np.testing.assert_allclose(measure(with_some.images), measure(without.images), rtol=0.03, atol=1e-9)
    sizes = [file_values(subject.images) for subject in (without, with_some)]
    np.testing.assert_allclose(sizes[1], sizes[0], rtol=2e-3)


@pytest.mark.slow
def test_bleeds_do_not_move_the_brain_mask(pair):
    hospital, *subjects = pair
    spacing = hospital.scaled(SETTINGS.size).spacing
    volumes = []
    for subject in subjects:
        data, shells = torch.from_numpy(subject.images.astype(np.float32)), select_shells(list(subject.b_values))
        volumes.append(dwi_brain_mask(mean_b0(data, shells), trace_weighted(data, shells), spacing).volume_ml)
    assert volumes[1] == pytest.approx(volumes[0], rel=0.005)


# ---- many subjects, guessed by classifiers


@pytest.fixture(scope="module")
def protocols():
    """What varies between the scans of a site, the clinical variables, and the grade, of 450 subjects; no image."""
    values, clinical, grades, sites = [], [], [], []
    for number, hospital in enumerate(HOSPITALS):
        for index in range(1, 151):
            record = draw_record(hospital, SEED, index, SETTINGS)
            protocol = subject_protocol(hospital, SETTINGS, random_streams(SEED, hospital.name, index)["protocol"])
            varying = (protocol.snr, protocol.gain, protocol.shading, protocol.ghost, protocol.phase_bandwidth_hz)
            values.append((*varying, *protocol.oblique_degrees))
            person = record.clinical
            clinical.append((person.age, person.sex == "M", person.hypertension, person.prior_stroke))
            grades.append(int(severity_from_count(record.n_microbleeds)))
            sites.append(number)
    return np.array(values), np.array(clinical, dtype=float), np.array(grades), np.array(sites)


def test_the_protocol_of_a_scan_does_not_tell_the_grade(protocols):
    values, _, grades, sites = protocols
    for guessed in guesses(values, grades, sites):
        assert (guessed == grades).mean() <= limit(grades, sites)
        for site in np.unique(sites):
            one = sites == site
            assert (guessed == grades)[one].mean() <= limit(grades[one], sites[one])


def test_clinical_variables_do_tell_the_grade_and_permuted_grades_are_not_told(protocols):
    _, clinical, grades, sites = protocols
    kappas = [cohen_kappa_score(grades, guessed, weights="quadratic") for guessed in guesses(clinical, grades, sites)]
    # The control: what is known to be associated is found by these classifiers.
    assert min(kappas) > 0.15
    rng = np.random.default_rng(SEED)
    permuted = grades.copy()
    for site in np.unique(sites):
        permuted[sites == site] = rng.permutation(grades[sites == site])
    one = sites == 0
    for guessed in guesses(clinical[one], permuted[one], sites[one]):
        # 150 subjects: a kappa of independent grades has a standard error of some 0.06.
        assert abs(cohen_kappa_score(permuted[one], guessed)) < 0.2


@pytest.fixture(scope="module")
def scanned_cohort():
    """Values by group, counts, the risk that the table of participants tells, and sites, of 108 scanned subjects."""
    groups = {name: [] for name in ("background", "header", "file", "noise", "mask", "control")}
    counts, people, sites = [], [], []
    for number, hospital in enumerate(HOSPITALS):
        for index in range(1, PER_SITE + 1):
            subject = simulate_subject(hospital, SEED, index, settings=SETTINGS)
            groups["background"].append(background_values(subject.images))
            groups["header"].append(header_values(subject))
            groups["file"].append(file_values(subject.images))
            groups["noise"].append(noise_values(subject.images))
            groups["mask"].append(mask_values(subject.images, subject.affine))
            groups["control"].append([(subject.labels > 0).sum()])
            counts.append(subject.record.n_microbleeds)
            person = subject.record.clinical
            people.append((person.age, person.sex == "M", person.hypertension, person.prior_stroke))
            sites.append(number)
    # Of protocols with more volumes there are more values; hospitals of one cohort have equally many.
    return {name: np.array(rows, dtype=float) for name, rows in groups.items()}, np.array(counts), people, sites


GROUPS = ("background", "header", "file", "noise", "mask")


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_scans_tell_no_grade_beside_their_bleeds(scanned_cohort, group):
    groups, counts, _, sites = scanned_cohort
    grades, sites = np.digitize(counts, (1, 6, 11)), np.array(sites)
    for guessed in guesses(groups[group], grades, sites):
        assert (guessed == grades).mean() <= limit(grades, sites)


@pytest.mark.slow
def test_a_planted_leak_is_found(scanned_cohort):
    groups, counts, _, sites = scanned_cohort
    grades, sites = np.digitize(counts, (1, 6, 11)), np.array(sites)
    for guessed in guesses(groups["control"], grades, sites):
        assert (guessed == grades).mean() > limit(grades, sites)
    assert min(p_values(groups["control"], counts, scanned_cohort[2], sites)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_no_single_value_follows_the_count_beyond_what_patients_tell(scanned_cohort, group):
    groups, counts, people, sites = scanned_cohort
    found = p_values(groups[group], counts, people, np.array(sites))
    # Some fifty values in all groups: by chance the smallest is below this in one of a hundred cohorts.
    assert min(found) > 0.01 / 50


def p_values(values, counts, people, sites):
    """Of rank correlations of each value with the count, both freed of site and clinical variables."""
    known = np.column_stack([np.array(people, dtype=float), *(sites == site for site in np.unique(sites))])
    return [
        stats.pearsonr(residual(stats.rankdata(column), known), residual(stats.rankdata(counts), known)).pvalue
        for column in within_site(values, sites).T
        if np.ptp(column) > 0
    ] or [1.0]


def within_site(values, sites):
    """Values less their site's median, in units of their site's spread, so that sites can be pooled."""
    result = np.zeros_like(values)
    for site in np.unique(sites):
        one = values[sites == site]
        spread = np.maximum(one.std(axis=0), 1e-12)
        result[sites == site] = (one - np.median(one, axis=0)) / spread
    return result


def residual(ranks, known):
    return ranks - known @ np.linalg.lstsq(known, ranks, rcond=None)[0]
