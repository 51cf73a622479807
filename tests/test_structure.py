"""The house: what may import what, and that every package on disk is in the wheel."""

from __future__ import annotations

import ast
import configparser
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "mhsev_monai").rglob("*.py"), *(ROOT / "custom").rglob("*.py")])
PURE_FLARE_FILES = (
    "analysis/answer_book.py",
    "analysis/asked_sites.py",
    "analysis/association_arrays.py",
    "analysis/association_design.py",
    "analysis/association_site.py",
    "analysis/association_study.py",
    "analysis/explanation_arrays.py",
    "analysis/explanation_plan.py",
    "analysis/explanation_site.py",
    "analysis/explanation_study.py",
    "analysis/payload_forms.py",
    "analysis/player_sizes.py",
    "analysis/protocol.py",
    "analysis/result.py",
    "anomalies.py",
    "checkpoint.py",
    "combination.py",
    "control_variates.py",
    "convergence.py",
    "gates.py",
    "participation.py",
    "payload_forms.py",
    "payload_rules.py",
    "protocol.py",
    "result.py",
    "robust.py",
    "rounds.py",
    "running_mean.py",
    "site_policy.py",
    "site_policy_file.py",
    "small_cells.py",
    "standardisation.py",
    "study_record.py",
    "weighting.py",
)

needs_checkout = pytest.mark.skipif(
    not (ROOT / "setup.cfg").is_file(), reason="needs the checkout, not the wheel alone"
)


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@needs_checkout
def test_one_site_knows_no_federation():
    assert SOURCES, "no sources found"
    offenders = {
        path.name: packages & {"nvflare", "mhsev_flare"}
        for path in SOURCES
        if "mhsev_monai" in path.parts and (packages := imported_packages(path)) & {"nvflare", "mhsev_flare"}
    }
    assert offenders == {}


@needs_checkout
@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "functional.py"], ids=lambda p: p.parent.name)
def test_mathematics_imports_no_plumbing(path):
    third_party = imported_packages(path) - set(sys.stdlib_module_names) - {"mhsev_monai"}
    assert third_party <= {"torch", "numpy", "scipy"}


@needs_checkout
@pytest.mark.parametrize("name", PURE_FLARE_FILES)
def test_pure_federated_files_import_no_flare(name):
    packages = imported_packages(ROOT / "custom" / "mhsev_flare" / name)
    assert packages & {"nvflare", "monai"} == set()


@needs_checkout
def test_weighting_knows_numbers_only():
    packages = imported_packages(ROOT / "custom" / "mhsev_flare" / "weighting.py") - set(sys.stdlib_module_names)
    assert packages == {"numpy"}


@needs_checkout
def test_nobody_imports_jobs_poc_or_custom():
    offenders = {p.name for p in SOURCES if imported_packages(p) & {"jobs", "poc", "custom", "tests"}}
    assert offenders == set()


@needs_checkout
def test_setup_lists_every_package_on_disk():
    """A forgotten subpackage is missing from the wheel while an editable install still works."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    on_disk = {
        ".".join(path.parent.relative_to(base).parts)
        for base in (ROOT, ROOT / "custom")
        for top in ("mhsev_monai", "mhsev_flare")
        for path in (base / top).rglob("__init__.py")
    }
    assert listed == on_disk


@pytest.mark.parametrize("package", ["mhsev_monai", "mhsev_flare"])
def test_every_module_can_be_imported(package):
    """A module that was not packed, or needs one that was not, is found out here and not by a user."""
    names = [module.name for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}.")]
    assert len(names) > 30
    for name in names:
        import_module(name)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["demo", "--help"], ["cohort", "make", "--help"], ["predict", "--help"], ["report", "--help"]),
        *(
            [verb, "--help"]
            for verb in (
                "ingest",
                "preprocess",
                "qc",
                "landmarks",
                "features",
                "associations",
                "benchmark",
                "search",
                "site-config",
                "site-check",
                "site-payload",
                "provision",
                "explain",
                "compare",
                "scan-report",
                "view",
                "gateway",
            )
        ),
        *(["poc", verb, "--help"] for verb in ("up", "run", "status", "logs", "down", "demo")),
        ["simulator", "run", "--help"],
        *(
            ["cohort", "check", "--help"],
            ["dicom", "run", "--help"],
            ["jobs", "export", "--help"],
            ["bundle", "export", "--help"],
        ),
    ],
    ids=" ".join,
)
def test_help_needs_no_heavy_import(arguments):
    """Help answers at once: it must not wait for torch, MONAI or FLARE."""
    script = (
        "import sys\nfrom mhsev_flare.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'monai', 'nvflare', 'numpy', 'scipy', 'nibabel', 'pydicom'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: mhsev" in done.stdout
