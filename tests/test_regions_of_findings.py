"""Findings on the map: a head whose map is known, heads that do not fit, and the MARS atlas, which is not shipped."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mhsev_monai.head_alignment import Alignment, align, covered
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.lesion_regions import STRICTLY_LOBAR_LIMIT, tell_regions
from mhsev_monai.mars_regions import LEAST_SHARE, mars_region, mars_shares, monomials
from mhsev_monai.prediction import Finding, ScanGrade
from mhsev_monai.regions import Region
from mhsev_monai.registration import Brain, moved
from mhsev_monai.severity import Severity

pytest.importorskip("SimpleITK", reason="needs SimpleITK of the extra regions")
datasets = pytest.importorskip("nilearn.datasets", reason="needs nilearn of the extra regions")

THALAMUS, FRONTAL, CEREBELLUM, TENTORIUM = (
    (14.0, -20.0, 8.0),
    (32.0, 48.0, 22.0),
    (24.0, -64.0, -44.0),
    (40.0, -60, -22),
)
SHAPE, SPACING = (48, 58, 42), 4.0
MARS_GROUPS = np.array([0, 3, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1])
"""``Region`` of each MARS label: 1-2 infratentorial, 3-8 deep, 9-13 lobar."""


def truth() -> np.ndarray:
    """From the scan's RAS+ mm to MNI mm: turned by 10 degrees, stretched by 1.06 to 1.16, shifted."""
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", [10.0, -4.0, 6.0], degrees=True).as_matrix()
    matrix[:3, :3] = np.diag([1.12, 1.06, 1.16]) @ turn
    matrix[:3, 3] = (4.0, -22.0, 14.0)
    return matrix


@pytest.fixture(scope="module")
def scan() -> Brain:
    """A b0-like head: fluid bright, grey matter a little brighter than white, shaded and noisy, voxels of 4 mm."""
    grey, white = (load(resolution=2) for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template))
    mask = datasets.load_mni152_brain_mask(resolution=2)
    g, w, inside = (np.asarray(image.dataobj, dtype=np.float64) for image in (grey, white, mask))
    b0 = inside * (3.0 * np.clip(1 - g - w, 0, 1) + 1.25 * g + 1.0 * w)
    affine = np.diag([-SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = np.linalg.inv(truth())[:3, 3] + np.array((94.0, -108.0, -66.0))
    to_voxel = np.linalg.inv(mask.affine) @ truth() @ affine
    image, there = (
        ndimage.affine_transform(values, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=SHAPE, order=1)
        for values in (b0, inside)
    )
    rng = np.random.default_rng(3)
    shading = np.exp(0.2 * np.linspace(-1, 1, SHAPE[0]))[:, None, None]
    return Brain(np.abs(900 * shading * image + rng.normal(0, 40, SHAPE)), there > 0.5, affine)


def entries(brain: Brain, affine: np.ndarray | None = None) -> dict:
    b0 = MetaTensor(torch.from_numpy(brain.image[None].copy()), affine=brain.affine if affine is None else affine)
    return {Keys.B0: b0, Keys.BRAIN_MASK: torch.from_numpy(brain.mask[None].copy())}


def graded(*places: tuple[float, float, float]) -> ScanGrade:
    """A grade with a finding at each MNI place, and a possible one at the first."""
    world = moved(np.linalg.inv(truth()), np.array(places, dtype=float).reshape(-1, 3))
    spots = [Finding((0.0, 0.0, 0.0), (x, y, z), 0.4, 0.9) for x, y, z in world.tolist()]
    possible = [spot._replace(probability=0.3) for spot in spots[:1]]
    return ScanGrade(
        grade=Severity.MILD,
        count=len(spots),
        count_interval=None,
        probabilities={},
        judges_spots=True,
        n_candidates=9,
        findings=spots,
        possible=possible,
        quality={},
        flags=("before",),
    )


def test_findings_get_the_region_that_they_lie_in(scan):
    named, found = tell_regions(graded(THALAMUS, FRONTAL, CEREBELLUM, TENTORIUM), entries(scan))
    assert [spot.region for spot in named.findings] == ["deep", "lobar", "infratentorial", "uncertain"]
    assert named.possible[0].region == "deep"
    assert found.counts == {"uncertain": 1, "lobar": 1, "deep": 1, "infratentorial": 1}
    assert (found.strictly_lobar, named.flags) == (False, ("before",))
    assert found.overlap > 0.95


def test_the_map_is_right_within_a_voxel_and_the_same_to_the_bit_each_time(scan):
    from mhsev_monai.template_registration import map_to_template

    first, second = map_to_template(scan), map_to_template(scan)
    places = moved(scan.affine, np.argwhere(scan.mask)[::50])
    error = np.linalg.norm(moved(first.matrix, places) - moved(truth(), places), axis=1)
    assert error.mean() < 2.0
    assert np.array_equal(first.matrix, second.matrix)
    assert first.doubt is None


def test_strictly_lobar_is_said_with_its_limit_and_not_without_a_finding(scan):
    _, found = tell_regions(graded(FRONTAL), entries(scan))
    assert found.strictly_lobar
    assert found.to_json()["limit"] == STRICTLY_LOBAR_LIMIT
    assert "DWI misses most microbleeds" in STRICTLY_LOBAR_LIMIT
    whole = dataclasses.replace(graded(FRONTAL), judges_spots=False)
    told = tell_regions(whole, entries(scan))[1]
    assert (told.counts, told.strictly_lobar) == ({}, None)
    nothing = tell_regions(graded(), entries(scan))[1]
    assert nothing.strictly_lobar is False


@pytest.mark.parametrize("turn", [np.diag([1.0, 1, -1, 1]), np.diag([1.0, -1, 1, 1])], ids=["upside down", "reversed"])
def test_a_head_that_does_not_fit_gets_no_region_and_a_flag(scan, turn):
    named, found = tell_regions(graded(THALAMUS, FRONTAL), entries(scan, turn @ scan.affine))
    assert [spot.region for spot in (*named.findings, *named.possible)] == [None] * 3
    assert named.flags[0] == "before"
    assert named.flags[1].startswith("no region is told; ")
    assert (found.counts, found.strictly_lobar) == ({}, None)


def test_an_empty_mask_is_a_flag_and_no_failure(scan):
    named, found = tell_regions(graded(FRONTAL), entries(scan._replace(mask=np.zeros(SHAPE, bool))))
    assert "brain to be registered is empty" in named.flags[1]
    assert (found.overlap, found.to_json()["template_overlap"]) == (None, None)


def test_a_turned_head_is_aligned_and_swapping_gives_the_inverse(scan):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [6.0, 3.0, -5.0], degrees=True).as_matrix()
    turn[:3, 3] = (5.0, -7.0, 3.0)
    rng = np.random.default_rng(8)
    other = Brain(scan.image + np.abs(rng.normal(0, 40, SHAPE)), scan.mask, turn @ scan.affine)
    there, back = align(scan, other), align(other, scan)
    places = moved(scan.affine, np.argwhere(scan.mask)[::50])
    assert np.linalg.norm(moved(there.matrix, places) - moved(turn, places), axis=1).max() < 1.0
    np.testing.assert_allclose(there.matrix @ back.matrix, np.eye(4), atol=1e-9)
    assert there.doubt is None


@pytest.mark.parametrize(("peakedness", "disagreement"), [(4.8, 0.1), (7.0, 0.7)])
def test_scans_that_fit_as_two_heads_do_are_doubted(peakedness, disagreement):
    assert Alignment(np.eye(4), 0.94, 7.0, 0.2).doubt is None
    doubt = Alignment(np.eye(4), 0.94, peakedness, disagreement).doubt
    assert doubt is not None
    assert "of one patient" in doubt


def test_what_a_scan_shows_reaches_as_far_as_is_asked():
    search = np.zeros((20, 20, 10), bool)
    search[5:15, 5:15, :] = True
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    places = np.array([[20.0, 20.0, 15.0], [34.0, 20.0, 15.0], [20.0, 20.0, 31.0], [20.0, 20.0, 40.0]])
    assert covered(places, search, affine, reach_mm=6.0) == [True, True, True, False]
    assert covered(places, search, affine, reach_mm=1.0) == [True, False, False, False]
    assert covered(np.empty((0, 3)), search, affine, reach_mm=1.0) == []


def test_regions_are_the_same_on_both_sides_and_need_a_majority():
    rng = np.random.default_rng(1)
    places = rng.uniform((-65, -95, -55), (65, 65, 75), (500, 3))
    mirrored = places * (-1, 1, 1)
    assert np.array_equal(mars_region(places), mars_region(mirrored))
    strict, lax = mars_region(places, 0.9), mars_region(places, 0.5)
    decided = strict != Region.UNCERTAIN
    assert np.array_equal(strict[decided], lax[decided])
    assert (lax == Region.UNCERTAIN).sum() < (strict == Region.UNCERTAIN).sum()
    assert mars_shares(places).sum(axis=1).max() <= 1 + 1e-12
    assert monomials(places).shape == (500, 35)


def test_regions_agree_with_the_atlas(shared_data):
    image = nib.load(shared_data / "mars_atlas" / "mars13_mni152_1mm.nii.gz")
    labels = np.asarray(image.dataobj)
    voxels = np.argwhere(labels > 0)[::53]
    truly = MARS_GROUPS[labels[tuple(voxels.T)]]
    told = mars_region(moved(image.affine, voxels), LEAST_SHARE)
    decided = told != Region.UNCERTAIN
    assert decided.mean() > 0.8
    assert (told == truly)[decided].mean() > 0.95
    for region in (Region.LOBAR, Region.DEEP, Region.INFRATENTORIAL):
        assert (truly == region)[told == region].mean() > 0.92
