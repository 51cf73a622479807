"""The page and the numbers of a site: all is there, adds up, and says nothing that it must not."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from qc_phantoms import add_subject

import mhsev_monai.qc.site as room
from mhsev_monai.errors import CohortError
from mhsev_monai.ingest.ledger import Ledger, LedgerEntry
from mhsev_monai.preprocess.nyul import read_landmark_sums
from mhsev_monai.qc import write_qc
from mhsev_monai.qc.outliers import MEASURES
from mhsev_monai.scan_contrast import ScanContrast

HOSTILE = "<script>alert('\"&')</script>"
PATIENT = "Roe Jane"


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether every tag is closed in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def entry(subject, series, outcome, reason="", scan="", kind="diffusion"):
    return LedgerEntry(subject, "", series, kind, 3, outcome, reason, scan)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six heads, one of them dim; and one of each kind of thing that is excluded."""
    root = tmp_path_factory.mktemp("site") / PATIENT
    for i in range(6):
        add_subject(root, f"0{i}", seed=i)
    cut = add_subject(root, "cut", seed=9)
    cut.write_bytes(cut.read_bytes()[:5000])
    second = root / "sub-00" / "dwi" / "sub-00_dwi.nii.gz"
    second.with_name("sub-00_run-2_dwi.nii.gz").write_bytes(second.read_bytes())
    (root / f"sub-{PATIENT}" / "dwi").mkdir(parents=True)
    (root / "participants.tsv").write_text("participant_id\tmicrobleed_count\nsub-00\t1\nsub-gone\t2\n")
    ledger = Ledger(root)
    for each in (
        entry("sub-00", "a", "accepted", scan="sub-00_dwi"),
        entry("sub-00", "b", "left out", "of no use here", kind="localiser"),
        entry("", "c", "refused", f"two slices lie at one place {HOSTILE}"),
        entry("sub-05", "d", "accepted", scan="sub-05_run-7_dwi"),
        entry("sub-05", "e", "accepted", scan="sub-05_acq-swi_T2starw"),
    ):
        ledger.add(each)
    ledger.save()
    return root


@pytest.fixture(scope="module")
def written(root):
    done = []
    summary = write_qc(root, progress=lambda n, total: done.append((n, total)))
    assert done == [(n, 7) for n in range(1, 8)]
    return summary, summary.page.read_text(), json.loads(summary.numbers.read_text())


def test_every_scan_and_series_is_counted_once(written):
    summary, _, numbers = written
    reasons = sorted((row.case_id, row.series, row.reason.split(" ", 3)[0]) for row in summary.excluded)
    assert reasons == [
        ("(name withheld)", "", "a"),
        ("sub-00", "image 2 of 2", "another"),
        ("sub-00", "localiser, 3 files", "of"),
        ("sub-05", "diffusion, 3 files", "it"),
        ("sub-cut", "", "the"),
        ("sub-gone", "", "no"),
        ("unknown patient", "diffusion, 3 files", "two"),
    ]
    assert summary.n_accepted + len(summary.flags) == 6
    assert summary.n_refused == 6
    assert numbers["counts"] == {
        "entries": 13,
        "accepted": summary.n_accepted,
        "flagged": len(summary.flags),
        "excluded": 7,
    }


def test_the_numbers_of_a_scan_are_plain_numbers(written):
    _, _, numbers = written
    assert sorted(numbers["scans"]) == [f"sub-0{i}" for i in range(6)]
    for case_id, row in numbers["scans"].items():
        assert {m.name for m in MEASURES} <= set(row)
        for name, value in row.items():
            assert (value is None) == (name in numbers["not_measured"].get(case_id, {}))
            assert value is None or isinstance(value, int | float)
        assert row["n_b0"] == 2
        # Mean 122 over noise 2; repeated volumes of still heads move by nothing.
        assert row["snr_difference"] == pytest.approx(61, rel=0.15)
        assert row["motion_mean_mm"] < 0.7
        assert row["dropout_percent"] == 0.0


def test_the_sums_of_landmarks_can_be_read_by_whoever_pools_them(written):
    summary, _, numbers = written
    for image in ("b0", "trace"):
        sums = read_landmark_sums(summary.numbers, image)
        assert sums.n_scans == 6
        assert numbers["landmarks"][image]["sums"] == list(sums.sums)


def test_the_page_is_whole_and_loads_nothing(written):
    _, html, _ = written
    page = Page(html)
    assert page.open == []
    assert {"link", "script", "iframe", "object", "base"} & set(page.tags) == set()
    assert page.tags.count("img") == 12
    for name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "poster"):
            assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#"))
    assert not re.search(r"https?://|url\(|@import", html)
    assert "default-src 'none'" in html


def test_links_lead_to_the_sections_of_all_scans(written):
    _, html, _ = written
    attributes = Page(html).attributes
    ids = [value for name, value in attributes if name == "id"]
    links = {value.removeprefix("#") for name, value in attributes if name == "href"}
    assert len(ids) == len(set(ids))
    assert links <= set(ids)
    assert {f"scan-sub-0{i}" for i in range(6)} <= links


def test_nobody_is_named_and_hostile_text_stays_text(written):
    summary, html, _ = written
    for content in (html, summary.numbers.read_text()):
        assert PATIENT not in content
        assert "Roe" not in content
        assert str(summary.page.parent) not in content
    assert "<script" not in html
    assert HOSTILE in Page(html).text
    assert "it stays at the site" in Page(html).text
    assert "Research use only" in Page(html).text


def test_a_scan_takes_little_room(written):
    _, html, _ = written
    assert all(len(address) < 150_000 for address in re.findall(r'src="([^"]+)"', html))


def test_an_unexpected_failure_is_named_by_its_type_and_the_others_go_on(root, tmp_path, monkeypatch):
    right = room.check_scan

    def check(case, contrast):
        if case.case_id == "sub-03":
            raise RuntimeError(f"/data/{PATIENT}")
        return right(case, contrast) if case.case_id == "sub-02" else (_ for _ in ()).throw(KeyError(PATIENT))

    monkeypatch.setattr(room, "check_scan", check)
    summary = write_qc(root, tmp_path / "page.html")
    reasons = {row.case_id: row.reason for row in summary.excluded if row.stage == "processing"}
    assert reasons["sub-03"] == "it failed unexpectedly (RuntimeError)"
    assert reasons["sub-04"] == "it failed unexpectedly (KeyError)"
    assert summary.n_accepted + len(summary.flags) == 1
    numbers = json.loads((tmp_path / "page.json").read_text())
    assert "says too much" in numbers["landmarks"]["b0"]["absent"]
    assert PATIENT not in (tmp_path / "page.html").read_text() + (tmp_path / "page.json").read_text()
    with pytest.raises(CohortError, match="says too much"):
        read_landmark_sums(tmp_path / "page.json", "b0")


def test_a_folder_without_any_scan_has_a_page_if_something_was_brought_in(tmp_path):
    with pytest.raises(CohortError, match="no dwi scan"):
        write_qc(tmp_path)
    ledger = Ledger(tmp_path)
    ledger.add(entry("sub-1", "a", "refused", "the b-values are missing"))
    ledger.save()
    summary = write_qc(tmp_path)
    assert (summary.n_accepted, len(summary.excluded)) == (0, 1)
    text = Page(summary.page.read_text()).text
    assert "the b-values are missing" in text
    assert "holds no dwi scan" in text


def test_scans_of_another_contrast_need_no_b_values_and_are_not_blamed_for_it(tmp_path):
    path = add_subject(tmp_path, "1", seed=1, n_dwi=0)
    folder = tmp_path / "sub-1" / "anat"
    folder.mkdir()
    path.rename(folder / "sub-1_T2starw.nii.gz")
    summary = write_qc(tmp_path, contrast=ScanContrast.T2STAR)
    assert (summary.n_accepted, summary.excluded, summary.flags) == (1, (), {})
    assert summary.page.name == "qc_t2star.html"  # the page of another contrast stays
    numbers = json.loads(summary.numbers.read_text())
    assert "no diffusion-weighted volume" in numbers["not_measured"]["sub-1"]["field_agreement"]
    assert numbers["scans"]["sub-1"]["snr_difference"] is not None


def test_a_page_that_cannot_be_written_is_refused_with_a_reason(root, tmp_path, monkeypatch):
    # Before any scan is processed.
    monkeypatch.setattr(room, "check_site", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(CohortError, match="cannot be written"):
        write_qc(root, tmp_path / "file" / "page.html")
    with pytest.raises(CohortError, match="json"):
        write_qc(root, tmp_path / "page.json")
    with pytest.raises(CohortError, match="not a folder"):
        write_qc(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_missing_extra_is_named(root, monkeypatch):
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'mhsev\[report\]'"):
        write_qc(root)


@pytest.mark.slow
def test_processes_give_the_same_numbers(root, written, tmp_path):
    summary = write_qc(root, tmp_path / "page.html", workers=2)
    assert json.loads(summary.numbers.read_text()) == written[2]
    assert summary.page.read_text() == written[1]


@pytest.mark.slow
def test_real_scans_have_a_page(shared_data, tmp_path):
    for i, name in enumerate(("uih_umr770_b0_b930", "philips_elition_mb3_b0_b1000")):
        folder = tmp_path / f"sub-{i}" / "dwi"
        folder.mkdir(parents=True)
        for ending in (".nii.gz", ".bval"):
            content = (shared_data / "nifti_dwi" / f"{name}{ending}").read_bytes()
            Path(folder / f"sub-{i}_dwi{ending}").write_bytes(content)
    summary = write_qc(tmp_path)
    uih, philips = json.loads(summary.numbers.read_text())["scans"].values()
    assert summary.excluded == ()
    assert all(any("touches the edge" in flag for flag in flags) for flags in summary.flags.values())
    assert len(summary.flags) == 2  # both are slabs
    # Volunteers who lay still; agreement and sizes as on the day this was written, with room.
    assert max(uih["motion_max_mm"], philips["motion_max_mm"]) < 1.0
    assert min(uih["field_agreement"], philips["field_agreement"]) > 0.8
    assert philips["snr_difference"] == pytest.approx(22.9, rel=0.1)
    assert philips["ghost_percent"] is None
    assert summary.page.stat().st_size < 2 * 150_000 + 40_000
