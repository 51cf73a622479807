"""Cohorts on disk: layout, reproducibility, going on, and refusals."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from bids_validator import BIDSValidator
from bidsschematools.rules import regexify_filename_rules
from bidsschematools.schema import load_schema

from mhsev_monai.cases import read_cases
from mhsev_monai.cohort import HOSPITALS, make_cohort, simulate_subject
from mhsev_monai.cohort.hospitals import Hospital
from mhsev_monai.cohort.make import site_sizes
from mhsev_monai.cohort.manifest import IMAGE_VERSION, check_cohort
from mhsev_monai.cohort.settings import CohortSettings
from mhsev_monai.cohort.writer import gradient_directions, stored_affine, write_subject
from mhsev_monai.errors import CohortError
from mhsev_monai.scan_contrast import ScanContrast

SEED = 11
SMALL = CohortSettings(size="small")
SIZES = (5, 4, 3)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def table_of(root, name="participants.tsv"):
    with (root / name).open(newline="") as stream:
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


def lesions_of(site, name):
    with (site / f"derivatives/truth/{name}/dwi/{name}_desc-microbleeds_lesions.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_the_truth_numbers_as_many_bleeds_as_the_table_says(cohort):
    root, *_ = cohort
    for hospital in HOSPITALS:
        counts = {row["participant_id"]: row["microbleed_count"] for row in table_of(root / hospital.name)}
        for row in table_of(root / hospital.name, "derivatives/truth/readers.tsv"):
            name = row["participant_id"]
            assert row["microbleed_count"] == counts[name]
            lesions = lesions_of(root / hospital.name, name)
            for label, column in (("microbleeds", "microbleed_count"), ("occult", "occult_count")):
                truth = root / hospital.name / f"derivatives/truth/{name}/dwi/{name}_desc-{label}_mask.nii.gz"
                labels = np.asarray(nib.load(truth).dataobj)
                numbers = [
                    int(lesion["number"]) for lesion in lesions if lesion["counted"] == str(int(label[0] == "m"))
                ]
                assert numbers == list(range(1, int(row[column]) + 1))
                assert set(np.unique(labels)) == {0, *numbers}


def test_bleeds_lie_in_world_coordinates_where_their_labels_do(cohort):
    """Oblique slices and flipped axes: the middle of a label, through the affine that is stored."""
    root, *_ = cohort
    n_compared = 0
    for hospital in HOSPITALS:
        site = root / hospital.name
        name = max(table_of(site), key=lambda row: int(row["microbleed_count"]))["participant_id"]
        image = nib.load(site / f"derivatives/truth/{name}/dwi/{name}_desc-microbleeds_mask.nii.gz")
        labels = np.asarray(image.dataobj)
        for lesion in lesions_of(site, name):
            if lesion["counted"] == "1":
                voxels = np.argwhere(labels == int(lesion["number"]))
                middle = image.affine[:3, :3] @ voxels.mean(axis=0) + image.affine[:3, 3]
                # A core of 6 mm or less against voxels of 3.4 x 3.4 x 5 mm.
                assert np.linalg.norm(middle - [float(lesion[axis]) for axis in "xyz"]) < 3.6
                n_compared += 1
    assert n_compared > 10


def test_every_file_has_a_name_of_bids(cohort):
    root, *_ = cohort
    schema = load_schema()
    derivative = regexify_filename_rules(schema.rules.files.deriv.imaging, schema, level=1)
    for hospital in HOSPITALS:
        site = root / hospital.name
        ignored = (site / "derivatives/truth/.bidsignore").read_text().split()
        for path in files_of(site):
            if not path.startswith("derivatives/"):
                assert BIDSValidator().is_bids(f"/{path}"), path
                continue
            inside = path.removeprefix("derivatives/truth/")
            if any(fnmatch(inside, pattern) for pattern in ignored) or inside == ".bidsignore":
                continue
            known = any(re.fullmatch(rule["regex"], inside) for rule in derivative)
            assert known or BIDSValidator().is_bids(f"/{inside}"), path


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
        image, small = nib.load(stem.with_suffix(".nii.gz")), hospital.scaled("small")
        assert image.shape == (*small.shape, 4)
        assert "".join(nib.aff2axcodes(image.affine)) == hospital.orientation
        np.testing.assert_allclose(image.header.get_zooms(), (*small.spacing, hospital.tr_ms / 1000), rtol=1e-6)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert np.loadtxt(stem.with_suffix(".bval")).tolist() == list(hospital.b_values)
        sidecar = json.loads(stem.with_suffix(".json").read_text())
        assert sidecar["EchoTime"] == hospital.te_ms / 1000
        assert sidecar["RepetitionTime"] == hospital.tr_ms / 1000


def test_stored_voxels_lie_where_the_affine_says(cohort):
    """The eyes are in front and the file's orientation does not move them."""
    root, *_ = cohort
    for hospital in HOSPITALS[1:]:
        subject = simulate_subject(hospital, SEED, 1, settings=SMALL)
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
    write_subject(tmp_path, 3, hospital, simulate_subject(hospital, SEED, 3, settings=SMALL))
    for folder in ("sub-0003", "derivatives/truth/sub-0003"):
        assert files_of(tmp_path / folder) == files_of(root / hospital.name / folder)


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(cohort, tmp_path):
    copy = copy_of(cohort, tmp_path)
    for hospital in HOSPITALS:
        shutil.rmtree(copy / hospital.name / "sub-0002")
    assert make_cohort(copy, 12, SEED, settings=SMALL, workers=2).n_made == 3
    assert files_of(copy) == files_of(cohort[0])


def test_another_seed_gives_another_subject():
    first = simulate_subject(HOSPITALS[0], SEED, 1, settings=SMALL, count=0).images
    assert (first != simulate_subject(HOSPITALS[0], SEED + 1, 1, settings=SMALL, count=0).images).mean() > 0.5


def test_a_gradient_echo_is_written_where_its_readers_look(tmp_path):
    settings, hospital = CohortSettings(size="small", contrast="swi"), HOSPITALS[0]
    subject = simulate_subject(hospital, SEED, 1, settings=settings, count=3)
    write_subject(tmp_path, 1, hospital, subject, "swi")
    (tmp_path / "participants.tsv").write_text("participant_id\tmicrobleed_count\nsub-0001\t3\n")
    (case,) = read_cases(tmp_path, contrast=ScanContrast.SWI).cases
    assert case.bvals is None
    assert nib.load(case.image).shape == subject.labels.shape
    scanned = case.image.relative_to(tmp_path).as_posix()
    assert BIDSValidator().is_bids(f"/{scanned}")
    sidecar = json.loads(case.image.with_name(case.image.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["EchoTime"] == subject.te_ms / 1000 != hospital.te_ms / 1000


def test_progress_counts_up_to_all(cohort):
    _, summary, calls = cohort
    assert calls[0] == (0, 12)
    assert calls[-1] == (12, 12)
    assert all(later[0] == earlier[0] + 1 for earlier, later in pairwise(calls))
    assert summary.n_made == 12
    assert "site-3" in str(summary)


def copy_of(cohort, tmp_path):
    return shutil.copytree(cohort[0], tmp_path / "copy")


def test_an_interrupted_cohort_is_gone_on_with_and_grows(cohort, tmp_path):
    copy = copy_of(cohort, tmp_path)
    before = files_of(copy)
    lost = copy / "site-3" / "sub-0002"
    lost.rename(lost.with_name(".partial-1-sub-0002"))
    kept = (copy / "site-1/sub-0001/dwi/sub-0001_dwi.nii.gz").stat().st_mtime_ns
    assert make_cohort(copy, 12, SEED, settings=SMALL).n_made == 1
    assert files_of(copy) == before
    assert (copy / "site-1/sub-0001/dwi/sub-0001_dwi.nii.gz").stat().st_mtime_ns == kept
    assert make_cohort(copy, 13, SEED, settings=SMALL).n_made == 1
    assert sum(len(table_of(copy / hospital.name)) for hospital in HOSPITALS) == 13
    assert check_cohort(copy).intact
    after = files_of(copy)
    named = ("participants.tsv", "derivatives/truth/readers.tsv")
    tables = {f"{hospital.name}/{name}" for hospital in HOSPITALS for name in named}
    tables |= {"cohort.json", "manifest.sha256"}
    assert {path for path in before if after[path] != before[path]} <= tables


def test_the_checksums_are_those_of_sha256sum(cohort):
    root, summary, _ = cohort
    listed = subprocess.run(["sha256sum", "--check", "--quiet", "manifest.sha256"], cwd=root, capture_output=True)
    assert listed.returncode == 0
    assert check_cohort(root).intact
    assert check_cohort(root).n_files == len(files_of(root)) - 1
    assert summary.root == root


def test_the_check_names_what_differs_and_making_again_does_not_confirm_it(cohort, tmp_path):
    copy = copy_of(cohort, tmp_path)
    scan, table = "site-1/sub-0001/dwi/sub-0001_dwi.nii.gz", "site-2/participants.tsv"
    (copy / scan).write_bytes((copy / scan).read_bytes() + b"0")
    (copy / "site-1/sub-0002/dwi/sub-0002_dwi.bval").unlink()
    (copy / "site-3/sub-0001/dwi/sub-0001_acq-2_dwi.nii.gz").write_bytes(b"mine")
    (copy / "site-3/derivatives/features").mkdir()
    (copy / "site-3/derivatives/features/notes.txt").write_text("mine")
    check = check_cohort(copy)
    assert check.changed == (scan,)
    assert check.missing == ("site-1/sub-0002/dwi/sub-0002_dwi.bval",)
    assert check.unlisted == ("site-3/sub-0001/dwi/sub-0001_acq-2_dwi.nii.gz",)
    assert scan in str(check)
    (copy / table).write_text("lost")
    assert make_cohort(copy, 12, SEED, settings=SMALL).n_made == 0
    assert check_cohort(copy).changed == (scan,)


def test_a_folder_without_checksums_cannot_be_checked(tmp_path):
    with pytest.raises(CohortError, match="holds no finished cohort"):
        check_cohort(tmp_path)


def test_the_manifest_tells_settings_and_versions_and_no_place(cohort):
    manifest = json.loads((cohort[0] / "cohort.json").read_text())
    assert manifest["image_version"] == IMAGE_VERSION
    assert (manifest["difficulty"], manifest["size"], manifest["backgrounds"]) == ("easy", "small", None)
    assert manifest["versions"]["numpy"] == np.__version__
    assert str(cohort[0].parent) not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_subjects": 11}, "n_subjects must be 12 to 9999"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
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
        make_cohort(root, 12, SEED + 1, settings=SMALL)
    with pytest.raises(CohortError, match=r"other parameters \(mix\)"):
        make_cohort(root, 12, SEED, settings=CohortSettings(size="small", mix="lognormal"))
    assert files_of(root) == before


def test_a_smaller_cohort_than_is_there_is_refused(tmp_path, cohort):
    copy = tmp_path / "copy"
    copy.mkdir()
    manifest = json.loads((cohort[0] / "cohort.json").read_text())
    (copy / "cohort.json").write_text(json.dumps({**manifest, "n_subjects": 20}))
    with pytest.raises(CohortError, match="holds a cohort of 20 subjects, 12 were asked for"):
        make_cohort(copy, 12, SEED, settings=SMALL)


def test_foreign_files_and_a_file_in_the_way_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CohortError, match="files that are no cohort"):
        make_cohort(tmp_path, 12, 1)
    with pytest.raises(CohortError, match="is a file"):
        make_cohort(tmp_path / "thesis.txt", 12, 1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
