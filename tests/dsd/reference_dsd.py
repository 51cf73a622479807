"""Dynamic spectral decomposition in plain loops and float64: the oracle. Slow, and meant to be read.

Written from the description of the method alone: complex FFT of each window, complex SVD, one window after the other.
The real-projection identity, half-plane spectra and batches of the engine do not occur here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter


class ReferenceResult(NamedTuple):
    map: np.ndarray
    rank: np.ndarray
    window_size: np.ndarray
    noise_scale: np.ndarray
    retained_energy: np.ndarray
    margin: np.ndarray
    """Least distance of a number from a rule's limit: K or a hard gain is ambiguous in float32 where it is tiny."""
    gap: np.ndarray
    """Last kept less first dropped eigenvalue, over their sum: rounding turns components by its inverse."""


def lower_median(values):
    ordered = np.sort(np.ravel(values))
    return ordered[(len(ordered) - 1) // 2]


def taper(size):
    side = [np.sin(np.pi * (n + 0.5) / size) for n in range(size)]
    return np.outer(side, side)


def window_at(image, size, x, y):
    """The window around corner (x, y) of a reflected image, voxel by voxel."""
    window = np.empty((size, size))
    for a in range(size):
        for b in range(size):
            window[a, b] = image[bounce(x - size // 2 + a, image.shape[0]), bounce(y - size // 2 + b, image.shape[1])]
    return window


def bounce(index, size):
    while size > 1 and not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index if size > 1 else 0


def in_noise_set(u, v, size, acquired):
    f_u, f_v = min(u, size - u) / size, min(v, size - v) / size
    own_partner = u in (0, size // 2) and v in (0, size // 2)
    radius = np.hypot(f_u, f_v)
    return not own_partner and radius >= 0.6 * acquired - 1e-9 and max(f_u, f_v) <= acquired + 1e-9


def noise_scale(power, acquired):
    size = len(power)
    chosen = []
    for u in range(size):
        for v in range(size):
            partner = ((-u) % size, (-v) % size)
            if in_noise_set(u, v, size, acquired) and (u, v) < partner:
                chosen.append(power[u, v])
    return lower_median(chosen) / np.log(2)


def gain_of(power, threshold, rule):
    if rule == "none":
        return 1.0
    if rule == "hard":
        return float(power > threshold)
    if power <= 0:
        return 0.0
    return max(0.0, 1 - threshold / power) if rule == "wiener" else max(0.0, 1 - np.sqrt(threshold / power))


def decompose_window(window, *, energy=0.95, kappa=3.0, gain="wiener", eigenvalues="squared", acquired=0.5, tie=1e-3):
    """One window of fractional contrast, tapered: (rebuilt, K, noise scale, retained energy, margin, gap)."""
    spectrum = np.fft.fft2(window, norm="ortho")
    power = np.abs(spectrum) ** 2
    # The FFT of a real window holds pairs that may differ in the last bit; both get the gain of their mean.
    power = (power + np.roll(power[::-1, ::-1], (1, 1), (0, 1))) / 2
    noise = noise_scale(power, acquired)
    kept = np.array([[gain_of(power[u, v], kappa * noise, gain) for v in range(len(power))] for u in range(len(power))])
    kept[0, 0] = 0
    before, after = power.sum(), (kept**2 * power).sum()
    fraction = after / max(before, 1e-30)
    if before <= 1e-12 * window.size or after <= 1e-6 * before:
        return np.zeros_like(window), 0, noise, fraction, abs(after / max(before, 1e-30) / 1e-6 - 1), 1.0
    left, singular, right = np.linalg.svd(kept * spectrum)
    values = singular**2 if eigenvalues == "squared" else singular
    cumulative = np.cumsum(values) / values.sum()
    rank = next(k for k in range(1, len(values) + 1) if cumulative[k - 1] > energy)
    margin = np.abs(cumulative - energy).min()
    if gain == "hard" and kappa > 0:
        margin = min(margin, np.abs(power / (kappa * noise) - 1).min())
    if tie:
        margin = min(margin, np.abs(singular / ((1 - tie) * singular[rank - 1]) - 1).min())
        rank = max(k for k in range(1, len(values) + 1) if singular[k - 1] >= (1 - tie) * singular[rank - 1])
    truncated = sum(singular[k] * np.outer(left[:, k], right[k]) for k in range(rank))
    squared = np.append(singular**2, 0.0) / (singular**2).sum()
    gap = squared[rank - 1] - squared[rank] if rank < len(singular) else 1.0
    return np.fft.ifft2(truncated, norm="ortho").real, rank, noise, fraction, margin, gap


def window_sizes(contrast, mask, spacing, base, stride, least_brain):
    anchors = (-(-contrast.shape[0] // stride) + 1, -(-contrast.shape[1] // stride) + 1, contrast.shape[2])
    smooth = gaussian_filter(contrast, (4 / spacing[0], 4 / spacing[1], 0), truncate=4, mode="mirror")
    texture = (contrast - smooth) ** 2
    energy, brain = np.zeros(anchors), np.zeros(anchors)
    for i, j, z in np.ndindex(*anchors):
        energy[i, j, z] = window_at(texture[:, :, z], base, i * stride, j * stride).mean()
        brain[i, j, z] = window_at(mask[:, :, z].astype(float), base, i * stride, j * stride).mean()
    median = lower_median(energy[brain >= 0.25 - 1e-9])
    sizes = np.full(anchors, base)
    sizes[energy < 0.6 * median] = min(32, 2 * base)
    sizes[energy >= 3 * median] = max(8, base // 2)
    if least_brain > 0:
        return np.where(brain >= least_brain - 1e-9, sizes, 0)
    touches = [
        window_at(mask[:, :, z].astype(float), sizes[i, j, z], i * stride, j * stride).any()
        for i, j, z in np.ndindex(*anchors)
    ]
    return np.where(np.reshape(touches, anchors), sizes, 0)


def reference_dsd(
    image, spacing, mask, base, *, dynamic=True, clip=1.0, stride_fraction=4, least_brain=0.25, **options
) -> ReferenceResult:
    """The whole algorithm for ``image (X, Y, Z)``; ``options`` go to :func:`decompose_window`."""
    image, mask = np.asarray(image, dtype=float), np.asarray(mask, dtype=bool)
    stride = base // stride_fraction
    level = lower_median(image[mask])
    contrast = np.where(mask, np.minimum(image / level, clip), 1.0)
    sizes = window_sizes(contrast, mask, spacing, base, stride, least_brain)
    if not dynamic:
        sizes = np.where(sizes > 0, base, 0)
    edge = 40
    shape = (image.shape[0] + 2 * edge, image.shape[1] + 2 * edge, image.shape[2])
    numerator, weight = np.zeros(shape), np.zeros(shape)
    rank, noise, retained = np.zeros(sizes.shape, int), np.zeros(sizes.shape), np.zeros(sizes.shape)
    margin, gap = np.ones(sizes.shape), np.ones(sizes.shape)
    for i, j, z in np.ndindex(*sizes.shape):
        size = sizes[i, j, z]
        if not size:
            continue
        window = window_at(contrast[:, :, z], size, i * stride, j * stride)
        w2 = taper(size)
        mean = (w2 * window).sum() / w2.sum()
        if mean <= 0.1:
            sizes[i, j, z] = 0
            continue
        part = decompose_window(w2 * (window - mean) / mean, **options)
        rebuilt, rank[i, j, z], noise[i, j, z], retained[i, j, z], margin[i, j, z], gap[i, j, z] = part
        x, y = edge + i * stride - size // 2, edge + j * stride - size // 2
        numerator[x : x + size, y : y + size, z] += w2 * rebuilt
        weight[x : x + size, y : y + size, z] += w2**2
    inner = (slice(edge, edge + image.shape[0]), slice(edge, edge + image.shape[1]))
    dsd_map = np.where(mask, numerator[inner] / np.maximum(weight[inner], 1e-9), 0)
    return ReferenceResult(dsd_map, rank, sizes, noise, retained, margin, gap)
