"""Cohorts on disk: layout, reproducibility, going on, and refusals."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mhsev_monai.cases import read_cases
from mhsev_monai.cohort import HOSPITALS, make_cohort, simulate_subject
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.make import site_sizes
from mhsev_monai.cohort.writer import gradient_directions, stored_affine, write_subject
from mhsev_monai.errors import CohortError

SEED = 11
SIZES = (5, 4, 3)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def table_of(root):
    with (root / "participants.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_subjects_are_shared_out_in_the_papers_proportion():
    assert site_sizes(500, HOSPITALS) == (200, 180, 120)
    assert site_sizes(12, HOSPITALS) == SIZES
    assert all(sum(site_sizes(n, HOSPITALS)) == n for n in range(12, 60))


def test_the_cohort_reads_back_as_cases_with_their_counts(cohort):
    root, summary, _ = cohort
    for site, size in zip(summary.sites, SIZES, strict=True):
        cases = read_cases(root / site.name)
        assert len(cases.cases) == site.n_subjects == size
        assert not cases.excluded
        assert [str(case.count) for case in cases.cases] == [
            row["microbleed_count"] for row in table_of(root / site.name)
        ]
        assert sum(site.n_by_severity) == size


def test_the_truth_has_as_many_components_as_the_table_says(cohort):
    root, *_ = cohort
    for hospital in HOSPITALS:
        for row in table_of(root / hospital.name):
            name = row["participant_id"]
            truth = root / hospital.name / "derivatives/truth" / name / "dwi" / f"{name}_desc-microbleeds_mask.nii.gz"
            labels = np.asarray(nib.load(truth).dataobj)
            assert ndimage.label(labels, np.ones((3, 3, 3)))[1] == labels.max() == int(row["microbleed_count"])


def test_each_root_describes_itself_as_bids_asks(cohort):
    root, *_ = cohort
    for hospital in HOSPITALS:
        site = root / hospital.name
        description = json.loads((site / "dataset_description.json").read_text())
        assert {"Name", "BIDSVersion", "GeneratedBy"} <= set(description)
        assert "Simulated" in (site / "README").read_text()
        columns = set(table_of(site)[0]) - {"participant_id"}
        assert set(json.loads((site / "participants.json").read_text())) == columns
        for folder in site.glob("sub-*"):
            stem = f"dwi/{folder.name}_dwi"
            assert set(files_of(folder)) == {stem + suffix for suffix in (".nii.gz", ".bval", ".bvec", ".json")}


def test_header_and_sidecar_tell_the_protocol(cohort):
    root, *_ = cohort
    for hospital in HOSPITALS:
        stem = root / hospital.name / "sub-0001/dwi/sub-0001_dwi"
        image = nib.load(stem.with_suffix(".nii.gz"))
        assert image.shape == (*hospital.shape, 4)
        assert "".join(nib.aff2axcodes(image.affine)) == hospital.orientation
        np.testing.assert_allclose(image.header.get_zooms(), (*hospital.spacing, hospital.tr_ms / 1000), rtol=1e-6)
        np.testing.assert_array_equal(image.get_qform(), image.get_sform())
        assert np.loadtxt(stem.with_suffix(".bval")).tolist() == list(hospital.b_values)
        sidecar = json.loads(stem.with_suffix(".json").read_text())
        assert sidecar["EchoTime"] == hospital.te_ms / 1000
        assert sidecar["RepetitionTime"] == hospital.tr_ms / 1000


def test_stored_voxels_lie_where_the_affine_says(cohort):
    """The eyes are in front and the file's orientation does not move them."""
    root, *_ = cohort
    for hospital in HOSPITALS[1:]:
        subject = simulate_subject(hospital, SEED, 1)
        image = nib.load(root / hospital.name / "sub-0001/dwi/sub-0001_dwi.nii.gz")
        canonical = nib.as_closest_canonical(image)
        np.testing.assert_array_equal(np.asarray(canonical.dataobj), subject.images)
        fluid = np.argwhere(subject.anatomy.fractions[5] > 0.9)
        assert (fluid @ canonical.affine[:3, :3].T + canonical.affine[:3, 3])[:, 1].min() > 20


@pytest.mark.parametrize(("orientation", "first_row"), [("LAS", -1.0), ("RAS", -1.0), ("LPS", 1.0), ("RPS", 1.0)])
def test_directions_follow_fsl(orientation, first_row):
    """World X along the stored axes, by hand; FSL turns the first component where the determinant is positive."""
    values = {name: getattr(HOSPITALS[0], name) for name in Hospital.__dataclass_fields__}
    hospital = Hospital(**{**values, "orientation": orientation})
    rows = gradient_directions(hospital)
    assert rows[0].tolist() == [0.0, first_row, 0.0, 0.0]
    assert rows[1, 2] == np.sign(stored_affine(hospital)[1, 1])
    np.testing.assert_array_equal(np.linalg.norm(rows, axis=0), [0.0, 1.0, 1.0, 1.0])


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_subjects(cohort, tmp_path):
    """A subject made alone equals the one that the cohort holds."""
    root, *_ = cohort
    hospital = HOSPITALS[2]
    write_subject(tmp_path, 3, hospital, simulate_subject(hospital, SEED, 3))
    for folder in ("sub-0003", "derivatives/truth/sub-0003"):
        assert files_of(tmp_path / folder) == files_of(root / hospital.name / folder)


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(cohort, tmp_path):
    root, *_ = cohort
    make_cohort(tmp_path / "out", 12, SEED, workers=2)
    assert files_of(tmp_path / "out") == files_of(root)


def test_another_seed_gives_another_subject():
    first = simulate_subject(HOSPITALS[0], SEED, 1, count=0).images
    assert (first != simulate_subject(HOSPITALS[0], SEED + 1, 1, count=0).images).mean() > 0.5


def test_progress_counts_up_to_all(cohort):
    _, summary, calls = cohort
    assert calls[0] == (0, 12)
    assert calls[-1] == (12, 12)
    assert all(later[0] == earlier[0] + 1 for earlier, later in pairwise(calls))
    assert summary.n_made == 12
    assert "site-3" in str(summary)


def test_an_interrupted_cohort_is_gone_on_with_and_grows(cohort, tmp_path):
    root, *_ = cohort
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    before = files_of(copy)
    lost = copy / "site-3" / "sub-0002"
    lost.rename(lost.with_name(".partial-1-sub-0002"))
    kept = (copy / "site-1/sub-0001/dwi/sub-0001_dwi.nii.gz").stat().st_mtime_ns
    assert make_cohort(copy, 12, SEED).n_made == 1
    assert files_of(copy) == before
    assert (copy / "site-1/sub-0001/dwi/sub-0001_dwi.nii.gz").stat().st_mtime_ns == kept
    assert make_cohort(copy, 13, SEED).n_made == 1
    assert sum(len(table_of(copy / hospital.name)) for hospital in HOSPITALS) == 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_subjects": 11}, "n_subjects must be 12 to 9999"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"difficulty": "hard"}, "difficulty must be one of easy, moderate, got hard"),
        ({"workers": 0}, "workers must be 1 or more, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(tmp_path, arguments, message):
    n_subjects, seed = arguments.pop("n_subjects", 12), arguments.pop("seed", 1)
    with pytest.raises(ValueError, match=message):
        make_cohort(tmp_path / "out", n_subjects, seed, **arguments)
    assert not (tmp_path / "out").exists()


def test_a_cohort_of_other_parameters_is_left_alone(cohort):
    root, *_ = cohort
    before = files_of(root)
    with pytest.raises(CohortError, match=r"made with other parameters \(seed\); choose another folder"):
        make_cohort(root, 12, SEED + 1)
    with pytest.raises(CohortError, match=r"other parameters \(difficulty\)"):
        make_cohort(root, 12, SEED, difficulty="moderate")
    assert files_of(root) == before


def test_a_smaller_cohort_than_is_there_is_refused(tmp_path, cohort):
    copy = tmp_path / "copy"
    copy.mkdir()
    manifest = json.loads((cohort[0] / "cohort.json").read_text())
    (copy / "cohort.json").write_text(json.dumps({**manifest, "n_subjects": 20}))
    with pytest.raises(CohortError, match="holds a cohort of 20 subjects, 12 were asked for"):
        make_cohort(copy, 12, SEED)


def test_foreign_files_and_a_file_in_the_way_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CohortError, match="files that are no cohort"):
        make_cohort(tmp_path, 12, 1)
    with pytest.raises(CohortError, match="is a file"):
        make_cohort(tmp_path / "thesis.txt", 12, 1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
