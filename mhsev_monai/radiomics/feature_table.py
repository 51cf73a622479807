"""The one table of the radiomics features: name, family, unit, what each is, and where it is defined.

Names are those of pyradiomics (van Griethuysen et al. 2017) in snake case behind their family. Sources with a code of
four characters are definitions of the Image Biomarker Standardisation Initiative (Zwanenburg et al. 2020).
"""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_VERSION = "1"
"""Changes whenever a name, its place or its meaning does."""


class RadiomicsSpec(NamedTuple):
    """What one feature is."""

    name: str
    family: str
    unit: str
    definition: str
    source: str

    @property
    def short_name(self) -> str:
        """The name without its family."""
        return self.name.removeprefix(f"{self.family}_")


def _family(family: str, rows: tuple[tuple[str, str, str, str], ...]) -> list[RadiomicsSpec]:
    return [
        RadiomicsSpec(f"{family}_{name}", family, unit, definition, f"IBSI {code}" if code else "pyradiomics")
        for name, unit, definition, code in rows
    ]


_FIRST_ORDER = (
    ("energy", "intensity^2", "sum of squared intensities", "N8CA"),
    ("total_energy", "intensity^2 mm^3", "energy times the volume of a voxel", ""),
    ("entropy", "bits", "entropy of the grey levels", "TLU2"),
    ("minimum", "intensity", "least intensity", "1GSF"),
    ("10_percentile", "intensity", "10th percentile", "QG58"),
    ("90_percentile", "intensity", "90th percentile", "8DWT"),
    ("maximum", "intensity", "greatest intensity", "84IY"),
    ("mean", "intensity", "mean intensity", "Q4LE"),
    ("median", "intensity", "median intensity", "Y12H"),
    ("interquartile_range", "intensity", "75th less 25th percentile", "SALO"),
    ("range", "intensity", "greatest less least intensity", "2OJQ"),
    ("mean_absolute_deviation", "intensity", "mean distance to the mean", "4FUA"),
    ("robust_mean_absolute_deviation", "intensity", "the same between 10th and 90th percentile", "1128"),
    ("root_mean_squared", "intensity", "root of the mean squared intensity", "5ZWQ"),
    ("skewness", "1", "third standardised moment", "KE2A"),
    ("kurtosis", "1", "fourth standardised moment, 3 more than IBSI's excess", "IPH6"),
    ("variance", "intensity^2", "mean squared distance to the mean", "ECT3"),
    ("uniformity", "fraction", "sum of the squared shares of the grey levels", "BJ5W"),
)

_GLCM = (
    ("autocorrelation", "level^2", "mean product of the levels of a pair", "QWB0"),
    ("joint_average", "level", "mean level over pairs", "60VM"),
    ("cluster_prominence", "level^4", "4th moment of the pair's sum about its mean", "AE86"),
    ("cluster_shade", "level^3", "3rd moment of the pair's sum about its mean", "7NFM"),
    ("cluster_tendency", "level^2", "variance of the pair's sum", "DG8W"),
    ("contrast", "level^2", "mean squared difference of a pair", "ACUI"),
    ("correlation", "1", "correlation of the levels of a pair; 1 where there is one level", "NI2N"),
    ("difference_average", "level", "mean absolute difference of a pair", "TF7R"),
    ("difference_entropy", "bits", "entropy of the absolute difference", "NTRS"),
    ("difference_variance", "level^2", "variance of the absolute difference", "D3YU"),
    ("joint_energy", "fraction", "sum of squared shares of pairs", "8ZQL"),
    ("joint_entropy", "bits", "entropy of the pairs", "TU9B"),
    ("imc1", "1", "information of the pair over the entropy of a level, negative", "R8DG"),
    ("imc2", "1", "root of 1 - exp(-2 information of the pair)", "JN9H"),
    ("idm", "1", "mean of 1 / (1 + difference^2)", "WF0Z"),
    ("mcc", "1", "maximal correlation coefficient (Haralick et al. 1973)", ""),
    ("idmn", "1", "the inverse difference moment with the difference over the number of levels", "1QCO"),
    ("id", "1", "mean of 1 / (1 + |difference|)", "IB1Z"),
    ("idn", "1", "the inverse difference with the difference over the number of levels", "NDRX"),
    ("inverse_variance", "1", "mean of 1 / difference^2, with 0 for equal levels", "E8JP"),
    ("maximum_probability", "fraction", "share of the commonest pair", "GYBY"),
    ("sum_average", "level", "mean sum of a pair", "ZGXS"),
    ("sum_entropy", "bits", "entropy of the sum", "P6QZ"),
    ("sum_squares", "level^2", "variance of the levels over pairs", "UR99"),
)

_GLRLM = (
    ("short_run_emphasis", "1", "mean of 1 / length^2", "22OV"),
    ("long_run_emphasis", "voxel^2", "mean of length^2", "W4KF"),
    ("gray_level_non_uniformity", "count", "sum over levels of runs^2, over all runs", "R5YN"),
    ("gray_level_non_uniformity_normalized", "fraction", "sum of the squared shares of the levels", "OVBL"),
    ("run_length_non_uniformity", "count", "sum over lengths of runs^2, over all runs", "W92Y"),
    ("run_length_non_uniformity_normalized", "fraction", "sum of the squared shares of the lengths", "IC23"),
    ("run_percentage", "1", "runs over voxels", "9ZK5"),
    ("gray_level_variance", "level^2", "variance of the level over runs", "8CE5"),
    ("run_variance", "voxel^2", "variance of the length", "SXLW"),
    ("run_entropy", "bits", "entropy of level and length", "HJ9O"),
    ("low_gray_level_run_emphasis", "1/level^2", "mean of 1 / level^2", "V3SW"),
    ("high_gray_level_run_emphasis", "level^2", "mean of level^2", "G3QZ"),
    ("short_run_low_gray_level_emphasis", "1/level^2", "mean of 1 / (level length)^2", "HTZT"),
    ("short_run_high_gray_level_emphasis", "level^2", "mean of (level / length)^2", "GD3A"),
    ("long_run_low_gray_level_emphasis", "voxel^2/level^2", "mean of (length / level)^2", "IVPO"),
    ("long_run_high_gray_level_emphasis", "level^2 voxel^2", "mean of (level length)^2", "3KUM"),
)

_GLSZM = (
    ("small_area_emphasis", "1", "mean of 1 / size^2", "P001"),
    ("large_area_emphasis", "voxel^2", "mean of size^2", "48P8"),
    ("gray_level_non_uniformity", "count", "sum over levels of zones^2, over all zones", "JNSA"),
    ("gray_level_non_uniformity_normalized", "fraction", "sum of the squared shares of the levels", "Y1RO"),
    ("size_zone_non_uniformity", "count", "sum over sizes of zones^2, over all zones", "4JP3"),
    ("size_zone_non_uniformity_normalized", "fraction", "sum of the squared shares of the sizes", "VB3A"),
    ("zone_percentage", "1", "zones over voxels", "P30P"),
    ("gray_level_variance", "level^2", "variance of the level over zones", "BYLV"),
    ("zone_variance", "voxel^2", "variance of the size", "3NSA"),
    ("zone_entropy", "bits", "entropy of level and size", "GU8N"),
    ("low_gray_level_zone_emphasis", "1/level^2", "mean of 1 / level^2", "XMSY"),
    ("high_gray_level_zone_emphasis", "level^2", "mean of level^2", "5GN9"),
    ("small_area_low_gray_level_emphasis", "1/level^2", "mean of 1 / (level size)^2", "5RAI"),
    ("small_area_high_gray_level_emphasis", "level^2", "mean of (level / size)^2", "HW1V"),
    ("large_area_low_gray_level_emphasis", "voxel^2/level^2", "mean of (size / level)^2", "YH51"),
    ("large_area_high_gray_level_emphasis", "level^2 voxel^2", "mean of (level size)^2", "J17V"),
)

_GLDM = (
    ("small_dependence_emphasis", "1", "mean over voxels of 1 / dependence^2", "SODN"),
    ("large_dependence_emphasis", "voxel^2", "mean of dependence^2", "IMOQ"),
    ("gray_level_non_uniformity", "count", "sum over levels of voxels^2, over all voxels", "FP8K"),
    ("dependence_non_uniformity", "count", "sum over dependences of voxels^2, over all voxels", "Z87G"),
    ("dependence_non_uniformity_normalized", "fraction", "sum of the squared shares of the dependences", "OKJI"),
    ("gray_level_variance", "level^2", "variance of the level over voxels", "1PFV"),
    ("dependence_variance", "voxel^2", "variance of the dependence", "DNX2"),
    ("dependence_entropy", "bits", "entropy of level and dependence", "FCBV"),
    ("low_gray_level_emphasis", "1/level^2", "mean of 1 / level^2", "TL9H"),
    ("high_gray_level_emphasis", "level^2", "mean of level^2", "OAE7"),
    ("small_dependence_low_gray_level_emphasis", "1/level^2", "mean of 1 / (level dependence)^2", "EQ3F"),
    ("small_dependence_high_gray_level_emphasis", "level^2", "mean of (level / dependence)^2", "JA6D"),
    ("large_dependence_low_gray_level_emphasis", "voxel^2/level^2", "mean of (dependence / level)^2", "NBZI"),
    ("large_dependence_high_gray_level_emphasis", "level^2 voxel^2", "mean of (level dependence)^2", "9QMG"),
)

_NGTDM = (
    ("coarseness", "1/level", "inverse of the mean difference to the neighbourhood, weighted by shares", "QCDE"),
    ("contrast", "level^3", "spread of the levels times the mean difference to the neighbourhood", "65HE"),
    ("busyness", "1", "mean difference to the neighbourhood over the spread of the weighted levels", "NQ30"),
    ("complexity", "level^2", "differences to the neighbourhood weighted by the distance of two levels", "HDEZ"),
    ("strength", "level", "squared distance of two levels over the differences to the neighbourhood", "1X9X"),
)

FEATURES: tuple[RadiomicsSpec, ...] = (
    *_family("firstorder", _FIRST_ORDER),
    *_family("glcm", _GLCM),
    *_family("glrlm", _GLRLM),
    *_family("glszm", _GLSZM),
    *_family("gldm", _GLDM),
    *_family("ngtdm", _NGTDM),
)
"""The 93 features, in their order. "Level" and "voxel" stand in the units for numbers of steps, not for mm."""

FEATURE_NAMES: tuple[str, ...] = tuple(spec.name for spec in FEATURES)
FIRST_ORDER_NAMES: tuple[str, ...] = tuple(spec.name for spec in FEATURES if spec.family == "firstorder")
