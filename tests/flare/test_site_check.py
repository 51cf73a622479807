"""`mhsev site-check` on real startup kits, one thing broken at a time: each failure is named, with what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from packaging.requirements import Requirement
from site_kits import SITE, provision
from small_site import NumbersInFile, make_root

from mhsev_flare.cli import main
from mhsev_flare.jobs import JOBS
from mhsev_flare.site import SiteFolders, load_site_data
from mhsev_flare.site_check import checks, network
from mhsev_flare.site_check.data import unnamed
from mhsev_flare.site_check.environment import needed_packages, started_python, version_complaint
from mhsev_flare.site_check.facts import SiteFacts
from mhsev_flare.site_check.network import server_finding
from mhsev_flare.site_config import Kit
from mhsev_flare.site_data import grade_counts
from mhsev_monai.severity import SCALES

SPLITS = ("training", "validation", "test")
VALID = (
    (-9, 90, "ok", "89 days"),
    (-9, 20, "warn", "19 days"),
    (-9, -1, "FAIL", "ended on"),
    (1, 9, "FAIL", "valid from"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A kit with this package's site policy, and its data."""
    kit = provision(tmp_path_factory.mktemp("made"))
    return kit, make_root(tmp_path_factory.mktemp("data") / "site", 40, seed=1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """FLARE's own kit."""
    return provision(tmp_path_factory.mktemp("plain"), with_policy=False)


@pytest.fixture
def site(tmp_path, made, monkeypatch):
    """A kit and a data root of which nothing is wrong; copies, to be broken."""
    kit, root = tmp_path / SITE, tmp_path / "data"
    shutil.copytree(made[0], kit)
    shutil.copytree(made[1], root)
    assert main(["site-config", str(kit), "--data-root", str(root)]) == 0
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NVFLARE_SECURE_LOGGING", "1")
    return kit, root


def facts(kit, job="dsd_mlp"):
    return SiteFacts(Kit.at(kit), JOBS[job])


def finding(kit, name, job="dsd_mlp"):
    return checks(network=False)[name](facts(kit, job))


def expect(kit, name, status, words, remedy=""):
    found = finding(kit, name)
    assert found.check == name
    assert found.status == status, found
    assert words in found.found
    assert remedy in found.remedy
    assert (found.remedy == "") == (status in ("ok", "skip"))


def edit(path, change):
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def test_a_site_of_which_nothing_is_wrong_passes_with_one_line_a_check(site, capsys):
    capsys.readouterr()
    assert main(["site-check", str(site[0]), "--no-network"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(checks())
    assert [line[6:22].strip() for line in lines] == list(checks())
    # How busy the machine is, and what memory it has left, is not the site's fault.
    assert not [line for line in lines if not line.startswith(("ok", "skip")) and line[6:11] not in ("cores", "memor")]


def test_json_has_a_line_a_check_and_the_exit_status_counts_failures(site, capsys):
    (site[0] / "startup" / "client.key").unlink()
    capsys.readouterr()
    assert main(["site-check", str(site[0]), "--no-network", "--json"]) == 1
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert {line["check"] for line in lines if line["status"] == "FAIL"} == {"kit", "private key"}
    assert "2 of the checks failed" in said.err


def test_a_wrong_call_is_told_apart_from_a_site_that_fails(site, tmp_path, capsys):
    assert main(["site-check", str(tmp_path)]) == 2
    assert main(["site-check", str(site[0]), "--job", "none"]) == 2
    assert "there is no job none" in capsys.readouterr().err


def test_the_python_that_would_be_started_is_asked_itself(site, tmp_path, monkeypatch):
    empty = tmp_path / "bin"
    empty.mkdir()
    other = empty / "python3"
    other.write_text("#!/bin/sh\necho 3.9.1 no 2.7.0\n")
    other.chmod(0o755)
    (site[0] / "local" / "python").write_text(f"{other}\n")
    expect(site[0], "python", "FAIL", "which has no mhsev", "local/python")
    other.write_text("#!/bin/sh\necho 3.12.1 0.0.1 2.9.0\n")
    expect(site[0], "python", "warn", "with mhsev 0.0.1")
    other.write_text("#!/bin/sh\nexit 3\n")
    expect(site[0], "python", "FAIL", "does not answer")
    other.unlink()
    expect(site[0], "python", "FAIL", "which is not there")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}\n", ""),
        ("{}", ""),
        ("{}\nsecond line", ""),
        ("\n{}", ""),
        ("{} \n", "which is not there"),
        ("{}\r\n", "which is not there"),
        (" {}\n", "which is not there"),
        ("  \n", "which is not there"),
    ],
)
def test_the_line_of_local_python_is_read_as_the_start_script_reads_it(site, text, words, tmp_path):
    kit = site[0]
    (kit / "local" / "python").write_bytes(text.format(sys.executable).encode())
    script = (kit / "startup" / "sub_start.sh").read_text()
    line = next(line for line in script.splitlines() if "head -n 1" in line)
    asked = f'DIR={kit}/startup\n{line}\nMHSEV_PYTHON="${{MHSEV_PYTHON:-python3}}"\nprintf %s "$MHSEV_PYTHON"'
    started = subprocess.run(["bash", "-c", asked], capture_output=True, check=True).stdout
    assert started_python(facts(kit)).encode() == started
    expect(kit, "python", "FAIL" if words else "ok", words or sys.version.split()[0], "local/python" if words else "")


def test_flares_own_kit_starts_whatever_python3_is_first(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    expect(plain, "python", "FAIL", "runs python3, which is not there", "activate the environment")


def test_a_package_of_another_version_is_named_with_the_range():
    assert version_complaint(Requirement("nvflare>=99")).startswith("nvflare 2.9")
    assert version_complaint(Requirement("nvflare>=99")).endswith("where >=99 is needed")
    assert version_complaint(Requirement("no-such-package")) == "no-such-package is not installed"
    assert version_complaint(Requirement("nvflare>=2.9,<2.10")) == ""


def test_the_accountant_is_needed_where_privacy_is_required_alone():
    assert "opacus" not in {requirement.name for requirement in needed_packages(set())}
    assert "opacus" in {requirement.name for requirement in needed_packages({"dp"})}
    assert {"nvflare", "monai", "torch"} <= {requirement.name for requirement in needed_packages(set())}


def test_a_file_that_the_kit_lacks_is_named(site):
    (site[0] / "startup" / "rootCA.pem").unlink()
    expect(site[0], "kit", "FAIL", "lacks rootCA.pem", "kit anew")
    expect(site[0], "certificate", "FAIL", "cannot be read", "kit anew")


def test_a_key_that_others_can_read_or_of_another_kit_is_told(site, plain):
    key = site[0] / "startup" / "client.key"
    key.chmod(0o640)
    expect(site[0], "private key", "FAIL", "mode 0640", "chmod 600")
    shutil.copy(plain / "startup" / "client.key", key)
    key.chmod(0o600)
    expect(site[0], "private key", "FAIL", "does not belong to the certificate")
    key.write_text("none")
    expect(site[0], "private key", "FAIL", "cannot be read")


def test_a_certificate_of_another_root_is_told(site, plain):
    shutil.copy(plain / "startup" / "rootCA.pem", site[0] / "startup" / "rootCA.pem")
    expect(site[0], "certificate", "FAIL", "not of this kit's rootCA.pem")


@pytest.mark.parametrize(("begins", "ends", "status", "words"), VALID)
def test_how_long_a_certificate_is_valid_is_told_in_days(site, begins, ends, status, words):
    startup, now = site[0] / "startup", datetime.now(UTC)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kits")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now + timedelta(begins), now + timedelta(ends))
    for file in ("client.crt", "rootCA.pem"):
        (startup / file).write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    found = finding(site[0], "certificate")
    assert (found.status, words in found.found) == (status, True), found


def test_a_kit_that_was_changed_is_told(site):
    path = site[0] / "startup" / "fed_client.json"
    path.write_text(path.read_text() + " ")
    expect(site[0], "integrity", "warn", "startup/fed_client.json is not as it was made", "if nobody here changed it")


def test_a_kit_to_which_files_were_added_is_told(site):
    local = site[0] / "local"
    expect(site[0], "integrity", "ok", "which is signed; added by this site: local/privacy.json")
    shutil.copy(local / "resources.json.default", local / "resources.json")
    words = "added by this site: local/resources.json (they override the kit's own)"
    expect(site[0], "integrity", "warn", words, "remove what nobody here wrote")
    (local / "custom").mkdir(exist_ok=True)
    (local / "custom" / "sitecustomize.py").write_text("")
    expect(site[0], "integrity", "warn", "local/custom/sitecustomize.py was added", "if nobody here changed it")


def test_signatures_of_flare_that_list_nothing_hide_no_difference(site):
    (site[0] / "startup" / "signature.json").write_text("{}")
    expect(site[0], "integrity", "warn", "startup/signature.json was added", "if nobody here changed it")


def test_a_kit_whose_signature_or_digest_was_taken_away_is_told(site):
    edit(site[0] / "kit_digest.json", lambda stored: stored.update(signature=None))
    expect(site[0], "integrity", "warn", "which is not signed", "it shows mistakes, not intent")
    (site[0] / "kit_digest.json").unlink()
    expect(site[0], "integrity", "warn", "nothing shows whether it was changed", "if it had one")


def test_flares_own_kit_shows_what_a_site_has_to_decide(plain, monkeypatch):
    monkeypatch.delenv("NVFLARE_SECURE_LOGGING", raising=False)
    expect(plain, "integrity", "warn", "no kit_digest.json and no signatures", "if it had one")
    expect(plain, "classes", "FAIL", "of the classes of mhsev's jobs", "kit anew")
    expect(plain, "code of jobs", "warn", "project_admin", 'set "byoc" to "none"')
    expect(plain, "logs", "FAIL", "sends this site's error log to the server", "allow_log_streaming")
    expect(plain, "policy", "warn", "there is none", "site-config")
    expect(plain, "data root", "FAIL", "has no data root", "site-config")
    expect(plain, "scans", "skip", "without a data root")
    expect(plain, "cache", "skip", "without a data root")


def test_log_texts_are_kept_where_secure_logging_is_set_in_environment_or_start_script(site, monkeypatch):
    script = site[0] / "startup" / "sub_start.sh"
    expect(site[0], "logs", "ok", "without the texts of exceptions")
    monkeypatch.delenv("NVFLARE_SECURE_LOGGING")
    without = [line for line in script.read_text().splitlines() if "NVFLARE_SECURE_LOGGING" not in line]
    script.write_text("\n".join(without))
    expect(site[0], "logs", "warn", "NVFLARE_SECURE_LOGGING is not set", "export NVFLARE_SECURE_LOGGING=1")
    script.write_text("\n".join(["export NVFLARE_SECURE_LOGGING=1", *without]))
    expect(site[0], "logs", "ok", "without the texts of exceptions")


def test_a_list_of_classes_that_is_not_enforced_is_told(site):
    resources = site[0] / "local" / "resources.json.default"
    edit(resources, lambda stored: stored.update(class_list_enforcement_mode="warn"))
    expect(site[0], "classes", "warn", "a job may name any class", "enforce")


def test_a_policy_whose_filters_were_changed_is_not_one(site):
    path = site[0] / "local" / "privacy.json"
    written = path.read_text()
    expect(site[0], "policy", "ok", "numbers below 5 hidden")
    edit(path, lambda s: s["scopes"][0]["task_result_filters"].pop(0))
    expect(site[0], "policy", "FAIL", "hold 0 SmallCellCleanser", "site-config")
    path.write_text(written)
    edit(path, lambda s: s["scopes"][0]["task_result_filters"].reverse())
    expect(site[0], "policy", "FAIL", "behind PayloadGuard", "site-config")
    path.write_text(written)
    edit(path, lambda s: s["scopes"][0]["task_result_filters"][1].update(direction="in"))
    expect(site[0], "policy", "FAIL", "on what comes in", "site-config")
    path.write_text(written)
    edit(path, lambda s: s["scopes"][0]["task_result_filters"][1].update(direction=["out"]))
    expect(site[0], "policy", "FAIL", "has a direction, one of in, out and inout", "site-config")
    path.write_text(written)
    edit(path, lambda s: s["scopes"][0]["task_result_filters"][1].pop("path"))
    expect(site[0], "policy", "FAIL", "is not an object with a path", "site-config")
    path.write_text(written)
    edit(path, lambda s: s["scopes"][0]["task_result_filters"].insert(0, {"path": "no.such.Filter", "args": {}}))
    expect(site[0], "policy", "FAIL", "FLARE cannot load", "site-config")
    path.write_text(written)
    edit(path, lambda s: s["scopes"][0]["properties"]["mhsev_policy"].pop("privacy"))
    expect(site[0], "policy", "FAIL", "must hold least, base, blocked and privacy", "site-config")
    path.write_text("{")
    expect(site[0], "policy", "FAIL", "not valid JSON", "site-config")
    expect(site[0], "data root", "FAIL", "not valid JSON", "site-config")


def test_a_policy_that_would_refuse_the_job_says_so_before_it_is_sent(site):
    assert main(["site-config", str(site[0]), "--privacy", "required", "--max-epsilon", "8"]) == 0
    words = "would refuse dsd_mlp as it is shipped: the policy of this site requires differential privacy"
    expect(site[0], "policy", "warn", words, "agree with the study")
    assert main(["site-config", str(site[0]), "--privacy", "allowed", "--block", "mhsev_table"]) == 0
    expect(site[0], "policy", "warn", "withholds its validation table", "site-config")


def test_no_case_is_named_on_the_terminal(site):
    path = site[1] / "participants.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    command = [str(Path(sys.executable).with_name("mhsev")), "site-check", str(site[0]), "--no-network"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "2 are left out" in said.stdout
    assert "sub-0" not in said.stdout + said.stderr


def test_a_data_root_that_is_gone_is_told(site):
    site[1].rename(site[1].with_name("moved"))
    expect(site[0], "data root", "FAIL", "is not a folder that can be read", "--data-root")
    expect(site[0], "participants", "skip", "no scans")


def test_scans_that_cannot_be_used_are_counted_by_reason_and_not_named(site):
    kit, root = site
    expect(kit, "scans", "ok", "40 can be used, none is left out")
    table = (root / "participants.tsv").read_text().splitlines()
    table[1] = "sub-000\tn/a"
    (root / "participants.tsv").write_text("\n".join([*table[:38], *table[40:]]) + "\n")
    (root / "sub-005" / "dwi" / "sub-005_dwi.nii.gz").write_text("")
    (root / "DOE_JANE").mkdir()
    (root / "sub-DOE_JANE").mkdir()
    found = finding(kit, "scans")
    assert found.status == "warn"
    for words in (
        "36 can be used, 5 are left out",
        "2 with no row in participants.tsv",
        "1 with no microbleed_count",
        "1 with an empty file",
        "1 with a folder name other than",
    ):
        assert words in found.found
    assert "DOE" not in found.found
    assert "sub-0" not in found.found


def test_a_table_that_is_malformed_is_told_without_the_case(site):
    path = site[1] / "participants.tsv"
    path.write_text(path.read_text().replace("sub-003\t", "sub-003\tmany"))
    expect(site[0], "scans", "FAIL", "the microbleed_count of a case is not a number", "mhsev features")
    assert unnamed("several rows for sub-1A, sub-2_ses-03 and 3 more") == "several rows for a case, a case and 3 more"


def test_too_few_cases_and_a_grade_that_is_absent_are_told_apart(site):
    kit, root = site
    assert finding(kit, "participants").status == "ok"
    assert "22 training" in finding(kit, "participants").found
    table = (root / "participants.tsv").read_text().splitlines()
    few = [line.partition("\t")[0] + "\t2" for line in table[1:]]
    (root / "participants.tsv").write_text("\n".join([table[0], *few]) + "\n")
    expect(kit, "participants", "warn", "no training case is none or moderate or severe", "other sites")
    (root / "participants.tsv").write_text("\n".join([table[0], *few[:5]]) + "\n")
    expect(kit, "participants", "FAIL", "3 training", "5 for training")


def test_the_split_is_the_one_that_the_job_makes(site, tmp_path):
    spec = JOBS["dsd_mlp"]
    folders = SiteFolders(site[1], tmp_path / "features")
    data = load_site_data(SITE, folders, NumbersInFile(), spec.seed, SCALES[spec.scale])
    counts = [grade_counts(split, SCALES[spec.scale]).tolist() for split in (data.train, data.validation, data.test)]
    told = [f"{sum(c)} {name} ({'/'.join(map(str, c))})" for name, c in zip(SPLITS, counts, strict=True)]
    assert finding(site[0], "participants").found.startswith(", ".join(told))


def test_masks_are_counted_where_a_site_names_them(site):
    kit, root = site
    expect(kit, "lesion masks", "ok", "none are named")
    (root / "derivatives" / "lesions" / "sub-001" / "dwi").mkdir(parents=True)
    assert main(["site-config", str(kit), "--lesion-masks", "derivatives/lesions"]) == 0
    expect(kit, "lesion masks", "warn", "0 of 40", "desc-microbleeds_mask")
    (root / "derivatives" / "lesions" / "sub-001" / "dwi" / "sub-001_desc-microbleeds_mask.nii.gz").touch()
    expect(kit, "lesion masks", "ok", "1 of 40 cases")


def test_a_cache_that_cannot_be_written_is_told(site, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    expect(site[0], "cache", "ok", "can be made")
    assert main(["site-config", str(site[0]), "--cache", "/proc/mhsev"]) == 0
    expect(site[0], "cache", "FAIL", "/proc/mhsev cannot be written", "--cache")


def test_a_disk_memory_or_machine_that_is_too_small_is_told(site, monkeypatch):
    from mhsev_flare.site_check import machine

    expect(site[0], "disk", "ok", "GB free for features")
    usage = shutil.disk_usage(site[0])
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage._replace(free=10_000_000))
    expect(site[0], "disk", "FAIL", "0.0 GB free for features", "make room")
    left = psutil.virtual_memory()
    for gigabytes, status in ((9, "ok"), (1.5, "warn"), (0.5, "FAIL")):
        monkeypatch.setattr(machine.psutil, "virtual_memory", lambda g=gigabytes: left._replace(available=g * 1e9))
        assert finding(site[0], "memory").status == status
    for load, status in ((0.1, "ok"), (1000.0, "warn")):
        monkeypatch.setattr(machine.os, "getloadavg", lambda x=load: (x, x, x))
        assert finding(site[0], "cores").status == status


def test_a_gpu_is_missed_by_the_job_that_gains_from_one_alone(site, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert finding(site[0], "GPU").status == "ok"
    missed = finding(site[0], "GPU", "cnn3d")
    assert missed.status == "warn"
    assert "cnn3d trains a 3-D network" in missed.found


@pytest.mark.parametrize(
    ("rows", "returncode", "status", "words"),
    [
        ([("Check server available", "Can't connect to http server (h:1)", "Please check.")], 1, "FAIL", "not answer"),
        ([("Check server available", "PASSED", "N/A"), ("Check dry run", "PASSED", "N/A")], 0, "ok", "can be started"),
        (
            [("Check server available", "PASSED", "N/A"), ("Check dry run", "Can't start successfully: x", "See.")],
            1,
            "FAIL",
            "h:1 answers, but: Can't start successfully",
        ),
        ([], 0, "FAIL", "0 results"),
    ],
)
def test_flares_table_becomes_a_sentence(rows, returncode, status, words):
    table = "\n".join(f"| {a:<22} | {b:<80} | {c} |" for a, b, c in [("Checks", "Problems", "How to fix"), *rows])
    found = server_finding(f"Checking Package: /kit\n-----\n{table}\n", returncode, "h:1")
    assert found.status == status
    assert words in found.found


SLEEPER = "import time; time.sleep(60)"


def test_a_site_that_runs_is_not_started_a_second_time(site, tmp_path):
    link = tmp_path / "a link"
    link.symlink_to(site[0])
    # A notice of another time, in which the number was this process's.
    (site[0] / "pid.fl").write_text(f"{os.getpid()}\n")
    assert facts(site[0]).processes() == []
    with subprocess.Popen([sys.executable, "-c", SLEEPER, "-m", str(link), "-s", "fed_client.json"]) as running:
        try:
            found = checks(network=True)["server"](facts(site[0]))
        finally:
            running.kill()
    assert found.status == "skip"
    assert f"this site runs already, process {running.pid}" in found.found


def test_what_flares_check_started_is_ended_where_it_takes_too_long(site, tmp_path, monkeypatch):
    """FLARE's check starts the site in a session of its own and does not end it where it is ended itself."""
    note, command = tmp_path / "pid", tmp_path / "nvflare"
    command.write_text(
        f"#!{sys.executable}\nimport pathlib, subprocess, sys, time\n"
        f"started = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}, '-m', sys.argv[-1]], start_new_session=True)\n"
        f"pathlib.Path({str(note)!r}).write_text(str(started.pid))\ntime.sleep(60)\n"
    )
    command.chmod(0o755)
    monkeypatch.setattr(network, "nvflare_command", lambda: [str(command)])
    monkeypatch.setattr(network, "SECONDS", 3)
    found = checks(network=True)["server"](facts(site[0]))
    assert (found.status, "had not ended after 3 s" in found.found) == ("warn", True)
    assert not is_alive(int(note.read_text()))


def is_alive(number: int) -> bool:
    # Nobody waits for an orphan in a container without an init; then it stays as a zombie.
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


def test_a_check_that_fails_itself_does_not_hide_the_others(site, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: 1 / 0)
    capsys.readouterr()
    assert main(["site-check", str(site[0]), "--no-network"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(checks())
    assert "the check itself failed with ZeroDivisionError" in lines[-1]
