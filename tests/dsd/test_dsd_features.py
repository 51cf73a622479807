from __future__ import annotations

import numpy as np
import pytest
from dsd_phantoms import spotted_head, wavy_head

from mhsev_monai.dsd.features import FEATURE_NAMES, FEATURES, LEAST_LOG_ENERGY, SCHEMA_VERSION, dsd_features
from mhsev_monai.dsd.functional import DSDParameters, dynamic_spectral_decomposition


def features_of(image, spacing, mask, **settings):
    parameters = DSDParameters(**settings)
    result = dynamic_spectral_decomposition(image, spacing, mask, parameters)
    vector = dsd_features(result, image, spacing, mask, parameters)
    return dict(zip(FEATURE_NAMES, vector, strict=True))


def test_every_feature_has_a_name_of_its_own_a_unit_and_a_definition():
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) == len(FEATURES)
    assert all(spec.name.isidentifier() and spec.unit and len(spec.definition) > 5 for spec in FEATURES)
    assert all(spec.low < spec.high for spec in FEATURES)
    assert SCHEMA_VERSION == "3"


def test_names_and_their_order_belong_to_the_schema_version():
    """Whoever changes a name or its place changes SCHEMA_VERSION and this number, or saved models read nonsense."""
    assert len(FEATURE_NAMES) == 63
    assert FEATURE_NAMES[:3] == ("count_08", "volume_08", "depth_08")
    assert FEATURE_NAMES[12] == "soft_count"
    assert FEATURE_NAMES[-1] == "snr"


def out_of_range(vector):
    # Energies are sums in float32: a share of all of it may come out as 1 + 1e-6.
    slack = 1e-5
    values = vector.values() if isinstance(vector, dict) else vector
    return {
        spec.name: value
        for spec, value in zip(FEATURES, values, strict=True)
        if not spec.low - slack <= value <= spec.high + slack
    }


GROWING = [
    *(f"{kind}_{at}" for kind in ("count", "volume", "depth", "log_count") for at in ("12", "20")),
    *("soft_count", "focal_count_12", "focal_count_20", "map_mean_depth", "map_p999_depth", "map_balance"),
]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 3.0), (1.75, 1.75, 2.5), (2.0, 2.0, 4.0)])
def test_what_counts_spots_grows_with_every_spot_that_is_planted(spacing):
    counts = [0, 1, 2, 4, 8, 12, 16]
    vectors = [features_of(*reordered(spotted_head(spacing, n, sigma_mm=2.0), spacing)) for n in counts]
    assert [out_of_range(vector) for vector in vectors] == [{}] * len(counts)
    for name in GROWING:
        course = np.array([vector[name] for vector in vectors])
        # The greatest of more depths, and shares that saturate, may stand still but for the windows' overlap.
        assert (np.diff(course) >= -2e-3).all(), (name, course)
        assert course[-1] > course[0] + 1e-4, (name, course)
    for name in ("count_12", "log_count_12", "focal_count_12"):
        assert (np.diff([vector[name] for vector in vectors]) > 0.01).all(), name


@pytest.mark.parametrize("name", ["count_12", "soft_count", "log_count_12", "focal_count_12", "deep_count"])
def test_counts_do_not_depend_on_the_spacing(name):
    spacings = [(1.0, 1.0, 2.0), (1.25, 1.25, 3.0), (1.5, 1.75, 2.5), (2.0, 2.0, 3.0)]
    found = [np.expm1(features_of(*reordered(spotted_head(s, 9, sigma_mm=2.0), s))[name]) for s in spacings]
    # Counts to a tenth of a spot (the soft one is not whole); where a spot lies is a matter of half a voxel.
    assert max(found) - min(found) <= (1.0 if name == "deep_count" else 0.1), found


@pytest.mark.parametrize("n_spots", [0, 3, 7, 12])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 3.0), (2.0, 2.0, 4.0)])
def test_count_is_the_number_of_spots_that_lie_well_apart(n_spots, spacing):
    features = features_of(*reordered(spotted_head(spacing, n_spots), spacing))
    assert np.expm1(features["count_12"]) == pytest.approx(n_spots)
    assert np.expm1(features["soft_count"]) == pytest.approx(n_spots, abs=0.5)
    places = ("near_surface_count", "middle_count", "deep_count")
    assert sum(np.expm1(features[name]) for name in places) == pytest.approx(n_spots)
    sizes = [name for name in FEATURE_NAMES if name.startswith("size_")]
    assert sum(np.expm1(features[name]) for name in sizes) == pytest.approx(n_spots)
    assert np.expm1(features["log_count_12"]) == pytest.approx(n_spots)


def reordered(head, spacing):
    return head[0], spacing, head[1]


def test_deeper_spots_are_deeper_in_the_vector():
    spacing = (2.0, 2.0, 4.0)
    shallow, deep = (features_of(*reordered(spotted_head(spacing, 5, depth=d), spacing)) for d in (0.3, 0.7))
    assert deep["depth_12"] > shallow["depth_12"] + 0.1
    assert deep["map_max_depth"] == pytest.approx(np.expm1(deep["depth_12"]), rel=1e-6)


@pytest.mark.parametrize("factor", [8.0, 7.3])
def test_gain_of_the_scanner_does_not_change_a_feature(factor):
    image, mask = wavy_head((50, 44, 3), noise=0.05)
    plain = features_of(image, (2.0, 2.0, 4.0), mask, dtype="float64")
    scaled = features_of(factor * image, (2.0, 2.0, 4.0), mask, dtype="float64")
    assert scaled == pytest.approx(plain, rel=1e-9, abs=1e-9)


def test_count_of_spots_of_4_mm_does_not_depend_on_spacings_from_1_to_2_mm():
    spacings = [(1.0, 1.0, 2.0), (1.25, 1.25, 3.0), (1.6, 1.6, 3.0), (2.0, 2.0, 3.0)]
    vectors = [features_of(*reordered(spotted_head(s, 9), s)) for s in spacings]
    for spacing, vector in zip(spacings, vectors, strict=True):
        assert np.expm1(vector["count_12"]) == pytest.approx(9)
        # 0.26 (2 mm) to 0.51 (1 mm) were measured: the sampled spots themselves are 0.39 to 0.62 deep.
        assert 0.2 < vector["map_max_depth"] < 0.6
        # 608 to 864 mm^3 were measured.
        assert np.expm1(vector["volume_12"]) == pytest.approx(735, rel=0.25)
        assert vector["brain_volume"] == pytest.approx(vectors[0]["brain_volume"], rel=0.03)
        assert vector["slice_spacing"] == spacing[2]


@pytest.mark.parametrize(("sigma_mm", "n_found"), [(1.7, 0), (2.2, 9)])
def test_at_2_4_mm_the_map_loses_spots_of_4_mm_that_the_laplacian_keeps(sigma_mm, n_found):
    """A limit: a spot below a voxel's width fills the bins from which the noise scale comes, and thresholds itself."""
    spacing = (2.4, 2.4, 5.0)
    vector = features_of(*reordered(spotted_head(spacing, 9, sigma_mm=sigma_mm), spacing))
    assert np.expm1(vector["count_12"]) == pytest.approx(n_found)
    assert np.expm1(vector["log_count_12"]) == pytest.approx(9)


@pytest.mark.parametrize(
    "image",
    [
        np.full((20, 20, 2), 5.0),
        np.full((8, 8, 1), 5.0),
        np.random.default_rng(0).uniform(0.1, 9, (20, 20)),
        np.where(np.indices((24, 24, 2)).sum(0) % 2, 1.0, 500.0),
    ],
    ids=["constant", "smallest", "noise", "chessboard"],
)
def test_every_feature_of_odd_images_is_finite(image):
    spacing = (2.0,) * image.ndim
    vector = np.array(list(features_of(image, spacing, None).values()))
    assert vector.shape == (len(FEATURES),)
    assert np.isfinite(vector).all()
    assert out_of_range(vector) == {}


def test_scan_without_windows_has_the_documented_values():
    image, mask = wavy_head((40, 36, 1))
    mask[:] = False
    mask[20, 20] = True
    features = features_of(image, (2.0, 2.0, 4.0), mask)
    assert features["rank_mean"] == features["snr"] == features["window_base_share"] == 0
    assert all(features[f"band_{n}_{kind}"] == LEAST_LOG_ENERGY for n in range(1, 6) for kind in ("mean", "p95"))
    assert features["brain_volume"] == pytest.approx(0.016)


def test_bands_beyond_the_acquired_frequencies_are_marked():
    image, mask = wavy_head((40, 36, 2))
    features = features_of(image, (2.2, 2.2, 4.0), mask, acquired=0.5)
    # Nyquist at 2.2 mm is 0.227 cycles/mm: the band from 0.25 on was not acquired.
    assert features["bands_acquired"] == 4
    assert features["band_5_mean"] == LEAST_LOG_ENERGY
    assert features["band_3_mean"] > LEAST_LOG_ENERGY


def test_window_shares_and_rank_shares_are_shares():
    image, mask = wavy_head((60, 50, 3))
    features = features_of(image, (1.0, 1.0, 4.0), mask)
    shares = [features[f"window_{kind}_share"] for kind in ("small", "base", "large")]
    assert sum(shares) == pytest.approx(1)
    assert features["rank_p10"] <= features["rank_mean"] <= features["rank_p90"]
    assert features["rank_zero_share"] <= features["rank_low_share"] <= 1


def test_snr_follows_the_noise():
    spacing = (2.0, 2.0, 4.0)
    # Clipping at twice the median leaves Gaussian noise alone: the signal over its standard deviation is 50, and 20.
    for noise, snr in ((0.02, 50), (0.05, 20)):
        features = features_of(*reordered(spotted_head(spacing, 0, noise=noise), spacing), clip=2.0)
        # The filled voxels in windows across the mask's edge have no noise: 55 for 50.
        assert 10 ** features["snr"] == pytest.approx(snr, rel=0.15)


def test_inputs_are_not_changed():
    image, mask = wavy_head((40, 36, 2))
    kept = image.copy(), mask.copy()
    features_of(image, (2.0, 2.0, 4.0), mask)
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(mask, kept[1])


def test_features_of_another_images_result_are_refused():
    image, mask = wavy_head((40, 36, 2))
    result = dynamic_spectral_decomposition(image, (2.0, 2.0, 4.0), mask)
    with pytest.raises(ValueError, match="result must be a decomposition of the image"):
        dsd_features(result, image[:-1], (2.0, 2.0, 4.0), mask[:-1])
