"""Shapes in millimetres on voxel grids: balls, erosion, dilation, components, holes, median, Otsu's threshold.

Masks make a round trip over the host: distances, labels and holes come from ``scipy.ndimage`` (one byte a voxel, cheap
beside the images), and results do not depend on the device. Space outside the grid counts as unknown: erosion does not
eat a mask from the face of the field of view where the scan cuts the head, and dilation grows nothing out of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

BoolArray = NDArray[np.bool_]


def ball(radius: float, spacing: Sequence[float]) -> Tensor:
    """A ball as a structuring element: True where a voxel's centre lies within ``radius`` mm of the middle voxel's.

    Args:
        radius: in mm, 0 or more.
        spacing: mm along each axis.

    Returns:
        Boolean, odd number of voxels along each axis.
    """
    axes = [torch.arange(-int(radius / s + 1e-6), int(radius / s + 1e-6) + 1) * float(s) for s in spacing]
    squares = torch.stack([grid**2 for grid in torch.meshgrid(*axes, indexing="ij")]).sum(0)
    return squares <= radius**2 + 1e-6


def dilate(mask: Tensor, radius: float, spacing: Sequence[float]) -> Tensor:
    """Mask of the voxels within ``radius`` mm of the mask."""
    return _on_host(mask, lambda array: _dilate(array, radius, spacing))


def erode(mask: Tensor, radius: float, spacing: Sequence[float]) -> Tensor:
    """Mask of the voxels farther than ``radius`` mm from every voxel outside the mask."""
    return _on_host(mask, lambda array: ~_dilate(~array, radius, spacing))


def close(mask: Tensor, radius: float, spacing: Sequence[float]) -> Tensor:
    """Mask with bays and gaps filled that a ball of ``radius`` mm cannot enter from outside.

    The dilated mask may leave the grid and come back, so a mask at a face of the grid is closed as in open space.
    """
    width = [int(radius / s) + 1 for s in spacing]

    def closed(array: BoolArray) -> BoolArray:
        wide = _dilate(np.pad(array, [(w, w) for w in width]), radius, spacing)
        inner = tuple(slice(w, w + n) for w, n in zip(width, array.shape, strict=True))
        return ~_dilate(~wide, radius, spacing)[inner]

    return _on_host(mask, closed)


def label_components(mask: Tensor) -> tuple[Tensor, list[int]]:
    """Components that touch by faces: labels from 1 (0 outside), and the voxels of each.

    Returns:
        ``(labels, sizes)``: int64 labels of the mask's shape; ``sizes[i]`` belongs to label ``i + 1``.
    """
    labels, n_components = ndimage.label(mask.cpu().numpy() > 0)
    sizes = np.bincount(labels.ravel(), minlength=n_components + 1)[1:]
    return torch.from_numpy(labels.astype(np.int64)).to(mask.device), [int(size) for size in sizes]


def largest_component(mask: Tensor) -> Tensor:
    """The component with the most voxels, the first in storage order among equals; an empty mask stays empty."""
    labels, sizes = label_components(mask)
    return labels == 1 + sizes.index(max(sizes)) if sizes else mask > 0


def fill_holes(mask: Tensor) -> Tensor:
    """Mask and every region that it encloses."""
    return _on_host(mask, ndimage.binary_fill_holes)


def fill_holes_by_slice(mask: Tensor) -> Tensor:
    """Mask and every region that it encloses within a slice; slices lie along the last axis."""
    in_plane = ndimage.generate_binary_structure(mask.ndim, 1)
    in_plane[..., 0] = in_plane[..., 2] = False
    return _on_host(mask, lambda array: ndimage.binary_fill_holes(array, structure=in_plane))


def spread(seed: Tensor, through: Tensor) -> Tensor:
    """The seed and every voxel of ``through`` that a path over faces joins to it."""
    return _on_host(seed, lambda array: ndimage.binary_propagation(array, mask=array | (through.cpu().numpy() > 0)))


def median_filter(image: Tensor, radius: Sequence[int], max_elements: int = 16_000_000) -> Tensor:
    """Median over a box of ``2 * radius + 1`` voxels; edges are mirrored, as in ``scipy.ndimage``'s ``reflect``.

    Args:
        image: ``(X, Y, Z)``.
        radius: voxels along each axis, cut to the axis where that is shorter.
        max_elements: how many neighbours are held at once; the image is worked off in slabs.
    """
    radius = [min(r, n) for r, n in zip(radius, image.shape, strict=True)]
    padded = image
    for axis, (r, n) in enumerate(zip(radius, image.shape, strict=True)):
        first, last = padded.narrow(axis, 0, r).flip(axis), padded.narrow(axis, n - r, r).flip(axis)
        padded = torch.cat([first, padded, last], axis)
    sizes = [2 * r + 1 for r in radius]
    n_neighbours = int(np.prod(sizes))
    step = max(1, max_elements // (n_neighbours * max(1, image[0].numel())))
    slabs = []
    for start in range(0, image.shape[0], step):
        stop = min(image.shape[0], start + step)
        windows = padded[start : stop + 2 * radius[0]]
        for axis, size in enumerate(sizes):
            windows = windows.unfold(axis, size, 1)
        neighbours = windows.reshape(stop - start, *image.shape[1:], n_neighbours)
        # A sort, because torch.median has no deterministic form on CUDA.
        slabs.append(neighbours.sort(-1).values[..., n_neighbours // 2])
    return torch.cat(slabs, 0)


def otsu_threshold(values: Tensor, n_bins: int = 256) -> float:
    """Threshold that maximises the variance between the two classes it makes (Otsu, IEEE TSMC 9:62, 1979).

    Args:
        values: any shape, finite.
        n_bins: histogram bins between the lowest and the highest value.

    Returns:
        The upper edge of the last bin of the darker class; the value itself where all are equal.

    Raises:
        ValueError: if ``values`` is empty.
    """
    if values.numel() == 0:
        raise ValueError("Otsu's threshold needs at least one value, got none")
    values = values.flatten().double()
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return low
    width = (high - low) / n_bins
    # Integer counts of at most a few hundred bins: order of summation cannot matter, on any device.
    bins = ((values - low) / width).long().clamp(0, n_bins - 1)
    counts = np.bincount(bins.cpu().numpy(), minlength=n_bins).astype(np.float64)
    centres = low + (np.arange(n_bins) + 0.5) * width
    below, moment = np.cumsum(counts)[:-1], np.cumsum(counts * centres)[:-1]
    above, rest = counts.sum() - below, (counts * centres).sum() - moment
    between = below * above * (moment / below - rest / above) ** 2
    return low + (int(np.argmax(between)) + 1) * width


def touched_faces(mask: Tensor) -> tuple[str, ...]:
    """Faces of the grid that the mask reaches: ``"first x"``, ``"last z"`` and so on, along the storage axes."""
    names = []
    for axis, end in itertools.product(range(mask.ndim), ("first", "last")):
        if mask.shape[axis] and bool((mask.select(axis, 0 if end == "first" else -1) > 0).any()):
            names.append(f"{end} {'xyz'[axis]}")
    return tuple(names)


def _on_host(mask: Tensor, operation: Callable[[BoolArray], BoolArray]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(operation(mask.cpu().numpy() > 0))).to(mask.device)


def _dilate(array: BoolArray, radius: float, spacing: Sequence[float]) -> BoolArray:
    """Dilation as a distance: its cost does not grow with the radius."""
    if radius <= 0 or not array.any():
        return array.copy()
    # Distances are needed near the mask only; far from it lies most of a head scan.
    box = []
    for axis, s in enumerate(spacing):
        hit = np.flatnonzero(array.any(axis=tuple(other for other in range(array.ndim) if other != axis)))
        reach = int(radius / s) + 1
        box.append(slice(max(0, int(hit[0]) - reach), int(hit[-1]) + reach + 1))
    grown = array.copy()
    distance = ndimage.distance_transform_edt(~array[tuple(box)], sampling=[float(s) for s in spacing])
    grown[tuple(box)] = distance <= radius + 1e-6
    return grown
