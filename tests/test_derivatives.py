"""Preprocessed scans on disk: right once, kept while nothing changes, made again when anything does."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from small_heads import AFFINE, SPACING, head

from mhsev_monai.cases import read_cases
from mhsev_monai.derivatives import write_derivatives
from mhsev_monai.errors import CohortError
from mhsev_monai.preprocess.functional import N4Parameters, dwi_brain_mask, estimate_log_bias
from mhsev_monai.preprocessing import Preprocessing


@pytest.fixture
def root(tmp_path) -> Path:
    for seed, subject in enumerate(("sub-1", "sub-2")):
        folder = tmp_path / "bids" / subject / "dwi"
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(head(seed), AFFINE), folder / f"{subject}_dwi.nii.gz")
        (folder / f"{subject}_dwi.bval").write_text("0 1000\n")
    return tmp_path / "bids"


def run(root: Path, out: Path, **parameters):
    return write_derivatives(read_cases(root, require_counts=False).cases, out, Preprocessing(**parameters))


def test_each_scan_has_its_contrasts_masks_and_record(root, tmp_path):
    summary = run(root, tmp_path / "out")
    assert (summary.made, summary.kept, summary.failed) == (("sub-1", "sub-2"), (), {})
    folder = tmp_path / "out" / "sub-1" / "dwi"
    ends = {path.name.removeprefix("sub-1_") for path in folder.iterdir()}
    images = {"desc-unbiased_S0map", "desc-unbiased_trace", "ADC", "desc-zscore_S0map", "desc-zscore_trace"}
    images |= {"desc-log_biasfield", "desc-brain_mask", "desc-search_mask"}
    assert ends == {f"{name}.nii.gz" for name in images} | {"desc-preproc.json"}
    described = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"


def test_the_files_are_what_the_functions_give(root, tmp_path):
    run(root, tmp_path / "out")
    volumes = nib.load(root / "sub-1" / "dwi" / "sub-1_dwi.nii.gz").get_fdata(dtype=np.float32)
    b0, trace = (torch.from_numpy(np.ascontiguousarray(volumes[..., t])) for t in (0, 1))
    mask = dwi_brain_mask(b0, trace, [SPACING] * 3)
    field = estimate_log_bias(b0, mask.mask, N4Parameters())

    def stored(ending: str) -> np.ndarray:
        image = nib.load(tmp_path / "out" / "sub-1" / "dwi" / f"sub-1_{ending}.nii.gz")
        assert np.allclose(image.affine, AFFINE)
        return np.asarray(image.dataobj)

    assert np.array_equal(stored("desc-brain_mask"), mask.mask.numpy())
    assert np.array_equal(stored("desc-search_mask"), mask.search_mask.numpy())
    assert stored("desc-brain_mask").dtype == np.uint8
    assert np.allclose(stored("desc-log_biasfield"), field, atol=1e-6)
    # One field, b0's, is divided out of both. Outside of the head the trace has a floor.
    brain = mask.mask.numpy()
    for ending, image in (("desc-unbiased_S0map", b0), ("desc-unbiased_trace", trace)):
        assert np.allclose(stored(ending)[brain], (image / field.exp()).numpy()[brain], rtol=1e-5)
    inside = stored("desc-zscore_S0map")[brain]
    assert abs(inside.mean()) < 0.05
    assert inside.std() == pytest.approx(1, abs=0.1)  # a few voxels are clipped
    assert stored("ADC")[brain].mean() == pytest.approx(np.log(5 / 3) / 1000, rel=0.05)


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("sub-*/**/*") if path.is_file()}


def test_what_is_there_and_right_is_not_made_again(root, tmp_path):
    out = tmp_path / "out"
    run(root, out)
    before = times(out)
    summary = run(root, out)
    assert (summary.made, summary.kept) == ((), ("sub-1", "sub-2"))
    assert times(out) == before


def cut_off(out: Path) -> None:
    path = out / "sub-1" / "dwi" / "sub-1_desc-brain_mask.nii.gz"
    path.write_bytes(path.read_bytes()[:50])


def deleted(out: Path) -> None:
    (out / "sub-1" / "dwi" / "sub-1_ADC.nii.gz").unlink()


def interrupted(out: Path) -> None:
    (out / "sub-1" / "dwi" / "sub-1_desc-preproc.json").unlink()


def record_damaged(out: Path) -> None:
    (out / "sub-1" / "dwi" / "sub-1_desc-preproc.json").write_text("{")


@pytest.mark.parametrize("harm", [cut_off, deleted, interrupted, record_damaged])
def test_a_scan_whose_files_are_not_right_is_made_again_and_no_other(harm, root, tmp_path):
    out = tmp_path / "out"
    run(root, out)
    sound = {path.name: path.read_bytes() for path in out.glob("sub-*/**/*") if path.is_file()}
    harm(out)
    summary = run(root, out)
    assert (summary.made, summary.kept) == (("sub-1",), ("sub-2",))
    assert {path.name: path.read_bytes() for path in out.glob("sub-*/**/*") if path.is_file()} == sound


def test_a_changed_file_or_b_value_is_another_scan(root, tmp_path):
    out = tmp_path / "out"
    run(root, out)
    (root / "sub-1" / "dwi" / "sub-1_dwi.bval").write_text("0 900\n")
    image = root / "sub-2" / "dwi" / "sub-2_dwi.nii.gz"
    (root / "sub-1" / "dwi" / "sub-1_dwi.nii.gz").rename(tmp_path / "kept")
    (tmp_path / "kept").rename(root / "sub-1" / "dwi" / "sub-1_dwi.nii.gz")
    assert run(root, out).made == ("sub-1",)
    image.write_bytes((root / "sub-1" / "dwi" / "sub-1_dwi.nii.gz").read_bytes())
    assert run(root, out).made == ("sub-2",)


def test_a_changed_parameter_makes_every_scan_again(root, tmp_path):
    out = tmp_path / "out"
    run(root, out)
    assert run(root, out, clip=3.0).made == ("sub-1", "sub-2")
    assert np.abs(nib.load(out / "sub-1" / "dwi" / "sub-1_desc-zscore_S0map.nii.gz").get_fdata()).max() <= 3.0


def test_a_scan_that_cannot_be_used_leaves_nothing_and_takes_no_other_along(root, tmp_path):
    out = tmp_path / "out"
    run(root, out)
    (root / "sub-1" / "dwi" / "sub-1_dwi.bval").write_text("0\n")
    summary = run(root, out)
    assert list(summary.failed) == ["sub-1"]
    assert "volumes in the image: 2" in summary.failed["sub-1"]
    assert summary.kept == ("sub-2",)
    assert list((out / "sub-1" / "dwi").iterdir()) == []


def test_workers_give_the_same_files(root, tmp_path):
    cases = read_cases(root, require_counts=False).cases
    seen = []
    write_derivatives(cases, tmp_path / "a", Preprocessing())
    write_derivatives(cases, tmp_path / "b", Preprocessing(), 2, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.nii.gz")}
        for name in "ab"
    )
    assert first == second


def test_a_folder_that_cannot_be_written_is_a_sentence(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CohortError, match="name another with --out") as caught:
        run(root, tmp_path / "file" / "out")
    assert str(tmp_path) not in str(caught.value)
