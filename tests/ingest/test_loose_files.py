"""NIfTI as sites have it: series with b-values, separate images as a PACS exports them, and what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import AFFINE, PATIENT, SHAPE, save, voxels

from mhsev_monai.cases import read_cases
from mhsev_monai.errors import CohortError, ScanError
from mhsev_monai.ingest.bids_root import open_root
from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.ingest.ledger import LEDGER
from mhsev_monai.ingest.site import IngestSummary, bring_in, ingest
from mhsev_monai.ingest.source import look_through
from mhsev_monai.scan_contrast import ScanContrast

ONE = SHAPE[:3]
B0 = np.full(ONE, 1000.0, np.float32) + voxels(ONE) / 10
TRACE = B0 * np.exp(-1000 * 0.8e-3).astype(np.float32)


@pytest.fixture
def bring(tmp_path) -> Callable[..., IngestSummary]:
    def bring(contrast: ScanContrast = ScanContrast.DWI, b_value: float | None = None) -> IngestSummary:
        found, keys = look_through(tmp_path / "src"), SubjectKeys(tmp_path / "site")
        return bring_in(found, tmp_path / "bids", keys, contrast=contrast, b_value=b_value)

    return bring


def only_image(tmp_path: Path) -> tuple[nib.Nifti1Image, list[float] | None]:
    path = next((tmp_path / "bids").glob("sub-*/**/*.nii.gz"))
    bval = Path(str(path).replace(".nii.gz", ".bval"))
    return nib.load(path), np.loadtxt(bval, ndmin=1).tolist() if bval.exists() else None


def test_a_series_with_its_b_values_is_taken_as_it_is(tmp_path, bring):
    save(tmp_path / "src" / PATIENT / "scan.nii.gz", bvals="1.25 929.753 929.753")
    assert bring().entries[0].outcome == "accepted"
    image, b_values = only_image(tmp_path)
    assert b_values == [1.25, 929.753, 929.753]
    assert np.array_equal(image.get_fdata(), voxels())
    assert np.allclose(image.affine, AFFINE)


def test_the_patient_is_the_folder_and_no_name_travels(tmp_path, bring):
    for number, name in enumerate(("Roe^Jane/1950-02-03/a", "Roe^Jane/1950-02-03/b", "Doe^John/x")):
        save(tmp_path / "src" / f"{name} Roe^Jane.nii.gz", voxels() + number)
    entries = bring().entries
    assert [entry.outcome for entry in entries] == ["accepted"] * 3
    assert len({entry.subject for entry in entries}) == 2
    beside = [entry for entry in entries if "2 scans of one folder" in "".join(entry.warnings)]
    assert len(beside) == 2
    written = [str(path.relative_to(tmp_path / "bids")) for path in (tmp_path / "bids").rglob("*")]
    assert not [path for path in written if "Roe" in path or "Doe" in path or "1950" in path]


def test_folders_within_folders_are_not_guessed_to_be_patients_or_visits(tmp_path, bring):
    for number, folder in enumerate(("batch/p1", "batch/p2", "other/p3")):
        save(tmp_path / "src" / folder / "dwi.nii.gz", voxels() + number)
    outcomes = {entry.outcome: entry.reason for entry in bring().entries}
    assert "may be patients or visits" in outcomes["refused"]
    assert len(list((tmp_path / "bids").glob("sub-*/**/*.nii.gz"))) == 1


def test_one_name_for_two_scans_overwrites_nothing(tmp_path, bring):
    """Two exports into folders of one name, one after the other."""
    for number in (1, 2):
        save(tmp_path / "src" / "p1" / "dwi.nii.gz", voxels() + number)
        assert bring().entries[0].outcome == "accepted"
    images = sorted((tmp_path / "bids").glob("sub-*/**/*.nii.gz"))
    assert [
        np.array_equal(nib.load(path).get_fdata(), voxels() + n) for path, n in zip(images, (1, 2), strict=True)
    ] == [True] * 2


def test_a_b_word_in_a_patient_s_code_is_no_b_value(tmp_path, bring):
    save(tmp_path / "src" / "b101_b0.nii.gz", B0, bvals=None)
    save(tmp_path / "src" / "b102_trace.nii.gz", TRACE, bvals=None)
    assert [entry.outcome for entry in bring().entries] == ["left out", "left out"]


def test_other_contrasts_take_only_what_may_be_theirs(tmp_path, bring):
    folder = tmp_path / "src" / "sub-1" / "anat"
    for name in ("T1w", "FLAIR", "T2starw", "mask"):
        save(folder / f"sub-1_{name}.nii.gz", B0, bvals=None)
    save(tmp_path / "src" / "sub-1" / "dwi" / "sub-1_dwi.nii.gz")
    entries = bring(ScanContrast.T2STAR).entries
    assert [entry.kind for entry in entries if entry.outcome == "accepted"] == ["T2*-weighted image"]
    assert {entry.outcome for entry in entries} == {"accepted", "left out"}
    # The same source under another contrast finds its own, and names it as that contrast does.
    assert [e.scan.endswith("_dwi") for e in bring().entries if e.outcome == "accepted"] == [True]


def test_a_big_endian_image_keeps_its_values(tmp_path, bring):
    save(tmp_path / "src" / "p" / "x.nii.gz", voxels().astype(">i2"))
    assert bring().entries[0].outcome == "accepted"
    assert np.array_equal(only_image(tmp_path)[0].get_fdata(), voxels().astype(int))


def test_a_folder_that_cannot_be_entered_is_counted(tmp_path, bring, monkeypatch):
    save(tmp_path / "src" / "a" / "x.nii.gz")
    save(tmp_path / "src" / "Roe^Jane" / "x.nii.gz")
    real = os.scandir

    def closed(path):
        if str(path).endswith("Jane"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    entries = bring().entries
    assert sorted(entry.outcome for entry in entries) == ["accepted", "refused"]
    assert "cannot be opened" in next(entry.reason for entry in entries if entry.outcome == "refused")


def test_links_are_followed_once(tmp_path, bring):
    save(tmp_path / "elsewhere" / "x.nii.gz")
    (tmp_path / "src" / "p").mkdir(parents=True)
    (tmp_path / "src" / "p" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "src" / "p" / "loop").symlink_to(tmp_path / "src")
    assert [entry.outcome for entry in bring().entries] == ["accepted"]


def test_an_interrupted_run_leaves_no_second_copy(tmp_path, bring):
    save(tmp_path / "src" / "p" / "x.nii.gz")
    bring()
    (tmp_path / "bids" / LEDGER).unlink()
    assert "run" not in bring().entries[0].scan
    assert len(list((tmp_path / "bids").glob("sub-*/**/*.nii.gz"))) == 1


def test_the_root_is_no_source(tmp_path):
    (tmp_path / "bids").mkdir()
    with pytest.raises(ScanError, match="is the BIDS root, or lies inside it"):
        look_through(tmp_path / "bids", tmp_path / "bids")


def test_a_bids_root_keeps_its_subjects_and_sessions_under_new_names(tmp_path, bring):
    for session in ("ses-1", "ses-2"):
        save(tmp_path / "src" / "sub-01" / session / "dwi" / f"sub-01_{session}_dwi.nii.gz", bvals=None)
    (tmp_path / "src" / "dwi.bval").write_text("0 1000 1000\n")
    bring()
    cases = read_cases(tmp_path / "bids", require_counts=False).cases
    assert len(cases) == 2
    assert len({case.subject for case in cases}) == 1
    assert "ses-1" not in {case.case_id.partition("_")[2] for case in cases}


@pytest.mark.parametrize(
    ("b0", "trace"),
    [
        ("P1_b0", "P1_b1000"),
        ("P1_S0", "P1_trace_b1000"),
        ("P1-b0", "P1-bval=1000"),
        ("b0", "dwi_b1000"),
    ],
)
def test_separate_images_become_one_series(b0, trace, tmp_path, bring):
    save(tmp_path / "src" / f"{b0}.nii.gz", B0, bvals=None)
    save(tmp_path / "src" / f"{trace}.nii.gz", TRACE, bvals=None)
    assert [(entry.outcome, entry.n_files) for entry in bring().entries] == [("accepted", 2)]
    image, b_values = only_image(tmp_path)
    assert b_values == [0, 1000]
    assert np.allclose(image.get_fdata(), np.stack([B0, TRACE], axis=-1))


def test_the_b_value_of_a_trace_comes_from_the_call_or_a_sidecar_or_is_asked_for(tmp_path, bring):
    save(tmp_path / "src" / "p_b0.nii.gz", B0, bvals=None)
    save(tmp_path / "src" / "p_trace.nii.gz", TRACE, bvals=None)
    assert "give it with --b-value" in bring().entries[0].reason
    assert bring(b_value=929.75).entries[0].outcome == "accepted"
    assert only_image(tmp_path)[1] == [0, 929.75]
    (tmp_path / "src" / "p_trace.json").write_text(json.dumps({"DiffusionBValue": 800}))
    bring()
    assert only_image(tmp_path)[1] == [0, 800]


@pytest.mark.parametrize(
    ("adc", "agrees"), [(0.8e-3, True), (0.8, True), (800, True), (0.4e-3, False), (1.6, False)], ids=str
)
def test_an_adc_map_is_compared_in_whatever_unit(adc, agrees, tmp_path, bring):
    for name, image in {"b0": B0, "b1000": TRACE, "ADC": np.full(ONE, adc) * (1 + 0.01 * voxels(ONE) / 2000)}.items():
        save(tmp_path / "src" / f"p_{name}.nii.gz", image.astype(np.float32), bvals=None)
    entry = bring().entries[0]
    assert (entry.outcome, entry.n_files) == ("accepted", 3)
    assert any("ADC map given differs" in warning for warning in entry.warnings) is not agrees


def test_separate_images_of_different_grids_are_refused(tmp_path, bring):
    save(tmp_path / "src" / "p_b0.nii.gz", B0, bvals=None)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    save(tmp_path / "src" / "p_b1000.nii.gz", TRACE, moved, bvals=None)
    assert "the trace-weighted image has another grid" in bring().entries[0].reason


def test_two_patients_in_one_folder_are_not_mixed(tmp_path, bring):
    for name, b0, trace in (("p1", B0, TRACE), ("p2", 2 * B0, 2 * TRACE)):
        save(tmp_path / "src" / f"{name}_b0.nii.gz", b0, bvals=None)
        save(tmp_path / "src" / f"{name}_b1000.nii.gz", trace, bvals=None)
    entries = bring().entries
    assert [entry.n_files for entry in entries] == [2, 2]
    assert len({entry.subject for entry in entries}) == 2


@pytest.mark.parametrize(
    ("name", "outcome", "word"),
    [
        ("scan", "refused", "no .bval"),
        ("p_ADC", "left out", "ADC map"),
        ("p_b0", "left out", "b0 image"),
        ("p_trace", "left out", "trace"),
        ("sub-1_T1w", "left out", "other image"),
    ],
)
def test_an_image_alone_is_told_by_its_name(name, outcome, word, tmp_path, bring):
    save(tmp_path / "src" / f"{name}.nii.gz", B0, bvals=None)
    entry = bring().entries[0]
    assert entry.outcome == outcome
    assert word in entry.reason


@pytest.mark.parametrize("contrast", [ScanContrast.T2STAR, ScanContrast.SWI, ScanContrast.SE_EPI])
def test_an_image_without_diffusion_is_taken_under_its_contrast(contrast, tmp_path, bring):
    save(tmp_path / "src" / PATIENT / "scan.nii.gz", B0, bvals=None)
    entry = bring(contrast).entries[0]
    assert (entry.outcome, entry.scan.endswith(f"_{contrast.suffix}")) == ("accepted", True)
    case = read_cases(tmp_path / "bids", require_counts=False, contrast=contrast).cases[0]
    assert case.image.parent.name == contrast.folder
    # It is found under no other contrast.
    for other in set(ScanContrast) - {contrast}:
        with pytest.raises(ValueError, match=f"no {other} scan"):
            read_cases(tmp_path / "bids", require_counts=False, contrast=other)


def test_a_broken_image_takes_no_other_along(tmp_path, bring):
    save(tmp_path / "src" / "a" / "x.nii.gz")
    path = save(tmp_path / "src" / "b" / "x.nii.gz")
    path.write_bytes(path.read_bytes()[:300])
    assert sorted(entry.outcome for entry in bring().entries) == ["accepted", "refused"]


def test_bringing_the_same_again_changes_nothing(tmp_path, bring):
    save(tmp_path / "src" / "a" / "x.nii.gz")
    save(tmp_path / "src" / "a" / "y.nii.gz", voxels() + 1)
    bring()
    before = {path: path.read_bytes() for path in (tmp_path / "bids").rglob("*") if path.is_file()}
    bring()
    assert {path: path.read_bytes() for path in (tmp_path / "bids").rglob("*") if path.is_file()} == before


def test_a_second_series_gets_the_next_run_and_a_filled_table_stays(tmp_path, bring):
    save(tmp_path / "src" / "a" / "x.nii.gz")
    subject = bring().entries[0].subject
    table = tmp_path / "bids" / "participants.tsv"
    table.write_text(table.read_text().replace(f"{subject}\tn/a\tn/a\tn/a", f"{subject}\tF\t60-69\t7"))
    save(tmp_path / "src" / "a" / "y.nii.gz", voxels() + 1)
    save(tmp_path / "src" / "b" / "x.nii.gz")
    scans = sorted(entry.scan.removeprefix(subject) for entry in bring().entries if entry.subject == subject)
    assert scans == ["_dwi", "_run-2_dwi"]
    rows = table.read_text().splitlines()
    assert rows[1] == f"{subject}\tF\t60-69\t7"
    assert len(rows) == 3


def test_the_root_inside_the_source_is_not_brought_in_again(tmp_path):
    save(tmp_path / "src" / "a" / "x.nii.gz")
    keys, root = SubjectKeys(tmp_path / "site"), tmp_path / "src" / "bids"
    ingest(tmp_path / "src", root, keys)
    assert len(ingest(tmp_path / "src", root, keys).entries) == 1


def test_two_runs_do_not_write_into_one_root_at_once(tmp_path, bring):
    save(tmp_path / "src" / "a" / "x.nii.gz")
    with open_root(tmp_path / "bids"), pytest.raises(CohortError, match="wait until it has ended"):
        bring()
    assert bring().entries[0].outcome == "accepted"


def test_a_source_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(ScanError, match="no such file or folder") as caught:
        look_through(tmp_path / "nothing")
    assert str(tmp_path) not in str(caught.value)
