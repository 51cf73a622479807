"""Radiomics: intensity and texture features of a region, the classical baseline beside the decomposition."""

from mhsev_monai.radiomics.array import RadiomicsFeatures
from mhsev_monai.radiomics.dictionary import RadiomicsFeaturesD, RadiomicsFeaturesd, RadiomicsFeaturesDict
from mhsev_monai.radiomics.feature_table import FEATURE_NAMES, FEATURES, SCHEMA_VERSION, RadiomicsSpec
from mhsev_monai.radiomics.functional import feature_names, laplacian_of_gaussian_3d, radiomics_features
from mhsev_monai.radiomics.parameters import RadiomicsParameters

__all__ = [
    "FEATURES",
    "FEATURE_NAMES",
    "SCHEMA_VERSION",
    "RadiomicsFeatures",
    "RadiomicsFeaturesD",
    "RadiomicsFeaturesDict",
    "RadiomicsFeaturesd",
    "RadiomicsParameters",
    "RadiomicsSpec",
    "feature_names",
    "laplacian_of_gaussian_3d",
    "radiomics_features",
]
