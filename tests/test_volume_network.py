"""The 3D CNN: shapes, gradients, what configuration may name, and equal seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mhsev_flare.jobs import JOBS
from mhsev_monai.model_file import build, class_config
from mhsev_monai.networks import predict_severity, run_network
from mhsev_monai.severity import PAPER_SCALE
from mhsev_monai.training import FeatureMoments, LabelledFeatures, TrainingParameters, severity_loss, train_severity
from mhsev_monai.volume_network import SeverityCNN3d, place_network

SIZE = (20, 24, 18)
BACKBONE = {"_target_": "resnet10", "widen_factor": 0.125, "conv1_t_stride": 2, "norm": ["group", {"num_groups": 4}]}
NOISE = [{"_target_": "RandGaussianNoise", "prob": 1.0, "std": 0.5}]


def make_network(backbone=BACKBONE, augmentation=(), seed=1) -> SeverityCNN3d:
    return SeverityCNN3d(2, backbone, augmentation, 4, seed)


def make_volumes(counts, seed=0) -> LabelledFeatures:
    """Heads of noise whose b0 is the darker the higher the count; NaN in the outer voxels."""
    rng = np.random.default_rng(seed)
    volumes = rng.normal(size=(len(counts), *SIZE, 2)).astype(np.float32)
    volumes[..., 0] -= np.log1p(np.asarray(counts, dtype=np.float32))[:, None, None, None]
    volumes[:, :2] = np.nan
    return LabelledFeatures(torch.from_numpy(volumes.astype(np.float16)), torch.tensor(counts, dtype=torch.float32))


@pytest.mark.parametrize(
    "backbone",
    [
        BACKBONE,
        {
            "_target_": "densenet121",
            "init_features": 8,
            "growth_rate": 4,
            "block_config": [2, 2],
            "norm": ["instance", {"affine": True}],
        },
    ],
    ids=["resnet10", "densenet121"],
)
def test_every_weight_has_a_gradient(backbone):
    network, data = make_network(backbone), make_volumes([0, 3, 8, 20])
    network.train()
    severity_loss(network, data, PAPER_SCALE, 1.0).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_the_gradient_is_the_slope_of_the_loss():
    """Central differences along the gradient, by a step that single precision can see."""
    network, data = make_network(), make_volumes([0, 3, 8, 20])
    parameters = list(network.parameters())

    def loss() -> torch.Tensor:
        return severity_loss(network, data, PAPER_SCALE, 1.0)

    loss().backward()
    gradients = [p.grad.clone() for p in parameters]
    squared = sum(float((g**2).sum()) for g in gradients)
    step = 3e-3 / squared**0.5
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p += sign * step * g
            values.append(float(loss()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(squared, rel=0.02)


def test_training_lowers_the_loss_and_learns_what_is_there():
    network, data = make_network(), make_volumes([0, 0, 1, 2, 3, 7, 8, 9, 15, 20, 30, 40])
    before = severity_loss(network, data, PAPER_SCALE, 1.0).item()
    train_severity(network, data, PAPER_SCALE, TrainingParameters(15, 3e-3, 0.0, 4, 1.0), seed=1)
    assert severity_loss(network, data, PAPER_SCALE, 1.0).item() < 0.7 * before
    new = make_volumes([0, 40], seed=5)
    counts = predict_severity(network, new.features, PAPER_SCALE).counts
    assert counts[1] > counts[0] + 3


def test_equal_seeds_train_equally_and_the_augmentation_follows_them():
    """One full batch, so that without augmentation all seeds train alike but for the order of a sum."""
    data = make_volumes([0, 4, 9, 20])

    def trained(seed: int, augmentation) -> torch.Tensor:
        network = make_network(augmentation=augmentation)
        train_severity(network, data, PAPER_SCALE, TrainingParameters(3, 1e-4, 0.0, 4, 1.0), seed)
        return severity_loss(network, data, PAPER_SCALE, 1.0).detach()

    torch.testing.assert_close(trained(1, NOISE), trained(1, NOISE), rtol=0, atol=0)
    torch.testing.assert_close(trained(1, []), trained(2, []), rtol=1e-3, atol=1e-3)
    assert (trained(1, NOISE) - trained(2, NOISE)).abs() > 5 * (trained(1, []) - trained(2, [])).abs()


def test_augmentation_is_for_training_alone():
    network, data = make_network(augmentation=NOISE), make_volumes([1, 2])
    network.eval()
    torch.testing.assert_close(network(data.features), network(data.features), rtol=0, atol=0)
    network.train()
    assert not torch.equal(network(data.features), network(data.features))


def test_many_volumes_a_few_at_a_time_are_the_same():
    network, data = make_network(), make_volumes(list(range(7)))
    network.eval()
    torch.testing.assert_close(run_network(network, data.features), network(data.features), rtol=1e-5, atol=1e-6)


def test_what_lies_outside_the_brain_does_not_matter_and_units_do_not_either():
    network, data = make_network(), make_volumes([5, 6])
    network.eval()
    expected = network(data.features)
    network.feature_mean += 3.0
    network.feature_scale *= 2.0
    torch.testing.assert_close(network(data.features.float() * 2 + 3), expected, rtol=1e-4, atol=1e-4)
    assert expected.isfinite().all()


def test_moments_of_volumes_are_those_of_the_brains_voxels():
    data = make_volumes([0, 5, 9])
    inside = data.features.double().numpy().reshape(-1, 2)
    inside = inside[~np.isnan(inside).any(axis=1)]
    moments = FeatureMoments.of(data.features)
    assert moments.n == len(inside)
    np.testing.assert_allclose(moments.mean, inside.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.scale(), inside.std(axis=0), rtol=1e-9)


def test_a_configuration_makes_the_same_network_again():
    first = JOBS["cnn3d"].network
    second = build(class_config(first))
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("backbone", "augmentation", "message"),
    [
        ({"_target_": "system"}, (), "backbone's _target_ must be one of resnet10"),
        ({"_target_": "resnet10", "depth": 3}, (), "does not take these arguments: depth"),
        ({"_target_": "resnet10"}, (), "running statistics"),
        (BACKBONE, [{"_target_": "Lambda"}], "augmentation's _target_ must be one of RandFlip"),
        (BACKBONE, [{"_target_": "RandFlip", "odds": 1}], "does not take these arguments: odds"),
    ],
)
def test_a_configuration_that_cannot_be_is_told(backbone, augmentation, message):
    with pytest.raises(ValueError, match=message):
        make_network(backbone, augmentation)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_mixed_precision_on_cuda_is_near_full_precision():
    network, data = make_network(), make_volumes([1, 5, 9])
    network.eval()
    expected = run_network(network, data.features)
    found = run_network(place_network(network), data.features)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
