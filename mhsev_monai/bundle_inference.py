"""What the configuration of an exported MONAI bundle names: the model of the bundle, and the grading of its scans."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mhsev_monai.errors import ScanError
from mhsev_monai.model_file import SeverityModel, load_model
from mhsev_monai.prediction import grade_scan

MODEL_FILE = Path("models") / "model.pt"
"""Where a bundle keeps the model file, from the bundle's folder."""


def load_bundle_model(bundle_root: str) -> SeverityModel:
    """The model of a bundle, checked as ``mhsev predict`` checks it.

    Args:
        bundle_root: folder of the bundle.

    Raises:
        ModelFileError: if the file is missing, damaged, or asks for features that this version computes otherwise.
    """
    return load_model(Path(bundle_root) / MODEL_FILE)


class ScanGrading:
    """Grades the scans of a dataset, as ``mhsev predict --json`` does, path aside: the evaluator of a bundle.

    MONAI's own evaluators need pytorch-ignite and give tensors; a grade is a count, its interval and probabilities.

    Args:
        model: from :func:`load_bundle_model`.
        dataset: each item has ``image``, the path of a NIfTI, and may have ``bval``, that of its b-values.
        b0_only: every volume is b = 0; no b-values are looked for.
        output: file for the result; None: standard output.
    """

    def __init__(
        self, model: SeverityModel, dataset: Sequence[Mapping[str, Any]], b0_only: bool, output: str | None
    ) -> None:
        self.model = model
        self.dataset = dataset
        self.b0_only = b0_only
        self.output = output

    def run(self) -> list[dict[str, Any]]:
        """Grade every scan; writes one JSON object a line, and returns them.

        Raises:
            ScanError: if no scan was named, or one cannot be used.
        """
        grades = [self._grade(item) for item in self.dataset]
        told = "".join(f"{json.dumps(grade)}\n" for grade in grades)
        if self.output is None:
            sys.stdout.write(told)
            sys.stdout.flush()
        else:
            Path(self.output).write_text(told)
        return grades

    def _grade(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if not item.get("image"):
            raise ScanError("no scan was named; add --image and the path of a NIfTI with its .bval beside it")
        bvals = item.get("bval")
        grade, _ = grade_scan(
            Path(str(item["image"])), self.model, None if bvals is None else Path(str(bvals)), self.b0_only
        )
        return grade.to_json()
