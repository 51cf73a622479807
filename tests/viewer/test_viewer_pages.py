"""What the page of a scan holds, and what it does not."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import replace
from importlib.resources import files

import nibabel as nib
import numpy as np
import pytest
from viewer_phantom import LEFT_SPOT, PATIENT, RIGHT_SPOT, SHAPE, affine, scan, world

from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.trust import ABSTENTIONS
from mhsev_monai.viewer.pages import chance, page_spots, place, viewer_files

NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of dist/niivue.umd.js in the npm package @niivue/niivue 0.69.0: `npm pack @niivue/niivue@0.69.0`."""


@pytest.fixture(scope="module")
def served():
    return viewer_files(*scan())


def test_the_library_is_the_published_one_and_comes_with_its_licence(served):
    assert hashlib.sha256(served["niivue.umd.js"].body).hexdigest() == NIIVUE_SHA256
    licence = (files("mhsev_monai.viewer") / "LICENSE-niivue.txt").read_text()
    assert "BSD 2-Clause License" in licence
    # What is bundled in the file has terms of its own.
    for package in ("gl-matrix", "nifti-reader-js", "fflate", "zarrita", "numcodecs"):
        assert f"---- {package} " in licence


def test_no_name_path_or_date_is_served(served):
    for name, file in served.items():
        if name == "niivue.umd.js":
            continue
        assert PATIENT.encode() not in file.body
        assert b"/archive" not in file.body
        assert re.search(rb"\b(19|20)\d\d-?[01]\d-?[0-3]\d\b", file.body) is None


def test_the_page_says_what_it_is_for_and_how_it_is_hung(served):
    page = served[""].body.decode()
    assert '<html lang="en">' in page
    assert "<title>Scan: mild, 2 microbleeds - mhsev</title>" in page
    assert "Research use only" in page
    assert "the patient's right (R) is on the left of the picture" in page
    assert "90 % interval 1 to 4" in page


def test_the_page_says_where_the_model_does_not_stand_by_its_grade(served):
    grade, entries = scan()
    assert "The model abstains" not in served[""].body.decode()
    page = viewer_files(replace(grade, abstains="odd_scan"), entries)[""].body.decode()
    assert f"<strong>The model abstains:</strong> {ABSTENTIONS['odd_scan']}." in page


def test_the_page_needs_no_inline_script_or_style(served):
    page = served[""].body.decode()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|\bstyle=|\bon\w+=", page) == []
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", page) == []


def test_text_of_the_data_is_escaped(served):
    assert "the coverage is &lt;partial&gt; &amp; small" in served[""].body.decode()


def test_volumes_keep_grid_and_values(served):
    _, entries = scan()
    for name, key in (("b0.nii", Keys.B0), ("dsd.nii", Keys.DSD)):
        image = nib.Nifti1Image.from_stream(io.BytesIO(served[name].body))
        assert image.shape == SHAPE
        np.testing.assert_allclose(image.affine, affine(), atol=1e-4)  # a header holds float32
        sign = -1 if key == Keys.DSD else 1
        np.testing.assert_array_equal(image.get_fdata(), sign * np.asarray(entries[key][0]))
    outline = nib.Nifti1Image.from_stream(io.BytesIO(served["brain.nii"].body)).get_fdata() > 0
    brain = np.asarray(entries[Keys.BRAIN_MASK][0]) > 0
    assert 0 < outline.sum() < 0.5 * brain.sum()
    assert not (outline & ~brain).any()


def test_spots_are_numbered_by_rank_and_other_candidates_follow_without_a_number():
    spots = page_spots(*scan())
    assert [(spot.number, spot.kind) for spot in spots] == [(1, "finding"), (2, "possible"), (None, "candidate")]
    assert spots[0].position_mm == pytest.approx(world(RIGHT_SPOT), abs=0.05)
    assert spots[1].position_mm == pytest.approx(world(LEFT_SPOT), abs=0.05)
    assert world(RIGHT_SPOT)[0] > 0 > world(LEFT_SPOT)[0]
    assert spots[0].told.startswith("probability 0.90, 40 % darker than around, at R ")


def test_a_model_that_makes_no_map_or_points_at_nothing_has_a_page_too():
    grade, entries = scan()
    without = {key: value for key, value in entries.items() if key not in (Keys.DSD, Keys.CANDIDATE_VOXELS)}
    served = viewer_files(replace(grade, findings=(), possible=(), judges_spots=False, count_interval=None), without)
    assert "dsd.nii" not in served
    assert [layer["key"] for layer in json.loads(served["scan.json"].body)["layers"]] == ["b0", "brain"]
    assert "points at none of these" in served[""].body.decode()


@pytest.mark.parametrize(
    ("position", "told"),
    [((10.0, -20.04, 30.0), "R 10.0, P 20.0, S 30.0 mm"), ((-0.26, 0.0, -5.0), "L 0.3, A 0.0, I 5.0 mm")],
)
def test_places_have_letters(position, told):
    assert place(position) == told


@pytest.mark.parametrize(("value", "told"), [(0.0, "under 0.01"), (0.123, "0.12"), (0.997, "over 0.99")])
def test_nothing_is_certain(value, told):
    assert chance(value) == told
