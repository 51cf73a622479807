"""Dark spots as regions of interest: planted ones are found, and their features are those of balls around them."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.cases import Case
from mhsev_monai.radiomics import RadiomicsParameters, radiomics_features
from mhsev_monai.radiomics.spot_inputs import RESPONSES, SpotRadiomicsInputs
from mhsev_monai.radiomics.spots import STATISTICS, Spots, dark_spots, spot_features

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_heads import AFFINE, head

SPACING = (1.5, 2.0, 3.0)
SHAPE = (60, 50, 30)
SETTINGS = RadiomicsParameters(bin_count=8)


def blob(centre: tuple[int, int, int], sigma_mm: float, depth: float) -> np.ndarray:
    offsets = (np.moveaxis(np.indices(SHAPE), 0, -1) - centre) * SPACING
    return depth * np.exp(-((offsets / sigma_mm) ** 2).sum(-1) / 2)


def test_planted_spots_are_found_darkest_first_and_bright_or_border_ones_are_not():
    dark, darker, bright, edge = (20, 20, 10), (42, 30, 20), (30, 12, 15), (3, 25, 15)
    image = 1 - blob(dark, 2.0, 0.3) - blob(darker, 2.0, 0.6) + blob(bright, 2.0, 0.6) - blob(edge, 2.0, 0.6)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:-1, 1:-1, 1:-1] = True
    found = dark_spots(image, mask, SPACING, (2.0,), rim_mm=6.0, most=2)
    assert [tuple(voxel) for voxel in found.voxels] == [darker, dark]
    assert found.responses[0] == pytest.approx(2 * found.responses[1], rel=1e-6)


def test_a_gaussian_spot_answers_as_theory_says():
    """Smoothed by s, a Gaussian of the same s has s^2 Laplacian 3 s^2 d s^3 / (2 s^2)^(5/2) = 3 d / 2^(5/2)."""
    image = 1 - blob((30, 25, 15), 6.0, 0.5)
    found = dark_spots(image, np.ones(SHAPE, dtype=bool), SPACING, (6.0,), rim_mm=6.0, most=1)
    assert found.responses[0] == pytest.approx(3 * 0.5 / 2**2.5, rel=0.03)


def test_the_edge_of_a_slab_is_an_edge():
    image = 1 - blob((30, 25, 1), 2.0, 0.6)
    assert len(dark_spots(image, np.ones(SHAPE, dtype=bool), SPACING, (2.0,), rim_mm=9.0, most=5).voxels) == 0


def test_features_of_spots_are_those_of_balls_put_together():
    image = np.random.default_rng(2).random(SHAPE)
    voxels = np.array([[20, 20, 10], [42, 30, 20], [1, 25, 0]])
    found = spot_features(image, Spots(voxels, np.ones(3)), SPACING, 4.0, SETTINGS)
    each = []
    for voxel in voxels:
        square = (((np.moveaxis(np.indices(SHAPE), 0, -1) - voxel) * SPACING) ** 2).sum(-1)
        each.append(radiomics_features(image, square <= 16, SPACING, SETTINGS))
    for name in each[0]:
        values = [features[name] for features in each]
        expected = np.mean(values), np.std(values), np.max(values)
        together = [found[f"{name}_{statistic}"] for statistic in STATISTICS]
        assert together == pytest.approx(expected, rel=1e-9, abs=1e-12), name


def test_without_a_spot_all_features_are_zero():
    found = spot_features(np.ones(SHAPE), Spots(np.zeros((0, 3), np.intp), np.zeros(0)), SPACING, 4.0, SETTINGS)
    assert len(found) == 93 * len(STATISTICS)
    assert set(found.values()) == {0.0}


def test_a_head_gives_the_vector_that_the_names_say_with_and_without_trace(tmp_path):
    path = tmp_path / "sub-1_dwi.nii.gz"
    nib.save(nib.Nifti1Image(head(), AFFINE), path)
    (tmp_path / "sub-1_dwi.bval").write_text("0 1000")
    inputs = SpotRadiomicsInputs(most=3)
    found = inputs(Case("sub-1", path, tmp_path / "sub-1_dwi.bval"))
    vector = dict(zip(inputs.feature_names, inputs.assemble(found).tolist(), strict=True))
    assert len(vector) == 2 * 93 * 3 + len(RESPONSES) + 1
    assert np.isfinite(list(vector.values())).all()
    assert vector["has_trace"] == 1
    counts = [vector[f"spots_{100 * depth:.0f}"] for depth in RESPONSES]
    assert counts == sorted(counts, reverse=True)
    nib.save(nib.Nifti1Image(head()[..., [0, 0]], AFFINE), path)
    (tmp_path / "sub-1_dwi.bval").write_text("0 0")
    alone = inputs(Case("sub-1", path, tmp_path / "sub-1_dwi.bval"))
    of_trace = [value for name, value in alone.values.items() if name.startswith("trace_") or name == "has_trace"]
    assert set(of_trace) == {0.0}
    assert alone.values["b0_glcm_contrast_mean"] == pytest.approx(vector["b0_glcm_contrast_mean"], rel=1e-5)


@pytest.mark.parametrize("setting", [{"most": 0}, {"radius_mm": 0.0}, {"bin_count": 1}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="must be"):
        SpotRadiomicsInputs(**setting)
