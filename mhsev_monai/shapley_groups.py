"""Names of the groups that features are attributed in: what a reader asks for, not the 73 entries that carry it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# The first rule that matches from the start of a name decides. Names of the feature table (``dsd.feature_table``), of
# the candidates' descriptors (``dsd.descriptors``, ``noise_inputs``), of radiomics and of pictures of candidates do not
# overlap but for has_trace and slice_spacing, which mean the same everywhere.
_RULES: tuple[tuple[str, str], ...] = (
    (r"band_(\d+)_", r"band \1"),
    (r"(has_trace|(?:b0_|trace_)?noise|snr|bands_acquired|brain_slices)$", "protocol"),
    (r"(in_plane_spacing|pixel_spacing|slice_spacing)$", "protocol"),
    (r"brain_volume$", "brain volume"),
    (r"window_", "window size"),
    (r"rank_", "rank"),
    (r"map_", "depth of the map"),
    (r"near_surface_count|middle_count|deep_count|search_edge|brain_edge|place_", "location"),
    (r"symmetry|symmetric|elongated|tall|sharpness", "shape of the spots"),
    (r"size_|volume_", "size of the spots"),
    (r"depth_over_(?:b0_)?noise|depth_\d", "depth of the spots"),
    (r"count_|soft_count|focal_count_|log_count_|spots_", "count of the spots"),
    (r"(dsd|cleared|spot)_depth|(fused|b0|trace)_(centre|least)(_over_noise)?$", "depth of the spots"),
    (r"(fused|dsd)_next_", "neighbouring slices"),
    (r"(fused|dsd)_curvature_|fused_line_", "shape of the spots"),
    (r"(fused|b0|trace)_ring_|fused_opening_|(fused|b0)_spread_|fluid_share|dark_share", "surroundings"),
    (r"nearest_peak|peaks_within", "other spots nearby"),
    (r".*_(firstorder|glcm|glrlm|glszm|gldm|ngtdm)_", r"\1"),
    (r"(.+)_\d+_\d+$", r"\1"),
    (r"(?:knows_)?(.+)$", r"\1"),
)


class FeatureGroups(NamedTuple):
    """Which feature belongs to which group.

    Attributes:
        names: of the groups, in the order in which the features first name them.
        group_of: for each feature the index of its group.
    """

    names: tuple[str, ...]
    group_of: tuple[int, ...]


def group_name(feature: str) -> str:
    """The group of one feature; a feature that no rule knows is a group by itself, its "is known" flag with it."""
    for pattern, name in _RULES:
        found = re.match(pattern, feature)
        if found:
            return found.expand(name)
    return feature


def feature_groups(feature_names: Sequence[str]) -> FeatureGroups:
    """Groups of the features with these names, which may be any model's."""
    each = [group_name(name) for name in feature_names]
    names = tuple(dict.fromkeys(each))
    return FeatureGroups(names, tuple(names.index(name) for name in each))
