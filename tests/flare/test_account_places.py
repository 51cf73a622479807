"""The account of spent privacy in its two places: what is read, written, refused and waited for."""

from __future__ import annotations

import fcntl
import json
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
    assert account.read(1e-3) is None


def test_it_lies_in_the_kits_state_folder_and_in_the_cache(account, tmp_path):
    with account.locked():
        account.write(spent(3))
    for path in (tmp_path / "kit" / STATE_FOLDER / f"site-1_{ACCOUNT_FILE}", tmp_path / "features" / ACCOUNT_FILE):
        assert json.loads(path.read_text()) == spent(3)
    assert account.read(1e-3) == spent(3)


@pytest.mark.parametrize("kept", [0, 1], ids=["emptied cache", "new kit, or one without state"])
def test_one_place_alone_is_enough(account, kept):
    put(account.places[kept], spent(4))
    assert account.read(1e-3) == spent(4)


@pytest.mark.parametrize(("first", "second"), [(7, 5), (5, 7)])
def test_of_two_that_differ_the_one_that_has_spent_more_counts(account, first, second):
    pytest.importorskip("opacus.accountants", reason="needs opacus: pip install 'mhsev[dp]'")
    for path, steps in zip(account.places, (first, second), strict=True):
        put(path, spent(steps))
    assert account.read(1e-3) == spent(7)


def test_sites_that_share_a_workspace_have_accounts_of_their_own(tmp_path):
    first, second = (PrivacyAccount.of_site(site, tmp_path, tmp_path / site) for site in ("site-1", "site-2"))
    first.write(spent(3))
    assert second.read(1e-3) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '"DOE^JANE"'])
def test_a_damaged_account_is_refused_and_never_taken_for_none(account, text):
    put(account.places[0], spent(4))
    put(account.places[1], text)
    with pytest.raises(SiteError, match="cannot be read; put back the file") as caught:
        account.read(1e-3)
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
