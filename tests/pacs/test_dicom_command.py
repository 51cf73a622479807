"""``mhsev dicom run`` as an administrator meets it: what is told, what is written, what stays in the objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from dicom_heads import as_it_is, read_all, write_head, write_model
from pydicom.uid import CTImageStorage, generate_uid

from mhsev_flare.cli import main
from mhsev_monai.pacs.identity import ResultIdentity, hashed_uid, series_key
from mhsev_monai.pacs.run import run_folder

sys.path.insert(0, str(Path(__file__).parents[1] / "ingest" / "dicom"))
from dicom_files import save as save_file
from dicom_files import slice_dataset, write_series
from test_privacy import NAME, everything_written, leaks, poisoned


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="module")
def first_run(model, tmp_path_factory) -> tuple[Path, Path, dict]:
    """The source, the folder of results and the told outcome of a series that is graded."""
    folder, outcomes = tmp_path_factory.mktemp("run"), []
    write_head(folder / "in")
    run_folder(folder / "in", folder / "out", model, report=lambda each: outcomes.append(each.to_json()))
    (outcome,) = outcomes
    return folder / "in", folder / "out", outcome


def told(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_graded_series_is_told_in_one_line_and_its_folder_is_whole(first_run):
    source, out, outcome = first_run
    assert outcome["series"] == series_key(pydicom.dcmread(next(source.iterdir())).SeriesInstanceUID)
    assert (outcome["status"], outcome["reason"], outcome["kind"], outcome["n_files"]) == ("done", "", "diffusion", 68)
    assert (outcome["grade"], outcome["count"]) == ("mild", 1)
    names = [name.partition("/")[2] for name in outcome["results"]]
    assert names == ["sr.dcm", "seg.dcm", "map.dcm", "marks.dcm", "report.dcm", "capture-001.dcm"]
    assert all((out / name).is_file() for name in outcome["results"])
    assert len({name.partition("/")[0] for name in outcome["results"]}) == 1
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_the_same_again_keeps_every_byte(first_run, model, capsys):
    source, out, outcome = first_run
    before = contents(out)
    assert main(["dicom", "run", str(source), str(out), "--model", str(model), "--json"]) == 0
    assert told(capsys) == [outcome]
    assert contents(out) == before


def test_the_same_elsewhere_has_the_same_uids_and_a_new_model_others_beside_the_old(first_run, model, tmp_path, capsys):
    source, out, outcome = first_run
    before = contents(out)
    upgraded = write_model(tmp_path / "new.pt", seed=2)
    assert main(["dicom", "run", str(source), str(tmp_path / "again"), "--model", str(model), "--json"]) == 0
    assert main(["dicom", "run", str(source), str(out), "--model", str(upgraded), "--json"]) == 0
    again, new = told(capsys)
    old_uids, again_uids, new_uids = (
        {str(made.SOPInstanceUID) for made in read_all((folder / each["results"][0]).parent).values()}
        for folder, each in ((out, outcome), (tmp_path / "again", again), (out, new))
    )
    assert again_uids == old_uids
    assert len(old_uids) == 6
    assert not new_uids & old_uids
    assert {name: content for name, content in contents(out).items() if name in before} == before


def test_uids_are_valid_and_change_with_series_files_model_and_version():
    identity = ResultIdentity.of("1.2.3", ["1.1", "1.2"], "a" * 64, "0.1.0")
    others = [
        ResultIdentity.of("1.2.4", ["1.1", "1.2"], "a" * 64, "0.1.0"),
        ResultIdentity.of("1.2.3", ["1.1", "1.2", "1.3"], "a" * 64, "0.1.0"),
        ResultIdentity.of("1.2.3", ["1.1", "1.2"], "b" * 64, "0.1.0"),
        ResultIdentity.of("1.2.3", ["1.1", "1.2"], "a" * 64, "0.2.0"),
    ]
    uids = [each.uid("instance", "sr", 1) for each in (identity, *others)] + [identity.uid("series", "sr")]
    assert len(set(uids)) == len(uids)
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)
    # The order of files and blanks that pad their UIDs make no difference.
    assert ResultIdentity.of("1.2.3", ["1.2 ", "1.1\0", "1.1"], "a" * 64, "0.1.0") == identity
    # SHA-256 of "a", its first 16 bytes with version 8 and variant 10, as a whole number.
    assert hashed_uid("a") == f"2.25.{int('ca978112ca1b8dcabac231b39a23dc4d', 16)}"


def strange(folder: Path) -> None:
    """Series that are not graded, each for another reason."""
    write_series(folder / "adc", SeriesInstanceUID="1.1", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])
    write_series(folder / "localiser", SeriesInstanceUID="1.2", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ct = slice_dataset(0, 0, 1, None, SOPClassUID=CTImageStorage, Modality="CT", SeriesInstanceUID="1.3")
    save_file(ct, folder / "ct" / "1.dcm")
    write_series(
        folder / "short", SeriesInstanceUID="1.4", change=lambda each: None if each.InstanceNumber == 9 else each
    )
    (folder / "notes.txt").write_text("Roe^Jane")
    (folder / "broken.dcm").write_bytes(b"nothing")
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        if path.name != "broken.dcm":
            dataset = pydicom.dcmread(path)
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
            save_file(dataset, path)


def test_what_is_not_graded_is_counted_and_named_with_a_reason(model, tmp_path, capsys):
    strange(tmp_path / "in")
    assert main(["dicom", "run", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model), "--json"]) == 1
    found = {each["kind"]: each for each in told(capsys)}
    assert {kind: each["status"] for kind, each in found.items()} == {
        "ADC map": "left out",
        "localiser": "left out",
        "no MR image": "left out",
        "diffusion": "refused",
        "unreadable file": "refused",
        "other file": "left out",
    }
    assert "CT Image Storage" in found["no MR image"]["reason"]
    assert "incomplete" in found["diffusion"]["reason"]
    assert all(each["reason"] and not each["results"] for each in found.values())
    assert (found["ADC map"]["n_files"], found["unreadable file"]["n_files"]) == (18, 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_maps_without_their_series_are_told_what_to_send(model, tmp_path, capsys):
    write_series(tmp_path / "in", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])
    assert main(["dicom", "run", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model)]) == 1
    printed = capsys.readouterr().out
    assert "the study has no original diffusion series here" in printed
    assert "left out     1  ADC map" in printed
    assert "nothing was graded" in printed


@pytest.mark.parametrize("what", ["no source", "no model", "source inside out", "out is a file"])
def test_a_wrong_call_is_one_sentence_without_the_folders_names(what, model, tmp_path, capsys):
    folder = tmp_path / "Roe^Jane"
    source, out = folder / "in", folder / "out"
    write_series(source)
    if what == "no source":
        source = folder / "none"
    if what == "no model":
        model = folder / "none.pt"
    if what == "source inside out":
        out = folder
    if what == "out is a file":
        out.write_text("")
    assert main(["dicom", "run", str(source), str(out), "--model", str(model), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mhsev: ")
    assert "Jane" not in printed.err


def test_a_fault_while_writing_leaves_nothing_behind(model, tmp_path, capsys, monkeypatch):
    """The disk is full at the third object."""
    write_head(tmp_path / "in")
    saved = []

    def save(self: pydicom.Dataset, path: Path, **options: object) -> None:
        saved.append(path)
        if len(saved) == 3:
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(b"x")

    monkeypatch.setattr(pydicom.Dataset, "save_as", save)
    assert main(["dicom", "run", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model), "--json"]) == 1
    (outcome,) = told(capsys)
    assert (outcome["status"], outcome["results"]) == ("failed", [])
    assert "results cannot be written" in outcome["reason"]
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_run_left_is_cleared_by_the_next(model, tmp_path):
    """No process here has so high a number; one of another container may, and then its folder changed lately."""
    dead, elsewhere = tmp_path / "out" / ".mhsev-99999999-a", tmp_path / "out" / ".mhsev-99999998-a"
    alive = tmp_path / "out" / f".mhsev-{os.getppid()}-b"
    for folder in (dead, elsewhere, alive):
        (folder / "results").mkdir(parents=True)
        for path in (folder / "results", folder):
            os.utime(path, (time.time() - 3700,) * 2)
    (elsewhere / "results" / "sr.dcm").write_bytes(b"x")
    os.utime(elsewhere / "results", (time.time() - 3700,) * 2)
    write_series(tmp_path / "in", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    main(["dicom", "run", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model)])
    assert (dead.exists(), elsewhere.exists(), alive.exists()) == (False, True, True)


def test_a_lack_of_memory_is_no_fault_of_the_series(model, tmp_path, capsys, monkeypatch):
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("mhsev_monai.pacs.run.grade_series", fail)
    write_series(tmp_path / "in")
    assert main(["dicom", "run", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model), "--json"]) == 1
    (outcome,) = told(capsys)
    assert outcome["status"] == "failed"
    assert "does not fit into memory" in outcome["reason"]


def test_a_fault_of_ours_is_told_by_its_kind_alone(model, tmp_path, capsys, monkeypatch):
    def fail(*arguments: object) -> None:
        raise KeyError("Roe^Jane")

    monkeypatch.setattr("mhsev_monai.pacs.run.grade_series", fail)
    write_series(tmp_path / "in")
    assert main(["dicom", "run", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(model), "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["reason"].startswith("failed unexpectedly with KeyError")
    assert json.loads(printed.out)["status"] == "failed"
    assert "Jane" not in printed.out + printed.err


@pytest.mark.parametrize("form", ["classic", pytest.param("enhanced", marks=pytest.mark.slow)])
def test_identifiers_stand_in_the_objects_and_nowhere_else(form, model, tmp_path):
    source, scratch = tmp_path / f"{NAME} in", tmp_path / "scratch"
    scratch.mkdir()
    write_head(source, form=form, change=lambda dataset: with_place(poisoned(dataset)))
    command = [sys.executable, "-m", "mhsev_flare.cli", "dicom", "run", str(source), str(tmp_path / "out"), "--json"]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONWARNINGS": "always"}
    done = subprocess.run(
        [*command, "--model", str(model)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert leaks(done.stdout.encode() + done.stderr.encode()) == []
    results = contents(tmp_path / "out")
    assert {name for name in results if leaks(name.encode())} == set()
    assert {name for name, content in results.items() if leaks(content)} == {n for n in results if n.endswith(".dcm")}
    assert everything_written(scratch) == {}


def with_place(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The words that diffusion series are told by, which the poisoning overwrote."""
    dataset.SequenceName = "ep_b0"
    return as_it_is(dataset)


def test_mercure_gets_files_side_by_side(first_run, model, tmp_path, capsys, monkeypatch):
    source, _, outcome = first_run
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("MERCURE_IN_DIR", str(source))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("MHSEV_MODEL", str(model))
    assert main(["dicom", "mercure", "--json"]) == 0
    assert told(capsys) == [outcome]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(name.replace("/", "-") for name in outcome["results"])
    monkeypatch.delenv("MERCURE_IN_DIR")
    assert main(["dicom", "mercure", "--json"]) == 2
    assert "MERCURE_IN_DIR" in capsys.readouterr().err
