"""Texture matrices by plain loops over voxels, from the definitions: slow, and written apart from the package."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.intp]
Voxel = tuple[int, ...]

NEIGHBOURS = [d for d in itertools.product((-1, 0, 1), repeat=3) if d != (0, 0, 0)]
HALF = [d for d in NEIGHBOURS if d > (0, 0, 0)]


def voxels(levels: Levels) -> Iterator[Voxel]:
    """Indices of the voxels in the region, whose level is not 0."""
    return (index for index in np.ndindex(levels.shape) if levels[index])


def level_at(levels: Levels, voxel: Voxel) -> int:
    """The level of a voxel; 0 outside the volume."""
    inside = all(0 <= k < n for k, n in zip(voxel, levels.shape, strict=True))
    return int(levels[voxel]) if inside else 0


def moved(voxel: Voxel, direction: Voxel, steps: int = 1) -> Voxel:
    """The voxel some steps away."""
    return tuple(k + steps * d for k, d in zip(voxel, direction, strict=True))


def pairs(levels: Levels, direction: Voxel) -> Counter[tuple[int, int]]:
    """Ordered pairs of levels at distance 1 in a direction and in its opposite."""
    found: Counter[tuple[int, int]] = Counter()
    for voxel in voxels(levels):
        for way in (1, -1):
            if other := level_at(levels, moved(voxel, direction, way)):
                found[int(levels[voxel]), other] += 1
    return found


def runs(levels: Levels, direction: Voxel) -> Counter[tuple[int, int]]:
    """Runs by level and length."""
    found: Counter[tuple[int, int]] = Counter()
    for voxel in voxels(levels):
        level = int(levels[voxel])
        if level_at(levels, moved(voxel, direction, -1)) != level:
            length = 1
            while level_at(levels, moved(voxel, direction, length)) == level:
                length += 1
            found[level, length] += 1
    return found


def zones(levels: Levels) -> Counter[tuple[int, int]]:
    """Zones by level and size, by flooding."""
    found: Counter[tuple[int, int]] = Counter()
    seen: set[Voxel] = set()
    for seed in voxels(levels):
        if seed in seen:
            continue
        level, front, size = int(levels[seed]), [seed], 0
        seen.add(seed)
        while front:
            voxel, size = front.pop(), size + 1
            near = {moved(voxel, d) for d in NEIGHBOURS} - seen
            fresh = [n for n in near if level_at(levels, n) == level]
            seen.update(fresh)
            front.extend(fresh)
        found[level, size] += 1
    return found


def dependences(levels: Levels) -> Counter[tuple[int, int]]:
    """Voxels by level and dependence."""
    return Counter(
        (int(levels[v]), 1 + sum(level_at(levels, moved(v, d)) == levels[v] for d in NEIGHBOURS))
        for v in voxels(levels)
    )


def differences(levels: Levels) -> dict[int, tuple[int, float]]:
    """Voxels with neighbours, and the sum of their differences to the mean neighbour, by level."""
    found: dict[int, tuple[int, float]] = {}
    for voxel in voxels(levels):
        near = [n for d in NEIGHBOURS if (n := level_at(levels, moved(voxel, d)))]
        if near:
            count, total = found.get(int(levels[voxel]), (0, 0.0))
            found[int(levels[voxel])] = (count + 1, total + abs(int(levels[voxel]) - sum(near) / len(near)))
    return found
