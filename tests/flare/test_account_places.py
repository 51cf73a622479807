"""The account of spent privacy in its two places: what is read, written, refused and waited for."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mhsev_flare.payload_forms import Sentence
from mhsev_flare.payload_rules import REFUSAL_NAMES
from mhsev_flare.privacy_account import ACCOUNT_FILE, STATE_FOLDER, PrivacyAccount
from mhsev_flare.site_data import SiteError


def spent(steps: int) -> dict[str, Any]:
    return {"mechanism": "rdp", "history": [[1.0, 0.2, steps]]}


@pytest.fixture
def account(tmp_path):
    return PrivacyAccount.of_site("site-1", tmp_path / "kit", tmp_path / "features")


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def test_nothing_is_spent_where_neither_place_holds_an_account(account):
    assert account.read() is None


def test_it_lies_in_the_kits_state_folder_and_in_the_cache(account, tmp_path):
    with account.locked():
        account.write(spent(3))
    for path in (tmp_path / "kit" / STATE_FOLDER / f"site-1_{ACCOUNT_FILE}", tmp_path / "features" / ACCOUNT_FILE):
        kept = json.loads(path.read_text())
        assert len(kept.pop("marks")) == 1
        assert kept == spent(3)
    assert account.read() == spent(3)


@pytest.mark.parametrize("kept", [0, 1], ids=["emptied cache", "new kit, or one without state"])
def test_one_place_alone_is_enough(account, kept):
    put(account.places[kept], spent(4))
    assert account.read() == spent(4)


@pytest.mark.parametrize(("first", "second"), [(7, 5), (5, 7), (7, 7)])
def test_of_two_without_marks_the_later_state_counts(account, first, second):
    for path, steps in zip(account.places, (first, second), strict=True):
        put(path, spent(steps))
    assert account.read() == spent(7)


OTHER_NOISE, OTHER_RATE = [2.0, 0.2, 40], [1.0, 0.1, 40]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ([[1.0, 0.2, 50]], [OTHER_NOISE], [[1.0, 0.2, 50], OTHER_NOISE]),
        ([[1.0, 0.2, 50]], [OTHER_RATE], [[1.0, 0.2, 50], OTHER_RATE]),
        ([[1.0, 0.2, 50], OTHER_NOISE], [[1.0, 0.2, 50]], [[1.0, 0.2, 50], OTHER_NOISE]),
        ([[1.0, 0.2, 50]], [[1.0, 0.2, 51], OTHER_NOISE], [[1.0, 0.2, 51], OTHER_NOISE]),
        # The steps of a row are over once another follows, so neither of these two came before the other.
        ([[1.0, 0.2, 50], OTHER_NOISE], [[1.0, 0.2, 51]], [[1.0, 0.2, 50], OTHER_NOISE, [1.0, 0.2, 51]]),
        ([], [OTHER_NOISE], [OTHER_NOISE]),
    ],
)
def test_two_without_marks_are_added_up_where_neither_began_as_the_other(account, first, second, together):
    for path, history in zip(account.places, (first, second), strict=True):
        put(path, {"mechanism": "rdp", "history": history})
    assert account.read() == {"mechanism": "rdp", "history": together}


def test_what_a_kit_and_a_cache_spent_apart_is_added_up_though_both_trained_alike(tmp_path):
    """Kit A beside cache 1, kit B beside cache 2, then kit A again, beside cache 2; all by the same job."""

    def account_of(kit: str, cache: str) -> PrivacyAccount:
        return PrivacyAccount.of_site("site-1", tmp_path / kit, tmp_path / cache)

    account_of("a", "1").write(spent(50))
    account_of("b", "2").write(spent(40))
    both = account_of("a", "2")
    found = both.read()
    assert [row[:2] for row in found["history"]] == [[1.0, 0.2]] * 2
    assert sum(row[2] for row in found["history"]) == 90
    both.write(found)
    # From then on either copy of before is an earlier state of this account, and adds nothing.
    for kit, cache in (("a", "1"), ("b", "2"), ("a", "2")):
        assert account_of(kit, cache).read() == found


@pytest.mark.parametrize("behind", [0, 1], ids=["kit", "cache"])
def test_a_copy_from_a_backup_is_an_earlier_state_and_adds_nothing(account, behind):
    account.write(spent(10))
    backup = account.places[behind].read_text()
    account.write(spent(20))
    account.places[behind].write_text(backup)
    assert account.read() == spent(20)


def test_an_account_of_before_is_taken_over_and_adds_nothing_to_what_goes_on_from_it(account):
    put(account.places[1], spent(10))
    PrivacyAccount(account.places[:1]).write(account.read())  # as if the power had failed before the second place
    assert account.read() == spent(10)
    PrivacyAccount(account.places[:1]).write(spent(20))
    assert account.read() == spent(20)


def test_each_copy_is_on_the_disk_before_it_takes_the_accounts_name(account, monkeypatch):
    """Copies are written within milliseconds, so what a failing power takes would be taken of both."""
    synced, sync = [], os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    account.write(spent(1))
    expected = [[path.with_suffix(".tmp"), path.parent] for path in account.places]
    assert synced == [one for each in expected for one in each]


def test_sites_that_share_a_workspace_have_accounts_of_their_own(tmp_path):
    first, second = (PrivacyAccount.of_site(site, tmp_path, tmp_path / site) for site in ("site-1", "site-2"))
    first.write(spent(3))
    assert second.read() is None


@pytest.mark.parametrize("text", [
    "", "{", "[]", '"DOE^JANE"', "7", "null", "{}",
    '{"mechanism": "gdp", "history": []}',
    '{"mechanism": "rdp"}',
    '{"mechanism": "rdp", "history": [[1.0, 0.2]]}',
    '{"mechanism": "rdp", "history": [[1.0, 0.2, 0]]}',
    '{"mechanism": "rdp", "history": [[NaN, 0.2, 5]]}',
    '{"mechanism": "rdp", "history": [[1.0, 0.2, Infinity]]}',
    '{"mechanism": "rdp", "history": [[1.0, 0.2, 5]], "marks": "DOE^JANE"}',
    '{"mechanism": "rdp", "history": [[1.0, 0.2, 5]], "marks": [7]}',
])  # fmt: skip
def test_a_damaged_account_is_refused_and_never_taken_for_none(account, text):
    put(account.places[0], spent(4))
    put(account.places[1], text)
    for act in (account.read, lambda: account.write(spent(5))):
        with pytest.raises(SiteError, match="cannot be read; put back the file") as caught:
            act()
        assert Sentence(REFUSAL_NAMES)(str(caught.value)) == ""


def test_what_cannot_be_written_down_is_refused(account, tmp_path):
    (tmp_path / "kit").write_text("a file in the place of the folder")
    for act in (lambda: account.write(spent(1)), lambda: account.locked().__enter__()):
        with pytest.raises(SiteError, match="cannot write its account of spent privacy") as caught:
            act()
        assert Sentence(REFUSAL_NAMES)(str(caught.value)) == ""


def test_two_jobs_do_not_hold_it_at_once(account):
    with account.locked():
        for path in account.places:
            with path.with_suffix(".lock").open("w") as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
