"""Real series of four vendors: results that validators accept, or a reason."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_heads import read_all, write_model
from test_result_objects import grade
from validators import contradictions, needs_validators, report_groups, segment_centre, segment_centres, standard_errors

from mhsev_flare.cli import main
from mhsev_monai.ingest.dicom.series import convert_series, group_series
from mhsev_monai.ingest.source import look_through
from mhsev_monai.model_file import load_model
from mhsev_monai.pacs.identity import file_digest
from mhsev_monai.pacs.results import LoadedModel, result_identity
from mhsev_monai.pacs.source_series import source_series

pytestmark = pytest.mark.slow

GRADED = (
    *("canon_classic_dwi", "canon_enhanced_dwi", "philips_classic_dwi", "siemens_ve11_classic_dwi"),
    *("siemens_ve11_mosaic_dwi", "siemens_xa30_enhanced_dwi"),
)
NOT_GRADED = {
    "ge_classic_dwi_phantom": ("refused", "the brain mask holds"),
    "ge_classic_seepi_human": ("left out", "spin-echo EPI"),
    "ge_classic_t2star_epi_human": ("left out", "T2*-weighted EPI"),
    "siemens_xa30_enhanced_adc": ("left out", "no original diffusion series"),
    "siemens_xa30_enhanced_b0": ("left out", "no original diffusion series"),
    "siemens_xa30_enhanced_tracew": ("left out", "no original diffusion series"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Marks the 1 % or so of real candidates that are darkest; most of a healthy head's are vessels and bone."""
    return write_model(tmp_path_factory.mktemp("model") / "model.pt", deepest=0.45)


@needs_validators
@pytest.mark.parametrize("name", GRADED)
def test_every_human_diffusion_series_gets_valid_objects(name, model, shared_data, tmp_path, capsys):
    source = shared_data / "dicom" / name
    assert main(["dicom", "run", str(source), str(tmp_path / "out"), "--model", str(model), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    files = [tmp_path / "out" / each for each in outcome["results"]]
    assert {file.stem.partition("-")[0] for file in files} == {"sr", "seg", "map", "marks", "report", "capture"}
    assert standard_errors(files) == []
    sources = sorted(source.glob("*.dcm"))
    assert set(contradictions([*files, *sources])) <= set(contradictions(sources))
    made = read_all(files[0].parent)
    measured, grade_word, findings = report_groups(made["sr"])
    assert (measured["Number of lesions"], grade_word.lower()) == (outcome["count"], outcome["grade"])
    assert len(findings) == len(made["seg"].SegmentSequence)
    centres = segment_centres(files[0].with_name("seg.dcm"))
    assert sorted(centres) == list(range(1, len(findings) + 1))
    for number, finding in enumerate(findings, start=1):
        assert np.linalg.norm(centres[number] - finding["roi"].value[0]) < 6


def test_regions_are_told_on_demand_under_uids_of_their_own(model, shared_data, tmp_path, capsys):
    pytest.importorskip("nilearn", reason="needs the template of the extra cohort")
    command = ["dicom", "run", str(shared_data / "dicom" / "siemens_xa30_enhanced_dwi"), str(tmp_path / "out")]
    assert main([*command, "--model", str(model), "--json", "--regions"]) == 0
    told = json.loads(capsys.readouterr().out)
    made = read_all((tmp_path / "out" / told["results"][0]).parent)
    (series,) = group_series(look_through(shared_data / "dicom" / "siemens_xa30_enhanced_dwi").dicom)
    identities = [result_identity(series, file_digest(model), regions) for regions in (True, False)]
    assert made["map"].SOPInstanceUID == identities[0].uid("instance", "map", 1)
    assert identities[0].uid("instance", "map", 1) != identities[1].uid("instance", "map", 1)
    groups = hd.sr.srread(made["sr"].filename).content.get_planar_roi_measurement_groups()
    parts = [each.get_qualitative_evaluations()[0].value.meaning for each in groups]
    assert len(parts) == len(made["seg"].SegmentSequence)
    assert set(parts) <= {"lobar", "deep", "infratentorial", "uncertain"}
    assert len(set(parts)) > 1


@pytest.mark.parametrize("name", NOT_GRADED)
def test_every_other_series_has_a_reason(name, model, shared_data, tmp_path, capsys):
    source = shared_data / "dicom" / name
    assert main(["dicom", "run", str(source), str(tmp_path / "out"), "--model", str(model), "--json"]) == 1
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["status"] == NOT_GRADED[name][0]
    assert NOT_GRADED[name][1] in outcome["reason"]
    assert list((tmp_path / "out").iterdir()) == []


TILE = 20
SPOT = (28, 25)
"""Column and row in the tile: white matter of this head."""


def test_a_spot_in_a_mosaic_is_marked_in_its_tile(shared_data, tmp_path, model):
    """Slices of 82 x 82 in a picture of 7 x 7 tiles; the place in the patient comes from nibabel's reader."""
    source = tmp_path / "in"
    shutil.copytree(shared_data / "dicom" / "siemens_ve11_mosaic_dwi", source)
    left, top = (TILE % 7) * 82, (TILE // 7) * 82
    for path in source.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.copy()
        pixels[top + SPOT[1], left + SPOT[0]] //= 20
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(path)
    made = grade(_at(source), LoadedModel(load_model(model), file_digest(model)), tmp_path / "out")
    from nibabel.nicom import dicomwrappers

    wrapper = dicomwrappers.wrapper_from_file(next(source.glob("*.dcm")))
    # nibabel's first index is the row, its second the column.
    place = (wrapper.affine @ (SPOT[1], SPOT[0], TILE, 1))[:3]
    objects = made.objects
    _, _, findings = report_groups(objects["sr"])
    distances = [np.linalg.norm(each["roi"].value[0] - place) for each in findings]
    number = int(np.argmin(distances)) + 1
    assert min(distances) < 1.0
    centre, _ = segment_centre(tmp_path / "out" / "seg.dcm", number)
    assert np.linalg.norm(centre - place) < 2.7
    circles = [
        circle.GraphicData[:2]
        for annotation in objects["marks"].GraphicAnnotationSequence
        for circle in annotation.GraphicObjectSequence
    ]
    wanted = (left + SPOT[0] + 0.5, top + SPOT[1] + 0.5)
    assert min(np.linalg.norm(np.subtract(circle, wanted)) for circle in circles) < 0.5


def _at(folder: Path):
    from dicom_heads import HeadSeries

    return HeadSeries(folder, (), 0.0, np.zeros(0))


@pytest.mark.parametrize("backwards", [False, True])
def test_slices_of_another_vendor_s_mosaic_are_found_in_either_order(backwards, shared_data):
    """No such file of UIH is at hand: a Siemens mosaic under its name, and the volume in both orders."""
    (series,) = group_series(look_through(shared_data / "dicom" / "siemens_ve11_mosaic_dwi").dicom)
    scan, _ = convert_series(series)
    files = tuple(replace(file, vendor="UIH") for file in series.files)
    stored = scan.stored[:, :, ::-1] if backwards else scan.stored
    found = source_series(replace(series, files=files), replace(scan, stored=stored))
    truth = source_series(series, scan)
    for mine, theirs in zip(found.slices if not backwards else found.slices[::-1], truth.slices, strict=True):
        assert np.array_equal(mine.stored, theirs.stored)
        assert mine.corner == theirs.corner
    # In space they lie as the volume says.
    assert [each.plane.position for each in found.slices] == [
        pytest.approx(each.plane.position, abs=0.01) for each in truth.slices
    ]
