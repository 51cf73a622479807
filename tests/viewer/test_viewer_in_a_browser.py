"""The page of a scan in a real browser: what is where, by keyboard alone, enlarged, and to an accessibility checker."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import threading

import numpy as np
import pytest
from devtools_browser import CHROMIUM, Browser
from viewer_phantom import LEFT_SPOT, RIGHT_SPOT, SHAPE, scan

from mhsev_monai.viewer import ViewerServer, viewer_files

Image = pytest.importorskip("PIL.Image")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
PLANES = {"axial": "0", "coronal": "1", "sagittal": "2"}
AXIAL, THREE_PLANES = "0", "3"
AXE_VERSION = "4.14.1"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def server():
    with ViewerServer(viewer_files(*scan()), port=0, idle_seconds=600) as made:
        thread = threading.Thread(target=made.serve_until_idle)
        thread.start()
        yield made
        made.idle_seconds = 0
        thread.join()


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.open(server.address)
        yield browser


def place(page) -> str:
    return page.value("document.getElementById('place').textContent")


def choose_plane(page, plane: str) -> None:
    page.value(
        f"(() => {{ const plane = document.getElementById('plane'); plane.value = '{plane}';"
        "plane.dispatchEvent(new Event('change')); })()"
    )


def check(page, name: str, on: bool) -> None:
    page.value(
        f"(() => {{ const box = document.getElementById('{name}');"
        f"if (box.checked !== {json.dumps(on)}) box.click(); }})()"
    )


def go_to_spot(page, number: int) -> None:
    page.value(f"document.querySelector('[data-spot=\"{number}\"]').click()")


def rings(page) -> list[dict[str, float]]:
    """Rings with their middle, in CSS pixels of the window."""
    return page.value(
        "(() => { const box = document.getElementById('marks').getBoundingClientRect();"
        "return [...document.querySelectorAll('#marks circle:not(.edge)')].map((ring) => "
        "({kind: ring.getAttribute('class'), x: box.x + Number(ring.getAttribute('cx')), "
        "y: box.y + Number(ring.getAttribute('cy'))})); })()"
    )


def slices_picture(page, tmp_path) -> tuple[np.ndarray, float, float]:
    """Grey values of the slices as shown, and where they begin in the window."""
    left, top, width, height = page.value(
        "(() => { const box = document.getElementById('slices').getBoundingClientRect();"
        "return [box.x, box.y, box.width, box.height]; })()"
    )
    shot = Image.open(io.BytesIO(page.screenshot(tmp_path / "page.png").read_bytes())).convert("L")
    return np.asarray(shot.crop((int(left), int(top), int(left + width), int(top + height)))), left, top


def test_it_opens_without_a_complaint_and_asks_nobody_else(page, server):
    assert page.complaints == []
    others = [url for url in page.requests if not url.startswith((server.address, "data:"))]
    assert others == []
    asked = {url.removeprefix(server.address) for url in page.requests if url.startswith(server.address)}
    assert asked == {"", "page.css", "page.js", "niivue.umd.js", "scan.json", "b0.nii", "dsd.nii", "brain.nii"}


def test_the_policy_stops_an_outside_address_and_an_inline_script(page):
    seen = len(page.complaints)
    refused = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
    assert page.value(refused) == "refused"
    inline = (
        "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "document.body.append(script); return window.ran; })()"
    )
    assert page.value(inline) is None
    assert any("Content Security Policy" in each for each in page.complaints[seen:])
    del page.complaints[seen:]


@pytest.mark.parametrize(("number", "voxel"), [(1, RIGHT_SPOT), (2, LEFT_SPOT)])
def test_a_spot_of_an_oblique_scan_is_found_in_its_own_voxel(page, number, voxel):
    go_to_spot(page, number)
    x, y, z = voxel
    # The first axis is stored from right to left; the page counts from left to right, and from 1.
    assert f"Slices: sagittal {SHAPE[0] - x}, coronal {y + 1}, axial {z + 1}." in place(page)
    told = page.value(f"document.querySelector('[data-spot=\"{number}\"]').textContent").partition(" at ")[2].strip()
    assert place(page).startswith(f"Crosshair at {told}, ")


@pytest.mark.parametrize(("number", "layer"), [(1, "layer-b0"), (2, "layer-dsd")])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_mark_lies_on_its_spot_and_right_is_on_the_left(page, tmp_path, number, layer, plane):
    """The right spot is the one white block of the image, the left one that of the map; the scan is oblique."""
    choose_plane(page, PLANES[plane])
    go_to_spot(page, number)
    (ring,) = rings(page)
    boxes = ("layer-b0", "layer-dsd", "layer-brain", "marks-finding", "marks-possible")
    for name in boxes:
        check(page, name, name == layer)
    grey, left, top = slices_picture(page, tmp_path)
    for name in boxes:
        check(page, name, True)
    choose_plane(page, THREE_PLANES)
    rows, columns = np.nonzero(grey > 60)
    # Without the letters at the edges, and with as much of the crosshair on either side.
    near = (np.abs(columns + left - ring["x"]) < 60) & (np.abs(rows + top - ring["y"]) < 60)
    assert near.sum() > 2000
    # A third of a voxel, which is 12 pixels here or more; the crosshair takes some of the block away.
    assert columns[near].mean() + left == pytest.approx(ring["x"], abs=4)
    assert rows[near].mean() + top == pytest.approx(ring["y"], abs=4)
    if plane != "sagittal":
        assert (columns[near].mean() < grey.shape[1] / 2) == (number == 1)


def test_marks_are_drawn_near_their_slice_alone_and_on_their_side(page):
    choose_plane(page, AXIAL)
    go_to_spot(page, 1)
    page.value("document.getElementById('slices').focus()")
    seen = []
    for _ in range(3):
        seen.append([ring["kind"] for ring in rings(page)])
        page.press("ArrowUp")
    assert seen == [["finding"], ["finding"], []]
    go_to_spot(page, 1)
    (right,) = rings(page)
    go_to_spot(page, 2)
    (left,) = rings(page)
    choose_plane(page, THREE_PLANES)
    assert right["x"] < left["x"]
    assert (right["kind"], left["kind"]) == ("finding", "possible")


def test_in_three_planes_each_spot_is_marked_three_times(page):
    choose_plane(page, THREE_PLANES)
    go_to_spot(page, 1)
    assert [ring["kind"] for ring in rings(page)] == ["finding"] * 3


def test_arrow_keys_move_through_slices(page):
    go_to_spot(page, 1)
    page.value("document.getElementById('slices').focus()")

    def numbers() -> list[int]:
        axes = ("sagittal", "coronal", "axial")
        return [int(page.value(f"document.getElementById('{axis}').value")) for axis in axes]

    before = numbers()
    for key, change in (("ArrowUp", [0, 0, 1]), ("ArrowLeft", [1, 0, 0]), ("PageDown", [0, -1, 0])):
        page.press(key)
        after = numbers()
        assert [b - a for a, b in zip(before, after, strict=True)] == change
        assert f"sagittal {after[0] + 1}, coronal {after[1] + 1}, axial {after[2] + 1}." in place(page)
        before = after
    page.value("document.getElementById('axial').focus()")
    page.press("ArrowRight")
    assert numbers()[2] == before[2] + 1


def test_by_keyboard_alone_one_gets_everywhere_sees_where_one_is_and_to_a_spot(page, server):
    page.open(server.address)
    reached, outlines = [], []
    for _ in range(40):
        page.press("Tab")
        who = page.value(
            "document.activeElement.id || document.activeElement.dataset.spot || document.activeElement.tagName"
        )
        if who in reached or who == "BODY":
            break
        reached.append(who)
        style = "getComputedStyle(document.activeElement)"
        outlines.append(page.value(f"parseFloat({style}.outlineWidth) >= 3 && {style}.outlineStyle === 'solid'"))
    layers = ["layer-b0", "layer-dsd", "layer-brain", "marks-finding", "marks-possible", "marks-candidate"]
    assert reached == ["slices", "plane", "sagittal", "coronal", "axial", "1", "2", *layers]
    assert all(outlines), dict(zip(reached, outlines, strict=True))
    page.value("document.querySelector('[data-spot=\"2\"]').focus()")
    page.press("Enter")
    assert "less likely spot 2" in place(page)
    assert page.value("document.querySelector('[data-spot=\"2\"]').getAttribute('aria-current')") == "true"
    assert page.value("document.querySelector('[data-spot=\"1\"]').getAttribute('aria-current')") == "false"
    page.value("document.getElementById('marks-possible').focus()")
    page.press(" ")
    assert rings(page) == []
    page.press(" ")
    assert len(rings(page)) == 3


def test_layers_go_off_and_on(page, tmp_path):
    go_to_spot(page, 2)
    whole, _, _ = slices_picture(page, tmp_path)
    for name in ("layer-b0", "layer-dsd", "layer-brain"):
        check(page, name, False)
        without, _, _ = slices_picture(page, tmp_path)
        check(page, name, True)
        assert (np.abs(whole.astype(int) - without) > 8).sum() > 50, name
    again, _, _ = slices_picture(page, tmp_path)
    assert (again == whole).all()


@pytest.mark.parametrize("width", [640, 320])
def test_enlarged_twice_and_fourfold_nothing_is_cut_off_at_the_side(page, width):
    """A window of 1280 pixels at 200 %, and at 400 %."""
    page.resize(width, 512, 1280 / width)
    page.wait_for(f"innerWidth === {width}")
    assert page.value("document.documentElement.scrollWidth") <= width
    page.wait_for(f"[...document.querySelectorAll('#marks circle')].every((ring) => ring.getAttribute('cx') < {width})")
    assert len(rings(page)) == 3
    page.call("Emulation.clearDeviceMetricsOverride")


def test_an_accessibility_checker_finds_no_fault(page, tmp_path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which fetches axe-core")
    fetched = subprocess.run(
        [npm, "pack", f"axe-core@{AXE_VERSION}", "--silent"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    archive = next(iter(tmp_path.glob("axe-core-*.tgz")), None)
    if fetched.returncode or archive is None:
        pytest.skip("axe-core could not be fetched")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    page.value((tmp_path / "package" / "axe.min.js").read_text() + ";0")
    found = page.value(f"axe.run(document, {{runOnly: {json.dumps(RULES)}}}).then((done) => JSON.stringify(done))")
    done = json.loads(found)
    assert len(done["passes"]) > 20
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in done["violations"]] == []


def test_nothing_was_complained_of_in_the_end(page):
    assert page.complaints == []


def test_without_webgl_the_page_says_so_and_keeps_its_lists(server, tmp_path):
    with Browser(tmp_path, "--disable-3d-apis") as browser:
        browser.call("Page.navigate", url=server.address)
        browser.wait_for("document.getElementById('place')?.textContent.includes('no WebGL 2')")
        assert browser.value("document.querySelectorAll('[data-spot]').length") == 2
