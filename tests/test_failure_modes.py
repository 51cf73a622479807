"""What can be wrong with a scan, from file to standardised contrasts: a sentence, a warning, or the right result.

The table is that of the design's findings on preprocessing, section 6. Files that cannot be opened at all have a table
of their own in ``ingest/test_broken_files.py``.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from small_heads import AFFINE, SHAPE, head

from mhsev_monai.cases import content_hash, group_by_content, read_cases
from mhsev_monai.errors import ScanError
from mhsev_monai.keys import SeverityKeys as Keys
from mhsev_monai.preprocessing import Z_SCORE_KEYS, Preprocessing, process

Make = Callable[[Path], Path]
NAME = "Roe^Jane"


def save(folder: Path, data: np.ndarray, affine: np.ndarray | None = AFFINE, bvals: str | None = "0 1000", **header):
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, folder / f"{NAME}.nii.gz")
    if bvals is not None:
        (folder / f"{NAME}.bval").write_text(bvals)
    return folder / f"{NAME}.nii.gz"


def raw_header(folder: Path, **fields) -> Path:
    """A file whose header nibabel would not write."""
    header = nib.Nifti1Image(head(), AFFINE).header
    header.set_data_offset(352)
    header["srow_x"], header["srow_y"], header["srow_z"], header["sform_code"] = *AFFINE[:3], 1
    for key, value in fields.items():
        header[key] = value
    path = folder / "x.nii"
    path.write_bytes(header.binaryblock + bytes(4) + head().tobytes(order="F"))
    (folder / "x.bval").write_text("0 1000")
    return path


def big_endian(folder: Path) -> Path:
    nib.save(nib.Nifti1Image(head(), AFFINE).as_reoriented(np.array([[0, 1], [1, 1], [2, 1]])), folder / "y.nii")
    image = nib.load(folder / "y.nii")
    swapped = nib.Nifti1Image(head(), AFFINE, header=image.header.as_byteswapped(">"))
    swapped.to_filename(folder / "x.nii")
    (folder / "x.bval").write_text("0 1000")
    return folder / "x.nii"


def scaled_integers(folder: Path) -> Path:
    header = nib.Nifti1Header()
    header.set_data_shape((*SHAPE, 2))
    header.set_data_dtype(np.int16)
    header.set_zooms((4.0, 4.0, 4.0, 1.0))
    header.set_sform(AFFINE, 1)
    header.set_slope_inter(0.5, -10)
    header.set_data_offset(352)
    stored = np.rint((head() + 10) * 2).astype(np.int16)
    (folder / "x.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4) + stored.tobytes(order="F")))
    (folder / "x.bval").write_text("0 1000")
    return folder / "x.nii.gz"


def sheared() -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 1] = 1.0
    return affine


def oblique(degrees: float = 36.0) -> np.ndarray:
    turn = np.eye(4)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn[:2, :2] = [[c, -s], [s, c]]
    return turn @ AFFINE


def with_nan(share: float) -> np.ndarray:
    data = head()
    data[..., 0].reshape(-1)[: int(share * data[..., 0].size)] = np.nan
    return data


def disagreeing(folder: Path) -> Path:
    image = nib.Nifti1Image(head(), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(np.diag([-1.0, 1, 1, 1]) @ AFFINE, 1)
    nib.save(image, folder / "x.nii")
    (folder / "x.bval").write_text("0 1000")
    return folder / "x.nii"


def phantom(folder: Path) -> Path:
    """Three bright rods in noise."""
    x, y, _ = np.meshgrid(*[np.arange(n) * 4.0 for n in SHAPE], indexing="ij")
    rods = sum(((x - a) ** 2 + (y - 90) ** 2 < 12**2) for a in (30, 80, 130)) > 0
    noise = np.random.default_rng(0).rayleigh(10, (*SHAPE, 2))
    return save(folder, (1000 * rods[..., None] + noise).astype(np.float32))


REFUSED: dict[str, tuple[Make, str]] = {
    "2-D": (lambda f: save(f, head()[:, :, 17, 0], bvals="0"), "2-D"),
    "single slice": (lambda f: save(f, head()[:, :, 17:18]), "40 x 46 x 1 x 2 voxels"),
    "5-D (x, y, z, 2, 2)": (lambda f: save(f, np.stack([head(), head()], -1)), "5-D"),
    "truncated .gz": (lambda f: cut(save(f, head())), "cut off or damaged"),
    "truncated .nii": (lambda f: cut(raw_header(f)), "cut off or damaged"),
    "empty": (lambda f: written(f, "x.nii.gz", b""), "empty, 0 bytes"),
    "text": (lambda f: written(f, "x.nii.gz", b"Roe^Jane" * 99), "not a NIfTI file"),
    "gz named .nii": (lambda f: save(f, head()).rename(f / "x.nii"), "rename it to end in .nii.gz"),
    "missing": (lambda f: f / "x.nii.gz", "no such file"),
    "NaN above 1 %": (lambda f: save(f, with_nan(0.02)), "2.0% of the voxels"),
    "zeros": (lambda f: save(f, np.zeros((*SHAPE, 2), np.int16)), "zero only"),
    "constant": (lambda f: save(f, np.full((*SHAPE, 2), 7, np.int16)), "a single value"),
    "sform all zero": (lambda f: raw_header(f, srow_x=0, srow_y=0, srow_z=0), "affine is all zero"),
    "RGB": (lambda f: save(f, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), bvals="0"), "colours"),
    "complex": (lambda f: save(f, head().astype(np.complex64)), "complex numbers"),
    "no .bval": (lambda f: save(f, head(), bvals=None), "no .bval file"),
    "b-values that do not fit": (lambda f: save(f, head(), bvals="0 1000 1000"), "in the image: 2, b-values in"),
    "a .bvec for a .bval": (lambda f: save(f, head(), bvals="0 1\n0 0\n0 0"), "as a .bvec does"),
    "fewer than 8 voxels": (lambda f: save(f, head()[:7]), "at least 8 x 8"),
    "voxels of 53 mm": (lambda f: save(f, head(), np.diag([53.0, 53, 53, 1])), "0.2 to 12 mm"),
    "phantom": (phantom, r"the brain mask holds"),
    "noise": (lambda f: save(f, np.random.default_rng(0).rayleigh(9, (*SHAPE, 2)).astype(np.float32)), "ml"),
    "a mouse": (lambda f: save(f, head(), np.diag([0.4, 0.4, 0.4, 1])), r"holds 0 ml|holds \d ml"),
}
# Case to maker, and words of a warning that must come, if one must.
WORKED_WITH: dict[str, tuple[Make, str | None]] = {
    "4-D": (lambda f: save(f, head()), None),
    "5-D (x, y, z, 2, 1)": (lambda f: save(f, head()[..., None]), None),
    "big-endian": (big_endian, None),
    "int16 with slope and intercept": (scaled_integers, None),
    "slope of NaN": (lambda f: raw_header(f, scl_slope=np.nan), None),
    "slope of 0": (lambda f: raw_header(f, scl_slope=0), None),
    "a column of b-values": (lambda f: save(f, head(), bvals="0\n1000\n"), None),
    "b-values of UIH": (lambda f: save(f, head(), bvals="1.25 929.75"), None),
    "NaN below 1 %": (lambda f: save(f, with_nan(0.005)), "NaN or infinite and set to 0"),
    "infinite voxels": (lambda f: save(f, with_inf()), "NaN or infinite"),
    "negative voxels": (lambda f: save(f, head() - 20), None),
    "no orientation": (lambda f: raw_header(f, sform_code=0), "no orientation"),
    "sheared": (lambda f: save_sform(f, sheared()), "sheared"),
    "sform and qform disagree": (disagreeing, "disagree"),
    "oblique by 36 degrees": (lambda f: save(f, head(), oblique()), None),
    "sagittal storage": (lambda f: save(f, np.ascontiguousarray(head().transpose(1, 2, 0, 3)), AFFINE), None),
    "anisotropic": (lambda f: save(f, head()[:, :, ::2], np.diag([4.0, 4, 8, 1])), None),
    "unit of 1e-6": (lambda f: save(f, head() * 1e-6), None),
    "a volume of zeros": (
        lambda f: save(f, np.concatenate([head(), 0 * head()[..., :1]], -1), bvals="0 1000 1000"),
        "left out",
    ),
}


def with_inf() -> np.ndarray:
    data = head()
    data[5, 5, 5, 0], data[6, 6, 6, 1] = np.inf, -np.inf
    return data


def save_sform(folder: Path, affine: np.ndarray) -> Path:
    return raw_header(folder, srow_x=affine[0], srow_y=affine[1], srow_z=affine[2])


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_cannot_be_used_is_one_sentence(make, words, tmp_path):
    with pytest.raises(ScanError, match=words) as caught:
        process(Preprocessing().transforms(), make(tmp_path), None)
    message = str(caught.value)
    assert "\n" not in message
    assert NAME not in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize(("make", "warning"), WORKED_WITH.values(), ids=WORKED_WITH)
def test_what_can_be_worked_with_gives_finite_contrasts_of_a_brain(make, warning, tmp_path):
    entries = process(Preprocessing().transforms(), make(tmp_path), None)
    n_voxels = float((entries[Keys.BRAIN_MASK] > 0).sum())
    # The brain is an ellipsoid of 0.8 half axes: 4/3 pi 0.512 / 8 of the grid.
    assert n_voxels / entries[Keys.BRAIN_MASK].numel() == pytest.approx(np.pi / 6 * 0.512, rel=0.12)
    for key in (Keys.B0, Keys.TRACE, *Z_SCORE_KEYS.values()):
        assert bool(torch.isfinite(entries[key]).all()), key
    warnings = entries["scan"]["warnings"]
    if warning is None:
        assert warnings == ()
    else:
        assert any(warning in found for found in warnings), warnings


@pytest.mark.parametrize("volumes", [(0,), (0, 0)], ids=["3-D", "4-D of b = 0"])
def test_a_scan_of_b0_alone_is_worked_with(volumes, tmp_path):
    data = head()[..., list(volumes)] if len(volumes) > 1 else head()[..., 0]
    entries = process(Preprocessing(b0_only=True).transforms(), save(tmp_path, data, bvals=None), None)
    assert Keys.TRACE not in entries
    assert entries["scan"]["n_b0"] == len(volumes)
    assert bool(torch.isfinite(entries[Z_SCORE_KEYS[Keys.B0]]).all())


@pytest.mark.parametrize("b_value", [300, 2500])
def test_a_shell_outside_of_clinical_protocols_leaves_b0_alone_with_a_flag(b_value, tmp_path):
    entries = process(Preprocessing().transforms(), save(tmp_path, head(), bvals=f"0 {b_value}"), None)
    assert Keys.TRACE not in entries
    assert Keys.ADC not in entries
    assert f"shell b={b_value} outside 600-1600" in "".join(entries["scan"]["warnings"])


def test_a_slab_says_at_which_faces_the_brain_is_cut(tmp_path):
    entries = process(Preprocessing().transforms(), save(tmp_path, head()[:, :, 10:24]), None)
    assert entries["quality"]["touches_border"] == "first z, last z"


@pytest.mark.slow
def test_more_voxels_than_torch_takes_a_quantile_of_are_no_matter(tmp_path):
    """17 million voxels a volume; torch.quantile ends at 16."""
    fine = head().repeat(7, 0).repeat(7, 1).repeat(7, 2)
    path = save(tmp_path, fine, np.diag([4 / 7, 4 / 7, 4 / 7, 1]))
    entries = process(Preprocessing().transforms(), path, None)
    assert entries[Keys.B0].numel() > 2**24
    share = float((entries[Keys.BRAIN_MASK] > 0).sum()) / entries[Keys.BRAIN_MASK].numel()
    assert share == pytest.approx(np.pi / 6 * 0.512, rel=0.12)
    assert bool(torch.isfinite(entries[Z_SCORE_KEYS[Keys.B0]]).all())


def test_a_patient_linked_twice_is_one_group(tmp_path):
    """So that no scan is trained on and tested with."""
    for subject in ("sub-1", "sub-2"):
        (tmp_path / subject / "dwi").mkdir(parents=True)
    path = save(tmp_path / "sub-1" / "dwi", head()).rename(tmp_path / "sub-1" / "dwi" / "sub-1_dwi.nii.gz")
    bval = (tmp_path / "sub-1" / "dwi" / f"{NAME}.bval").rename(tmp_path / "sub-1" / "dwi" / "sub-1_dwi.bval")
    (tmp_path / "sub-2" / "dwi" / "sub-2_dwi.nii.gz").symlink_to(path)
    (tmp_path / "sub-2" / "dwi" / "sub-2_dwi.bval").symlink_to(bval)
    cases = read_cases(tmp_path, require_counts=False).cases
    groups = group_by_content(cases, {case.case_id: content_hash(case) for case in cases})
    assert [[case.case_id for case in group] for group in groups] == [["sub-1", "sub-2"]]


def test_no_path_name_or_free_text_travels_with_the_images(tmp_path):
    path = save(tmp_path, head(), descrip=b"TE=80;Time=134502 Roe^Jane", aux_file=b"Roe^Jane", db_name=b"PID-17")
    entries = process(Preprocessing().transforms(), path, None)
    told = "".join(f"{key}{entries[key].meta}" for key in entries if hasattr(entries[key], "meta"))
    told += f"{entries['scan']}{entries['quality']}"
    assert [word for word in (NAME, "Roe", "134502", "PID-17", str(tmp_path)) if word in told] == []
