"""``mhsev ingest``, ``preprocess`` and ``qc`` as a user meets them: one site's way from its own files to a page."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import pytest
from small_heads import AFFINE, head

from mhsev_flare.cli import main
from mhsev_flare.data_commands import CONTRASTS
from mhsev_monai.scan_contrast import ScanContrast


@pytest.fixture(autouse=True)
def site_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MHSEV_SITE_FOLDER", str(tmp_path / "site"))
    return tmp_path / "site"


def source(folder: Path, n_subjects: int = 2) -> Path:
    """Scans of some patients, and a file that is none."""
    for number in range(n_subjects):
        patient = folder / f"Roe^Jane {number}"
        patient.mkdir(parents=True)
        nib.save(nib.Nifti1Image(head(number), AFFINE), patient / "scan.nii.gz")
        (patient / "scan.bval").write_text("0 1000\n")
    (folder / "letter.txt").write_text("Dear Jane")
    return folder


def facts(printed: str) -> dict[str, str]:
    return {line[:14].strip(): line[14:].strip() for line in printed.splitlines() if not line.startswith(" ")}


def test_from_a_folder_of_scans_to_a_page(tmp_path, capsys):
    root = tmp_path / "bids"
    assert main(["ingest", str(source(tmp_path / "src")), str(root)]) == 0
    told = facts(capsys.readouterr().out)
    assert (told["series"], told["accepted"], told["refused"]) == ("2", "2   scans of 2 subjects", "0")
    assert told["other files"].startswith("1 ")
    assert main(["preprocess", str(root), "--workers", "1"]) == 0
    assert facts(capsys.readouterr().out)["preprocessed"] == "2"
    assert main(["preprocess", str(root), "--workers", "1"]) == 0
    told = facts(capsys.readouterr().out)
    assert (told["preprocessed"], told["up to date"]) == ("0", "2")
    assert main(["qc", str(root), "--workers", "1"]) == 0
    page = (root / "derivatives" / "mhsev" / "qc.html").read_text()
    assert page.count("data:image/") >= 4
    everything = page + capsys.readouterr().err + (root / "derivatives" / "mhsev" / "qc.json").read_text()
    assert "Jane" not in everything


def test_a_refused_series_is_told_and_the_status_says_no(tmp_path, capsys):
    broken = source(tmp_path / "src") / "Roe^Jane 0" / "scan.nii.gz"
    broken.write_bytes(broken.read_bytes()[:1000])
    assert main(["ingest", str(tmp_path / "src"), str(tmp_path / "bids")]) == 1
    printed = capsys.readouterr()
    assert "refused: the file is cut off or damaged" in printed.err
    assert facts(printed.out)["accepted"] == "1   scans of 1 subjects"
    assert "Jane" not in printed.err + printed.out


def test_nothing_accepted_says_where_the_reasons_are(tmp_path, capsys):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "letter.txt").write_text("Dear Jane")
    assert main(["ingest", str(tmp_path / "src"), str(tmp_path / "bids")]) == 1
    assert "no series was accepted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{src}/nothing", "{out}"], "no such file or folder"),
        (["{src}", "{out}", "--site-folder", "{out}/site"], "would leave together with the data"),
        (["{src}", "{src}/letter.txt"], "the BIDS root cannot be written"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(arguments, words, tmp_path, capsys):
    source(tmp_path / "src", 1)
    filled = [part.format(src=tmp_path / "src", out=tmp_path / "bids") for part in arguments]
    assert main(["ingest", *filled]) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("mhsev: ")
    assert words in complaint


def test_preprocess_and_qc_of_an_empty_root_say_so(tmp_path, capsys):
    (tmp_path / "bids").mkdir()
    for command in ("preprocess", "qc"):
        assert main([command, str(tmp_path / "bids")]) == 1
        assert "no dwi scan" in capsys.readouterr().err


def test_a_scan_without_a_brain_is_excluded_with_its_reason(tmp_path, capsys):
    root = tmp_path / "bids"
    main(["ingest", str(source(tmp_path / "src")), str(root)])
    image = next(root.glob("sub-*/dwi/*.nii.gz"))
    nib.save(nib.Nifti1Image(head(0)[:, :, :3], AFFINE), image)
    capsys.readouterr()
    for command in ("preprocess", "qc"):
        assert main([command, str(root), "--workers", "1"]) == 1
        assert f"{image.name.removesuffix('_dwi.nii.gz')}: the brain mask holds" in capsys.readouterr().err
    excluded = json.loads((root / "derivatives" / "mhsev" / "qc.json").read_text())["excluded"]
    assert "the brain mask holds" in json.dumps(excluded)


def test_landmark_sums_of_sites_become_one_scale(tmp_path, capsys):
    def site(name: str, n_scans: int, middle: float) -> str:
        sums = [0.0, *(middle * n_scans for _ in range(9)), 100.0 * n_scans]
        stored = {"landmarks": {"b0": {"n_scans": n_scans, "sums": sums}, "trace": {"absent": "too few"}}}
        (tmp_path / name).write_text(json.dumps(stored))
        return str(tmp_path / name)

    files, out = [site("a.json", 5, 40.0), site("b.json", 15, 60.0)], tmp_path / "scale.json"
    assert main(["landmarks", *files, "--out", str(out)]) == 0
    assert facts(capsys.readouterr().out)["scans"] == "20"
    # The mean over scans, not over sites: (5 * 40 + 15 * 60) / 20.
    assert json.loads(out.read_text())["scale"][5] == 55.0
    assert main(["landmarks", *files, "--image", "trace", "--out", str(out)]) == 1
    assert "holds no landmarks of trace: too few" in capsys.readouterr().err


def test_the_contrasts_of_the_command_are_those_of_the_package():
    assert tuple(CONTRASTS) == tuple(contrast.value for contrast in ScanContrast)
