"""Bleeds planted in scans from files: a small simulated head, and real heads where they are at hand."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from small_heads import AFFINE, head

from mhsev_monai.cohort import HOSPITALS, backgrounds, simulate_subject
from mhsev_monai.cohort.background_scans import background_scan, background_summary
from mhsev_monai.cohort.backgrounds import Placement, background_anatomy, simulate_on_background
from mhsev_monai.cohort.disease import DIFFICULTIES, draw_bleeds
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.subject import draw_record, random_streams
from mhsev_monai.errors import CohortError
from mhsev_monai.regions import Region

EVERY_NEIGHBOUR = np.ones((3, 3, 3))
B_VALUES = (0.0, 1000.0)
HOSPITAL = HOSPITALS[0]
REAL = ("siemens_prisma_ve11_sag_b0_b2000", "siemens_prisma_xa30_PA_b0_b2500")
"""Stored sagittally and axially, 2.7 and 3 mm: the quickest of the real heads that show the cerebellum."""


def write_scan(stem, volumes, b_values=B_VALUES, affine=AFFINE):
    stem.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volumes, affine), stem.with_name(stem.name + ".nii.gz"))
    stem.with_name(stem.name + ".bval").write_text(" ".join(f"{b:g}" for b in b_values))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A BIDS root with one small head in whole numbers, stored with the first axis to the left."""
    root = tmp_path_factory.mktemp("backgrounds")
    volumes = np.rint(head()).astype(np.int16)
    write_scan(root / "sub-0001" / "dwi" / "sub-0001_dwi", volumes, affine=np.diag([-4.0, 4.0, 4.0, 1.0]))
    return root, volumes


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """A loose folder with two real heads and their sidecars."""
    folder = tmp_path_factory.mktemp("real")
    for name in REAL:
        for ending in ("nii.gz", "bval", "json"):
            source = shared_data / "nifti_dwi" / f"{name}.{ending}"
            if not source.is_file():
                pytest.skip(f"needs the real head {name} of ../shared/data/nifti_dwi")
            shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module", params=["small", "real 1", "real 2"])
def planted(request):
    """One subject with six bleeds, the same without, and the background."""
    kind, _, index = request.param.partition(" ")
    folder = request.getfixturevalue(kind)[0] if kind == "small" else request.getfixturevalue(kind)
    settings, index = CohortSettings(backgrounds=folder), int(index or 1)
    with_six, without = (simulate_subject(HOSPITAL, 0, index, settings=settings, count=n) for n in (6, 0))
    return with_six, without


def positions(subject):
    """Middles of the voxels in the coordinates of the bleeds, ``(X, Y, Z, 3)`` mm."""
    spacing = np.linalg.norm(subject.affine[:3, :3], axis=0)
    shape = np.array(subject.labels.shape)
    centre = subject.affine[:3, :3] @ ((shape - 1) / 2) + subject.affine[:3, 3]
    return centre + (np.moveaxis(np.indices(shape), 0, -1) - (shape - 1) / 2) * spacing


def test_bleeds_change_nothing_away_from_themselves(planted):
    with_six, without = planted
    different = (with_six.images != without.images).any(axis=-1)
    assert different[with_six.labels > 0].mean() > 0.9
    nearest = np.min([np.linalg.norm(positions(with_six) - b.body.centre, axis=-1) for b in with_six.bleeds], axis=0)
    # The field of a bleed is followed for up to 16 mm, its signal moves along Y by up to 8 voxels at the pole.
    assert nearest[different].max() < 30
    assert not without.labels.any()
    assert np.array_equal(without.affine, with_six.affine)


def test_labels_have_a_component_for_every_counted_bleed(planted):
    subject, _ = planted
    assert sum(bleed.counted for bleed in subject.bleeds) == subject.record.n_microbleeds == 6
    assert set(np.unique(subject.labels)) == set(range(7))
    assert ndimage.label(subject.labels > 0, EVERY_NEIGHBOUR)[1] == 6


def test_bleeds_lie_inside_the_brain_where_diffusion_is_that_of_tissue(planted):
    subject, without = planted
    b_values = np.array(without.b_values)
    images = np.maximum(without.images.astype(np.float64), 1)
    b0, trace = images[..., b_values < 50].mean(axis=-1), np.exp(np.log(images[..., b_values > 50]).mean(axis=-1))
    adc = np.log(b0 / trace) / (b_values.max() - b_values.min())
    tissue = np.median(adc[without.anatomy.brain_depth > 5])
    for bleed in subject.bleeds:
        squared = ((positions(subject) - bleed.body.centre) ** 2).sum(axis=-1)
        voxel = np.unravel_index(squared.argmin(), squared.shape)
        assert subject.anatomy.brain_depth[voxel] > 0
        # CSF has an ADC of four times that of tissue at b = 1000, and of twice at 2500, by the noise floor.
        assert adc[voxel] < 1.5 * tissue


def test_bleeds_are_dark_in_every_volume(planted):
    subject, without = planted
    for number, bleed in enumerate((bleed for bleed in subject.bleeds if bleed.counted), start=1):
        ratio = subject.images[subject.labels == number] / np.maximum(without.images[subject.labels == number], 1)
        # Cores of the easy difficulty, 3.4 to 6 mm with a loss of 0.9 or more, fill at least a third of a voxel.
        assert bleed.loss >= 0.9
        assert ratio.min(axis=0).max() < 0.85


def test_the_signal_that_is_missing_is_what_the_cores_lose(small):
    root, _ = small
    settings = CohortSettings(backgrounds=root)
    with_six, without = (simulate_subject(HOSPITAL, 0, 4, settings=settings, count=n) for n in (6, 0))
    missing_mm3 = expected_mm3 = 0.0
    for bleed in with_six.bleeds:
        around = np.linalg.norm(positions(with_six) - bleed.body.centre, axis=-1) < 12
        lost = without.images[..., 0][around].astype(float) - with_six.images[..., 0][around]
        missing_mm3 += lost.sum() / np.median(without.images[..., 0][around]) * 4.0**3
        expected_mm3 += bleed.loss * 4 / 3 * np.pi * float(bleed.body.half_axes[0]) ** 3
    # The smoothing and the readout keep the sum; the noise given back and the head's shading do not quite.
    assert missing_mm3 == pytest.approx(expected_mm3, rel=0.15)


def test_without_bleeds_every_slice_holds_the_files_own_integers(small, monkeypatch):
    root, volumes = small
    monkeypatch.setattr(backgrounds, "coil_shading", lambda rng, grid, strength: np.float32(1))
    subject = simulate_subject(HOSPITAL, 0, 2, settings=CohortSettings(backgrounds=root), count=0)
    # Mirroring and whole shifts in plane keep a slice's values, in another order.
    got, expected = (np.sort(v.reshape(-1, *v.shape[2:]), axis=0) for v in (subject.images, volumes))
    assert np.array_equal(got, expected)


def test_a_void_keeps_the_rician_floor_of_the_scanner(small, monkeypatch):
    root, _ = small
    monkeypatch.setattr(backgrounds, "coil_shading", lambda rng, grid, strength: np.float32(1))
    monkeypatch.setattr(backgrounds, "spin_echo_epi_factor", lambda bleeds, grid, epi: np.zeros(grid.shape))
    subject = simulate_subject(HOSPITAL, 0, 2, settings=CohortSettings(backgrounds=root), count=0)
    # The head was made with a standard deviation of 10; the mean of a Rayleigh distribution is sqrt(pi / 2) of it.
    assert subject.images.mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.05)


def test_a_subject_depends_on_seed_and_number_alone(small):
    root, _ = small
    settings = CohortSettings(backgrounds=root)
    first, again, other, third = (
        simulate_subject(HOSPITAL, seed, index, settings=settings, count=3)
        for seed, index in ((5, 1), (5, 1), (5, 2), (6, 1))
    )
    assert first.images.tobytes() == again.images.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.images.tobytes() != other.images.tobytes()
    assert first.images.tobytes() != third.images.tobytes()


def test_the_scans_own_volumes_times_and_place_are_kept(real, shared_data):
    subject = simulate_subject(HOSPITAL, 0, 1, settings=CohortSettings(backgrounds=real), count=0)
    sagittal = subject.images.shape[:3] == (48, 82, 82)
    name, te, b = (REAL[0], 64.0, 2000.0) if sagittal else (REAL[1], 68.0, 2500.0)
    assert subject.te_ms == pytest.approx(te)
    assert subject.b_values == (0.0, *[b] * 6)
    image = nib.load(shared_data / "nifti_dwi" / f"{name}.nii.gz")
    ends = [np.array([(0, 0, 0), np.array(shape[:3]) - 1]) for shape in (image.shape, subject.images.shape)]
    corners = [
        np.sort(nib.affines.apply_affine(affine, both), axis=0)
        for affine, both in zip((image.affine, subject.affine), ends, strict=True)
    ]
    # Turned to right, anterior and superior, the box stays where it was.
    assert np.allclose(corners[0], corners[1], atol=0.1)
    assert (np.diag(subject.affine)[:3] > 0).all()


def test_turning_a_scan_leaves_every_voxel_at_its_place_in_the_world(real, shared_data):
    for number in range(2):
        background = background_scan(real, number)
        image = nib.load(shared_data / "nifti_dwi" / f"{REAL[number]}.nii.gz")
        volume = np.asarray(image.dataobj)[..., 0]
        brightest = np.unravel_index(volume.argmax(), volume.shape)
        turned = np.unravel_index(background.stored[..., 0].argmax(), background.grid.shape)
        places = [nib.affines.apply_affine(a, v) for a, v in ((image.affine, brightest), (background.affine, turned))]
        assert np.allclose(places[0], places[1], atol=0.01)


def test_regions_of_bleeds_in_a_real_head_are_those_of_patients(real):
    regions = []
    for number in range(2):
        background = background_scan(real, number)
        anatomy = background_anatomy(background, Placement(mirrored=number == 1, shift=(0, 0)))
        for seed in range(20):
            bleeds = draw_bleeds(
                np.random.default_rng(seed), 15, anatomy, background.grid, DIFFICULTIES["easy"], (), 30.0, "all"
            )
            regions += [bleed.region for bleed in bleeds]
    shares = [np.mean([region == wanted for region in regions]) for wanted in list(Region)[1:]]
    # 600 draws: a standard deviation of 0.018 on the largest share; 15 bleeds may fill the deep region.
    assert shares == pytest.approx([0.73, 0.134, 0.125], abs=0.06)


def test_the_brain_of_a_real_head_comes_to_lie_on_the_templates(real):
    for number in range(2):
        background = background_scan(real, number)
        position = background.match.positions(background.grid)
        inside = background.depth > 0
        # Sides, front, back and top of ICBM152's brain; the bottom is cut off or cord.
        low, high = (np.percentile(position[inside], q, axis=0) for q in (1, 99))
        assert np.allclose((low[0], high[0]), (-66, 66), atol=6)
        assert np.allclose((low[1], high[1]), (-98, 66), atol=8)
        assert high[2] == pytest.approx(73, abs=6)


def test_the_summary_counts_usable_scans_and_changes_with_a_byte(small, tmp_path, caplog):
    root, volumes = small
    summary = background_summary(root)
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(root, copy)
    shutil.copytree(root, other)
    (other / "sub-0001" / "dwi" / "sub-0001_dwi.bval").write_text("0 1001")
    write_scan(copy / "zz_b0_only", volumes[..., :1], b_values=(0.0,))
    (copy / "zz_damaged.nii.gz").write_bytes(b"\x1f\x8b")
    (copy / "zz_damaged.bval").write_text("0 1000")
    assert summary["n_scans"] == 1
    assert background_summary(copy) == summary
    assert background_summary(other)["sha256"] != summary["sha256"]
    # Two are left out, each with a reason and without its name.
    reasons = [record.getMessage() for record in caplog.records]
    assert len(reasons) == 2
    assert "no diffusion-weighted volume" in reasons[0]
    assert not any("zz_" in reason or str(tmp_path) in reason for reason in reasons)


def test_a_folder_without_usable_scans_is_refused(tmp_path):
    with pytest.raises(CohortError, match="is not a folder"):
        background_summary(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match="no usable scan"):
        background_summary(tmp_path / "empty")
    write_scan(tmp_path / "air" / "air", np.arange(16**3 * 2, dtype=np.int16).reshape(16, 16, 16, 2) % 7)
    with pytest.raises(CohortError, match="no usable scan"):
        background_scan(tmp_path / "air", 3)


def test_another_contrast_is_refused(small):
    settings = CohortSettings(backgrounds=small[0], contrast="swi")
    record, streams = draw_record(HOSPITAL, 0, 1), random_streams(0, HOSPITAL.name, 1)
    with pytest.raises(CohortError, match="dwi"):
        simulate_on_background(HOSPITAL, 0, 1, settings, record, streams)
