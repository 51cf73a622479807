"""Kits for Docker, Kubernetes and Slurm, and kits whose keys their owners made, by FLARE's own commands.

No engine runs here: what is tested is that the files come out, can be read, and keep the site policy.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from nvflare.app_opt.job_launcher.study_runtime import load_study_runtime_file

from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.kit_digest import check_digest
from mhsev_flare.provisioning import EXAMPLE, provision

CONFIGS = Path(__file__).resolve().parents[2] / "poc" / "deploy"
MOUNTED = "/var/tmp/nvflare/workspace"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123, which Kubernetes wants of a container's name."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CONFIGS.is_dir(), reason="needs the checkout, not the wheel alone"),
]


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    return provision(EXAMPLE, tmp_path_factory.mktemp("kits")).folder


@pytest.fixture
def flare(tmp_path):
    """Runs a command of FLARE's with a home of its own; it must not fail."""

    def run(*arguments: object, folder: Path = tmp_path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "nvflare.cli", *map(str, arguments)],
            env={"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def prepare(flare, kits, tmp_path):
    """Prepares the kit of a participant for a runtime; the folder that comes out."""

    def run(participant: str, runtime: str, config: Path | None = None) -> Path:
        target = tmp_path / f"{participant}-{runtime}"
        flare(
            "deploy",
            "prepare",
            kits / participant,
            "--config",
            config or CONFIGS / f"{runtime}.yml",
            "--output",
            target,
        )
        return target

    return run


def resources(kit: Path) -> dict:
    return json.loads((kit / "local" / "resources.json.default").read_text())


def component(kit: Path, name: str) -> dict:
    return next(c for c in resources(kit)["components"] if c["id"] == name)


def assert_keeps_the_policy(kit: Path) -> None:
    """Allow list, no code of jobs and, at a site, no log that is streamed."""
    stored = resources(kit)
    assert set(ALLOWED_CLASSES) <= set(stored["class_allow_list"])
    permissions = json.loads((kit / "local" / "authorization.json.default").read_text())["permissions"]
    assert {rights["byoc"] for rights in permissions.values()} == {"none"}
    if (kit / "startup" / "fed_client.json").is_file():
        assert stored["allow_log_streaming"] is False


def assert_bash_reads(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("participant", ["server", "hospital-a"])
def test_a_kit_for_docker(prepare, participant):
    kit = prepare(participant, "docker")
    assert_keeps_the_policy(kit)
    script = kit / "startup" / "start_docker.sh"
    assert_bash_reads(script)
    config = yaml.safe_load((CONFIGS / "docker.yml").read_text())
    assert config["parent"]["docker_image"] in script.read_text()
    assert ("-p 8002:8002" in script.read_text()) == (participant == "server")
    assert component(kit, "docker_launcher")["args"]["default_job_env"] == {"NVFLARE_SECURE_LOGGING": "1"}
    if participant == "server":
        assert component(kit, "job_manager")["args"]["uri_root"] == f"{MOUNTED}/jobs-storage"


def test_the_image_logs_securely_and_runs_as_no_root():
    """The start script and the chart of FLARE 2.9 hand no environment on: the image must set it."""
    lines = (CONFIGS / "Dockerfile").read_text().splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {name for name, _ in instructions} <= {"FROM", "ENV", "COPY", "RUN", "USER"}
    assert any(name == "ENV" and "NVFLARE_SECURE_LOGGING=1" in rest for name, rest in instructions)
    assert instructions[-1] == ["USER", "mhsev"]


@pytest.mark.parametrize("runtime", ["docker", "k8s"])
def test_a_job_sees_its_data_and_logs_securely(runtime):
    study = load_study_runtime_file(str(CONFIGS / "study_runtime.yml"), runtime)["default"]
    assert [(d.mount_path, d.mode) for d in study.datasets] == [
        ("/data/default/bids", "ro"),
        ("/data/default/features", "rw"),
    ]
    assert study.env == {"NVFLARE_SECURE_LOGGING": "1"}


@pytest.mark.parametrize("participant", ["server", "hospital-a"])
def test_a_kit_for_kubernetes(prepare, participant):
    kit = prepare(participant, "kubernetes")
    assert_keeps_the_policy(kit)
    config = yaml.safe_load((CONFIGS / "kubernetes.yml").read_text())
    values = yaml.safe_load((kit / "helm_chart" / "values.yaml").read_text())
    chart = yaml.safe_load((kit / "helm_chart" / "Chart.yaml").read_text())
    assert f"{values['image']['repository']}:{values['image']['tag']}" == config["parent"]["docker_image"]
    assert values["persistence"]["workspace"]["claimName"] == config["parent"]["workspace_pvc"]
    assert values["securityContext"] == config["parent"]["pod_security_context"]
    assert chart["apiVersion"] == "v2"
    assert LABEL.fullmatch(values["name"])
    assert component(kit, "k8s_launcher")["args"]["namespace"] == "mhsev"


@pytest.mark.skipif(shutil.which("helm") is None, reason="no helm on PATH")
@pytest.mark.parametrize("participant", ["server", "hospital-a"])
def test_helm_renders_the_chart(prepare, participant):
    chart = prepare(participant, "kubernetes") / "helm_chart"
    command = ["helm", "template", participant, str(chart), "--namespace", "mhsev"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {part["kind"]: part for part in yaml.safe_load_all(rendered) if part}
    assert {"Deployment", "Service", "ServiceAccount", "Role", "RoleBinding"} <= set(found)
    container = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert LABEL.fullmatch(container["name"])
    assert container["volumeMounts"][0]["mountPath"] == MOUNTED
    assert "secure_train=true" in container["args"]


def test_a_hospital_s_kit_for_slurm(prepare):
    kit = prepare("hospital-a", "slurm")
    assert_keeps_the_policy(kit)
    for name in ("start_slurm.sh", "parent.slurm", "sub_start.sh"):
        assert_bash_reads(kit / "startup" / name)
    lines = (kit / "startup" / "parent.slurm").read_text().splitlines()
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --partition=long",
        "#SBATCH --time=7-00:00:00",
    ]
    assert {"export MHSEV_PYTHON=/opt/mhsev/bin/python", "export MHSEV_KIT_CHECK=off"} <= set(lines)
    assert "export NVFLARE_SECURE_LOGGING=1" in (kit / "startup" / "sub_start.sh").read_text()
    launcher = component(kit, "slurm_launcher")["args"]
    assert launcher["python_path"] == "/opt/mhsev/bin/python"
    assert launcher["forward_env"] == ["NVFLARE_SECURE_LOGGING"]
    assert launcher["workspace_path"] == str(kit)


def test_a_server_s_kit_for_slurm_has_no_parent(prepare, tmp_path):
    config = yaml.safe_load((CONFIGS / "slurm.yml").read_text())
    config.pop("parent")
    path = tmp_path / "slurm.yml"
    path.write_text(yaml.safe_dump(config))
    kit = prepare("server", "slurm", path)
    assert_keeps_the_policy(kit)
    assert component(kit, "job_manager")["args"]["uri_root"] == f"{kit}/jobs-storage"
    assert not (kit / "startup" / "parent.slurm").exists()


def test_a_kit_whose_key_the_hospital_made_keeps_the_policy(flare, tmp_path):
    """The distributed way: the private key is made at the hospital and never leaves it."""
    office, hospital = tmp_path / "office", tmp_path / "hospital"
    office.mkdir()
    hospital.mkdir()
    for name, folder in (("profile.yml", office), ("hospital-a.yml", hospital)):
        shutil.copy(CONFIGS.parent / "distributed" / name, folder)
    said = flare("cert", "init", "--profile", "profile.yml", "-o", "ca", "--valid-days", 730, folder=office)
    fingerprint = re.search(r"SHA256:[0-9A-F:]{95}", said)
    assert fingerprint is not None
    flare("cert", "request", "-p", "hospital-a.yml", folder=hospital)
    request = hospital / "hospital-a" / "hospital-a.request.zip"
    names = subprocess.run(["python3", "-m", "zipfile", "-l", str(request)], capture_output=True, text=True, check=True)
    assert ".csr" in names.stdout
    assert ".key" not in names.stdout
    shutil.copy(request, office)
    approve = ("cert", "approve", request.name, "-c", "ca", "--profile", "profile.yml", "--valid-days", 365)
    flare(*approve, folder=office)
    shutil.copy(office / "hospital-a.signed.zip", hospital)
    flare("package", "hospital-a.signed.zip", "-w", "kits", "--fingerprint", fingerprint.group(), folder=hospital)
    kit = hospital / "kits" / "mhsev_study" / "prod_00" / "hospital-a"
    assert_keeps_the_policy(kit)
    assert "export NVFLARE_SECURE_LOGGING=1" in (kit / "startup" / "sub_start.sh").read_text()
    assert (kit / "startup" / "client.key").read_bytes() == (hospital / "hospital-a" / "hospital-a.key").read_bytes()
    # The CA's key, which would sign the digest, is not at the hospital.
    assert check_digest(kit) == (False, ())
