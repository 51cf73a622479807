"""N4: ITK is the oracle; then phantoms with a known field, laws, and the inputs that must not break it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
import torch
from head_phantoms import coil_log_bias, crisp_head

from mhsev_monai.preprocess import n4, n4_itk
from mhsev_monai.preprocess.n4 import N4Parameters, estimate_log_bias, n4_bias_field_correction

SHAPE = (48, 56, 44)
B0 = (1.0, 0.5, 0.4)
B1000 = (0.06, 0.36, 0.40)


class ITKRun(NamedTuple):
    """What ITK's filter found: the field, iterations at each level, and the last measure of convergence."""

    log_bias: np.ndarray
    iterations: tuple[int, ...]
    measure: float


def run_itk(image: np.ndarray, mask: np.ndarray, parameters: N4Parameters) -> ITKRun:
    sitk = pytest.importorskip("SimpleITK")
    n4_filter = sitk.N4BiasFieldCorrectionImageFilter()
    n4_filter.SetNumberOfThreads(1)
    n4_filter.SetMaximumNumberOfIterations([parameters.iterations] * parameters.levels)
    n4_filter.SetConvergenceThreshold(parameters.tolerance)
    n4_filter.SetNumberOfHistogramBins(parameters.n_bins)
    n4_filter.SetBiasFieldFullWidthAtHalfMaximum(parameters.fwhm)
    n4_filter.SetWienerFilterNoise(parameters.wiener_noise)
    n4_filter.SetNumberOfControlPoints([parameters.n_control_points] * image.ndim)
    spent = [0] * parameters.levels

    def count() -> None:
        level = n4_filter.GetCurrentLevel()
        spent[level] = max(spent[level], n4_filter.GetElapsedIterations())

    n4_filter.AddCommand(sitk.sitkIterationEvent, count)
    itk_image = sitk.GetImageFromArray(np.ascontiguousarray(image.T, dtype=np.float32))
    n4_filter.Execute(itk_image, sitk.GetImageFromArray(np.ascontiguousarray(mask.T, dtype=np.uint8)))
    log_bias = sitk.GetArrayFromImage(n4_filter.GetLogBiasFieldAsImage(itk_image)).T
    return ITKRun(log_bias, tuple(spent), n4_filter.GetCurrentConvergenceMeasurement())


def largest_difference_from_itk(image: np.ndarray, mask: np.ndarray, parameters: N4Parameters) -> float:
    """In the mask, once both have spent as many iterations at each level."""
    expected = run_itk(image, mask, parameters)
    found = n4_bias_field_correction(torch.from_numpy(image), torch.from_numpy(mask), parameters)
    assert found.iterations == expected.iterations
    return float(np.abs(found.log_bias.numpy() - expected.log_bias)[mask].max())


def real_b0(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The first volume, which is a b0 in all of these scans, and where it gives signal."""
    volumes = nibabel.load(folder / "nifti_dwi" / f"{name}.nii.gz").dataobj
    image = np.ascontiguousarray(volumes[..., 0] if len(volumes.shape) == 4 else volumes, dtype=np.float32)
    return image, image > 0.15 * np.percentile(image, 99)


def shaded_head(levels=B0, shape=SHAPE, amplitude=0.4):
    head = crisp_head(shape, levels)
    log_bias = coil_log_bias(shape, head.brain, amplitude)
    return torch.from_numpy(head.image * np.exp(log_bias)), torch.from_numpy(head.brain), log_bias


@pytest.mark.parametrize(
    "parameters",
    [
        N4Parameters(shrink=1, levels=3),
        N4Parameters(shrink=1, levels=4),
        N4Parameters(shrink=1, levels=4, iterations=5, tolerance=0.0),
        N4Parameters(shrink=1, levels=2, iterations=8, tolerance=0.0, n_bins=100, fwhm=0.3, n_control_points=6),
    ],
    ids=["three levels that stop by themselves", "four levels that do", "a fixed number", "other parameters"],
)
def test_the_field_is_itk_s_on_a_phantom(parameters):
    image, brain, _ = shaded_head(shape=(36, 40, 32))
    assert largest_difference_from_itk(image.numpy(), brain.numpy(), parameters) <= 1e-5


def test_the_field_is_itk_s_in_two_dimensions():
    image, brain, _ = shaded_head()
    middle = image[:, :, 22].numpy(), brain[:, :, 22].numpy()
    assert largest_difference_from_itk(*middle, N4Parameters(shrink=1, iterations=10, tolerance=0.0)) <= 1e-4


def test_the_field_is_itk_s_where_the_first_voxel_of_the_mask_is_the_darkest():
    """ITK takes that voxel for the brightest: the fields would differ by more than 1e-3."""
    image, brain, _ = shaded_head(shape=(36, 40, 32))
    first = tuple(np.argwhere(brain.numpy().T)[0][::-1])
    image[first] = 0.5 * image[brain].min()
    parameters = N4Parameters(shrink=1, levels=2)
    assert largest_difference_from_itk(image.numpy(), brain.numpy(), parameters) <= 1e-5
    exact = N4Parameters(shrink=1, levels=2, relaxation=1 - 1e-6)
    unlike = estimate_log_bias(image, brain, exact) - estimate_log_bias(image, brain, parameters)
    assert float(unlike[brain].abs().max()) > 1e-3


def test_the_stopping_measure_is_itk_s_and_not_the_exact_one(shared_data):
    image, mask = real_b0(shared_data, "philips_elition_mb3_b0_b1000")
    once = N4Parameters(shrink=1, levels=1, iterations=1)
    factors = (-estimate_log_bias(torch.from_numpy(image), torch.from_numpy(mask), once)).exp()
    in_order = factors.permute(2, 1, 0)[torch.from_numpy(mask).permute(2, 1, 0)]
    measure = n4_itk.variation(in_order)
    assert measure == pytest.approx(run_itk(image, mask, once).measure, rel=1e-3)
    assert measure > 1.3 * float(in_order.double().std() / in_order.double().mean())  # 0.00171 for 0.00114


@pytest.mark.parametrize("levels", [3, 4])
def test_the_field_is_itk_s_on_a_real_scan_that_stops_by_itself(shared_data, levels):
    image, mask = real_b0(shared_data, "uih_umr770_b0_b930")
    assert largest_difference_from_itk(image, mask, N4Parameters(shrink=1, levels=levels)) <= 1e-4


LARGE_SCANS = (
    "siemens_prisma_ve11_sag_b0_b2000",
    "philips_achieva_whole_b0_b1000",
    "philips_ingenia_mb2_b0_b1000",
    "philips_ingenia_gre_te4p6_same_subject_as_mb2",
    "ge_signauhp_seepi_b0like",
    "ge_signauhp_seepi_b0like_otherPE",
    "ge_gre_magnitude",
    "siemens_trio_t2star_epi_te34",
)


# Measured: 1.6e-5 or less at three levels, 5e-6 and 1.6e-4 at four. ITK computes in single precision: given the
# sagittal scan in another unit, its own four levels differ by 1.1e-4 from what they were (ours: by 4e-7).
@pytest.mark.parametrize(
    ("name", "levels", "bound"),
    [
        pytest.param("siemens_prisma_xa30_PA_b0_b2500", 3, 1e-4, marks=pytest.mark.slow),
        pytest.param("siemens_prisma_xa30_PA_b0_b2500", 4, 1e-4, marks=pytest.mark.slow),
        pytest.param("philips_elition_mb3_b0_b1000", 3, 1e-4, marks=pytest.mark.slow),
        pytest.param("siemens_prisma_ve11_sag_b0_b2000", 4, 3e-4, marks=pytest.mark.slow),
        *(pytest.param(name, 3, 1e-4, marks=pytest.mark.long) for name in LARGE_SCANS),
    ],
)
def test_the_field_is_itk_s_on_whole_real_scans_that_stop_by_themselves(shared_data, name, levels, bound):
    image, mask = real_b0(shared_data, name)
    assert largest_difference_from_itk(image, mask, N4Parameters(shrink=1, levels=levels)) <= bound


# Measured on 48x56x44 to 80x96x72: residual .011-.013 (b0), .020-.027 (b1000) of a field of .125-.127;
# injected .001-.003 and .016-.026. Fluid-dark contrast leaves N4 less to go by.
@pytest.mark.parametrize(
    ("levels", "residual", "injected"), [(B0, 0.02, 0.01), (B1000, 0.03, 0.03)], ids=["b0", "b1000"]
)
def test_a_known_field_is_found_and_none_is_invented(levels, residual, injected):
    image, brain, log_bias = shaded_head(levels)
    found = estimate_log_bias(image, brain).numpy() - log_bias
    assert log_bias[brain].std() > 0.12
    assert found[brain].std() <= residual
    flat = torch.from_numpy(crisp_head(SHAPE, levels).image)
    assert float(estimate_log_bias(flat, brain)[brain].std()) <= injected


def test_correction_divides_by_the_field_and_parts_white_from_grey():
    image, brain, _ = shaded_head()
    head = crisp_head(SHAPE, B0)

    def joint_variation(volume: torch.Tensor) -> float:
        white, grey = volume[torch.from_numpy(head.white)], volume[torch.from_numpy(head.grey)]
        return float((white.std() + grey.std()) / (grey.mean() - white.mean()))

    result = n4_bias_field_correction(image, brain)
    assert torch.allclose(result.corrected, image / result.log_bias.exp())
    without_field = joint_variation(torch.from_numpy(head.image))
    assert joint_variation(image) > 3 * without_field
    assert joint_variation(result.corrected) < 1.2 * without_field


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_field_does_not_depend_on_the_unit(factor):
    image, brain, _ = shaded_head()
    assert torch.allclose(estimate_log_bias(image * factor, brain), estimate_log_bias(image, brain), atol=1e-5)


def test_the_field_moves_with_the_image_s_axes():
    image, brain, _ = shaded_head()
    parameters = N4Parameters(shrink=1, levels=2, iterations=5, tolerance=0.0)
    field = estimate_log_bias(image, brain, parameters)
    turned = estimate_log_bias(image.permute(2, 0, 1), brain.permute(2, 0, 1), parameters)
    assert torch.allclose(turned.permute(1, 2, 0), field, atol=1e-5)


def test_the_same_call_gives_the_same_bits_and_leaves_its_input_alone():
    image, brain, _ = shaded_head()
    before = image.clone()
    assert torch.equal(estimate_log_bias(image, brain), estimate_log_bias(image, brain))
    assert torch.equal(image, before)


def test_the_fixed_point_histogram_of_cuda_equals_the_one_in_float64():
    generator = torch.Generator().manual_seed(0)
    position = torch.rand(5000, generator=generator) * 198
    lower = position.long()
    arguments = (lower, lower + 1, position - lower, 200)
    assert torch.allclose(n4._fixed_point_histogram(*arguments), n4._histogram(*arguments), atol=1e-5)
    assert float(n4._fixed_point_histogram(*arguments).sum()) == 5000.0


@pytest.mark.parametrize(
    ("image", "mask", "reason"),
    [
        (torch.ones(9, 9, 9), torch.zeros(9, 9, 9), "no positive"),
        (torch.zeros(9, 9, 9), torch.ones(9, 9, 9), "no positive"),
        (torch.full((9, 9, 9), float("nan")), None, "no positive"),
        (torch.full((9, 9), 7.0), None, "constant"),
        (torch.rand(9, 9, 9), torch.nn.functional.one_hot(torch.tensor(5), 729).reshape(9, 9, 9), "constant"),
    ],
    ids=["empty mask", "all zero", "all NaN", "constant", "one voxel"],
)
def test_where_nothing_can_be_fitted_the_field_is_zero_and_a_warning_says_why(image, mask, reason):
    with pytest.warns(RuntimeWarning, match=reason):
        result = n4_bias_field_correction(image, mask)
    assert torch.equal(result.log_bias, torch.zeros(image.shape))
    assert result.iterations == ()


def test_voxels_that_are_not_finite_touch_no_other():
    image, brain, _ = shaded_head(shape=(36, 40, 32))
    broken = image.clone()
    broken[18, 20, 16], broken[10, 20, 16], broken[14, 20, 16] = float("nan"), float("inf"), -5.0
    spots = torch.zeros_like(brain)
    spots[[18, 10, 14], 20, 16] = True
    expected = estimate_log_bias(image, brain & ~spots)
    result = n4_bias_field_correction(broken, brain)
    assert torch.equal(result.log_bias, expected)
    assert torch.isfinite(result.corrected[~spots]).all()


@pytest.mark.parametrize("shape", [(5, 5, 1), (7, 6), (1, 9, 9), (2, 2, 2)])
def test_tiny_images_have_finite_fields(shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(estimate_log_bias(image, None)).all()


def test_a_small_mask_between_the_samples_is_fitted_at_full_resolution():
    image, _, _ = shaded_head()
    mask = torch.zeros(SHAPE)
    mask[20, 20, 20] = mask[20, 20, 22] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimate_log_bias(image, mask, N4Parameters(shrink=4)).abs().max() > 0


@pytest.mark.parametrize(
    "wrong",
    [{"levels": 0}, {"n_control_points": 3}, {"fwhm": 0.0}, {"relaxation": 2.0}, {"tolerance": float("nan")}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        N4Parameters(**wrong)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 or 3 axes"):
        estimate_log_bias(torch.rand(1, 4, 4, 4), None)
    with pytest.raises(ValueError, match="image's shape"):
        estimate_log_bias(torch.rand(4, 4, 4), torch.ones(4, 4))
