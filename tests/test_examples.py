"""The examples of the documentation run as they are printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mhsev_flare.benchmark.graded import SCORES
from mhsev_monai.cohort import make_cohort
from mhsev_monai.cohort.settings import CohortSettings

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


@pytest.mark.slow
def test_a_fifth_model_is_one_class_and_one_row(tmp_path):
    make_cohort(tmp_path, 40, 3, workers=2, settings=CohortSettings(size="small"))
    command = [sys.executable, str(EXAMPLES / "own_model.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n_test = re.search(r"(\d+) test cases", done.stdout)
    assert n_test is not None
    assert 9 <= int(n_test[1]) <= 15
    assert all(re.search(rf"{name} -?[\d.]+", done.stdout) for name in SCORES)
