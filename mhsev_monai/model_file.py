"""The model file: weights, and all that grading a scan with them needs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mhsev_monai._version import __version__
from mhsev_monai.feature_cache import CaseInputs
from mhsev_monai.grade_calibration import GradeCalibration
from mhsev_monai.severity import SCALES, GradingScale

FORMAT = "mhsev-model/1"

# A model file is data that may come from elsewhere: it may only name classes of this package.
_OWN_PACKAGE = "mhsev_monai."


class ModelFileError(ValueError):
    """A file that is not a usable model; the message names no path."""


@dataclass(frozen=True)
class SeverityModel:
    """A trained network with its inputs and grading scale, and its calibration, None where the file has none."""

    network: nn.Module
    inputs: CaseInputs
    scale: GradingScale
    provenance: dict[str, Any]
    calibration: GradeCalibration | None = None


def class_config(instance: Any) -> dict[str, Any]:
    """``{"path": ..., "args": ...}``, the form in which FLARE's jobs and the model file name an object.

    The arguments are read back from attributes of the same names, as FLARE does when it writes a job.
    """
    cls = type(instance)
    names = [name for name in inspect.signature(cls).parameters if name != "self"]
    return {"path": f"{cls.__module__}.{cls.__qualname__}", "args": {name: getattr(instance, name) for name in names}}


def build(config: dict[str, Any]) -> Any:
    """The object that a ``class_config`` describes.

    Raises:
        ModelFileError: if it names a class outside ``mhsev_monai``, or one that is not there.
    """
    path = str(config.get("path", ""))
    if not path.startswith(_OWN_PACKAGE):
        raise ModelFileError(f"the model file names the class {path!r}; only classes of mhsev_monai are loaded")
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)(**config.get("args", {}))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the model file names {path}, which mhsev {__version__} cannot make; "
            "use the version that wrote it, or train again"
        ) from error


def save_model(
    path: Path,
    network: nn.Module,
    inputs: CaseInputs,
    scale: str,
    weights: dict[str, torch.Tensor],
    provenance: dict[str, Any],
    calibration: GradeCalibration | None = None,
) -> None:
    """Write a model file that ``torch.load(..., weights_only=True)`` can read.

    Args:
        path: where to; replaced whole or not at all.
        network: the network, for its class and arguments.
        inputs: what it reads, likewise.
        scale: name of the grading scale.
        weights: the network's state, which need not be the one that ``network`` holds.
        provenance: plain values that say where the weights come from; no identifiers.
        calibration: of these weights; None where there is none.
    """
    content = {
        "format": FORMAT,
        "version": __version__,
        "network": class_config(network),
        "inputs": class_config(inputs),
        "input_fingerprint": inputs.fingerprint(),
        "scale": scale,
        "weights": weights,
        "provenance": provenance,
        # Files of before have no such entry, and are read as ones without a calibration.
        **({} if calibration is None else {"calibration": calibration.to_json()}),
    }
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def load_model(path: Path) -> SeverityModel:
    """Read a model file.

    Raises:
        ModelFileError: if it is missing, is no model file, or asks for features that this version computes otherwise.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(
            "no model there; run `make demo` or a federated job first, or name another file"
        ) from error
    except Exception as error:
        raise ModelFileError(
            "not a model file of mhsev (torch cannot read it safely); name the model.pt of a run"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelFileError(f"not a model file of mhsev ({FORMAT}); name the model.pt of a run")
    try:
        return _restore(content)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelFileError(f"the model file is damaged or from another version than mhsev {__version__}") from error


def _restore(content: dict[str, Any]) -> SeverityModel:
    inputs = build(content["inputs"])
    if inputs.fingerprint() != content["input_fingerprint"]:
        raise ModelFileError(
            f"the model was trained on features that mhsev {__version__} computes otherwise; "
            f"use mhsev {content['version']}, or train again"
        )
    network = build(content["network"])
    network.load_state_dict(content["weights"])
    network.eval()
    known = content.get("calibration")
    calibration = None if known is None else GradeCalibration.from_json(known)
    return SeverityModel(network, inputs, SCALES[content["scale"]], content["provenance"], calibration)
