"""Headers of which random bytes were changed run through the whole pipeline: no result with a reason, or no harm.

``MHSEV_SPOILED=500 pytest -s tests/pacs/test_spoiled_headers.py`` spoils 500 series and tells what became of them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from dicom_heads import write_head, write_model
from pydicom.dataset import Dataset

from mhsev_monai.pacs.identity import series_key

pytestmark = pytest.mark.slow

N_SPOILED = int(os.environ.get("MHSEV_SPOILED", "40"))
FORMS = {"classic": N_SPOILED // 5, "enhanced": N_SPOILED - N_SPOILED // 5}
"""How many series of each form are spoiled; one of each form is not."""
SEED = 1
PIXEL_DATA = b"\xe0\x7f\x10\x00OW"
FIRST = 100
ROOT = "1.2.826.0.1.6"


def first_of_all(dataset: Dataset) -> Dataset:
    """Give a series UIDs that its copies replace."""
    dataset.SeriesInstanceUID = f"{ROOT}.{FIRST}"
    dataset.SOPInstanceUID = f"{ROOT}.{FIRST}.{dataset.InstanceNumber}"
    return dataset


def spoil(path: Path, n_bytes: int, dice: random.Random) -> None:
    """Change bytes between the preamble and the pixels."""
    content = bytearray(path.read_bytes())
    end = content.rindex(PIXEL_DATA)
    for _ in range(n_bytes):
        content[dice.randrange(132, end)] ^= dice.randrange(1, 256)
    path.write_bytes(content)


def write_all(folder: Path, dice: random.Random) -> None:
    """Of each form one series as it is, and its copies, of which one file each is spoiled at 1 to 4 bytes."""
    number = FIRST
    for form, n_spoiled in FORMS.items():
        whole = write_head(folder.with_name(form), form=form, change=first_of_all)
        for copy in range(n_spoiled + 1):
            made = folder / str(number)
            made.mkdir(parents=True)
            for path in sorted(whole.folder.iterdir()):
                content = path.read_bytes()
                (made / path.name).write_bytes(content.replace(f"{ROOT}.{FIRST}".encode(), f"{ROOT}.{number}".encode()))
            if copy:
                spoil(dice.choice(sorted(made.iterdir())), dice.randint(1, 4), dice)
            number += 1


def run(source: Path, out: Path, model: Path) -> list[dict]:
    """What a child process tells of the series."""
    command = [sys.executable, "-m", "mhsev_flare.cli", "dicom", "run", str(source), str(out), "--json"]
    ended = subprocess.run([*command, "--model", str(model)], capture_output=True, text=True, check=False)
    # 1: not all was graded. A crash has another status, and a traceback.
    assert (ended.returncode, ended.stderr) == (1, "")
    return [json.loads(line) for line in ended.stdout.splitlines()]


def values_of(out: Path, outcome: dict) -> bytes:
    """The feature map of a graded series."""
    (name,) = (name for name in outcome["results"] if name.endswith("/map.dcm"))
    found: bytes = pydicom.dcmread(out / name).FloatPixelData
    return found


def told(outcomes: list[dict], maps: dict[str, bytes]) -> str:
    """What became of how many, by status, and of those without a result by reason."""
    counts = Counter(each["status"] for each in outcomes)
    reasons = Counter(f"{each['status']}: {each['reason']}" for each in outcomes if each["reason"])
    lines = [f"{N_SPOILED} spoiled and 2 whole series: {dict(counts)}, of the graded {len(set(maps.values()))} maps"]
    return "\n".join([*lines, *(f"{number:5} {reason}" for reason, number in reasons.most_common())])


def test_spoiled_headers_give_no_result_and_a_reason_or_the_result_of_the_whole_series(tmp_path):
    source = tmp_path / "in"
    write_all(source, random.Random(SEED))
    outcomes = run(source, tmp_path / "out", write_model(tmp_path / "model.pt"))
    assert {each["status"] for each in outcomes} <= {"done", "refused", "left out", "failed"}
    assert sum(each["n_files"] for each in outcomes) == sum(path.is_file() for path in source.rglob("*"))
    done = [each for each in outcomes if each["status"] == "done"]
    maps = {each["series"]: values_of(tmp_path / "out", each) for each in done}
    print(told(outcomes, maps))
    for each in outcomes:
        if each in done:
            assert (each["grade"], each["count"]) == ("mild", 1)
            assert len(each["results"]) == 6
        else:
            assert each["reason"]
            assert (each["grade"], each["count"], each["results"]) == (None, None, [])
    wholes = {series_key(f"{ROOT}.{FIRST}"), series_key(f"{ROOT}.{FIRST + FORMS['classic'] + 1}")}
    assert wholes <= {each["series"] for each in done}
    # One head in two forms, and whatever was graded of it: the same map, to the last bit.
    assert len(set(maps.values())) == 1
    # Bytes in names and descriptions do no harm; most others do.
    assert len(wholes) < len(done) < sum(FORMS.values()) / 2
