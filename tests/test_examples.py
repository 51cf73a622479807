"""The examples of the documentation run as they are printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the checkout, not the wheel alone")


def test_a_segmentation_pipeline_trains_with_the_map_as_a_second_channel():
    command = [sys.executable, str(EXAMPLES / "segmentation_with_dsd.py"), "--steps", "24"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = re.findall(
        r"^(image alone|image and DSD map) +loss ([\d.]+) -> ([\d.]+)$", done.stdout, flags=re.MULTILINE
    )
    assert [name for name, *_ in losses] == ["image alone", "image and DSD map"]
    assert all(float(last) < float(first) for _, first, last in losses)
