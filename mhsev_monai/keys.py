"""Names of the entries of mhsev's data dictionaries, on top of ``monai.utils.CommonKeys``."""

from __future__ import annotations


class SeverityKeys:
    """Entries that the transforms read and write; each image is channel first, ``(1, X, Y, Z)``."""

    IMAGE = "image"
    """Path of the diffusion series, or its volumes ``(N, X, Y, Z)`` once loaded."""
    B0 = "b0"
    """Mean of the volumes with b <= 50 s/mm^2."""
    TRACE = "trace"
    """Geometric mean of the diffusion-weighted shell; absent where the scan has only b0 volumes."""
    ADC = "adc"
    """Apparent diffusion coefficient, mm^2/s; absent where the scan has only b0 volumes."""
    FUSED = "fused"
    """Voxel-wise maximum of b0 and trace, each over its local level: only what is dark on both stays dark."""
    BRAIN_MASK = "brain_mask"
    """Tight brain mask, for statistics."""
    SEARCH_MASK = "search_mask"
    """Brain mask closed and widened so that lobar lesions stay inside."""
    DSD = "dsd"
    """Dynamic feature map; negative where the scan is darker than its surroundings."""
    CANDIDATES = "candidates"
    """Tuple of ``Candidate``."""
    FEATURES = "features"
    """Feature vector ``(n_features,)``."""
    DESCRIPTORS = "descriptors"
    """Descriptors of the candidates that the model scores, ``(K, n_descriptors)``."""
    CANDIDATE_VOXELS = "candidate_voxels"
    """Voxels of these candidates, ``(K, 3)``."""
