"""What MONAI asks of a transform, asked of every transform of this room."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from head_phantoms import head_with_skull
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, PersistentDataset
from monai.transforms import Compose

import mhsev_monai.preprocess as room
from mhsev_monai.preprocess import dictionary, functional

SHAPE = (40, 44, 34)
AFFINE = torch.diag(torch.tensor([4.5, 4.5, 4.5, 1.0], dtype=torch.float64))
KINDS = {
    "numpy": lambda image: image.numpy(),
    "tensor": lambda image: image,
    "MetaTensor": lambda image: MetaTensor(image, affine=AFFINE, meta={"note": "kept"}),
}
CONFIGS = [
    {
        "_target_": "N4BiasFieldCorrectiond",
        "keys": ["b0", "trace"],
        "reference_key": "b0",
        "bias_key": "bias",
        "levels": 2,
    },
    {"_target_": "DWIBrainMaskd", "spacing": [4.5, 4.5, 4.5], "passes": 1},
    {"_target_": "ZScoreInMaskd", "keys": ["b0", "trace"], "clip": 4.0},
    {"_target_": "FuseContrastsd", "sigma": 12.0, "spacing": [4.5, 4.5, 4.5]},
]
OUTPUTS = {
    "N4BiasFieldCorrectiond": ["b0", "trace", "bias"],
    "DWIBrainMaskd": ["brain_mask", "search_mask"],
    "ZScoreInMaskd": ["b0", "trace"],
    "FuseContrastsd": ["fused"],
}


@pytest.fixture(scope="module")
def scan() -> dict[str, torch.Tensor]:
    b0, trace = (head_with_skull(SHAPE, levels) for levels in ((1.0, 0.5, 0.4), (0.06, 0.36, 0.40)))
    images = {"b0": b0.image, "trace": trace.image, "brain_mask": b0.brain.astype(np.float32)}
    return {key: torch.from_numpy(image)[None] for key, image in images.items()}


def from_json(config: dict) -> object:
    config = json.loads(json.dumps({**config, "_target_": "mhsev_monai.preprocess." + config["_target_"]}))
    return ConfigParser({"transform": config}).get_parsed_content("transform")


@pytest.fixture(params=CONFIGS, ids=lambda config: config["_target_"])
def transform(request) -> tuple[object, list[str]]:
    return from_json(request.param), OUTPUTS[request.param["_target_"]]


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind_give_the_same_images_with_their_metadata(scan, transform, kind):
    apply, outputs = transform
    expected = apply({key: MetaTensor(image, affine=AFFINE) for key, image in scan.items()})
    data = {"case": "a", **{key: KINDS[kind](image.clone()) for key, image in scan.items()}}
    before = deepcopy(data)
    result = apply(data)
    assert data.keys() == before.keys()
    for key in scan:
        assert np.array_equal(np.asarray(data[key]), np.asarray(before[key])), f"{key} was changed in place"
    for key in outputs:
        assert isinstance(result[key], MetaTensor)
        assert result[key].shape == (1, *SHAPE)
        assert result[key].dtype == (torch.uint8 if "mask" in key else torch.float32)
        assert torch.equal(result[key].as_tensor(), expected[key].as_tensor())
        if kind == "MetaTensor":
            assert torch.equal(result[key].affine, AFFINE)
            assert result[key].meta["note"] == "kept"


def test_a_pickled_transform_does_the_same(scan, transform):
    apply, outputs = transform
    apply(scan)
    copy = pickle.loads(pickle.dumps(apply))
    for key in outputs:
        assert torch.equal(copy(scan)[key], apply(scan)[key])


def test_a_missing_image_is_named_or_passed_over(scan):
    without_b0 = {"trace": scan["trace"], "brain_mask": scan["brain_mask"]}
    for config in CONFIGS:
        strict = {**config, "reference_key": None, "bias_key": None} if "reference_key" in config else config
        with pytest.raises(KeyError, match="b0"):
            from_json(strict)(without_b0)
        lenient = from_json({**strict, "allow_missing_keys": True})(without_b0)
        assert "b0" not in lenient


def test_a_scan_without_trace_gets_its_masks_and_its_fusion(scan):
    b0_alone = {"b0": MetaTensor(scan["b0"], affine=AFFINE)}
    result = Compose([room.DWIBrainMaskd(), room.FuseContrastsd()])(b0_alone)
    assert float(result["fused"].max()) == pytest.approx(1.12)
    assert set(result) == {"b0", "brain_mask", "search_mask", "quality", "fused"}


def test_quality_figures_are_added_to_those_already_there(scan):
    data = {"b0": MetaTensor(scan["b0"], affine=AFFINE), "quality": {"n_volumes": 7}}
    quality = room.DWIBrainMaskd()(data)["quality"]
    assert quality["n_volumes"] == 7
    assert quality["touches_border"] == ""
    assert quality["n_components"] == 1
    assert quality["field_of_view_mm"] == pytest.approx((180.0, 198.0, 153.0))
    volume_ml = head_with_skull(SHAPE).brain.sum() * 4.5**3 / 1000
    assert quality["brain_mask_ml"] == pytest.approx(volume_ml, rel=0.1)
    assert data["quality"] == {"n_volumes": 7}


def test_one_field_from_the_reference_leaves_ratios_as_they_are(scan):
    apply = room.N4BiasFieldCorrectiond(["b0", "trace"], reference_key="b0", bias_key="bias")
    result = apply(scan)
    expected = functional.estimate_log_bias(scan["b0"][0], scan["brain_mask"][0])
    assert torch.equal(result["bias"].as_tensor()[0], expected)
    inside = scan["brain_mask"] > 0
    ratio = (result["trace"] / result["b0"]).as_tensor()
    assert torch.allclose(ratio[inside], (scan["trace"] / scan["b0"])[inside], rtol=1e-5)


def test_without_a_reference_each_channel_has_its_own_field(scan):
    stack = torch.cat([scan["b0"], scan["trace"]])
    correct = room.N4BiasFieldCorrection(levels=2)
    both = correct(stack, scan["brain_mask"])
    assert torch.equal(both[1:], correct(scan["trace"], scan["brain_mask"]))
    assert torch.equal(both[:1], room.N4BiasFieldCorrectiond("b0", levels=2)(scan)["b0"])
    assert correct(stack[:, :, :, 17]).shape == (2, 40, 44)  # 2-D, without a mask
    with pytest.raises(ValueError, match="1 channel or 2"):
        correct(stack, torch.ones(3, *SHAPE))


def test_wrong_parameters_and_unknown_voxel_sizes_are_refused(scan):
    with pytest.raises(TypeError, match="level"):
        room.N4BiasFieldCorrection(level=3)
    with pytest.raises(ValueError, match="reference_key"):
        room.N4BiasFieldCorrectiond("b0", bias_key="bias")
    with pytest.raises(ValueError, match="voxel size"):
        room.FuseContrasts()(scan["b0"].numpy(), scan["brain_mask"])
    with pytest.raises(ValueError, match="one volume"):
        room.DWIBrainMask(spacing=(1, 1, 1))(scan["b0"][0])


def test_an_affine_outranks_the_spacing_given_for_images_without_one(scan):
    b0, mask = MetaTensor(scan["b0"], affine=AFFINE), scan["brain_mask"]
    by_affine = room.FuseContrasts(spacing=(1, 1, 1))(b0, mask).as_tensor()
    assert torch.equal(by_affine, room.FuseContrasts(spacing=(4.5, 4.5, 4.5))(scan["b0"], mask).as_tensor())
    assert not torch.equal(by_affine, room.FuseContrasts(spacing=(1, 1, 1))(scan["b0"], mask).as_tensor())


def test_the_room_works_in_a_pipeline_with_workers_and_a_cache(scan, tmp_path):
    pipeline = Compose([from_json(config) for config in CONFIGS[1:2] + CONFIGS[0:1] + CONFIGS[3:] + CONFIGS[2:3]])
    cases = [{key: MetaTensor(scan[key], affine=AFFINE) for key in ("b0", "trace")} for _ in range(2)]
    direct = pipeline(cases[0])
    batch = next(iter(DataLoader(Dataset(cases, pipeline), batch_size=2, num_workers=1)))
    assert torch.equal(batch["fused"][0], direct["fused"].as_tensor())
    assert batch["quality"]["n_components"].tolist() == [1, 1]
    cached = PersistentDataset(cases[:1], pipeline, cache_dir=tmp_path, track_meta=True, weights_only=True)
    for _ in range(2):  # computed, then read from the cache
        fused = cached[0]["fused"]
        assert torch.equal(fused.as_tensor(), direct["fused"].as_tensor())
        assert torch.equal(fused.affine, AFFINE)


def test_every_dictionary_transform_has_monai_s_three_names():
    for name in ("N4BiasFieldCorrection", "DWIBrainMask", "ZScoreInMask", "FuseContrasts"):
        assert getattr(room, name + "d") is getattr(room, name + "D") is getattr(room, name + "Dict")
        assert {name, name + "d", name + "D", name + "Dict"} <= set(room.__all__)
        assert {name + "d", name + "D", name + "Dict"} <= set(dictionary.__all__)
