"""A protocol twin is the same scan as another protocol would have sent it."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambda
from small_heads import SHAPE, head

from mhsev_monai.cases import Case, content_hash
from mhsev_monai.clinical_inputs import ClinicalInputs
from mhsev_monai.dsd.descriptors import DESCRIPTORS
from mhsev_monai.errors import ScanError
from mhsev_monai.inputs import CANDIDATE_SET, DSDCandidateInputs
from mhsev_monai.preprocessing import process
from mhsev_monai.twin_inputs import (
    IN_PLANE_MM,
    SLICE_MM,
    MakeTwin,
    TwinInputs,
    TwinProtocol,
    apply_protocol,
    draw_protocol,
)

INPUTS = DSDCandidateInputs()
SIDE_MM = 3.0
COARSER = TwinProtocol((3.4, 3.4, 4.2), without_trace=False)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    """A head of 3 mm voxels: smaller than a real one, and large enough for the mask."""
    return written(tmp_path_factory.mktemp("twins") / "sub-1_dwi.nii.gz", head())


def written(path: Path, volumes: np.ndarray) -> Case:
    nib.save(nib.Nifti1Image(volumes, np.diag([SIDE_MM] * 3 + [1.0])), path)
    bvals = path.with_name("sub-1_dwi.bval")
    bvals.write_text(" ".join(["0", "1000"][: volumes.shape[-1]]))
    return Case("sub-1", path, bvals, count=3)


def table(case: Case, protocol: TwinProtocol) -> np.ndarray:
    load, *others = INPUTS.transforms().transforms
    steps = Compose([load, Lambda(lambda entries: apply_protocol(entries, protocol)), *others])
    return INPUTS.describe(process(steps, case.image, case.bvals)).sets[CANDIDATE_SET]


def hashes(n: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(n)]


def column(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, DESCRIPTORS.index(name)]


def test_protocols_are_drawn_a_third_each_from_the_stated_ranges():
    drawn = [draw_protocol(content, (1.8, 1.8, 2.0), has_trace=True) for content in hashes(3000)]
    assert None not in drawn
    kinds = Counter((protocol.spacing is None, protocol.without_trace) for protocol in drawn)
    assert set(kinds) == {(True, True), (False, False), (False, True)}
    # Five standard deviations of a binomial number with 3000 trials and a third.
    assert all(abs(count - 1000) < 5 * np.sqrt(3000 * 2 / 9) for count in kinds.values())
    spacings = np.array([protocol.spacing for protocol in drawn if protocol.spacing is not None])
    assert (spacings[:, 0] == spacings[:, 1]).all()
    for axis, (low, high) in ((0, IN_PLANE_MM), (2, SLICE_MM)):
        assert low <= spacings[:, axis].min() < low + 0.02 < high - 0.02 < spacings[:, axis].max() <= high


def test_equal_scans_have_equal_twins_whatever_they_are_called(case, tmp_path):
    copy = tmp_path / "sub-7_dwi.nii.gz"
    copy.write_bytes(case.image.read_bytes())
    (tmp_path / "sub-7_dwi.bval").write_bytes((case.bvals or case.image).read_bytes())
    same = Case("sub-7", copy, tmp_path / "sub-7_dwi.bval", count=3)
    np.testing.assert_array_equal(
        TwinInputs(INPUTS)(same).sets[CANDIDATE_SET], TwinInputs(INPUTS)(case).sets[CANDIDATE_SET]
    )


@pytest.mark.parametrize(
    ("spacing", "has_trace", "kinds"),
    [
        ((1.8, 1.8, 3.0), False, {("coarser", False)}),
        ((3.5, 3.5, 4.4), True, {("as it is", True)}),
        ((3.5, 3.5, 3.0), False, {("coarser", False)}),
        ((3.0, 3.0, 5.0), True, {("coarser", False), ("coarser", True), ("as it is", True)}),
    ],
)
def test_a_twin_always_differs_from_its_scan(spacing, has_trace, kinds):
    """A coarser twin is coarser along an axis at least; a scan of b = 0 alone cannot lose its trace."""
    seen = set()
    for content in hashes(300):
        protocol = draw_protocol(content, spacing, has_trace)
        assert protocol is not None
        changed = any(t > own for t, own in zip(protocol.spacing or spacing, spacing, strict=True))
        assert changed or protocol.without_trace
        seen.add(("coarser" if changed else "as it is", protocol.without_trace))
    assert seen == kinds


def test_a_coarse_scan_of_b0_alone_has_no_twin():
    assert draw_protocol("ab" * 32, (3.5, 3.5, 4.2), has_trace=False) is None
    b0 = MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.diag(torch.tensor([3.5, 3.5, 4.2, 1.0])))
    with pytest.raises(ScanError, match="has no protocol twin"):
        MakeTwin("ab" * 32)({"b0": b0, "scan": {}})


def test_the_facts_of_a_twin_are_its_own():
    b0 = MetaTensor(torch.rand(1, 30, 30, 12), affine=torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0])))
    scan = {"spacing_mm": (2.0, 2.0, 3.0), "n_dwi": 3, "b_value": 1000.0, "n_b0": 1, "warnings": ()}
    found = apply_protocol({"b0": b0, "trace": b0, "adc": b0, "scan": scan}, TwinProtocol((3.0, 3.0, 4.0), True))
    assert set(found) == {"b0", "scan"}
    assert found["scan"] == {"spacing_mm": (3.0, 3.0, 4.0), "n_dwi": 0, "b_value": 0.0, "n_b0": 1, "warnings": ()}


def test_a_twin_without_trace_is_the_scan_of_its_b0_alone(case, tmp_path):
    alone = written(tmp_path / "sub-1_dwi.nii.gz", head()[..., :1])
    expected = INPUTS.describe(INPUTS.process(alone.image, alone.bvals))
    np.testing.assert_array_equal(table(case, TwinProtocol(None, without_trace=True)), expected.sets[CANDIDATE_SET])


def test_a_coarser_twin_is_described_in_its_own_voxels(case):
    """40 and 46 samples of 3 mm become 36 and 40, the even numbers nearest to 3.4 mm; slices are 4.2 mm."""
    rows = table(case, COARSER)
    sides = SHAPE[0] * SIDE_MM / 36, SHAPE[1] * SIDE_MM / 40
    assert column(rows, "in_plane_spacing") == pytest.approx(np.sqrt(np.prod(sides)), rel=1e-5)
    assert column(rows, "slice_spacing") == pytest.approx(4.2, rel=1e-5)


def test_what_the_inputs_give_of_a_case_is_what_its_own_protocol_shows(case):
    found = TwinInputs(INPUTS)(case)
    protocol = draw_protocol(content_hash(case), [SIDE_MM] * 3, has_trace=True)
    assert protocol is not None
    expected = table(case, protocol)
    np.testing.assert_array_equal(found.sets[CANDIDATE_SET], expected)
    assert TwinInputs(INPUTS).assemble(found).shape == INPUTS.assemble(found).shape


def test_twins_are_kept_apart_from_the_scans_themselves():
    twins = TwinInputs(INPUTS)
    assert twins.computation() != INPUTS.computation()
    assert twins.fingerprint() != INPUTS.fingerprint()
    assert twins.computation() != TwinInputs(DSDCandidateInputs(kappa=1.0)).computation()
    assert twins.feature_names == INPUTS.feature_names


def test_inputs_that_read_no_scan_have_no_twins():
    with pytest.raises(ValueError, match="ClinicalInputs has no transforms"):
        TwinInputs(ClinicalInputs())
