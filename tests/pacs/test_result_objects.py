"""Where a known dark spot is marked, what the objects say, and that others read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_heads import SPOT, HeadSeries, read_all, write_head, write_model
from scipy import ndimage
from small_heads import SHAPE, SPACING
from validators import contradictions, needs_validators, report_groups, segment_centre, standard_errors

from mhsev_monai.ingest.dicom.series import group_series
from mhsev_monai.ingest.source import look_through
from mhsev_monai.inputs import DSDInputs
from mhsev_monai.model_file import load_model, save_model
from mhsev_monai.networks import SeverityMLP
from mhsev_monai.pacs.context import ResultContext
from mhsev_monai.pacs.gateway.delivery_rules import STAND_INS
from mhsev_monai.pacs.identity import file_digest
from mhsev_monai.pacs.patient_study import PATIENT_AND_STUDY
from mhsev_monai.pacs.result_folder import write_results
from mhsev_monai.pacs.results import LoadedModel, grade_series, result_objects
from mhsev_monai.pacs.secondary_capture import MARK_COLOUR, SIDE
from mhsev_monai.pacs.structured_report import ReportForm

KINDS = ("capture-001", "map", "marks", "report", "seg", "sr")
FORMS = [
    pytest.param({"orientation": "axial"}, id="axial", marks=pytest.mark.slow),
    pytest.param({"orientation": "sagittal", "flipped": True}, id="sagittal, backwards", marks=pytest.mark.slow),
    pytest.param({"orientation": "oblique", "flipped": True}, id="oblique, against the normal"),
    pytest.param({"orientation": "oblique", "form": "enhanced"}, id="oblique, one enhanced file"),
]


@dataclass(frozen=True)
class Graded:
    """A series, what came of it in memory, and on disk."""

    series: HeadSeries
    context: ResultContext
    folder: Path

    @property
    def objects(self) -> dict[str, pydicom.Dataset]:
        return read_all(self.folder)

    def sources(self) -> dict[str, pydicom.Dataset]:
        read = [pydicom.dcmread(path) for path in self.series.folder.glob("*.dcm")]
        return {str(each.SOPInstanceUID): each for each in read}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> LoadedModel:
    path = write_model(tmp_path_factory.mktemp("model") / "model.pt")
    return LoadedModel(load_model(path), file_digest(path))


def grade(series: HeadSeries, loaded: LoadedModel, folder: Path) -> Graded:
    (only,) = group_series(look_through(series.folder).dicom)
    context = grade_series(only, loaded)
    write_results(folder, result_objects(context, ReportForm.COMPREHENSIVE_3D), {"results": []})
    return Graded(series, context, folder)


@pytest.fixture(scope="module", params=FORMS)
def graded(request, loaded, tmp_path_factory) -> Graded:
    folder = tmp_path_factory.mktemp("head")
    return grade(write_head(folder / "in", **request.param), loaded, folder / "out")


def test_the_spot_is_the_only_finding_and_all_six_objects_come(graded):
    assert len(graded.context.findings) == 1
    assert tuple(graded.objects) == KINDS


def test_the_report_tells_the_spot_s_place_in_the_patient(graded):
    _, _, (finding,) = report_groups(graded.objects["sr"])
    assert finding["roi"].frame_of_reference_uid == "1.2.826.0.1.5.9"
    assert np.linalg.norm(finding["roi"].value[0] - graded.series.point()) < SPACING / 4


def test_the_segment_lies_on_the_spot(graded):
    centre, n_voxels = segment_centre(graded.folder / "seg.dcm")
    assert n_voxels == len(graded.context.findings[0].region)
    assert np.linalg.norm(centre - graded.series.point()) < SPACING / 4


def test_the_circle_lies_on_the_spot_of_the_b0_slice(graded):
    (annotation,) = graded.objects["marks"].GraphicAnnotationSequence
    (reference,) = annotation.ReferencedImageSequence
    (circle,) = annotation.GraphicObjectSequence
    source = graded.sources()[str(reference.ReferencedSOPInstanceUID)]
    if "PerFrameFunctionalGroupsSequence" in source:
        groups = source.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        b_value = groups.MRDiffusionSequence[0].DiffusionBValue
    else:
        position, b_value = source.ImagePositionPatient, source.DiffusionBValue
    assert b_value == 0
    assert np.allclose(position, graded.series.point((0, 0, SPOT[2])), atol=1e-3)
    # Annotations count from the outer edge of the first pixel.
    assert np.allclose(circle.GraphicData[:2], [SPOT[0] + 0.5, SPOT[1] + 0.5], atol=0.25)
    radius = np.linalg.norm(np.subtract(circle.GraphicData[2:], circle.GraphicData[:2]))
    assert radius * SPACING == pytest.approx(5, abs=3)


def test_the_ring_of_the_picture_lies_on_the_spot(graded):
    capture = graded.objects["capture-001"]
    ring = np.all(capture.pixel_array == MARK_COLOUR, axis=-1)
    labels, _ = ndimage.label(ring, np.ones((3, 3)))
    largest = np.argmax(np.bincount(labels.ravel())[1:]) + 1
    rows, columns = np.nonzero(labels == largest)
    centre = np.array([(columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2])
    scale = min((SIDE - 40) / SHAPE[1], SIDE / SHAPE[0])
    expected = SIDE / 2 + (np.array(SPOT[:2]) + 0.5 - np.array(SHAPE[:2]) / 2) * scale
    assert np.abs(centre - expected).max() < scale / 2
    # The converter writes slices from low to high along its own axis, which runs as the normal does, or against it.
    number = int(capture.ImageComments.split()[4])
    assert number in (SPOT[2] + 1, SHAPE[2] - SPOT[2])
    assert [line.slice_number for line in graded.context.paper.findings if line.is_finding] == [number]
    # Words are burned in at the top and at the bottom.
    assert capture.BurnedInAnnotation == "YES"
    assert capture.pixel_array[:18].max() > 200
    assert capture.pixel_array[-18:].max() > 200


def test_count_and_grade_are_read_back(graded):
    measured, grade_word, (finding,) = report_groups(graded.objects["sr"])
    assert measured["Number of lesions"] == graded.context.grade.count == 1
    assert grade_word.lower() == graded.context.grade.grade.label == "mild"
    told = {name.removeprefix("Probability of the grade "): p for name, p in measured.items() if "Probab" in name}
    assert told == pytest.approx(dict(graded.context.grade.probabilities), abs=1e-6)
    low, high = graded.context.grade.count_interval
    assert [v for name, v in measured.items() if "90 %" in name] == [low, high]
    values = finding["values"]
    assert values["Probability that the finding is a microbleed"] == pytest.approx(1, abs=1e-3)
    assert values["Volume"] == pytest.approx(len(graded.context.findings[0].region) * SPACING**3)
    report = graded.objects["sr"]
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    procedure = next(item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "121058")
    assert procedure.ConceptCodeSequence[0].CodeValue == "25056-3"


def test_the_map_is_read_back_to_the_last_bit(graded):
    read = hd.pm.pmread(graded.folder / "map.dcm") if hasattr(hd.pm, "pmread") else hd.imread(graded.folder / "map.dcm")
    volume = read.get_volume(dtype=np.float32)
    truth = graded.context.feature_map
    mine = hd.Volume(truth.array, truth.affine, "PATIENT", "1.2.826.0.1.5.9")
    assert np.abs(volume.affine[:3, 3]).max() < 300
    assert np.array_equal(volume.match_geometry(mine, tol=1e-3).array, truth.array)
    # And independently of the affine that both share: the map is deepest at the spot.
    deepest = np.unravel_index(np.argmin(volume.array), volume.array.shape)
    place = volume.map_indices_to_reference(np.array([deepest]))[0]
    assert np.linalg.norm(place - graded.series.point()) < SPACING / 4


def test_the_segments_are_read_back_to_the_last_voxel(graded):
    volume = hd.seg.segread(graded.folder / "seg.dcm").get_volume(segment_numbers=[1], combine_segments=False)
    found = volume.map_indices_to_reference(np.argwhere(volume.array[..., 0] > 0))
    region = np.concatenate([graded.context.findings[0].region, np.ones((len(found), 1))], axis=1)
    wanted = (region @ graded.context.to_lps.T)[:, :3]
    order = [np.lexsort(np.round(points, 2).T) for points in (found, wanted)]
    assert np.allclose(found[order[0]], wanted[order[1]], atol=1e-3)


def test_frames_of_map_and_segments_lie_exactly_over_the_source_and_name_its_b0_slices(graded):
    sources = graded.sources()
    for name in ("map", "seg"):
        made = graded.objects[name]
        shared = made.SharedFunctionalGroupsSequence[0]
        cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        assert np.allclose(cosines, graded.series.orientation, atol=1e-6)
        for groups in made.PerFrameFunctionalGroupsSequence:
            (image,) = groups.DerivationImageSequence[0].SourceImageSequence
            assert str(image.ReferencedSOPInstanceUID) in sources
            assert image.SpatialLocationsPreserved == "YES"
            source = sources[str(image.ReferencedSOPInstanceUID)]
            if "PerFrameFunctionalGroupsSequence" in source:
                source = source.PerFrameFunctionalGroupsSequence[int(image.ReferencedFrameNumber) - 1]
                assert source.MRDiffusionSequence[0].DiffusionBValue == 0
                source = source.PlanePositionSequence[0]
            else:
                assert source.DiffusionBValue == 0
            mine = groups.PlanePositionSequence[0].ImagePositionPatient
            assert np.allclose(mine, source.ImagePositionPatient, atol=1e-6)


def test_results_are_of_the_same_patient_and_study_and_of_new_series(graded):
    source = next(iter(graded.sources().values()))
    numbers, series = [], set()
    for name, made in graded.objects.items():
        for element in PATIENT_AND_STUDY:
            assert made.get(element) == source.get(element), (name, element)
        assert made.SeriesDescription.endswith("RESEARCH USE ONLY")
        assert made.ContentQualification == "RESEARCH"
        assert made.DeviceSerialNumber == graded.context.identity.model
        assert graded.context.identity.version in made.SoftwareVersions[0]
        purposes = {each.Manufacturer for each in made.ContributingEquipmentSequence}
        assert "mhsev" in purposes
        numbers.append(int(made.SeriesNumber))
        series.add(made.SeriesInstanceUID)
    assert sorted(numbers) == [9001, 9002, 9003, 9004, 9005, 9006]
    assert len(series) == 6
    assert source.SeriesInstanceUID not in series


@needs_validators
def test_validators_find_no_fault(graded):
    files = sorted(graded.folder.glob("*.dcm"))
    assert standard_errors(files) == []
    sources = sorted(graded.series.folder.glob("*.dcm"))
    assert contradictions([*files, *sources]) == contradictions(sources)


@needs_validators
def test_an_enhanced_report_tells_the_place_in_pixels(graded, tmp_path):
    objects = result_objects(graded.context, ReportForm.ENHANCED)
    write_results(tmp_path / "out", {"sr.dcm": objects["sr.dcm"]}, {})
    made = read_all(tmp_path / "out")["sr"]
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.22"
    assert made.SOPInstanceUID != graded.objects["sr"].SOPInstanceUID
    _, grade_word, (finding,) = report_groups(made)
    assert grade_word == "Mild"
    assert np.allclose(finding["roi"].value[0], [SPOT[0] + 0.5, SPOT[1] + 0.5], atol=0.25)
    assert standard_errors([tmp_path / "out" / "sr.dcm"]) == []
    assert "sr.dcm" not in result_objects(graded.context, ReportForm.NONE)


def test_of_both_reports_the_one_that_stands_in_comes_next_under_a_uid_of_its_own(graded):
    both = result_objects(graded.context, ReportForm.BOTH)
    ((second, first),) = STAND_INS.items()
    assert list(both)[:2] == [f"{first}.dcm", f"{second}.dcm"]
    assert both["sr.dcm"].SOPInstanceUID == graded.objects["sr"].SOPInstanceUID
    enhanced = result_objects(graded.context, ReportForm.ENHANCED)["sr.dcm"]
    assert both[f"{second}.dcm"].SOPInstanceUID == enhanced.SOPInstanceUID
    assert both[f"{second}.dcm"].SOPClassUID == enhanced.SOPClassUID


@needs_validators
def test_an_abstention_and_the_part_of_the_brain_are_told(graded, tmp_path):
    """A grade that the model does not stand by must not look like one that it does."""
    findings = tuple(replace(each, part="lobar", diameter_mm=4.2) for each in graded.context.findings)
    doubtful = replace(graded.context.grade, abstains="odd_scan", prediction_set=("none", "mild"))
    objects = result_objects(replace(graded.context, grade=doubtful, findings=findings), ReportForm.COMPREHENSIVE_3D)
    write_results(tmp_path / "out", objects, {})
    content = hd.sr.srread(tmp_path / "out" / "sr.dcm").content
    (scan,) = content.get_image_measurement_groups()
    words = [each.value.meaning for each in scan.get_qualitative_evaluations()]
    assert words == ["Mild", "the scan is unlike those that the model was trained with"]
    (finding,) = content.get_planar_roi_measurement_groups()
    assert [each.value.meaning for each in finding.get_qualitative_evaluations()] == ["lobar"]
    assert 4.2 in [each.value for each in finding.get_measurements()]
    assert standard_errors(sorted((tmp_path / "out").glob("*.dcm"))) == []
    pictures = [each.pixel_array for each in (graded.objects["capture-001"], read_all(tmp_path / "out")["capture-001"])]
    assert not np.array_equal(pictures[0][-18:], pictures[1][-18:])


@needs_validators
def test_a_scan_without_findings_has_a_picture_and_words_and_no_segments(loaded, tmp_path):
    def change(dataset: pydicom.Dataset) -> pydicom.Dataset:
        """As some archives deliver it: no frame of reference, body part or age; a name of another script."""
        for name in ("FrameOfReferenceUID", "PositionReferenceIndicator", "BodyPartExamined", "PatientAge"):
            delattr(dataset, name)
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Müller^Zoë"
        dataset.PatientSex, dataset.StudyTime = "", ""
        return dataset

    made = grade(write_head(tmp_path / "in", spot=False, change=change), loaded, tmp_path / "out")
    objects = made.objects
    assert set(objects) == {"capture-001", "map", "marks", "report", "sr"}
    (annotation,) = objects["marks"].GraphicAnnotationSequence
    assert "no finding marked" in annotation.TextObjectSequence[0].UnformattedTextValue
    assert "GraphicObjectSequence" not in annotation
    measured, grade_word, findings = report_groups(objects["sr"])
    assert (measured["Number of lesions"], grade_word, findings) == (0, "None", [])
    assert {str(each.PatientName) for each in objects.values()} == {"Müller^Zoë"}
    assert any("Frame of Reference" in note for note in made.context.notes)
    assert standard_errors(sorted(made.folder.glob("*.dcm"))) == []


def test_a_model_that_judges_the_scan_as_a_whole_points_at_nothing(tmp_path):
    inputs = DSDInputs()
    network = SeverityMLP(len(inputs.feature_names), [8], num_classes=4, dropout=0.0, max_deviation=8.0, seed=1)
    save_model(tmp_path / "model.pt", network, inputs, "paper", network.state_dict(), {})
    whole = LoadedModel(load_model(tmp_path / "model.pt"), file_digest(tmp_path / "model.pt"))
    made = grade(write_head(tmp_path / "in"), whole, tmp_path / "out")
    assert made.context.grade.n_candidates > 0
    assert set(made.objects) == {"capture-001", "map", "marks", "report", "sr"}
    assert report_groups(made.objects["sr"])[2] == []


def test_the_report_on_paper_is_a_pdf_and_equal_for_equal_results(graded):
    content = bytes(graded.objects["report"].EncapsulatedDocument)
    assert content.startswith(b"%PDF")
    lines = [line for line in graded.context.paper.findings if line.is_finding]
    # Paper counts to the right, front and top, DICOM to the left, back and top.
    assert np.allclose(np.array(lines[0].position_mm) * (-1, -1, 1), graded.series.point(), atol=0.1)
    assert graded.context.identity.model in graded.context.paper.model.values()
    again = result_objects(graded.context, ReportForm.NONE)["report.dcm"]
    assert bytes(again.EncapsulatedDocument) == content
