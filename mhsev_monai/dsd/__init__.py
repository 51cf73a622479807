"""Dynamic spectral decomposition: from an image to its feature map, candidates and feature vector."""

from mhsev_monai.dsd.array import DynamicSpectralDecomposition
from mhsev_monai.dsd.candidates import Candidate, find_candidates, laplacian_of_gaussian
from mhsev_monai.dsd.dictionary import (
    DSDFeaturesD,
    DSDFeaturesd,
    DSDFeaturesDict,
    DynamicSpectralDecompositionD,
    DynamicSpectralDecompositiond,
    DynamicSpectralDecompositionDict,
)
from mhsev_monai.dsd.features import FEATURE_NAMES, FEATURES, SCHEMA_VERSION, FeatureSpec, dsd_features
from mhsev_monai.dsd.functional import DSDResult, dsd_maps, dynamic_spectral_decomposition, rank_k_project
from mhsev_monai.dsd.parameters import DSDParameters
from mhsev_monai.dsd.rank import RankProjection, select_rank

__all__ = [
    "FEATURES",
    "FEATURE_NAMES",
    "SCHEMA_VERSION",
    "Candidate",
    "DSDFeaturesD",
    "DSDFeaturesDict",
    "DSDFeaturesd",
    "DSDParameters",
    "DSDResult",
    "DynamicSpectralDecomposition",
    "DynamicSpectralDecompositionD",
    "DynamicSpectralDecompositionDict",
    "DynamicSpectralDecompositiond",
    "FeatureSpec",
    "RankProjection",
    "dsd_features",
    "dsd_maps",
    "dynamic_spectral_decomposition",
    "find_candidates",
    "laplacian_of_gaussian",
    "rank_k_project",
    "select_rank",
]
