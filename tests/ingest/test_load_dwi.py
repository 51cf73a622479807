"""LoadDWI and LoadDWId as MONAI uses them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, MetaTensor, PersistentDataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, Orientationd, SaveImage

from mhsev_monai.errors import ScanError
from mhsev_monai.ingest import LoadDWI, LoadDWID, LoadDWId, LoadDWIDict

PATIENT = "Roe^Jane"
AFFINE = np.array([[-1.9, 0.3, 0.0, 90.0], [0.3, 1.9, 0.0, -100.0], [0.0, 0.0, 5.0, -60.0], [0.0, 0.0, 0.0, 1.0]])
S0, B, ADC = 1000.0, 1000.0, 1e-3
GRID = (9, 10, 3)


def outside(b_value: int) -> str:
    return f"shell b={b_value} outside 600-1600: no trace or ADC is made of it, b0 alone is used"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """S0 = 1000 and, at b = 1000, exp(-1) of it, in the left half; nothing in the right."""
    data = np.zeros((*GRID, 3), np.float32)
    data[:5] = [S0, S0 * np.exp(-B * ADC), S0 * np.exp(-B * ADC)]
    image = nib.Nifti1Image(data, AFFINE)
    for text_field in ("descrip", "aux_file", "intent_name"):
        image.header[text_field] = PATIENT
    nib.save(image, tmp_path / f"{PATIENT}.nii.gz")
    (tmp_path / f"{PATIENT}.bval").write_text("0 1000 1000")
    return tmp_path / f"{PATIENT}.nii.gz"


def test_the_images_are_those_computed_by_hand(scan):
    entries = LoadDWI()(scan)
    assert list(entries) == ["b0", "trace", "adc", "scan"]
    for key, inside in (("b0", S0), ("trace", S0 / np.e), ("adc", ADC)):
        image = entries[key]
        assert isinstance(image, MetaTensor)
        assert image.shape == (1, *GRID)
        assert image.dtype == torch.float32
        # float32 logarithms: 3e-7 of ln 1000 in the difference of two.
        np.testing.assert_allclose(image[0, :5].numpy(), inside, rtol=2e-6)
        assert not image[0, 5:].any()
        np.testing.assert_array_equal(image.affine, nib.load(scan).affine)
        np.testing.assert_allclose(image.pixdim, np.linalg.norm(AFFINE[:3, :3], axis=0), rtol=1e-6)
    assert entries["scan"] == {
        "b_value": 1000.0,
        "n_b0": 1,
        "n_dwi": 2,
        "spacing_mm": pytest.approx((3.7**0.5, 3.7**0.5, 5.0), rel=1e-6),
        "warnings": (),
    }


def test_the_grid_is_that_of_monai_load_image(scan):
    ours, theirs = LoadDWI()(scan)["b0"], LoadImage(ensure_channel_first=True)(scan)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    np.testing.assert_array_equal(ours.meta["original_affine"], theirs.meta["original_affine"])
    assert ours.meta["space"] == theirs.meta["space"]


def test_a_little_weighting_of_the_b0_volume_is_taken_off(tmp_path):
    data = np.zeros((*GRID, 2), np.float32)
    data[:5] = [1000.0, 400.0]
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "x.nii")
    (tmp_path / "x.bval").write_text("50 850")
    entries = LoadDWI()(tmp_path / "x.nii")
    # ln(1000 / 400) over 850 - 50.
    np.testing.assert_allclose(entries["adc"][0, :5], 0.9162907 / 800, rtol=2e-6)
    assert entries["scan"]["b_value"] == 850.0


def test_a_series_of_b0_volumes_has_no_trace_and_no_adc(scan):
    scan.with_suffix("").with_suffix(".bval").unlink()
    with pytest.raises(ScanError, match="--b0-only"):
        LoadDWI()(scan)
    entries = LoadDWI(b0_only=True)(scan)
    assert list(entries) == ["b0", "scan"]
    assert (entries["scan"]["n_b0"], entries["scan"]["n_dwi"], entries["scan"]["b_value"]) == (3, 0, 0.0)


def test_neither_path_nor_free_text_travels_on(scan):
    loaded = LoadDWId()({"image": str(scan), "bval": None, "count": 3})
    assert set(loaded) == {"b0", "trace", "adc", "scan", "count"}
    for key in ("b0", "trace", "adc"):
        assert set(loaded[key].meta) == {"affine", "original_affine", "original_channel_dim", "spatial_shape", "space"}
    assert PATIENT not in repr(loaded)
    assert PATIENT.encode() not in pickle.dumps(loaded)


def test_the_dictionary_given_is_not_changed(scan):
    data = {"image": str(scan), "bval": str(scan).replace(".nii.gz", ".bval")}
    before = dict(data)
    LoadDWId()(data)
    assert data == before


def test_a_missing_entry_is_named_or_allowed():
    with pytest.raises(KeyError, match="image"):
        LoadDWId()({"bval": "x"})
    assert LoadDWId(allow_missing_keys=True)({"count": 3}) == {"count": 3}


def test_two_entries_would_overwrite_each_other():
    with pytest.raises(ValueError, match="one entry, got 2"):
        LoadDWId(keys=["image", "baseline"])


def test_the_aliases_are_the_class():
    assert LoadDWID is LoadDWId
    assert LoadDWIDict is LoadDWId


def test_a_configuration_of_json_builds_it_and_pickling_keeps_it(scan):
    config = json.loads('{"load": {"_target_": "mhsev_monai.ingest.LoadDWId", "keys": "scan_path", "b0_only": false}}')
    transform = pickle.loads(pickle.dumps(ConfigParser(config).get_parsed_content("load")))
    np.testing.assert_array_equal(transform({"scan_path": scan})["b0"], LoadDWI()(scan)["b0"])


def test_the_reason_can_be_had_from_a_compose(scan):
    scan.write_bytes(b"")
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadDWId()])({"image": scan})
    assert isinstance(caught.value.__cause__, ScanError)
    assert PATIENT not in str(caught.value)


def test_it_works_in_a_cache_in_workers_and_before_other_transforms(scan, tmp_path):
    items = [{"image": str(scan)}, {"image": str(scan)}]
    chain = Compose([LoadDWId(), EnsureChannelFirstd("b0"), Orientationd("b0", "RAS", labels=None)])
    dataset = CacheDataset(items, chain, progress=False)
    torch.testing.assert_close(dataset[1]["b0"].as_tensor(), LoadDWI()(scan)["b0"].as_tensor().flip(1))
    assert dataset[1]["b0"].affine[0, 0] > 0
    (batch,) = DataLoader(dataset, batch_size=2, num_workers=1)
    assert batch["b0"].shape == (2, 1, *GRID)
    assert batch["scan"]["b_value"].tolist() == [1000.0, 1000.0]
    SaveImage(tmp_path / "out", output_postfix="b0", separate_folder=False, print_log=False)(dataset[0]["b0"])
    (written,) = (tmp_path / "out").iterdir()
    assert nib.load(written).shape == GRID


@pytest.mark.filterwarnings("error:Corrupt cache file")
def test_it_is_found_again_in_a_cache_on_disk_that_holds_no_code(scan, tmp_path):
    dataset = PersistentDataset(
        [{"image": str(scan)}], LoadDWId(), tmp_path / "cache", track_meta=True, weights_only=True
    )
    fresh = dataset[0]
    scan.unlink()
    stored = dataset[0]
    torch.testing.assert_close(stored["adc"].as_tensor(), fresh["adc"].as_tensor())
    np.testing.assert_array_equal(stored["adc"].affine, fresh["adc"].affine)
    assert stored["scan"] == fresh["scan"]


@pytest.mark.parametrize(
    ("name", "n_b0", "n_dwi", "b_value", "warnings"),
    [
        ("philips_achieva_whole_b0_b1000", 1, 6, 1000.0, ()),
        ("philips_elition_mb3_b0_b1000", 2, 6, 1000.0, ()),
        ("philips_ingenia_mb2_b0_b1000", 1, 6, 1000.0, ()),
        ("siemens_prisma_ve11_sag_b0_b2000", 1, 0, 0.0, (outside(2000),)),
        ("siemens_prisma_xa30_PA_b0_b2500", 1, 0, 0.0, (outside(2500),)),
        ("uih_umr770_b0_b930", 1, 16, 929.75, ()),
    ],
)
def test_a_real_series_gives_the_right_volumes_and_a_plausible_adc(name, n_b0, n_dwi, b_value, warnings, shared_data):
    entries = LoadDWI()(shared_data / "nifti_dwi" / f"{name}.nii.gz")
    scan = entries["scan"]
    assert (scan["n_b0"], scan["n_dwi"], scan["b_value"], scan["warnings"]) == (n_b0, n_dwi, b_value, warnings)
    # Of b-values that no clinical protocol has, an ADC is another quantity.
    assert ("adc" in entries) == ("trace" in entries) == (600 <= b_value <= 1600)
    if "adc" in entries:
        # Brain parenchyma lies at 0.7 to 0.9e-3; a mean threshold adds CSF and scalp.
        tissue = entries["trace"] > 2 * entries["trace"].mean()
        assert 0.4e-3 < float(entries["adc"][tissue].median()) < 1.2e-3
