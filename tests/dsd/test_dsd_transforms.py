from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from dsd_phantoms import spotted_head, wavy_head
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset, ThreadDataLoader
from monai.data.meta_obj import set_track_meta
from monai.transforms import Compose, EnsureTyped

import mhsev_monai.dsd as dsd
from mhsev_monai.dsd import (
    FEATURES,
    Candidate,
    DSDFeaturesd,
    DSDParameters,
    DynamicSpectralDecomposition,
    DynamicSpectralDecompositiond,
    dsd_features,
    dynamic_spectral_decomposition,
    find_candidates,
)

SPACING = (2.0, 2.0, 4.0)
AFFINE = torch.diag(torch.tensor([-2.0, 2.0, 4.0, 1.0], dtype=torch.float64))


def scan(n_spots=3, seed=0):
    image, mask = spotted_head(SPACING, n_spots, side_mm=100, height_mm=20, seed=seed)
    return {
        "b0": MetaTensor(torch.from_numpy(image[None]).float(), affine=AFFINE, meta={"case_id": "a1"}),
        "mask": MetaTensor(torch.from_numpy(mask[None]).float(), affine=AFFINE),
    }


def expected_map(data, **settings):
    image, mask = data["b0"][0].as_tensor(), data["mask"][0].as_tensor()
    return dynamic_spectral_decomposition(image, SPACING, mask, DSDParameters(**settings))


KINDS = {
    "numpy": lambda tensor: tensor.numpy(),
    "tensor": lambda tensor: tensor.as_tensor(),
    "meta": lambda tensor: tensor,
}


@pytest.mark.parametrize("kind", KINDS)
def test_array_transform_gives_the_map_of_the_function(kind):
    data = scan()
    transform = DynamicSpectralDecomposition({"kappa": 2.0}, spacing=None if kind == "meta" else SPACING)
    result = transform(KINDS[kind](data["b0"]), KINDS[kind](data["mask"]))
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.float32
    assert torch.equal(result[0].as_tensor(), expected_map(data, kappa=2.0).map)


def test_map_keeps_shape_affine_and_metadata():
    data = scan()
    result = DynamicSpectralDecomposition()(data["b0"], data["mask"])
    assert result.shape == data["b0"].shape
    assert torch.equal(result.affine, AFFINE)
    assert result.meta["case_id"] == "a1"


def test_without_tracking_the_map_is_a_plain_tensor():
    data = scan()
    set_track_meta(False)
    try:
        result = DynamicSpectralDecomposition(spacing=SPACING)(data["b0"].as_tensor(), data["mask"].as_tensor())
    finally:
        set_track_meta(True)
    assert type(result) is torch.Tensor


def test_each_channel_is_decomposed_by_itself():
    images = [wavy_head((40, 36, 2), seed=seed) for seed in (0, 1)]
    stacked = torch.stack([torch.from_numpy(image) for image, _ in images]).float()
    masks = torch.stack([torch.from_numpy(mask) for _, mask in images])
    transform = DynamicSpectralDecomposition(spacing=SPACING)
    both = transform(stacked, masks)
    shared = transform(stacked, masks[:1])
    for channel in (0, 1):
        alone = transform(stacked[channel : channel + 1], masks[channel : channel + 1])
        assert torch.equal(both[channel], alone[0])
    assert torch.equal(shared, both), "both heads have the same mask"
    assert len(transform.decompose(stacked)) == 2


def test_planar_images_are_decomposed():
    image, mask = wavy_head((40, 36, 1))
    result = DynamicSpectralDecomposition(spacing=(2.0, 2.0))(image[None, ..., 0], mask[None, ..., 0])
    assert result.shape == (1, 40, 36)
    meta = MetaTensor(image[None, ..., 0], affine=np.diag([2.0, 2.0, 1.0, 1.0]))
    assert torch.equal(DynamicSpectralDecomposition()(meta, mask[None, ..., 0]).as_tensor(), result.as_tensor())


def test_image_without_metadata_needs_a_spacing():
    with pytest.raises(ValueError, match="spacing must be given for an image without metadata"):
        DynamicSpectralDecomposition()(torch.ones(1, 8, 8, 2))


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"mask must have 1 or 2 channels .* got shape \(3, 8, 8, 2\)"):
        DynamicSpectralDecomposition(spacing=SPACING)(torch.ones(2, 8, 8, 2), torch.ones(3, 8, 8, 2))


@pytest.mark.parametrize("parameters", [{"energy": 2.0}, {"kappa": -1}])
def test_wrong_settings_are_refused_at_construction(parameters):
    for build in (DynamicSpectralDecomposition, lambda p: DSDFeaturesd("b0", parameters=p)):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            build(parameters)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="kapa"):
        DynamicSpectralDecomposition({"kapa": 3.0})


def test_dictionary_transform_adds_the_map_and_keeps_the_image():
    data = scan()
    before = copy.deepcopy(data)
    result = DynamicSpectralDecompositiond("b0", mask_key="mask")(data)
    assert set(result) == {"b0", "mask", "b0_dsd"}
    assert torch.equal(result["b0_dsd"][0].as_tensor(), expected_map(data).map)
    assert set(data) == {"b0", "mask"}
    assert all(torch.equal(data[key], before[key]) for key in data)
    assert data["b0"].meta.keys() == before["b0"].meta.keys()


def test_empty_postfix_would_replace_the_image_and_is_refused():
    with pytest.raises(ValueError, match="postfix must not be empty"):
        DynamicSpectralDecompositiond("b0", postfix="")


def test_features_transform_writes_what_the_functions_give():
    data = scan()
    result = DSDFeaturesd("b0", "mask")(data)
    image, mask = data["b0"][0].as_tensor(), data["mask"][0].as_tensor()
    decomposed = expected_map(data)
    assert set(result) - set(data) == {"dsd", "features", "candidates"}
    assert torch.equal(result["dsd"][0].as_tensor(), decomposed.map)
    assert torch.equal(result["dsd"].affine, AFFINE)
    assert result["candidates"] == find_candidates(decomposed.map, SPACING, mask)
    assert len(result["candidates"]) == 3
    assert all(isinstance(candidate, Candidate) for candidate in result["candidates"])
    np.testing.assert_array_equal(result["features"], dsd_features(decomposed, image, SPACING, mask))
    assert result["features"].shape == (len(FEATURES),)


def test_features_transform_decomposes_once(monkeypatch):
    calls = []
    original = dynamic_spectral_decomposition

    def counted(*arguments):
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr("mhsev_monai.dsd.array.dynamic_spectral_decomposition", counted)
    DSDFeaturesd("b0", "mask")(scan())
    assert len(calls) == 1


def test_outputs_have_the_names_that_were_asked_for():
    result = DSDFeaturesd("b0", "mask", None, "vector", None, threshold=0.2)(scan())
    assert set(result) == {"b0", "mask", "vector"}


@pytest.mark.parametrize("keys", [("b0", "mask", "b0"), ("b0", "mask", "mask"), ("b0", "mask", "dsd", "dsd")])
def test_outputs_may_not_replace_inputs_or_each_other(keys):
    with pytest.raises(ValueError, match="outputs must differ"):
        DSDFeaturesd(*keys)


def test_several_channels_have_no_single_vector():
    data = scan()
    data["b0"] = torch.cat([data["b0"], data["b0"]])
    with pytest.raises(ValueError, match="image must have one channel, got 2"):
        DSDFeaturesd("b0", "mask")(data)


@pytest.mark.parametrize("transform", [DynamicSpectralDecompositiond, DSDFeaturesd])
def test_missing_keys_are_named_or_passed_over(transform):
    data = scan()
    with pytest.raises(KeyError, match="trace"):
        transform("trace", mask_key="mask")(data)
    assert transform("trace", mask_key="mask", allow_missing_keys=True)(data).keys() == data.keys()
    with pytest.raises(KeyError, match="mask_key 'brain' is not in the data"):
        transform("b0", mask_key="brain", allow_missing_keys=True)(data)


@pytest.mark.parametrize(
    "transform",
    [
        DynamicSpectralDecompositiond(["b0"], mask_key="mask", parameters={"gain": "hard"}),
        DSDFeaturesd("b0", "mask", parameters={"gain": "hard"}),
    ],
)
def test_transforms_survive_pickling_and_a_compose(transform):
    data = scan()
    direct = transform(data)
    revived = pickle.loads(pickle.dumps(transform))
    composed = Compose([EnsureTyped(keys=["b0", "mask"]), revived])(data)
    name = "b0_dsd" if "b0_dsd" in direct else "dsd"
    assert torch.equal(composed[name], direct[name])
    assert composed.keys() == direct.keys()


def test_configuration_in_json_makes_the_same_transform():
    config = {
        "features": {
            "_target_": "mhsev_monai.dsd.DSDFeaturesd",
            "image_key": "b0",
            "mask_key": "mask",
            "parameters": {"energy": 0.9, "dynamic": False},
        },
        "map": {"_target_": "mhsev_monai.dsd.DynamicSpectralDecompositiond", "keys": ["b0"], "mask_key": "mask"},
    }
    parser = ConfigParser(json.loads(json.dumps(config)))
    features, only_map = parser.get_parsed_content("features"), parser.get_parsed_content("map")
    data = scan()
    direct = DSDFeaturesd("b0", "mask", parameters={"energy": 0.9, "dynamic": False})(data)
    np.testing.assert_array_equal(features(data)["features"], direct["features"])
    assert torch.equal(only_map(data)["b0_dsd"][0].as_tensor(), expected_map(data).map)
    assert features.parameters == {"energy": 0.9, "dynamic": False}


def test_two_workers_load_the_same_batches_as_none():
    data = [scan(n_spots=n, seed=n) for n in range(4)]
    dataset = Dataset(data, DSDFeaturesd("b0", "mask", candidates_key=None))
    alone, workers = (list(DataLoader(dataset, batch_size=2, num_workers=n, shuffle=False)) for n in (0, 2))
    assert len(workers) == 2
    for ours, theirs in zip(workers, alone, strict=True):
        assert ours["features"].shape == (2, len(FEATURES))
        assert torch.equal(ours["features"], theirs["features"])
        assert torch.equal(ours["dsd"], theirs["dsd"])


def test_cached_and_persistent_datasets_give_what_a_plain_one_gives(tmp_path):
    data = [scan(n_spots=n, seed=n) for n in range(3)]
    transforms = Compose([EnsureTyped(keys=["b0", "mask"]), DynamicSpectralDecompositiond("b0", "mask")])
    plain = [Dataset(data, transforms)[n]["b0_dsd"].as_tensor() for n in range(3)]
    cached = CacheDataset(data, transforms, num_workers=2, progress=False)
    # The second one reads from disk what the first one wrote there.
    persistent = [PersistentDataset(data, transforms, tmp_path, track_meta=True, weights_only=False) for _ in range(2)]
    for dataset in (cached, *persistent):
        for n in range(3):
            item = dataset[n]["b0_dsd"]
            assert torch.equal(item.as_tensor(), plain[n])
            assert torch.equal(item.affine, AFFINE)
    assert len(list(tmp_path.iterdir())) == 3


def test_threads_load_the_same_batches_as_none():
    data = [scan(n_spots=n, seed=n) for n in range(4)]
    dataset = Dataset(data, DynamicSpectralDecompositiond("b0", "mask"))
    alone = list(DataLoader(dataset, batch_size=2, num_workers=0))
    for settings in ({"num_workers": 0}, {"num_workers": 2, "use_thread_workers": True}):
        threaded = list(ThreadDataLoader(dataset, batch_size=2, **settings))
        assert [torch.equal(a["b0_dsd"], b["b0_dsd"]) for a, b in zip(alone, threaded, strict=True)] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_neither_transform_changes_what_it_is_given(kind):
    data = {key: KINDS[kind](value) for key, value in scan().items()}
    before = copy.deepcopy(data)
    spacing = SPACING if kind != "meta" else None
    DynamicSpectralDecomposition(spacing=spacing)(data["b0"], data["mask"])
    DSDFeaturesd("b0", "mask", spacing=spacing)(data)
    assert data.keys() == before.keys()
    assert all(np.array_equal(data[key], before[key]) for key in data)
    assert all(type(data[key]) is type(before[key]) for key in data)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_map_of_an_image_on_a_gpu_stays_there_with_its_metadata():
    data = scan()
    on_gpu = {key: value.to("cuda") for key, value in data.items()}
    result = DynamicSpectralDecompositiond("b0", "mask")(on_gpu)["b0_dsd"]
    assert result.device.type == "cuda"
    assert torch.equal(result.affine, AFFINE)
    # float32 on both devices, see mhsev_monai.dsd.engines.
    expected = expected_map(data).map
    assert (result[0].as_tensor().cpu() - expected).abs().max() <= 5e-6 * expected.abs().max()


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_engine_that_was_asked_for_computes(engine):
    data = scan()
    chosen = DynamicSpectralDecompositiond("b0", "mask", engine=engine)(data)["b0_dsd"][0].as_tensor()
    image, mask = data["b0"][0].as_tensor(), data["mask"][0].as_tensor()
    assert torch.equal(chosen, dynamic_spectral_decomposition(image, SPACING, mask, None, engine).map)
    torch.testing.assert_close(chosen, expected_map(data).map, rtol=0, atol=2e-6)
    features = DSDFeaturesd("b0", "mask", engine=engine)(data)["features"]
    np.testing.assert_allclose(features, DSDFeaturesd("b0", "mask")(data)["features"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("transform", [DynamicSpectralDecomposition, lambda **k: DSDFeaturesd("b0", **k)])
def test_unknown_engine_is_refused_at_construction(transform):
    with pytest.raises(ValueError, match="engine must be None or one of numba, triton, torch, got 'jax'"):
        transform(engine="jax")


def test_aliases_are_monais_and_every_public_name_exists():
    assert dsd.DynamicSpectralDecompositionD is dsd.DynamicSpectralDecompositionDict is DynamicSpectralDecompositiond
    assert dsd.DSDFeaturesD is dsd.DSDFeaturesDict is DSDFeaturesd
    assert all(hasattr(dsd, name) for name in dsd.__all__)
