"""Protocols: geometry by hand, and what may differ between scans of a site."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mhsev_monai.cohort.hospitals import HOSPITALS, MORE_HOSPITALS

ALL = (*HOSPITALS, *MORE_HOSPITALS)
by_name = pytest.mark.parametrize("hospital", ALL, ids=lambda hospital: hospital.name)


def test_names_differ_and_the_federations_sites_share_the_papers_subjects():
    assert len({hospital.name for hospital in ALL}) == 6
    assert [hospital.n_reference for hospital in HOSPITALS] == [200, 180, 120]


@by_name
def test_the_affine_turns_the_box_about_its_middle(hospital):
    affine = hospital.affine
    middle = affine @ np.array([*((n - 1) / 2 for n in hospital.shape), 1.0])
    np.testing.assert_allclose(middle[:3], hospital.grid.centre, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), hospital.spacing, rtol=1e-12)
    assert np.linalg.det(affine[:3, :3]) == pytest.approx(np.prod(hospital.spacing))


def test_a_turn_about_x_raises_the_front_of_the_slices():
    hospital = dataclasses.replace(HOSPITALS[0], oblique_degrees=(30.0, 0.0, 0.0))
    np.testing.assert_allclose(hospital.affine[:3, 1] / 1.8, [0.0, np.sqrt(0.75), 0.5], atol=1e-12)


@by_name
def test_small_covers_the_same_field_of_view_with_the_same_distortion(hospital):
    small = hospital.scaled("small")
    assert hospital.scaled("full") is hospital
    assert small.spacing == pytest.approx((3.4, 3.4, 5.0), rel=0.03)
    for axis in range(3):
        assert small.grid.extent(axis) == pytest.approx(hospital.grid.extent(axis))
    distortion = [h.spacing[1] / h.phase_bandwidth_hz for h in (hospital, small)]
    assert distortion[1] == pytest.approx(distortion[0])


@by_name
def test_directions_are_unit_vectors_that_weight_all_axes_alike(hospital):
    directions, b_values = np.array(hospital.directions), np.array(hospital.b_values)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), (b_values > 50).astype(float))
    np.testing.assert_allclose((directions**2).sum(axis=0), (b_values > 50).sum() / 3)


def test_a_gradient_echo_is_one_volume_without_ghost():
    swi = HOSPITALS[2].for_contrast("swi")
    assert (swi.b_values, swi.ghost, swi.te_ms, swi.contrast) == ((0.0,), 0.0, 20.0, "swi")
    assert swi.shape == HOSPITALS[2].shape
    assert HOSPITALS[2].for_contrast("dwi") is HOSPITALS[2]


def test_scans_of_a_site_vary_around_its_protocol():
    hospital = HOSPITALS[1]
    scans = [hospital.for_subject(np.random.default_rng(seed)) for seed in range(400)]
    varied = {"snr": 0.10, "gain": 0.15, "shading": 0.15, "ghost": 0.30, "phase_bandwidth_hz": 0.03}
    for name, sd in varied.items():
        ratios = np.log([getattr(scan, name) / getattr(hospital, name) for scan in scans])
        # Of 400 the mean is known to a twentieth of the spread; cutting at 2.5 takes 3 % of the spread.
        assert abs(ratios.mean()) < 0.2 * sd
        assert ratios.std() == pytest.approx(sd, rel=0.15)
    same = set(hospital.__dataclass_fields__) - {*varied, "oblique_degrees"}
    assert all(getattr(scan, name) == getattr(hospital, name) for scan in scans for name in same)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"severity_mix": (0.5, 0.5, 0.1)}, "three shares that sum to 1"),
        ({"orientation": "SAR"}, "orientation must be RAS, LAS, RPS or LPS, got SAR"),
        ({"acquired": (113, 100)}, r"acquired must be 8 to the stored \(112, 112\) points"),
    ],
)
def test_impossible_protocols_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HOSPITALS[0], **changes)


def test_unknown_sizes_and_contrasts_are_refused():
    with pytest.raises(ValueError, match="size must be full or small, got large"):
        HOSPITALS[0].scaled("large")
    with pytest.raises(ValueError, match="contrast must be dwi or swi, got flair"):
        HOSPITALS[0].for_contrast("flair")
