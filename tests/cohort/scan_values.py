"""Values of a scan that must not tell how many bleeds are in it, for the tests of leaks."""

from __future__ import annotations

import gzip

import numpy as np


def high_pass_noise(volume):
    """Mean size of diagonal second differences in the plane, as a standard deviation."""
    difference = volume[:-1, :-1] - volume[1:, :-1] - volume[:-1, 1:] + volume[1:, 1:]
    return np.sqrt(np.pi / 2) * np.abs(difference).mean() / 2


def border(image):
    """The outermost four voxels of each slice: air at every hospital."""
    edge = np.ones(image.shape[:2], dtype=bool)
    edge[4:-4, 4:-4] = False
    return image[edge]


def compressed(images):
    return len(gzip.compress(np.ascontiguousarray(images).tobytes(), compresslevel=1, mtime=0))


def background_values(images):
    b0, weighted = border(images[..., 0]).astype(float), border(images[..., 1]).astype(float)
    return [f(values) for values in (b0, weighted) for f in (np.mean, np.std, np.max, np.median)]


def noise_values(images):
    volumes = np.moveaxis(images.astype(float), -1, 0)
    level = np.percentile(volumes[0], 90)
    inside = np.s_[20:-20, 20:-20, 8:-8]
    within_air = [high_pass_noise(volume[:6]) for volume in volumes]
    within_head = [high_pass_noise(volume[inside]) / level for volume in volumes]
    between = (volumes[1] - volumes[2])[inside].std() / level
    return [*within_air, *within_head, between]


def mask_values(images, affine):
    b0 = images[..., 0]
    return [(b0 > 0.3 * np.percentile(b0, 95)).sum() * abs(np.linalg.det(affine[:3, :3])), *affine[:3].ravel()]


def header_values(subject):
    return [*subject.affine[:3].ravel(), subject.te_ms, subject.tr_ms, *subject.images.shape, *subject.b_values]


def file_values(images):
    return [compressed(images), compressed(images[..., 0])]
