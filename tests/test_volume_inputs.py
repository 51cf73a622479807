"""The volumes that the 3D CNN reads: one grid, one unit, nothing outside the brain."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mhsev_monai.cases import Case
from mhsev_monai.errors import ScanError
from mhsev_monai.feature_cache import cache_key, compute_features, load_or_compute
from mhsev_monai.volume_inputs import VolumeInputs

sys.path.insert(0, str(Path(__file__).parent))
from small_heads import AFFINE, head

SIZE = (40, 46, 34)


def write(folder: Path, volumes: np.ndarray, affine: np.ndarray = AFFINE, bvals: str = "0 1000") -> Case:
    path = folder / "sub-1_dwi.nii.gz"
    nib.save(nib.Nifti1Image(volumes, affine), path)
    (folder / "sub-1_dwi.bval").write_text(bvals)
    return Case("sub-1", path, folder / "sub-1_dwi.bval")


def volume_of(case: Case, **arguments) -> np.ndarray:
    inputs = VolumeInputs(**arguments)
    return inputs.assemble(inputs(case))


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> np.ndarray:
    return volume_of(write(tmp_path_factory.mktemp("straight"), head()), spacing_mm=4.0, size=SIZE)


def test_the_brain_is_standardised_and_the_rest_is_nan(straight):
    assert straight.shape == (*SIZE, 2)
    assert straight.dtype == np.float16
    inside = ~np.isnan(straight).any(axis=-1)
    np.testing.assert_array_equal(inside, ~np.isnan(straight).all(axis=-1))
    assert 0.15 < inside.mean() < 0.5
    values = straight[inside].astype(np.float64)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=2e-3)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=0.05)
    assert np.abs(values).max() <= 6.0


def test_the_brain_lies_in_the_middle(straight):
    inside = ~np.isnan(straight[..., 0])
    for axis in range(3):
        places = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        assert abs((places[0] + places[-1]) / 2 - (SIZE[axis] - 1) / 2) <= 1.0


def test_a_head_stored_in_another_order_gives_the_same_volume(straight, tmp_path):
    """Axes turned and flipped on disk, with the affine that says so."""
    image = nib.Nifti1Image(head(), AFFINE)
    turned = image.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    other = volume_of(write(tmp_path, np.asarray(turned.dataobj), turned.affine), spacing_mm=4.0, size=SIZE)
    both = ~np.isnan(other) & ~np.isnan(straight)
    assert both.sum() > 0.97 * (~np.isnan(straight)).sum()
    assert np.corrcoef(other[both].astype(float), straight[both].astype(float))[0, 1] > 0.97


def test_the_gain_of_the_scanner_does_not_matter(straight, tmp_path):
    louder = volume_of(write(tmp_path, 3 * head()), spacing_mm=4.0, size=SIZE)
    np.testing.assert_allclose(np.nan_to_num(louder), np.nan_to_num(straight), atol=0.02)


def test_spacing_sets_how_many_voxels_the_brain_fills(straight, tmp_path):
    coarse = volume_of(write(tmp_path, head()), spacing_mm=8.0, size=(20, 23, 17))
    ratio = (~np.isnan(straight[..., 0])).sum() / (~np.isnan(coarse[..., 0])).sum()
    assert ratio == pytest.approx(8.0, rel=0.15)


def test_without_a_trace_its_channel_is_the_mean(tmp_path):
    alone = volume_of(write(tmp_path, head()[..., [0, 0]], bvals="0 0"), spacing_mm=4.0, size=SIZE)
    inside = ~np.isnan(alone[..., 0])
    assert inside.any()
    assert np.all(alone[inside][:, 1] == 0)


def test_a_kept_volume_is_the_computed_one_and_takes_little_room(straight, tmp_path):
    case, inputs = write(tmp_path, head()), VolumeInputs(spacing_mm=4.0, size=SIZE)
    for _ in range(2):
        found = inputs.assemble(load_or_compute(case, inputs, tmp_path / "cache"))
        np.testing.assert_array_equal(found, straight)
        assert found.dtype == np.float16
    kept = tmp_path / "cache" / f"{cache_key(case, inputs)}.json"
    assert kept.stat().st_size < straight.nbytes
    table = compute_features([case], inputs, tmp_path / "cache")
    assert table.features.shape == (1, *SIZE, 2)
    assert table.features.dtype == np.float16


@pytest.mark.parametrize("change", [{"spacing_mm": 3.0}, {"size": [40, 40, 40]}])
def test_every_parameter_changes_computation_and_fingerprint(change):
    assert VolumeInputs(**change).computation() != VolumeInputs().computation()
    assert VolumeInputs(**change).fingerprint() != VolumeInputs().fingerprint()


@pytest.mark.parametrize("wrong", [{"spacing_mm": 0}, {"size": [40, 40]}, {"size": [40, 40, 0]}])
def test_sizes_that_cannot_be_are_told(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        VolumeInputs(**wrong)


def test_a_scan_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(ScanError):
        VolumeInputs()(write(tmp_path, np.zeros_like(head())))
