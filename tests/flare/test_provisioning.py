"""What the site policy writes into kits, the kits' digest, and ``mhsev provision``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from nvflare.apis.workspace import Workspace
from nvflare.fuel.sec.security_content_service import LoadResult, SecurityContentManager

from mhsev_flare import provisioning
from mhsev_flare.allowed_classes import ALLOWED_CLASSES
from mhsev_flare.cli import main
from mhsev_flare.kit_digest import KitDigestError, added_by_site, check_digest, write_digest
from mhsev_flare.kit_scripts import with_site_environment
from mhsev_flare.provisioning import EXAMPLE, ProjectError, provision, read_project

ROOT = Path(__file__).resolve().parents[2]
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
HOMOMORPHIC = {"path": "nvflare.lighter.impl.he.HEBuilder"}


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """The kits of the example project; not to be changed."""
    return provision(EXAMPLE, tmp_path_factory.mktemp("kits")).folder


def small_project(folder: Path, more: Sequence[str] = (), **policy: object) -> Path:
    """The example with one hospital and those of ``more``, and other arguments of the site policy."""
    stored = yaml.safe_load(EXAMPLE.read_text())
    stored["participants"] = [p for p in stored["participants"] if p["name"] in ("server", "hospital-a")]
    stored["participants"] += [{"name": name, "type": "client", "org": "other"} for name in more]
    for builder in stored["builders"]:
        if builder["path"].endswith("SitePolicyBuilder"):
            builder["args"] = policy
    path = folder / "project.yml"
    path.write_text(yaml.safe_dump(stored))
    return path


def resources(kit: Path) -> dict:
    return json.loads((kit / "local" / "resources.json.default").read_text())


def job_storage(kit: Path) -> str:
    return next(c["args"]["uri_root"] for c in resources(kit)["components"] if c["id"] == "job_manager")


@pytest.mark.skipif(not (ROOT / "poc").is_dir(), reason="needs the checkout, not the wheel alone")
def test_the_example_of_the_checkout_is_the_packaged_one():
    assert (ROOT / "poc" / "hospitals.yml").read_text() == EXAMPLE.read_text()


@pytest.mark.parametrize("name", ["server", *HOSPITALS])
def test_no_role_brings_code_and_the_packages_are_allowed(kits, name):
    stored = json.loads((kits / name / "local" / "authorization.json.default").read_text())
    assert {rights["byoc"] for rights in stored["permissions"].values()} == {"none"}
    assert set(ALLOWED_CLASSES) <= set(resources(kits / name)["class_allow_list"])
    assert resources(kits / name)["class_list_enforcement_mode"] == "enforce"


@pytest.mark.parametrize("name", HOSPITALS)
def test_a_site_streams_no_log(kits, name):
    assert resources(kits / name)["allow_log_streaming"] is False
    assert "site_log_streamer" not in {component["id"] for component in resources(kits / name)["components"]}


def test_the_server_stores_in_its_own_kit_wherever_it_lies(kits):
    stored = resources(kits / "server")
    assert stored["servers"][0]["heart_beat_timeout"] == 60
    assert job_storage(kits / "server") == "/proc/self/cwd/storage/jobs-storage"
    assert "/tmp" not in json.dumps(stored)


def test_an_absolute_storage_is_taken_as_it_is(tmp_path):
    project = small_project(tmp_path, storage="/srv/study", python="/opt/mhsev/bin/python", loopback=True)
    made = provision(project, tmp_path).folder
    assert job_storage(made / "server") == "/srv/study/jobs-storage"
    assert (made / "hospital-a" / "local" / "python").read_text() == "/opt/mhsev/bin/python\n"
    server = json.loads((made / "server" / "startup" / "fed_server.json").read_text())["servers"][0]
    assert server["service"]["target"] == "localhost:8002"


@pytest.mark.parametrize(
    ("name", "script"),
    [("server", "sub_start.sh"), ("hospital-a", "sub_start.sh"), ("lead@example.org", "fl_admin.sh")],
)
def test_a_start_script_runs_the_python_that_the_site_names(kits, tmp_path, name, script):
    kit = shutil.copytree(kits / name, tmp_path / "kit")
    named = tmp_path / "the python"
    named.write_text('#!/bin/sh\necho "ran with $NVFLARE_SECURE_LOGGING: $*"\n')
    named.chmod(0o755)
    (kit / "local" / "python").write_text(f"{named}\n")
    command = ["bash", str(kit / "startup" / script), *(["--once"] if script == "sub_start.sh" else [])]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "ran with 1: -" in said
    (kit / "local" / "python").write_text("/nowhere/python\n")
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    assert "There is no Python at /nowhere/python" in refused.stderr


def test_a_script_of_another_form_is_refused():
    with pytest.raises(ValueError, match=r"use nvflare 2\.9"):
        with_site_environment("#!/bin/sh\nexec /usr/bin/flare\n")


def test_a_kit_is_as_its_digest_says_until_a_file_changes(kits, tmp_path):
    kit = shutil.copytree(kits / "hospital-a", tmp_path / "kit")
    (kit / "local" / "mhsev_site.json").write_text("{}")
    assert check_digest(kit) == (True, ())
    (kit / "startup" / "stop_fl.sh").unlink()
    (kit / "local" / "authorization.json.default").write_text("{}")
    assert check_digest(kit).differences == (
        "local/authorization.json.default is not as it was made",
        "startup/stop_fl.sh is missing",
    )


@pytest.mark.parametrize(
    "name", ["startup/a__resources.json", "startup/signature.json", "local/custom/sitecustomize.py"]
)
def test_what_was_added_where_no_site_adds_anything_is_a_difference(kits, tmp_path, capsys, name):
    kit = shutil.copytree(kits / "hospital-a", tmp_path / "kit")
    (kit / name).parent.mkdir(exist_ok=True)
    (kit / name).write_text("{}")
    assert check_digest(kit) == (True, (f"{name} was added since it was made",))
    assert added_by_site(kit) == ((), ())
    assert main(["provision", "--verify", str(kit)]) == 1
    assert f"{name} was added since it was made" in capsys.readouterr().err


def test_a_link_in_the_place_of_the_folder_for_code_is_a_difference(kits, tmp_path):
    kit, elsewhere = shutil.copytree(kits / "hospital-a", tmp_path / "kit"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "code.py").write_text("")
    (kit / "local" / "custom").symlink_to(elsewhere)
    assert check_digest(kit).differences == ("local/custom was added since it was made",)


def test_all_that_flare_reads_before_the_kit_s_own_files_is_told_as_overriding_them(kits, tmp_path):
    kit = shutil.copytree(kits / "hospital-a", tmp_path / "kit")
    before = read_by_flare(kit)
    names = ["resources.json", "authorization.json", "log_config.json", "job_resources.json"]
    for name in [*names, "a__resources.json", "a__p_resources.json", "a__j_resources.json", "privacy.json"]:
        (kit / "local" / name).write_text("{}")
    new = {path.relative_to(kit).as_posix() for path in read_by_flare(kit) - before}
    assert len(new) == 7
    assert set(added_by_site(kit).overriding) == new
    assert added_by_site(kit).others == ("local/privacy.json",)
    assert check_digest(kit).differences == ()


def read_by_flare(kit: Path) -> set[Path]:
    """The files of settings that FLARE reads for the kit's site and its jobs."""
    workspace = Workspace(str(kit), "hospital-a")
    paths = [workspace.get_authorization_file_path(), workspace.get_log_config_file_path()]
    for for_job in (False, True):
        paths += workspace.get_config_files_for_startup(is_server=False, for_job=for_job)
    return {Path(path) for path in paths if path}


def test_a_site_s_own_files_are_told_and_the_kit_stays_as_its_digest_says(kits, tmp_path, capsys):
    kit = shutil.copytree(kits / "hospital-a", tmp_path / "kit")
    for name in ("resources.json", "python", "privacy.json", "customers.txt"):
        (kit / "local" / name).write_text("{}")
    assert main(["provision", "--verify", str(kit)]) == 0
    said = capsys.readouterr().out
    assert "added by this site: local/python, local/resources.json (they override the kit's own)\n" in said
    assert "added by this site: local/customers.txt, local/privacy.json\n" in said
    assert "was not compared with anything" in said
    assert "is as its digest says, signed by its project's CA" in said


def test_a_kit_whose_signature_was_taken_off_is_refused_where_it_is_not_expected(kits, tmp_path, capsys):
    kit = shutil.copytree(kits / "hospital-a", tmp_path / "kit")
    (kit / "local" / "authorization.json").write_text("{}")
    write_digest(kit)
    assert main(["provision", "--verify", str(kit)]) == 1
    assert "is not signed, so that it shows mistakes, not intent" in capsys.readouterr().err
    assert main(["provision", "--verify", str(kit), "--unsigned"]) == 0
    assert "is not signed: it shows mistakes" in capsys.readouterr().out
    (kit / "local" / "authorization.json").write_text("[]")
    assert main(["provision", "--verify", str(kit), "--unsigned"]) == 1
    assert main(["provision", str(tmp_path / "project.yml"), "--unsigned"]) == 2
    assert "name the kit with --verify" in capsys.readouterr().err


def test_a_digest_that_was_made_to_fit_is_not_signed_by_the_ca(kits, tmp_path):
    kit = shutil.copytree(kits / "hospital-a", tmp_path / "kit")
    stored = json.loads((kit / "kit_digest.json").read_text())
    stored["files"].pop("local/authorization.json.default")
    (kit / "local" / "authorization.json.default").write_text("{}")
    (kit / "kit_digest.json").write_text(json.dumps(stored))
    assert "not signed by the root CA" in check_digest(kit).differences[0]


def start(kit: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a start script as far as the Python that it would run FLARE with, which says ``FLARE``."""
    stand_in = kit.parent / "python"
    # Only FLARE is stood in for; the look at the kit's digest is real.
    stand_in.write_text(f'#!/bin/sh\ncase "$*" in *kit_digest*) exec {sys.executable} "$@";; esac\necho FLARE\n')
    stand_in.chmod(0o755)
    once = ["--once"] if name == "sub_start.sh" else []
    return subprocess.run(
        ["bash", str(kit / "startup" / name), *once],
        env={**os.environ, "MHSEV_PYTHON": str(stand_in), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def last_word(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "script", "changed"),
    [
        ("server", "sub_start.sh", "startup/fed_server.json"),
        ("hospital-a", "sub_start.sh", "local/authorization.json.default"),
        ("hospital-a", "sub_start.sh", "kit_digest.json"),
        ("hospital-a", "sub_start.sh", "local/custom"),
        ("lead@example.org", "fl_admin.sh", "startup/fed_admin.json"),
    ],
)
def test_a_changed_kit_is_not_started(kits, tmp_path, name, script, changed):
    kit = shutil.copytree(kits / name, tmp_path / "kit")
    whole = start(kit, script)
    assert (whole.returncode, last_word(whole)) == (0, "FLARE")
    if changed == "local/custom":
        (kit / changed).mkdir()
        (kit / changed / "sitecustomize.py").write_text("")
    elif changed == "kit_digest.json":
        stored = json.loads((kit / changed).read_text())
        del stored["files"]["startup/fed_client.json"]
        (kit / changed).write_text(json.dumps(stored))
    else:
        (kit / changed).write_text((kit / changed).read_text() + "\n")
    refused = start(kit, script)
    assert refused.returncode == 1
    assert "FLARE\n" not in refused.stdout
    assert "this kit is not started" in refused.stderr
    assert changed in refused.stderr
    assert last_word(start(kit, script, MHSEV_KIT_CHECK="off")) == "FLARE"


def test_what_a_site_decides_for_itself_does_not_hinder_its_start(kits, tmp_path):
    kit = shutil.copytree(kits / "hospital-a", tmp_path / "kit")
    for name in ("authorization.json", "resources.json", "privacy.json", "mhsev_site.json"):
        (kit / "local" / name).write_text("{}")
    assert last_word(start(kit, "sub_start.sh")) == "FLARE"


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"../x": "0"}, "signature": null}', '{"files": []}'])
def test_a_digest_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "kit_digest.json").write_text(text)
    with pytest.raises(KitDigestError, match="ask for the kit again"):
        check_digest(tmp_path)


def test_kits_that_flare_signs_are_signed_with_the_policy_inside(tmp_path):
    pytest.importorskip("tenseal")
    path = small_project(tmp_path)
    stored = yaml.safe_load(path.read_text())
    stored["builders"].insert(3, HOMOMORPHIC)
    path.write_text(yaml.safe_dump(stored))
    kit = provision(path, tmp_path).folder / "hospital-a"
    # FLARE's check looks for the CA beside the signatures, and reads those of `local` nowhere itself.
    shutil.copy(kit / "startup" / "rootCA.pem", kit / "local")
    for name in ("startup/sub_start.sh", "startup/fed_client.json", "local/authorization.json.default"):
        folder, file = name.split("/")
        assert SecurityContentManager(str(kit / folder)).load_content(file)[1] is LoadResult.OK
    assert check_digest(kit) == (True, ())


def test_a_second_provisioning_makes_keys_for_new_members_alone(tmp_path):
    first = provision(small_project(tmp_path), tmp_path / "kits")
    second = provision(small_project(tmp_path, more=["hospital-d"]), tmp_path / "kits")
    assert [p.name for p in second.participants if p.is_new] == ["hospital-d"]
    assert second.state.stat().st_mode & 0o077 == 0
    key = Path("hospital-a", "startup", "client.key")
    assert (second.folder / key).read_bytes() == (first.folder / key).read_bytes()


def test_the_keys_of_all_are_closed_though_flare_fails_behind_them(tmp_path):
    """FLARE makes no hundred-and-first generation, which it notices after it has written every private key."""
    base = tmp_path / "kits" / "mhsev_study"
    (base / "prod_99").mkdir(parents=True)
    (base / "state").mkdir(mode=0o755)
    with pytest.raises(ProjectError, match="FLARE could not provision it"):
        provision(small_project(tmp_path), tmp_path / "kits")
    assert "pri_key" in (base / "state" / "cert.json").read_text()
    assert (base / "state").stat().st_mode & 0o077 == 0


def test_the_folder_of_the_keys_is_closed_before_flare_writes_into_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(provisioning, "_nvflare", lambda *_: seen.append(modes(tmp_path / "kits")) or "")
    with pytest.raises(ProjectError):
        provision(small_project(tmp_path), tmp_path / "kits")
    assert seen == [{"mhsev_study/state": 0o700}]


def modes(workspace: Path) -> dict[str, int]:
    return {p.relative_to(workspace).as_posix(): p.stat().st_mode & 0o777 for p in workspace.glob("*/state")}


@pytest.mark.parametrize("name", [[1], 7, {"a": 1}, "../elsewhere", "a/b", ".."])
def test_a_project_whose_name_names_no_folder_is_refused_in_one_sentence(tmp_path, name, capsys):
    path = small_project(tmp_path)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "name": name}))
    assert main(["provision", str(path), "--workspace", str(tmp_path / "kits")]) == 2
    said = capsys.readouterr().err
    assert "name must be a text that can name a folder" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "kits").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda builders: [b for b in builders if "SitePolicy" not in b["path"]], "lack mhsev_flare.provision"),
        (lambda builders: [builders[2], *builders[:2], *builders[3:]], "must stand behind"),
        (lambda builders: [*builders[:2], *builders[3:], builders[2]], "must stand behind"),
        (lambda builders: "builders", "no project of FLARE's"),
    ],
    ids=["without the policy", "before the files", "behind the certificates", "no list"],
)
def test_a_project_without_the_policy_in_its_place_is_refused(tmp_path, change, complaint):
    stored = yaml.safe_load(EXAMPLE.read_text())
    stored["builders"] = change(stored["builders"])
    path = tmp_path / "project.yml"
    path.write_text(yaml.safe_dump(stored))
    with pytest.raises(ProjectError, match=complaint):
        read_project(path)


def test_what_flare_refuses_is_told_in_its_words(tmp_path):
    path = small_project(tmp_path)
    path.write_text(path.read_text().replace("org: hospital_a", "org: hospital-a"))
    with pytest.raises(ProjectError, match="name=hospital-a is ill-formatted"):
        provision(path, tmp_path / "kits")


def test_the_command_writes_an_example_provisions_it_and_verifies_a_kit(tmp_path, capsys):
    project, workspace = tmp_path / "project.yml", tmp_path / "kits"
    assert main(["provision", "--example", str(project)]) == 0
    assert main(["provision", "--example", str(project)]) == 2
    assert project.read_text() == EXAMPLE.read_text()
    small_project(tmp_path)
    assert main(["provision", str(project), "--workspace", str(workspace)]) == 0
    kit = workspace / "mhsev_study" / "prod_00" / "hospital-a"
    said = capsys.readouterr().out
    assert f"kits    {kit.parent}" in said
    assert str(workspace / "mhsev_study" / "state") in said
    assert main(["provision", "--verify", str(kit)]) == 0
    (kit / "local" / "authorization.json.default").write_text("{}")
    assert main(["provision", "--verify", str(kit)]) == 1
    assert "local/authorization.json.default is not as it was made" in capsys.readouterr().err
    assert main(["provision", "--verify", str(tmp_path)]) == 2
    assert main(["provision", str(tmp_path / "none.yml")]) == 2
