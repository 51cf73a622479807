"""Groups of features: every feature of every model has one, by its name."""

from __future__ import annotations

import pytest

from mhsev_monai.clinical_inputs import ClinicalInputs
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.dsd.features import FEATURE_NAMES
from mhsev_monai.noise_inputs import ContrastNoiseInputs
from mhsev_monai.radiomics.inputs import RadiomicsInputs
from mhsev_monai.radiomics.spot_inputs import SpotRadiomicsInputs
from mhsev_monai.shapley_groups import feature_groups, group_name

SPOTS = ("count of the spots", "size of the spots", "depth of the spots", "shape of the spots")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            FEATURE_NAMES,
            {*SPOTS, *(f"band {n}" for n in range(1, 6)), "protocol", "rank", "window size", "depth of the map"}
            | {"location", "brain volume"},
        ),
        (
            DESCRIPTORS,
            {"depth of the spots", "shape of the spots", "surroundings", "neighbouring slices", "location"}
            | {"other spots nearby", "protocol"},
        ),
        (
            ContrastNoiseInputs().feature_names,
            {"depth of the spots", "shape of the spots", "surroundings", "neighbouring slices", "location"}
            | {"other spots nearby", "protocol"},
        ),
        (
            RadiomicsInputs().feature_names,
            {"firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm", "protocol"},
        ),
        (ClinicalInputs().feature_names, set(ClinicalInputs().columns)),
    ],
    ids=["features", "descriptors", "noise", "radiomics", "clinical"],
)
def test_all_features_fall_in_the_groups_that_readers_know(names, expected):
    groups = feature_groups(names)
    assert set(groups.names) == expected
    assert len(groups.group_of) == len(names)
    assert [groups.names[index] for index in groups.group_of] == [group_name(name) for name in names]


@pytest.mark.parametrize(
    ("feature", "group"),
    [
        ("band_3_p95", "band 3"),
        ("bands_acquired", "protocol"),
        ("depth_08", "depth of the spots"),
        ("depth_over_noise", "depth of the spots"),
        ("noise", "protocol"),
        ("b0_noise", "protocol"),
        ("trace_noise", "protocol"),
        ("depth_over_b0_noise", "depth of the spots"),
        ("dsd_depth_over_b0_noise", "depth of the spots"),
        ("trace_least_over_noise", "depth of the spots"),
        ("deep_count", "location"),
        ("log_count_12", "count of the spots"),
        ("volume_12", "size of the spots"),
        ("brain_volume", "brain volume"),
        ("fused_line_3mm", "shape of the spots"),
        ("dsd_next_lower_3mm", "neighbouring slices"),
        ("trace_log_3mm_glcm_contrast", "glcm"),
        ("fused_4_11", "fused"),
        ("knows_prior_stroke", "prior_stroke"),
    ],
)
def test_names_that_look_alike_are_told_apart(feature, group):
    assert group_name(feature) == group


def test_groups_of_the_spots_radiomics_do_not_grow_with_its_features():
    assert set(feature_groups(SpotRadiomicsInputs().feature_names).names) <= {
        *("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm", "protocol", "count of the spots")
    }
