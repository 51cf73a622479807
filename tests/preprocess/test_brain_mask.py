"""The brain mask: exact on phantoms, plausible on real scans of four vendors, close to references on T2 heads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from head_phantoms import Head, coil_log_bias, head_with_skull
from real_heads import SPOT_DIAMETERS, RealHead, load_dwi, load_t2, lobar_spots, planted
from scipy import ndimage

from mhsev_monai.errors import ScanError
from mhsev_monai.preprocess.brain_mask import BrainMaskParameters, dwi_brain_mask

SHAPE = (48, 54, 42)
SPACING = (3.6, 3.6, 3.6)
B0 = (1.0, 0.5, 0.4)
B1000 = (0.06, 0.36, 0.40)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def shaded(levels, amplitude):
    head = head_with_skull(SHAPE, levels)
    field = coil_log_bias(head.image.shape, head.brain, amplitude) if amplitude else 0.0
    return torch.from_numpy((head.image * np.exp(field)).astype(np.float32)), head.brain


def without_rim_fluid(head: Head) -> np.ndarray:
    fluid = head.brain & ~head.white & ~head.grey
    return head.brain & ~ndimage.binary_propagation(~head.brain, mask=~head.brain | fluid)


# Measured .992 to .999.
@pytest.mark.parametrize("amplitude", [0.0, 0.4, 1.0], ids=lambda a: f"shading {a}")
@pytest.mark.parametrize("with_trace", [False, True], ids=["b0", "b0 and trace"])
def test_the_brain_of_a_phantom_is_found_under_any_shading(amplitude, with_trace):
    b0, brain = shaded(B0, amplitude)
    trace = shaded(B1000, amplitude)[0] if with_trace else None
    result = dwi_brain_mask(b0, trace, SPACING)
    expected = brain if with_trace else without_rim_fluid(head_with_skull(SHAPE, B0))
    assert dice(result.mask.numpy(), expected) >= 0.98
    assert result.volume_ml == pytest.approx(float(result.mask.sum()) * 3.6**3 / 1000)
    assert result.touches_border == ()
    assert result.n_components == 1
    assert result.field_of_view_mm == pytest.approx((48 * 3.6, 54 * 3.6, 42 * 3.6))
    assert bool((result.search_mask | ~result.mask).all()), "the search mask must hold the mask"
    far = ndimage.distance_transform_edt(~result.mask.numpy(), sampling=SPACING)
    # On b0 alone the search mask keeps the rim of fluid that the mask leaves out, 6 mm deep at most.
    assert far[result.search_mask.numpy()].max() <= (3.6 if with_trace else 3.6 + 6.0)


# Measured volumes: 1461, 1563, 1514, 1422 ml; without trace 1531 and 1492; the slabs 1082 and 1208.
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("philips_achieva_whole_b0_b1000", 900, 1800),
        pytest.param("philips_ingenia_mb2_b0_b1000", 900, 1800, marks=pytest.mark.slow),
        ("siemens_prisma_ve11_sag_b0_b2000", 900, 1800),  # sagittal: slices run from right to left
        ("siemens_prisma_xa30_PA_b0_b2500", 900, 1800),
        ("ge_signauhp_seepi_b0like", 900, 1800),  # no trace
        pytest.param("ge_signauhp_seepi_b0like_otherPE", 900, 1800, marks=pytest.mark.slow),
        ("philips_elition_mb3_b0_b1000", 700, 1300),  # no cerebellum
        ("uih_umr770_b0_b930", 700, 1400),  # 84 mm of a head
    ],
)
def test_real_heads_hold_a_brain_s_volume(shared_data, name, low, high):
    result = dwi_brain_mask(*load_dwi(shared_data, name))
    assert low <= result.volume_ml <= high
    assert result.n_components == 1
    if name.startswith(("uih", "philips_elition")):
        assert {"first z", "last z"} <= set(result.touches_border)


# Measured .974, .963, and .969, .963, .948, .944 on the other heads: b0 alone leaves out fluid at the rim.
@pytest.mark.parametrize("name", ["siemens_prisma_xa30_PA_b0_b2500", "uih_umr770_b0_b930"])
def test_b0_alone_gives_nearly_the_same_brain(shared_data, name):
    head = load_dwi(shared_data, name)
    both = dwi_brain_mask(*head).mask.numpy()
    assert dice(dwi_brain_mask(head.b0, None, head.spacing).mask.numpy(), both) >= 0.96


# Dice with the published masks: .946, .905, .933. That of p03 leaves out some millimetres of cortex nearly everywhere:
# 227 ml of ours lie outside it, and 18 ml of it outside ours.
@pytest.mark.parametrize(
    "patient",
    ["p01", pytest.param("p03", marks=pytest.mark.slow), pytest.param("p04", marks=pytest.mark.slow)],
)
def test_t2_heads_agree_with_reference_masks(shared_data, patient):
    image, reference, spacing = load_t2(shared_data, patient)
    assert dice(dwi_brain_mask(image, None, spacing).mask.numpy(), reference) >= 0.90


def test_fluid_and_bone_at_the_rim_are_peeled_off_b0_alone(shared_data):
    head = load_dwi(shared_data, "siemens_prisma_xa30_PA_b0_b2500")
    peeled = dwi_brain_mask(head.b0, None, head.spacing)
    whole = dwi_brain_mask(head.b0, None, head.spacing, BrainMaskParameters(rim=0.0))
    gone = whole.mask & ~peeled.mask
    assert not bool((peeled.mask & ~whole.mask).any())
    assert torch.equal(peeled.search_mask, whole.search_mask)
    tissue = head.b0[peeled.mask].median()
    assert float(((head.b0[gone] < 0.6 * tissue) | (head.b0[gone] > 1.4 * tissue)).float().mean()) > 0.5
    deep = ndimage.distance_transform_edt(np.pad(whole.mask.numpy(), 1, mode="edge"), sampling=head.spacing)
    assert deep[1:-1, 1:-1, 1:-1][gone.numpy()].max() <= 6.0 + 2.0  # what then hangs on by a thread


def share_kept(head: RealHead) -> dict[float, float]:
    """Of the voxels of at least 20 dark spots of each diameter near the surface, those in the search mask."""
    brain = dwi_brain_mask(*head).mask.numpy()
    kept, count = dict.fromkeys(SPOT_DIAMETERS, 0), dict.fromkeys(SPOT_DIAMETERS, 0)
    for seed in range(3):
        spots = lobar_spots(brain, head.spacing, seed)
        search_mask = dwi_brain_mask(*planted(head, spots)).search_mask.numpy()
        for diameter, voxels in spots.items():
            kept[diameter] += int(search_mask[voxels].sum())
            count[diameter] += int(voxels.sum())
    return {diameter: kept[diameter] / count[diameter] for diameter in SPOT_DIAMETERS}


# Measured, the least over these scans at 4, 8, 12 mm: 1.000, .974, .953 with trace and 1.000, .970, .916 without, both
# on the sagittal scan.
@pytest.mark.parametrize(
    ("name", "with_trace"),
    [
        ("siemens_prisma_xa30_PA_b0_b2500", True),
        ("siemens_prisma_xa30_PA_b0_b2500", False),
        pytest.param("siemens_prisma_ve11_sag_b0_b2000", True, marks=pytest.mark.slow),
        pytest.param("siemens_prisma_ve11_sag_b0_b2000", False, marks=pytest.mark.slow),
        pytest.param("philips_achieva_whole_b0_b1000", True, marks=pytest.mark.slow),
        pytest.param("philips_achieva_whole_b0_b1000", False, marks=pytest.mark.slow),
        pytest.param("philips_ingenia_mb2_b0_b1000", True, marks=pytest.mark.slow),
        pytest.param("philips_ingenia_mb2_b0_b1000", False, marks=pytest.mark.slow),
        pytest.param("ge_signauhp_seepi_b0like", False, marks=pytest.mark.slow),
        pytest.param("ge_signauhp_seepi_b0like_otherPE", False, marks=pytest.mark.slow),
        pytest.param("philips_elition_mb3_b0_b1000", True, marks=pytest.mark.slow),
    ],
)
def test_dark_lesions_at_the_surface_stay_in_the_search_mask(shared_data, name, with_trace):
    head = load_dwi(shared_data, name)
    kept = share_kept(head if with_trace else head._replace(trace=None))
    assert min(kept.values()) >= 0.90, kept


# Measured: 1.000 of all, but .989 at 12 mm with trace.
@pytest.mark.parametrize("amplitude", [0.4, 1.0], ids=lambda a: f"shading {a}")
@pytest.mark.parametrize("with_trace", [False, True], ids=["b0", "b0 and trace"])
def test_dark_lesions_at_the_surface_of_a_phantom_stay_in_the_search_mask(amplitude, with_trace):
    trace = shaded(B1000, amplitude)[0] if with_trace else None
    kept = share_kept(RealHead(shaded(B0, amplitude)[0], trace, SPACING))
    assert min(kept.values()) >= 0.90, kept


# Measured .993 and .999, oblique .969 and .987: there interpolation blurs a rim of fluid that is one voxel thick.
@pytest.mark.parametrize("with_trace", [False, True], ids=["b0", "b0 and trace"])
@pytest.mark.parametrize("storage", ["sagittal", "coronal", "oblique"])
def test_the_brain_is_found_however_it_is_stored(storage, with_trace):
    def stored(volume: np.ndarray, order: int) -> np.ndarray:
        if storage == "oblique":
            wide = np.pad(volume, 8)
            return ndimage.rotate(wide, 25.0, axes=(1, 2), reshape=False, order=order)
        return np.ascontiguousarray(volume.transpose((1, 2, 0) if storage == "sagittal" else (0, 2, 1)))

    b0, trace = (torch.from_numpy(stored(shaded(levels, 0.4)[0].numpy(), 1)) for levels in (B0, B1000))
    head = head_with_skull(SHAPE, B0)
    brain = stored((head.brain if with_trace else without_rim_fluid(head)).astype(np.float32), 0) > 0.5
    found = dwi_brain_mask(b0, trace if with_trace else None, SPACING)
    assert dice(found.mask.numpy(), brain) >= (0.95 if storage == "oblique" else 0.98)


def test_a_slab_through_the_brain_is_masked_from_face_to_face():
    b0, brain = shaded(B0, 0.4)
    slab = slice(14, 28)
    result = dwi_brain_mask(b0[:, :, slab], None, SPACING)
    assert dice(result.mask.numpy(), brain[:, :, slab]) >= 0.95
    assert result.touches_border == ("first z", "last z")


@pytest.mark.slow
def test_a_large_scan_stays_within_a_gigabyte_and_a_half(tmp_path):
    """256 x 256 x 60 voxels, b0 and trace, through mask, field and z-scores: the whole process with its imports."""
    arrays = {}
    for key, levels in (("b0", B0), ("trace", B1000)):
        head = head_with_skull((192, 220, 56), levels)
        arrays[key] = np.pad(head.image, ((32, 32), (18, 18), (2, 2)), constant_values=0.02)
    np.savez(tmp_path / "scan.npz", spacing=(0.9, 0.9, 2.5), **arrays)
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "preprocess_pipeline.py"
    command = [sys.executable, str(script), str(tmp_path / "scan.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert 1400 <= result["brain_ml"] <= 1600  # measured 1526, of 1498
    assert result["peak_mib"] < 1536  # measured 656, of them 418 after the imports


def test_three_bright_bars_are_no_brain():
    """What a quality-assurance phantom shows: rods, none of a brain's size."""
    x, y, _ = np.meshgrid(*[np.arange(n) * 2.5 for n in (96, 96, 40)], indexing="ij")
    bars = sum(((x - a) ** 2 + (y - 120) ** 2 < 18**2) for a in (50, 120, 190)) > 0
    noise = np.random.default_rng(0).rayleigh(10, bars.shape)
    with pytest.raises(ScanError, match=r"holds \d+ ml, and 300 to 2200 ml are accepted: check"):
        dwi_brain_mask(torch.from_numpy((1000 * bars + noise).astype(np.float32)), None, (2.5, 2.5, 2.5))


@pytest.mark.parametrize("fill", [0.0, 5.0, float("nan")], ids=["zeros", "constant", "NaN"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_scan_without_contrast_is_refused(fill):
    with pytest.raises(ScanError, match="ml"):
        dwi_brain_mask(torch.full((64, 64, 30), fill), None, (3.0, 3.0, 4.0))


def test_the_accepted_volume_is_a_parameter():
    b0, _ = shaded(B0, 0.0)
    with pytest.raises(ScanError, match="300 to 500 ml"):
        dwi_brain_mask(b0, None, SPACING, BrainMaskParameters(max_volume_ml=500.0))
    with pytest.raises(ValueError, match="max_volume_ml"):
        BrainMaskParameters(min_volume_ml=500.0, max_volume_ml=400.0)


def test_the_mask_ignores_unit_and_broken_voxels_and_leaves_its_input_alone():
    b0, _ = shaded(B0, 0.4)
    broken = b0 * 1e4
    broken[3, 3, 3], broken[24, 27, 21], broken[22, 22, 22] = float("inf"), float("nan"), -1e9
    before = broken.clone()
    mask = dwi_brain_mask(b0, None, SPACING).mask
    assert dice(dwi_brain_mask(broken, None, SPACING).mask.numpy(), mask.numpy()) >= 0.999
    assert torch.equal(torch.nan_to_num(broken), torch.nan_to_num(before))


def test_shapes_and_spacing_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="volume"):
        dwi_brain_mask(torch.rand(4, 4), None, SPACING)
    with pytest.raises(ValueError, match="b0's shape"):
        dwi_brain_mask(torch.rand(4, 4, 4), torch.rand(4, 4, 5), SPACING)
    with pytest.raises(ValueError, match="three positive lengths"):
        dwi_brain_mask(torch.rand(4, 4, 4), None, (1.0, 0.0, 1.0))
