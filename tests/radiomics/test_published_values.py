"""The features of published images are the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle_data import TEXTURES, ibsi_phantom, ibsi_values, pyradiomics_image, pyradiomics_values

from mhsev_monai.radiomics import FEATURES, RadiomicsParameters, radiomics_features

IMAGES = ("brain1", "brain2", "breast1")


@pytest.fixture(scope="module")
def pyradiomics_folder(shared_data: Path) -> Path:
    return _folder(shared_data, "pyradiomics", "pyradiomics' test images and their baseline values")


@pytest.fixture(scope="module")
def ibsi_folder(shared_data: Path) -> Path:
    return _folder(shared_data, "ibsi_digital_phantom", "the IBSI digital phantom and its reference values")


def _folder(shared_data: Path, name: str, what: str) -> Path:
    if not (shared_data / name).is_dir():
        pytest.skip(f"needs ../shared/data/{name} beside the checkout: {what}")
    return shared_data / name


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("variant", "families", "parameters", "n_values"),
    [
        # The settings of the columns, as the tables record them.
        ("", ("firstorder", *TEXTURES), RadiomicsParameters(bin_width=25.0, intensity_shift=2000.0), 93),
        ("_FBN", TEXTURES, RadiomicsParameters(bin_count=64), 75),
    ],
    ids=["fixed width", "fixed number"],
)
def test_features_equal_those_of_pyradiomics(pyradiomics_folder: Path, name, variant, families, parameters, n_values):
    """504 values over the six cases; both sides compute in double precision, in different orders of summation."""
    expected: dict[str, float] = {}
    for family in families:
        expected |= pyradiomics_values(pyradiomics_folder, family, f"{name}{variant}")
    found = radiomics_features(*pyradiomics_image(pyradiomics_folder, name), parameters)
    assert len(expected) == n_values
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("merged", "n_values"), [(False, 91), (True, 91)], ids=["averaged", "merged"])
def test_features_equal_the_consensus_values_of_ibsi(ibsi_folder: Path, merged, n_values):
    """Compared at the three significant digits that IBSI agreed on; the phantom's intensities are its grey levels."""
    image, mask, spacing = ibsi_phantom(ibsi_folder)
    found = radiomics_features(image, mask, spacing, RadiomicsParameters(bin_width=1.0, merged=merged))
    names = {spec.source.removeprefix("IBSI "): spec.name for spec in FEATURES if spec.source.startswith("IBSI ")}
    expected = {names[code]: value for code, value in ibsi_values(ibsi_folder, merged) if code in names}
    found["firstorder_kurtosis"] -= 3  # IBSI's is the excess over that of normal values
    # A number agrees if it lies within half a unit of the third digit, and rounding's own error, of the printed one.
    wrong = {
        name: (found[name], value)
        for name, value in expected.items()
        if abs(found[name] - value) > 0.5001 * 10 ** (np.floor(np.log10(abs(value))) - 2)
    }
    assert len(expected) == n_values
    assert wrong == {}
