"""The pages in a real browser, opened from disk without a network: nothing fails, and axe-core finds no violation."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from test_scan_report import report  # noqa: F401  a fixture
from whole_report import whole_data

from mhsev_monai.report import render_report
from mhsev_monai.report.scan_sections import scan_html

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND")
AXE = "axe-core@4.10.3"
DARK = "--blink-settings=preferredColorScheme=0"
RUN = """axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const told = document.createElement("pre");
  told.id = "found";
  told.textContent = JSON.stringify({
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    violations: found.violations.map(v => [v.id, v.nodes.map(n => n.html)]),
    passes: found.passes.length,
  });
  document.body.replaceChildren(told);
});"""


def browse(*arguments: str) -> subprocess.CompletedProcess:
    if BROWSER is None:
        pytest.skip("needs chromium")
    return subprocess.run([BROWSER, *FLAGS, *arguments], capture_output=True, text=True, check=True, timeout=120)


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The source of axe-core, fetched by npm into a temporary folder."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, to fetch axe-core")
    folder = tmp_path_factory.mktemp("axe")
    fetched = subprocess.run(["npm", "pack", AXE], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if fetched.returncode != 0:
        pytest.skip(f"npm cannot fetch {AXE} here")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        return package.extractfile("package/axe.min.js").read().decode()


def violations(page: str, axe: str, folder: Path, *flags: str) -> dict:
    """What axe-core finds. The page's policy, under which no script runs, is taken off for it."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    assert policy.search(page)
    scripts = "".join(f"<script>{source}</script>" for source in (axe.replace("</script", "<\\/script"), RUN))
    (folder / "page.html").write_text(policy.sub("", page).replace("</body>", f"{scripts}</body>"))
    address = (folder / "page.html").as_uri()
    dumped = browse(*flags, "--virtual-time-budget=20000", "--dump-dom", address).stdout
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL).group(1)))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_of_a_run_has_no_violation(axe, tmp_path, dark):
    found = violations(render_report(whole_data()), axe, tmp_path, *([DARK] if dark else []))
    assert found["violations"] == []
    assert found["passes"] > 20
    assert found["dark"] is dark


def test_the_report_of_a_scan_has_no_violation(axe, tmp_path, report):  # noqa: F811
    found = violations(scan_html(replace(report, abstains="every grade is possible")), axe, tmp_path)
    assert found["violations"] == []
    assert found["passes"] > 20


def test_axe_is_not_blind(axe, tmp_path):
    page = render_report(whole_data()).replace('<html lang="en">', "<html>")
    assert "html-has-lang" in [name for name, _ in violations(page, axe, tmp_path)["violations"]]


def test_a_site_that_is_a_script_runs_nothing(tmp_path):
    """With the page's own policy and without it: the name stays text."""
    site = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    page = render_report(whole_data(site))
    for number, content in enumerate((page, re.sub(r'<meta http-equiv="Content-Security[^>]*>', "", page))):
        path = tmp_path / f"{number}.html"
        path.write_text(content)
        dumped = browse("--virtual-time-budget=2000", "--dump-dom", path.as_uri()).stdout
        assert "<title>ran" not in dumped
        assert "&lt;script&gt;document.title='ran'" in dumped


def test_it_prints_and_is_drawn_from_disk_without_a_network(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(render_report(whole_data("Clinic")))
    browse(f"--print-to-pdf={tmp_path / 'page.pdf'}", path.as_uri())
    browse(f"--screenshot={tmp_path / 'page.png'}", "--window-size=1200,2000", path.as_uri())
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes()))
    assert 5 < pages < 25
    from PIL import Image

    picture = Image.open(tmp_path / "page.png").convert("RGB").resize((60, 100))
    assert len(picture.getcolors(6000)) > 200
