"""Subject keys: the same patient the same key, no key without the secret, and the secret never with the data."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys

import pytest

from mhsev_monai.ingest.identity import SITE_FOLDER_VARIABLE, SiteFolderError, SubjectKeys, default_site_folder


def test_a_key_is_the_hmac_of_rfc_2104_under_the_site_s_secret(tmp_path):
    keys = SubjectKeys(tmp_path)
    secret = bytes.fromhex((tmp_path / "secret").read_text())
    expected = hmac.digest(secret, b"patient\0PID-17", hashlib.sha256).hex()
    assert keys.subject("PID-17") == f"sub-{expected[:16]}"
    assert len(secret) == 32


def test_a_patient_keeps_the_key_and_enters_the_table_once(tmp_path):
    first = SubjectKeys(tmp_path).subject("PID-17")
    keys = SubjectKeys(tmp_path)
    assert [keys.subject("PID-17"), keys.subject("PID-17")] == [first, first]
    assert keys.subject("PID-18") != first
    assert [line.split("\t")[0] for line in (tmp_path / "subject_keys.tsv").read_text().splitlines()] == [
        first,
        keys.subject("PID-18"),
    ]


def test_another_site_makes_other_keys(tmp_path):
    assert SubjectKeys(tmp_path / "a").subject("PID-17") != SubjectKeys(tmp_path / "b").subject("PID-17")


def test_one_identifier_gives_unrelated_keys_for_each_purpose(tmp_path):
    keys = SubjectKeys(tmp_path)
    found = {keys.subject("1")[4:12], keys.session("1", "1")[4:], keys.series("1")}
    assert len(found) == 3
    assert keys.session("1", "2") != keys.session("1", "3")


def test_secret_and_table_are_the_owner_s_alone(tmp_path):
    SubjectKeys(tmp_path / "site").subject("PID-17")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "site").iterdir()}
    assert modes == {"secret": 0o600, "subject_keys.tsv": 0o600}
    assert (tmp_path / "site").stat().st_mode & 0o077 == 0


def test_the_secret_must_not_lie_inside_the_data(tmp_path):
    (tmp_path / "bids").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "bids")
    for folder in ("bids", "bids/derivatives/site", "link/site"):
        with pytest.raises(SiteFolderError, match="would leave together with the data"):
            SubjectKeys(tmp_path / folder, (tmp_path / "bids",))


@pytest.mark.parametrize("content", ["", "zz", "ab" * 5])
def test_a_damaged_secret_is_not_replaced(content, tmp_path):
    (tmp_path / "secret").write_text(content)
    with pytest.raises(SiteFolderError, match="restore it from its backup"):
        SubjectKeys(tmp_path)
    assert (tmp_path / "secret").read_text() == content


def test_a_folder_that_cannot_be_made_is_named_by_its_option(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SiteFolderError, match="name another one with --site-folder") as caught:
        SubjectKeys(tmp_path / "file" / "site")
    assert str(tmp_path) not in str(caught.value)


def test_processes_that_start_together_share_one_secret(tmp_path):
    script = (
        "import sys; from mhsev_monai.ingest.identity import SubjectKeys; print(SubjectKeys(sys.argv[1]).subject('1'))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "site")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["secret", "subject_keys.tsv"]


def test_the_site_folder_is_found_by_variable_then_by_the_user_s_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(SITE_FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_site_folder() == tmp_path / "data" / "mhsev"
    monkeypatch.setenv(SITE_FOLDER_VARIABLE, str(tmp_path / "mine"))
    assert default_site_folder() == tmp_path / "mine"


def test_identifiers_of_any_bytes_have_keys(tmp_path):
    keys = SubjectKeys(tmp_path)
    assert len({keys.subject(text) for text in ("Ä\tb\nc", 'quo"te', "\udcff", "")}) == 4
    assert len(SubjectKeys(tmp_path)._known) == 4
