"""Somebody else's MONAI segmentation pipeline, and the two lines that give its network the DSD map as a second channel.

``python docs/examples/segmentation_with_dsd.py --steps 40`` trains a small U-Net on made-up volumes with dark spots,
with and without the map, and prints the loss. It shows how the transform is put in, not that it helps: for that see the
benchmarks of the project.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureTyped,
    NormalizeIntensityd,
    RandCropByPosNegLabeld,
    RandFlipd,
)
from monai.utils import set_determinism

from mhsev_monai import DynamicSpectralDecompositiond

SPACING = (1.75, 1.75, 2.5)


def volume_with_spots(seed: int) -> dict[str, MetaTensor]:
    """A smooth head of 64 x 64 x 16 voxels with noise and four dark spots, and the spots' mask."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(n) * step for n, step in zip((64, 64, 16), SPACING, strict=True)), indexing="ij")
    image = 200 * (1 + 0.05 * np.sin(x / 9 + seed) * np.cos(y / 11) + 0.03 * rng.standard_normal(x.shape))
    label = np.zeros(x.shape)
    for centre in rng.uniform((30, 30, 10), (80, 80, 30), (4, 3)):
        distance = sum((axis - c) ** 2 for axis, c in zip((x, y, z), centre, strict=True))
        image *= 1 - 0.6 * np.exp(-distance / (2 * 2.0**2))
        label[distance < 3.0**2] = 1
    affine = np.diag([*SPACING, 1.0])
    return {
        "image": MetaTensor(image[None].astype(np.float32), affine=affine),
        "label": MetaTensor(label[None].astype(np.float32), affine=affine),
    }


def pipeline(with_dsd: bool) -> Compose:
    """The usual steps of a patch-wise segmentation; those marked are all that the map needs."""
    steps = [EnsureTyped(keys=["image", "label"])]
    if with_dsd:
        # From the intensities, before they become standard scores: the map is a fraction of the local signal.
        steps.append(DynamicSpectralDecompositiond(keys="image"))  # line one: adds "image_dsd"
    steps.append(NormalizeIntensityd(keys="image"))
    if with_dsd:
        steps.append(ConcatItemsd(keys=["image", "image_dsd"], name="image"))  # line two: a second channel
    steps += [
        RandCropByPosNegLabeld(keys=["image", "label"], label_key="label", spatial_size=(32, 32, 16), num_samples=2),
        RandFlipd(keys=["image", "label"], prob=0.5, spatial_axis=0),
    ]
    return Compose(steps)


def train(with_dsd: bool, n_steps: int) -> list[float]:
    """The loss of each step."""
    set_determinism(0)
    data = CacheDataset([volume_with_spots(seed) for seed in range(4)], pipeline(with_dsd), progress=False)
    loader = DataLoader(data, batch_size=2, shuffle=True)
    network = UNet(spatial_dims=3, in_channels=2 if with_dsd else 1, out_channels=1, channels=(8, 16), strides=(2,))
    loss_function = DiceCELoss(sigmoid=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses: list[float] = []
    while len(losses) < n_steps:
        for batch in loader:
            optimiser.zero_grad()
            loss = loss_function(network(batch["image"].as_tensor()), batch["label"].as_tensor())
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses[:n_steps]


def main() -> None:
    """Train twice and print the mean loss of the first and the last five steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of each training (default 40)")
    options = parser.parse_args()
    for with_dsd in (False, True):
        losses = train(with_dsd, options.steps)
        name = "image and DSD map" if with_dsd else "image alone"
        print(f"{name:<20}loss {np.mean(losses[:5]):.3f} -> {np.mean(losses[-5:]):.3f}")


if __name__ == "__main__":
    main()
