"""The model card that an exported bundle begins with: facts of the model file, and places for what only people know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhsev_monai.prediction import LIMITS

TO_FILL = "*To be filled in by whoever passes the bundle on.*"


def model_card(name: str, metadata: Mapping[str, Any]) -> str:
    """Markdown.

    Args:
        name: heading of the card.
        metadata: what ``bundle_export.bundle_metadata`` made.
    """
    packages = ", ".join(f"{package} {version}" for package, version in metadata["required_packages_version"].items())
    facts = "\n".join(f"| {what} | {value} |" for what, value in _facts(metadata).items())
    return f"""# {name}

{metadata["description"]}

**{LIMITS}** It is not a medical device, and no clinical claim is made.

## Facts of the model

| | |
|---|---|
{facts}

## Run it

Needs MONAI {metadata["monai_version"]}, fire, and {packages}. From the bundle's folder:

```
python -m monai.bundle run --config_file configs/inference.json --image scan.nii.gz
```

`scan.nii.gz` is a diffusion series with its `.bval` beside it (else `--bval FILE`, or `--b0_only True` where every
volume is b = 0). The result is one JSON object, the last line on standard output, or in the file that `--output FILE`
names: grade, count with its 90 % interval, probability of each grade, findings with positions in mm (RAS+), reasons to
doubt. It is what `mhsev predict --json --model models/model.pt` prints, the scan's path aside. MONAI runs what a
configuration says: run bundles only from people whom you trust.

## Training data

{TO_FILL} Sites, scanners, field strength, voxel sizes and b-values; how microbleeds were counted, on which contrast,
and by whom; numbers of scans by grade; age and sex.

## Evaluation

{TO_FILL} Cases, class mix, accuracy, quadratic kappa, error of the count, each with its 95 % interval, and the same by
site and scanner.

## Limits

- DWI shows fewer microbleeds than T2*-GRE or SWI: a grade of "none" does not exclude them.
- A scanner, protocol or population unlike those of training may be graded wrongly without a warning.
- {TO_FILL} Further limits that the evaluation showed.

## Terms

`LICENSE` holds the terms that were named at the export. {TO_FILL} Who may use the weights, which come from patients'
scans, and for what.
"""


def _facts(metadata: Mapping[str, Any]) -> dict[str, str]:
    model = metadata["mhsev_model"]
    image = metadata["network_data_format"]["inputs"]["image"]
    shape = " x ".join(str(n) for n in (image["num_channels"], *image["spatial_shape"]))
    found = {
        "bundle version": metadata["version"],
        "authors": metadata["authors"],
        "network": f"`{model['network']['path']}`, {model['parameters']} parameters",
        "inputs": f"`{model['inputs']['path']}`, {shape}",
        "grading scale": f"{model['scale']}: at least {', '.join(str(n) for n in model['lower_bounds'])} microbleeds "
        "for mild, moderate, severe",
        "SHA-256 of `models/model.pt`": f"`{model['sha256']}`",
    }
    found |= {f"training: {name.replace('_', ' ')}": _told(value) for name, value in model["provenance"].items()}
    return found


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return str(value)
