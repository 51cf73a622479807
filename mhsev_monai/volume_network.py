"""The baseline without DSD: a 3-D convolutional network of MONAI over b0 and trace of the whole brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import monai.networks.nets
import monai.transforms
import torch
from monai.networks.layers.utils import get_norm_layer
from monai.transforms import Compose, Transform
from torch import Tensor, nn

from mhsev_monai.volume_scale import even_scale, on_standard_scale

BACKBONES = ("resnet10", "resnet18", "resnet34", "densenet121", "densenet169")
"""Networks of ``monai.networks.nets`` that a configuration may name."""
AUGMENTATIONS = (
    "RandFlip",
    "RandAffine",
    "RandScaleIntensity",
    "RandShiftIntensity",
    "RandGaussianNoise",
    "RandGaussianSmooth",
    "RandAdjustContrast",
    "RandBiasField",
)
"""Transforms of ``monai.transforms`` that a configuration may name."""
_TARGET = "_target_"


class SeverityCNN3d(nn.Module):
    """A 3-D network of MONAI from a volume to an ordinal grade and a count, with the head of ``SeverityMLP``.

    Channels are standardised by ``feature_mean`` and ``feature_scale``, over the brain's voxels of the federation, or
    with ``nyul`` by ``standard_scale``, the mean of the landmarks of the federation's cases (Nyul, Udupa and Zhang,
    IEEE TMI 19:143, 2000); what lies outside the brain becomes 0. ``class_weights`` weigh the ordinal loss.
    Configurations are JSON values; they may name what ``BACKBONES`` and ``AUGMENTATIONS`` list, since a job or a model
    file may come from elsewhere.

    Args:
        in_features: channels.
        backbone: ``{"_target_": ..., ...}`` as in MONAI's configuration files, a function of ``monai.networks.nets``
            with its further arguments; numbers of dimensions, channels and outputs are added. Use a normalisation
            without running statistics: those of sites with different scanners do not average (Li et al., FedBN, ICLR
            2021).
        augmentation: in this order, in training only: ``{"_target_": ..., ...}``, array transforms of MONAI.
        num_classes: number of grades.
        seed: of the initial weights; equal arguments give equal weights.
        nyul: map each case's intensities to the federation's standard scale, piecewise linearly.

    Raises:
        ValueError: if a name is not on its list, MONAI does not take the arguments, or the network has running
            statistics.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    class_weights: Tensor
    standard_scale: Tensor

    # Model files from before it was there do not hold it; a job is to say it whatever the default will be.
    _always_serialize_args = ("nyul",)

    def __init__(
        self,
        in_features: int,
        backbone: Mapping[str, Any],
        augmentation: Sequence[Mapping[str, Any]],
        num_classes: int,
        seed: int,
        nyul: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.backbone = dict(backbone)
        self.augmentation = [dict(entry) for entry in augmentation]
        self.num_classes = num_classes
        self.seed = seed
        self.nyul = nyul
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = _make_backbone(self.backbone, in_features, num_classes)
        # With channels last, a step of a ResNet-10 takes two thirds of the time on a CPU.
        self.layers.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs lack it
        self._augment = _make_augmentation(self.augmentation)
        self.register_buffer("feature_mean", torch.zeros(in_features))
        self.register_buffer("feature_scale", torch.ones(in_features))
        self.register_buffer("class_weights", torch.ones(num_classes))
        if nyul:
            self.register_buffer("standard_scale", even_scale(in_features))

    def forward(self, features: Tensor) -> Tensor:
        """Logits and log count in one tensor, see ``networks.split_output``.

        Args:
            features: ``(n, X, Y, Z, in_features)``, NaN outside the brain, float16 or float32. In training each case
                is augmented, by draws from torch's generator.

        Returns:
            ``(n, num_classes)``: ``num_classes - 1`` ordinal logits, then log(1 + count).
        """
        volumes = self._standardised(features.float()).nan_to_num(nan=0.0).movedim(-1, 1)
        if self.training and self.augmentation:
            volumes = self._augmented(volumes)
        outputs: Tensor = self.layers(volumes.contiguous(memory_format=torch.channels_last_3d))
        return outputs

    def _standardised(self, features: Tensor) -> Tensor:
        if self.nyul:
            return on_standard_scale(features, self.standard_scale)
        return (features - self.feature_mean) / self.feature_scale

    def _augmented(self, volumes: Tensor) -> Tensor:
        cases = []
        for volume in volumes:
            # MONAI's transforms have generators of their own; a seed from torch's makes equal seeds equal trainings.
            self._augment.set_random_state(seed=int(torch.randint(2**31, ())))
            cases.append(torch.as_tensor(self._augment(volume), dtype=volume.dtype, device=volume.device))
        return torch.stack(cases)


def place_network(network: nn.Module) -> nn.Module:
    """Move a network over volumes to CUDA, in place, where there is one; perceptrons are fastest where they are."""
    wanted = isinstance(network, SeverityCNN3d) and torch.cuda.is_available()
    return network.to("cuda") if wanted else network


def nyul_channels(network: nn.Module) -> int:
    """How many channels' landmarks a network wants to know of the federation; 0: none."""
    return network.in_features if isinstance(network, SeverityCNN3d) and network.nyul else 0


def device_name(network: nn.Module) -> str:
    """Where a network lies: ``cpu``, or the name of its GPU."""
    device = next(network.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def _make_backbone(config: Mapping[str, Any], in_features: int, num_classes: int) -> nn.Module:
    name = config.get(_TARGET)
    if name not in BACKBONES:
        raise ValueError(f"the backbone's _target_ must be one of {', '.join(BACKBONES)}, got {name!r}")
    arguments = {key: _as_tuple(value) for key, value in config.items() if key != _TARGET}
    if str(name).startswith("resnet"):
        sizes = {"n_input_channels": in_features, "num_classes": num_classes}
    else:
        sizes = {"in_channels": in_features, "out_channels": num_classes}
    try:
        network: nn.Module = getattr(monai.networks.nets, name)(pretrained=False, spatial_dims=3, **sizes, **arguments)
    except TypeError as error:
        raise ValueError(f"MONAI's {name} does not take these arguments: {', '.join(sorted(arguments))}") from error
    if "norm" in arguments:
        _replace_batch_norms(network, arguments["norm"])
    running = [key for key, _ in network.named_buffers() if "running" in key]
    if running:
        raise ValueError(
            f"the backbone {name} has running statistics, which do not average; give it a norm without them, such as "
            '["group", {"num_groups": 4}] or "instance"'
        )
    return network


def _replace_batch_norms(network: nn.Module, norm: str | tuple[Any, ...]) -> None:
    """Put ``norm`` where batch normalisation stayed: MONAI 1.6's ResNet hands ``norm`` to all but the first blocks."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm3d) and name:
            holder, _, own = name.rpartition(".")
            layer = get_norm_layer(name=norm, spatial_dims=3, channels=module.num_features)
            setattr(network.get_submodule(holder), own, layer)


def _make_augmentation(configs: Sequence[Mapping[str, Any]]) -> Compose:
    return Compose([_make_transform(config) for config in configs])


def _make_transform(config: Mapping[str, Any]) -> Transform:
    name = config.get(_TARGET)
    if name not in AUGMENTATIONS:
        raise ValueError(f"an augmentation's _target_ must be one of {', '.join(AUGMENTATIONS)}, got {name!r}")
    arguments = {key: _as_tuple(value) for key, value in config.items() if key != _TARGET}
    try:
        transform: Transform = getattr(monai.transforms, name)(**arguments)
    except TypeError as error:
        raise ValueError(f"MONAI's {name} does not take these arguments: {', '.join(sorted(arguments))}") from error
    return transform


def _as_tuple(value: Any) -> Any:
    """JSON has no tuples; MONAI wants them."""
    return tuple(_as_tuple(entry) for entry in value) if isinstance(value, list) else value
