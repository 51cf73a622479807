"""Planted translations come back, between volumes of one contrast and of two."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from qc_phantoms import SPACING, moved, phantom, rician

from mhsev_monai.ingest import read_dwi
from mhsev_monai.preprocess.functional import select_shells
from mhsev_monai.qc.motion import estimate_motion

WITHIN_MM = 0.3
ACROSS_MM = 0.7


@pytest.fixture(scope="module")
def head():
    return phantom()


def series(head, dwi_shifts, b0_shifts=((0, 0, 0),)):
    volumes = [moved(head.b0, s) for s in b0_shifts] + [moved(head.dwi, s) for s in dwi_shifts]
    return np.stack([rician(np.clip(v, 0, None), 1.5, i) for i, v in enumerate(volumes)], axis=-1)


PLANTED = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, -3.0, 0.0), (0.0, 0.0, 3.0), (1.7, 1.7, -1.7)]


def test_volumes_of_one_shell_are_found_where_they_were_put(head):
    motion = estimate_motion(series(head, PLANTED), [0], range(1, 6), head.brain, SPACING)
    found = motion.shifts[1:] - motion.shifts[1]
    assert np.abs(found - np.array(PLANTED)).max() < WITHIN_MM


def test_b0_volumes_are_found_where_they_were_put(head):
    motion = estimate_motion(series(head, [], PLANTED), range(5), [], head.brain, SPACING)
    assert np.abs(motion.shifts - np.array(PLANTED)).max() < WITHIN_MM
    assert motion.b0_to_dwi is None


@pytest.mark.parametrize("planted", [(0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (0.0, 0.0, -3.0)])
def test_a_shell_that_moved_as_a_whole_is_found_against_b0(head, planted):
    motion = estimate_motion(series(head, [planted] * 3), [0], [1, 2, 3], head.brain, SPACING)
    assert np.abs(motion.shifts[1:] - np.array(planted)).max() < ACROSS_MM
    assert motion.b0_to_dwi == pytest.approx(np.linalg.norm(planted), abs=ACROSS_MM)


def test_the_first_b0_volume_is_the_origin_wherever_it_stands(head):
    volumes = series(head, [(0, 0, 0), (0, 3, 0)])
    motion = estimate_motion(volumes[..., [1, 0, 2]], [1], [0, 2], head.brain, SPACING)
    assert motion.shifts[1].tolist() == [0.0, 0.0, 0.0]
    assert (motion.shifts[2] - motion.shifts[0])[1] == pytest.approx(3.0, abs=WITHIN_MM)


def test_a_volume_without_a_head_has_no_place(head):
    volumes = series(head, [(0, 0, 0), (0, 0, 0)])
    volumes[..., 2] = rician(np.zeros_like(head.b0), 1.0, 9)
    motion = estimate_motion(volumes, [0], [1, 2], head.brain, SPACING)
    assert np.isnan(motion.shifts[2]).all()
    assert np.isfinite(motion.shifts[1]).all()


def test_nothing_to_compare_is_refused(head):
    with pytest.raises(ValueError, match="at least one b0"):
        estimate_motion(series(head, []), [], [], head.brain, SPACING)
    with pytest.raises(ValueError, match="not empty"):
        estimate_motion(series(head, []), [0], [], np.zeros_like(head.brain), SPACING)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uih_umr770_b0_b930", "siemens_prisma_xa30_PA_b0_b2500"])
def test_a_translation_planted_in_a_real_scan_is_found(shared_data, name):
    path = shared_data / "nifti_dwi" / f"{name}.nii.gz"
    scan = read_dwi(path)
    shells = select_shells(scan.bvals.tolist())
    used = [*shells.b0, *shells.dwi[:3]]
    data = scan.data[..., used].copy()
    b0 = nib.load(path).get_fdata(dtype=np.float32)[..., shells.b0[0]]
    brain = b0 > 0.6 * np.median(b0[b0 > np.percentile(b0, 80)])
    before = estimate_motion(data, [0], [1, 2, 3], brain, scan.spacing)
    data[..., 2] = moved(data[..., 2], (1.7, 1.7, 1.7), scan.spacing)
    after = estimate_motion(data, [0], [1, 2, 3], brain, scan.spacing)
    found = (after.shifts[2] - after.shifts[1]) - (before.shifts[2] - before.shifts[1])
    assert np.abs(found - 1.7).max() < 0.4
