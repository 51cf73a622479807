"""What an encrypted job holds and refuses, and FLARE's own filters and aggregator over our packing, in one process."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from asked_sites import ask_sites
from judged_sites import Spoiled, ten_million_cases
from small_site import NumbersInFile, context
from tiny_study import tiny_spec

from mhsev_flare.cli import main
from mhsev_flare.handshake import shortage
from mhsev_flare.job_spec import OPTIMISERS, FederatedOptimiser
from mhsev_flare.jobs import JOBS, export_job
from mhsev_flare.participation import RoundPolicy
from mhsev_flare.payload_guard import PayloadGuard
from mhsev_flare.protocol import BUFFERS, PROTOCOL_VERSION, Meta
from mhsev_flare.weighting import WEIGHTINGS, weighted_mean
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.metrics import SeverityTable
from mhsev_monai.private_training import PrivacyParameters

tenseal = pytest.importorskip("tenseal", reason="the extra `he` is not installed")

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable  # noqa: E402
from nvflare.apis.event_type import EventType  # noqa: E402
from nvflare.apis.filter import ContentBlockedException  # noqa: E402
from nvflare.apis.fl_constant import FLContextKey, ReservedKey  # noqa: E402
from nvflare.apis.utils.decomposers import flare_decomposers  # noqa: E402
from nvflare.app_common.abstract.model import make_model_learnable  # noqa: E402
from nvflare.app_common.app_constant import AppConstants  # noqa: E402
from nvflare.app_common.decomposers import common_decomposers  # noqa: E402
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST  # noqa: E402
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor  # noqa: E402
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor  # noqa: E402
from nvflare.app_opt.he.model_shareable_generator import HEModelShareableGenerator  # noqa: E402
from nvflare.fuel.utils import fobs  # noqa: E402
from nvflare.lighter.impl.he import HEBuilder  # noqa: E402

from mhsev_flare.allowed_classes import ALLOWED_CLASSES  # noqa: E402
from mhsev_flare.encrypted_aggregator import EncryptedAggregator  # noqa: E402
from mhsev_flare.encrypted_job import MissingTensealError, check_encryptable, encrypted_job, encrypted_spec  # noqa: E402
from mhsev_flare.encrypted_payload import (  # noqa: E402
    IN_THE_CLEAR,
    PACKED,
    PackUpdate,
    UnpackModel,
    packed,
    parameter_shapes,
    raw_weight,
    unpacked,
)
from mhsev_flare.encrypted_study import EncryptedStudy  # noqa: E402
from mhsev_flare.gates import ExpectedUpdate  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SPEC = encrypted_spec(tiny_spec())
SHAPES = parameter_shapes(SPEC.network)
OWN_BUFFERS = set(BUFFERS) & set(SPEC.network.state_dict())
CASES = {"a": 24, "b": 18, "c": 7}


# What the job holds and refuses.


def class_paths(value) -> set[str]:
    if isinstance(value, dict):
        return set().union({value["path"]} if "path" in value else set(), *map(class_paths, value.values()))
    return set().union(*map(class_paths, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", list(JOBS))
def test_every_job_can_be_sent_encrypted_and_names_no_class_that_a_site_would_refuse(tmp_path, name):
    job = export_job(encrypted_spec(JOBS[name]), tmp_path, make=encrypted_job)
    assert job.name == f"{name}_encrypted"
    sides = {s: json.loads((job / "app/config" / f"config_fed_{s}.json").read_text()) for s in ("server", "client")}
    paths = class_paths(sides["server"]) | class_paths(sides["client"])
    assert set(paths) <= {*DEFAULT_CLASS_ALLOW_LIST, *ALLOWED_CLASSES}
    assert not list(job.rglob("*.py"))
    opened, sent = sides["client"]["task_data_filters"], sides["client"]["task_result_filters"]
    assert [(f["path"].rsplit(".", 1)[1], set(one["tasks"])) for one in opened for f in one["filters"]] == [
        ("HEModelDecryptor", {"train", "validate"}),
        ("UnpackModel", {"train", "validate"}),
    ]
    assert [(f["path"].rsplit(".", 1)[1], set(one["tasks"])) for one in sent for f in one["filters"]] == [
        ("PackUpdate", {"train"}),
        ("HEModelEncryptor", {"train"}),
    ]
    assert set(sides["client"]["executors"][0]["tasks"]) == {"standardise", "train", "validate"}
    assert sides["server"]["workflows"][0]["args"]["num_rounds"] == JOBS[name].num_rounds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "clip"}, "rule must be mean, got clip"),
        ({"rule": "median"}, "rule must be mean, got median"),
        ({"weighting": "literal"}, "weighting must not be literal"),
        ({"resume": True}, "resume must be off"),
        ({"site_models": True}, "site_models must be off"),
        ({"personalise": True}, "personalise must be off"),
        ({"privacy": PrivacyParameters(1.0, 1.0, 1e-3)}, "privacy must be off"),
        ({"policy": RoundPolicy(patience=3)}, "patience must be 0"),
        *(({"optimiser": OPTIMISERS[name]}, "plain FedAvg") for name in ("fedprox", "fedopt", "scaffold")),
    ],
)
def test_what_needs_a_server_that_sees_weights_is_refused_in_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words) as refused:
        encrypted_job(dataclasses.replace(SPEC, **changes))
    assert "\n" not in str(refused.value)


def test_the_nearest_row_is_accepted():
    assert SPEC.optimiser == FederatedOptimiser()
    check_encryptable(SPEC)
    assert (SPEC.rule, SPEC.site_models, SPEC.name) == ("mean", False, "tiny_encrypted")


def test_the_command_exports_it_beside_the_job_in_the_clear(tmp_path, capsys):
    call = ["jobs", "export", str(tmp_path), "--only", "dsd_mlp"]
    assert main(call) == main([*call, "--encrypted"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"dsd_mlp", "dsd_mlp_encrypted"}
    assert main([*call, "--encrypted", "--resume"]) == 2
    assert "in an encrypted job resume must be off" in capsys.readouterr().err


def test_without_tenseal_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingTensealError, match=r"pip install 'mhsev\[he\]'"):
        encrypted_job(SPEC)


@pytest.mark.skipif(not (ROOT / "poc" / "project.yml").is_file(), reason="needs the checkout, not the wheel alone")
def test_the_project_with_keys_is_the_other_one_and_the_keys():
    plain, with_keys = (yaml.safe_load((ROOT / "poc" / name).read_text()) for name in ("project.yml", "project_he.yml"))
    paths = [builder["path"].rsplit(".", 1)[1] for builder in with_keys["builders"]]
    assert paths.index("SitePolicyBuilder") < paths.index("HEBuilder") < paths.index("SignatureBuilder")
    keys = with_keys["builders"].pop(paths.index("HEBuilder"))
    assert with_keys == plain
    made = HEBuilder(**keys["args"])
    own = HEBuilder()
    for name in ("poly_modulus_degree", "coeff_mod_bit_sizes", "scale_bits", "scheme_type"):
        assert getattr(made, name) == getattr(own, name), "FLARE's defaults are what was measured"


def test_a_calibration_that_fails_does_not_keep_the_sites_from_keeping_the_model(site, tmp_path):
    """FLARE's rounds are left out: the end begins from the model's own weights."""
    sites = {name: site(name, 40, seed) for seed, name in enumerate(("a", "b"))}
    spec = dataclasses.replace(SPEC, network=sites["a"][0].network, inputs=NumbersInFile())
    study = EncryptedStudy(
        "tiny", 1, spec.network, spec.inputs, spec.scale, spec.policy, spec.weighting, num_rounds=spec.num_rounds
    )
    spoil = Spoiled(Meta.CALIBRATION_SUMS, ten_million_cases)
    own = {key: value.numpy() for key, value in study.network.state_dict().items()}
    in_process = ask_sites(sites, {name: [spoil] for name in sites})
    study._sites, study._global_weights = sorted(sites), make_model_learnable({"w": np.zeros(1)}, {})
    study.shareable_gen = AsItIs()
    study._finish(lambda task, params, sites, **meta: in_process(task, own, **meta), fl_context(tmp_path))
    assert study._result["status"] == "completed"
    assert study._result["calibration"] is None
    assert study._result["model"]["kept_by"] == ["a", "b"]
    for _, fl_ctx in sites.values():
        folder = Path(fl_ctx.get_engine().get_workspace().get_run_dir("job")) / "mhsev"
        kept = torch.load(folder / "model.pt", weights_only=True)
        assert kept["calibration"] == GradeCalibration().to_json()
        assert set(kept["weights"]) == set(own)


class AsItIs:
    """In place of FLARE's generator, whose part is the ciphertexts."""

    def learnable_to_shareable(self, weights, fl_ctx):
        """Nothing is encrypted here."""


# One round in one process.


@pytest.fixture(scope="module")
def keys():
    """A site's context and the server's, as FLARE's HEBuilder writes them."""
    flare_decomposers.register()
    common_decomposers.register()
    builder = HEBuilder()
    builder.initialize(None, None)
    return tuple(tenseal.context_from(builder.get_serialized_context(is_client=side)) for side in (True, False))


def update_of(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {key: generator.normal(scale=0.01, size=shape).astype(np.float32) for key, shape in SHAPES.items()}


UPDATES = {site: update_of(seed) for seed, site in enumerate(CASES)}
LOSS_AND_TABLE = {Meta.VALIDATION_LOSS: 1.0, Meta.TRAIN_LOSS: 1.0, Meta.TABLE: SeverityTable.empty().to_json()}


def message(site: str, **meta) -> DXO:
    own = {Meta.PROTOCOL: PROTOCOL_VERSION, Meta.FINGERPRINT: "f", Meta.N_SAMPLES: CASES[site], Meta.BASE: "0" * 64}
    own[MetaKey.NUM_STEPS_CURRENT_ROUND] = 999
    update = {key: value.copy() for key, value in UPDATES[site].items()}
    return DXO(DataKind.WEIGHT_DIFF, data=update, meta={**own, **LOSS_AND_TABLE, **meta})


def fl_context(tmp_path, site: str = "server"):
    made = context(site, tmp_path)
    made.set_peer_context(context("server", tmp_path))
    made.set_prop(AppConstants.CURRENT_ROUND, 0)
    return made


def encrypted(dxo: DXO, keys, fl_ctx, weighting: str = "samples"):
    """What leaves a site: our packing and FLARE's encryptor, in FLARE's form for the wire."""
    encryptor = HEModelEncryptor(encrypt_layers=[PACKED])
    encryptor.tenseal_context = keys[0]
    packing = PackUpdate(SPEC.network, weighting)
    return fobs.dumps(encryptor.process(packing.process(dxo.to_shareable(), fl_ctx), fl_ctx))


def arrived(sent: bytes, site: str):
    shareable = fobs.loads(sent)
    shareable.set_peer_props({ReservedKey.IDENTITY_NAME: site})
    shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 0)
    return shareable


def aggregator(fl_ctx, weighting: str = "samples") -> EncryptedAggregator:
    made = EncryptedAggregator(weighting)
    made.handle_event(EventType.START_RUN, fl_ctx)
    made.expect(ExpectedUpdate({}, "f", cases=CASES), sum(int(np.prod(shape)) for shape in SHAPES.values()))
    return made


@pytest.mark.parametrize("weighting", ["samples", "uniform", "inverse"])
def test_a_round_over_ciphertexts_is_the_weighted_mean(tmp_path, keys, weighting):
    fl_ctx = fl_context(tmp_path)
    server = aggregator(fl_ctx, weighting)
    for site in CASES:
        assert server.accept(arrived(encrypted(message(site), keys, fl_ctx, weighting), site), fl_ctx)
    weights = WEIGHTINGS[weighting](list(CASES.values()))
    assert [c.share for c in server.contributions()] == pytest.approx(list(weights))
    own = {key: value.numpy() for key, value in SPEC.network.state_dict().items()}
    generator = HEModelShareableGenerator()
    generator.tenseal_context = keys[1]
    buffers = {key: own[key] for key in OWN_BUFFERS}
    model = make_model_learnable({PACKED: packed(own, SHAPES), **buffers}, {})
    fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model)
    after = generator.shareable_to_learnable(server.aggregate(fl_ctx), fl_ctx)
    sent = fobs.loads(fobs.dumps(generator.learnable_to_shareable(after, fl_ctx)))
    decryptor = HEModelDecryptor()
    decryptor.tenseal_context = keys[0]
    opened = from_shareable(UnpackModel(SPEC.network).process(decryptor.process(sent, fl_ctx), fl_ctx)).data
    expected = weighted_mean(list(UPDATES.values()), weights)
    assert set(opened) == set(own)
    for key in SHAPES:
        # Scale 2^40 leaves errors of about 1e-7 in a sum; weights of 24 cases make them no more than ten times that.
        np.testing.assert_allclose(opened[key], own[key] + expected[key], rtol=0, atol=2e-6)
    for key in OWN_BUFFERS:
        assert np.array_equal(np.reshape(opened[key], own[key].shape), own[key]), "buffers travel exactly"


def test_what_leaves_a_site_holds_no_weight_in_the_clear_and_no_secret_key(tmp_path, keys):
    fl_ctx = fl_context(tmp_path)
    # A server that asked for SCAFFOLD would get the update once more, in other words.
    scaffold = {Meta.CONTROL_DELTAS: UPDATES["a"]}
    plain, sent = fobs.dumps(message("a").to_shareable()), encrypted(message("a", **scaffold), keys, fl_ctx)
    vector = packed(UPDATES["a"], SHAPES)
    needles = [v[4:12].astype(kind).tobytes() for v in (vector, vector * CASES["a"]) for kind in ("<f4", "<f8")]
    assert needles[0] in plain, "the search would find it"
    assert not [needle for needle in needles if needle in sent]
    dxo = from_shareable(fobs.loads(sent))
    assert not dxo.data[PACKED].context().is_private()
    assert keys[0].is_private()
    assert set(dxo.data) == {PACKED, *OWN_BUFFERS}
    assert not any(np.any(dxo.data[key]) for key in OWN_BUFFERS)
    added = {MetaKey.NUM_STEPS_CURRENT_ROUND, MetaKey.PROCESSED_KEYS, MetaKey.PROCESSED_ALGORITHM, "filter_history"}
    assert set(dxo.meta) <= {*IN_THE_CLEAR, *added}
    assert Meta.BASE not in dxo.meta, "a digest of the model would let the server try out guesses"


def test_a_sites_own_guard_would_stop_a_ciphertext_so_it_must_come_first(tmp_path, keys):
    fl_ctx = fl_context(tmp_path)
    fl_ctx.set_prop(FLContextKey.TASK_NAME, "train")
    told = message("a", **{Meta.ROUND: 0, Meta.FINGERPRINT: "0" * 64})
    assert PayloadGuard().process(told.to_shareable(), fl_ctx) is not None
    with pytest.raises(ContentBlockedException):
        PayloadGuard().process(fobs.loads(encrypted(told, keys, fl_ctx)), fl_ctx)


def refusal(server: EncryptedAggregator, shareable, fl_ctx) -> str:
    assert not server.accept(shareable, fl_ctx)
    (contribution,) = server.contributions()
    assert not contribution.accepted
    return contribution.reason


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({Meta.FINGERPRINT: "g"}, "features of another schema"),
        ({Meta.PROTOCOL: 1}, "protocol 1"),
        ({Meta.N_SAMPLES: 25}, "25 training cases where it had 24"),
        ({Meta.TABLE: {"n": -1}}, "table that is not one"),
        ({Meta.VALIDATION_LOSS: float("nan")}, "losses that are not finite"),
    ],
)
def test_what_an_update_says_of_itself_is_checked(tmp_path, keys, meta, words):
    fl_ctx = fl_context(tmp_path)
    sent = arrived(encrypted(message("a", **meta), keys, fl_ctx), "a")
    assert words in refusal(aggregator(fl_ctx), sent, fl_ctx)


def test_an_update_that_is_not_encrypted_is_refused(tmp_path, keys):
    fl_ctx = fl_context(tmp_path)
    clear = PackUpdate(SPEC.network, "samples").process(message("a").to_shareable(), fl_ctx)
    assert "not encrypted" in refusal(aggregator(fl_ctx), arrived(fobs.dumps(clear), "a"), fl_ctx)


def as_sent(numbers: list[float], keys):
    """A ciphertext as it comes out of a message."""
    return fobs.loads(fobs.dumps(tenseal.ckks_vector(keys[0], numbers)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data, keys: data.update({PACKED: tenseal.ckks_vector(keys[0], [1.0, 2.0])}), "the secret key"),
        (lambda data, keys: data.update({PACKED: as_sent([1.0, 2.0], keys)}), "2 parameters where"),
        (lambda data, keys: data.update({"feature_mean": np.ones(3)}), "standardisation"),
        (lambda data, keys: data.update({"DOE^JANE": np.ones(3)}), "entries that are not those"),
        (lambda data, keys: data.pop(PACKED), "entries that are not those"),
    ],
)
def test_a_ciphertext_of_another_form_is_refused(tmp_path, keys, change, words):
    fl_ctx = fl_context(tmp_path)
    sent = arrived(encrypted(message("a"), keys, fl_ctx), "a")
    dxo = from_shareable(sent)
    change(dxo.data, keys)
    dxo.update_shareable(sent)
    reason = refusal(aggregator(fl_ctx), sent, fl_ctx)
    assert words in reason
    assert "DOE" not in reason


def test_another_weight_than_that_of_the_cases_is_refused(tmp_path, keys):
    fl_ctx = fl_context(tmp_path)
    sent = arrived(encrypted(message("a"), keys, fl_ctx, "uniform"), "a")
    assert "another weight" in refusal(aggregator(fl_ctx, "samples"), sent, fl_ctx)


def test_an_update_that_is_not_finite_is_not_sent(tmp_path, keys):
    fl_ctx, spoiled = fl_context(tmp_path), message("a")
    spoiled.data["layers.0.weight"][0, 0] = np.nan
    with pytest.raises(ContentBlockedException, match="not finite"):
        encrypted(spoiled, keys, fl_ctx)


# Numbers alone.


def test_packing_and_unpacking_give_the_same_entries():
    back = unpacked(packed(UPDATES["a"], SHAPES), SHAPES)
    assert all(np.array_equal(back[key], UPDATES["a"][key]) for key in SHAPES)
    with pytest.raises(ValueError, match="has 3 parameters where this network has"):
        unpacked(np.zeros(3), SHAPES)


def test_raw_weights_are_proportional_to_the_weights():
    for name in ("samples", "uniform", "inverse"):
        raw = np.array([raw_weight(name, n) for n in CASES.values()])
        np.testing.assert_allclose(raw / raw.sum(), WEIGHTINGS[name](list(CASES.values())))


def test_a_study_begins_with_enough_sites_alone():
    ok, policy = {"a": 1, "b": 1}, RoundPolicy(min_sites=2)
    assert shortage(ok, {}, 2, 0, policy) == ""
    assert shortage(ok, {"c": "why"}, 3, 2, policy) == ""
    assert shortage(ok, {"c": "why"}, 3, 0, policy) == "2 of 3 sites can take part, 3 are needed (c: why)"
    told = shortage(ok, {"c": "why"}, 3, 2, RoundPolicy(mandatory_sites=("c",), min_sites=2))
    assert told == "2 of 3 sites can take part, 2 are needed; c must take part (c: why)"
