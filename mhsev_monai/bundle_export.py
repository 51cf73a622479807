"""A trained model as a MONAI bundle: a folder that ``python -m monai.bundle run`` can run.

No code is copied into it: its configuration names classes of the installed ``mhsev_monai``. The layout is that of the
MONAI Bundle Specification; ``models/model.pt`` is the model file as it was, whose weights stand under ``weights``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from torch import nn

from mhsev_monai._version import __version__
from mhsev_monai.bundle_card import model_card
from mhsev_monai.bundle_inference import MODEL_FILE
from mhsev_monai.candidate_network import CandidateMLP
from mhsev_monai.dsd.peaks import MOST_PEAKS
from mhsev_monai.model_file import SeverityModel, class_config, load_model
from mhsev_monai.networks import SeverityMLP

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""The metadata schema that bundles of MONAI 1.4 and later name."""

REQUIRED_PACKAGES = ("nibabel", "numba", "scipy")
"""What grading needs beside MONAI's own requirements and mhsev."""

_GRADES = "none, mild, moderate, severe"


class BundleError(ValueError):
    """A bundle that cannot be written; the message names no path."""


@dataclass(frozen=True)
class BundleLabels:
    """What only people can say of a bundle.

    Attributes:
        name: heading of the model card.
        version: of the bundle.
        authors: who made the model; also holder of the copyright.
        licence: text of the licence; None: that of mhsev.
    """

    name: str = "Severity of cerebral microbleeds on diffusion MRI"
    version: str = "0.1.0"
    authors: str = "not stated"
    licence: str | None = None


def export_bundle(model_file: Path, out: Path, labels: BundleLabels) -> None:
    """Write a bundle, whole or not at all.

    Args:
        model_file: model.pt of a run.
        out: the bundle's folder, which must not exist.
        labels: what the model file does not say.

    Raises:
        ModelFileError: if the model file cannot be used.
        BundleError: if the folder exists, or the model cannot grade a scan alone.
    """
    if out.exists():
        raise BundleError("there is something already; name a folder that does not exist")
    model = load_model(model_file)
    if not hasattr(model.inputs, "process"):
        raise BundleError(f"the model reads {type(model.inputs).__name__}, which cannot process a scan alone")
    metadata = bundle_metadata(model, hashlib.sha256(model_file.read_bytes()).hexdigest(), labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / "bundle"
        for name in ("configs", "models", "docs"):
            (folder / name).mkdir(parents=True)
        _write_json(folder / "configs" / "metadata.json", metadata)
        _write_json(folder / "configs" / "inference.json", inference_config())
        (folder / "docs" / "README.md").write_text(model_card(labels.name, metadata))
        (folder / "LICENSE").write_text(labels.licence if labels.licence is not None else own_licence())
        shutil.copyfile(model_file, folder / MODEL_FILE)
        folder.rename(out)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n")


def own_licence() -> str:
    """The licence under which mhsev was installed."""
    try:
        installed = distribution("mhsev")
    except PackageNotFoundError as error:
        raise BundleError(
            "mhsev is not installed, so that its licence is not found; name one with --license"
        ) from error
    text = installed.read_text("licenses/LICENSE") or installed.read_text("LICENSE")
    for file in installed.files or ():
        if text is None and file.name == "LICENSE":
            text = Path(str(installed.locate_file(file))).read_text()
    if text is None:
        raise BundleError("the licence of mhsev is not among its installed files; name one with --license")
    return text


def inference_config() -> dict[str, Any]:
    """``configs/inference.json``: names and references, no code.

    ``evaluator``, ``inferer``, ``network_def`` and ``dataset_dir`` are what MONAI's list of inference properties asks
    for, so that tools find the parts under the names that they know.
    """
    return {
        "bundle_root": ".",
        "device": "cpu",
        "dataset_dir": ".",
        "image": None,
        "bval": None,
        "b0_only": False,
        "output": None,
        "model": {"_target_": "mhsev_monai.bundle_inference.load_bundle_model", "bundle_root": "@bundle_root"},
        "network_def": "$@model.network",
        "dataset": {"_target_": "monai.data.Dataset", "data": [{"image": "@image", "bval": "@bval"}]},
        "inferer": {"_target_": "monai.inferers.SimpleInferer"},
        "evaluator": {
            "_target_": "mhsev_monai.bundle_inference.ScanGrading",
            "model": "@model",
            "dataset": "@dataset",
            "b0_only": "@b0_only",
            "output": "@output",
        },
        "run": ["$@evaluator.run()"],
    }


def bundle_metadata(model: SeverityModel, sha256: str, labels: BundleLabels) -> dict[str, Any]:
    """``configs/metadata.json``.

    Args:
        model: the trained model.
        sha256: of its file.
        labels: what the model file does not say.

    Raises:
        BundleError: if the shape of the network's input is not known.
    """
    return {
        "schema": SCHEMA,
        "version": labels.version,
        "changelog": {labels.version: f"exported by mhsev {__version__}"},
        "monai_version": version("monai"),
        # A local label such as +cpu is no version that another computer could be asked for.
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"mhsev": __version__, **{name: version(name) for name in REQUIRED_PACKAGES}},
        "task": "Grade the severity of cerebral microbleeds on a diffusion MRI scan of the head, and count them",
        "description": "Candidate dark spots of a brain's b = 0 and trace images, found by dynamic spectral "
        f"decomposition, are judged by a network, which gives the number of microbleeds and a grade ({_GRADES}).",
        "authors": labels.authors,
        "copyright": f"Copyright: {labels.authors}",
        "data_type": "nifti",
        "intended_use": "Research use only; not for diagnosis. DWI shows fewer microbleeds than T2*-GRE or SWI.",
        "image_classes": "descriptors of the scan, as the inputs named in mhsev_model compute them",
        "pred_classes": f"three conditional logits of the grades ({_GRADES}), then log(1 + count)",
        "network_data_format": _data_format(model),
        "mhsev_model": {
            "network": _plain(class_config(model.network)),
            "parameters": sum(weights.numel() for weights in model.network.parameters()),
            "inputs": _plain(class_config(model.inputs)),
            "input_fingerprint": model.inputs.fingerprint(),
            "scale": model.scale.name,
            "lower_bounds": list(model.scale.lower_bounds),
            "sha256": sha256,
            "provenance": _plain(model.provenance),
        },
    }


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def _data_format(model: SeverityModel) -> dict[str, Any]:
    channels, *spatial = input_shape(model.network)
    names = list(model.inputs.feature_names)
    described = {str(i): name for i, name in enumerate(names)} if not spatial else {}
    meaning = "descriptors" if not spatial else f"candidates, deepest first; each has {len(names)} descriptors"
    unlimited: list[float] = []
    return {
        "inputs": {
            "image": {
                "type": "tuples",
                "format": "latent",
                "modality": "MR",
                "num_channels": channels,
                "spatial_shape": spatial,
                "dtype": "float32",
                "value_range": unlimited,
                "is_patch_data": False,
                "channel_def": described or {"0": meaning},
            }
        },
        "outputs": {
            "pred": {
                "type": "tuples",
                "format": "latent",
                "num_channels": 4,
                "spatial_shape": [],
                "dtype": "float32",
                "value_range": unlimited,
                "is_patch_data": False,
                "channel_def": {
                    "0": "logit of mild or worse",
                    "1": "logit of moderate or worse, given mild or worse",
                    "2": "logit of severe, given moderate or worse",
                    "3": "log(1 + count of microbleeds)",
                },
            }
        },
    }


def input_shape(network: nn.Module) -> tuple[int, ...]:
    """Shape of what a network reads of one scan.

    Raises:
        BundleError: for networks other than ``CandidateMLP`` and ``SeverityMLP``.
    """
    # A subclass reads pictures.
    if type(network) is CandidateMLP:
        return MOST_PEAKS, network.in_features
    if isinstance(network, SeverityMLP):
        return (network.in_features,)
    raise BundleError(
        f"the model holds a {type(network).__name__}; CandidateMLP and SeverityMLP can be exported as a bundle"
    )
