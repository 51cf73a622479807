"""`mhsev site-config` on real startup kits: what it writes, keeps and refuses."""

from __future__ import annotations

import json
import shutil

import pytest
from nvflare.apis.workspace import Workspace
from nvflare.private.fed.app.fl_conf import create_privacy_manager
from site_kits import SITE, provision

from mhsev_flare import site_commands, site_policy
from mhsev_flare.cli import main
from mhsev_flare.site import find_site_folders
from mhsev_flare.site_policy_file import GUARD


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return provision(tmp_path_factory.mktemp("made"))


@pytest.fixture
def kit(tmp_path, made):
    shutil.copytree(made, tmp_path / SITE)
    return tmp_path / SITE


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "derivatives" / "lesions").mkdir(parents=True)
    return folder


def configure(kit, *arguments):
    return main(["site-config", str(kit), *map(str, arguments)])


def stored(kit):
    return json.loads((kit / "local" / "privacy.json").read_text())


def names(scope):
    return [entry["path"].rpartition(".")[2] for entry in scope["task_result_filters"]]


def test_what_it_writes_is_what_flare_and_the_executor_read(kit, root, capsys):
    cache = root.parent / "features"
    asked = ["--data-root", root, "--cache", cache, "--lesion-masks", "derivatives/lesions"]
    assert configure(kit, *asked, "--block", "mhsev_train_loss", "--least", 7, "--base", 10) == 0
    manager = create_privacy_manager(Workspace(str(kit), SITE), names_only=False)
    scope = manager.get_scope("")
    leaving = [type(f).__name__ for f in scope.task_result_filters["out"]]
    assert leaving == ["EntryBlocker", "SmallCellCleanser", "PayloadGuard"]
    assert (scope.task_result_filters["out"][1].least, scope.task_result_filters["out"][1].base) == (7, 10)
    folders = find_site_folders(SITE, scope.props, None)
    assert (folders.data_root, folders.cache_root) == (root, cache)
    assert folders.lesion_masks == root / "derivatives" / "lesions"
    assert manager.get_scope("another") is None
    assert str(root) in capsys.readouterr().out


def test_the_same_call_changes_nothing_and_an_option_that_is_not_given_stays(kit, root, capsys):
    privacy = ["--privacy", "required", "--max-epsilon", "8"]
    assert configure(kit, "--data-root", root, *privacy, "--block", "mhsev_train_loss") == 0
    first = stored(kit)
    assert configure(kit, "--data-root", root) == 0
    assert stored(kit) == first
    assert "unchanged" in capsys.readouterr().out
    assert configure(kit, "--least", 0) == 0
    policy = stored(kit)["scopes"][0]["properties"]["mhsev_policy"]
    assert policy["privacy"]["rule"] == "required"
    assert policy["privacy"]["max_epsilon"] == 8
    assert policy["blocked"] == ["mhsev_train_loss"]
    assert names(stored(kit)["scopes"][0]) == ["EntryBlocker", "PayloadGuard"]
    assert configure(kit, "--block", "nothing") == 0
    assert names(stored(kit)["scopes"][0]) == ["PayloadGuard"]


def test_a_limit_is_taken_where_privacy_was_required_before(kit, root, capsys):
    assert configure(kit, "--data-root", root, "--privacy", "required", "--max-epsilon", "8") == 0
    assert configure(kit, "--max-epsilon", "2", "--least-noise", "1") == 0
    demand = stored(kit)["scopes"][0]["properties"]["mhsev_policy"]["privacy"]
    assert (demand["max_epsilon"], demand["least_noise"]) == (2, 1)
    assert configure(kit, "--privacy", "allowed", "--max-epsilon", "2") == 2
    assert configure(kit, "--privacy", "allowed") == 0


def test_other_scopes_filters_and_properties_are_kept(kit, root):
    percentile = {"path": "nvflare.app_common.filters.percentile_privacy.PercentilePrivacy", "args": {"percentile": 5}}
    guard = {"path": GUARD, "args": {"most_bytes": 1000}}
    own = {
        "scopes": [
            {"name": "public", "properties": {"a": 1}},
            {"name": "house", "properties": {"b": 2}, "task_result_filters": [guard, percentile]},
        ],
        "default_scope": "house",
        "components": [],
    }
    (kit / "local" / "privacy.json").write_text(json.dumps(own))
    assert configure(kit, "--data-root", root) == 0
    after = stored(kit)
    assert after["scopes"][0] == own["scopes"][0]
    assert after["default_scope"] == "house"
    assert after["components"] == []
    assert after["scopes"][1]["properties"]["b"] == 2
    filters = after["scopes"][1]["task_result_filters"]
    assert filters[0] == percentile
    assert names(after["scopes"][1]) == ["PercentilePrivacy", "SmallCellCleanser", "PayloadGuard"]
    assert filters[-1] == guard


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the folder of the scans with --data-root"),
        (["--data-root", "data"], "must be an absolute path"),
        (["--data-root", "/no/such/folder"], "is not a folder that can be read"),
        (["--data-root", "ROOT", "--cache", "features"], "cache_root must be an absolute path"),
        (["--data-root", "ROOT", "--lesion-masks", "derivatives/none"], "is no folder under the data root"),
        (["--data-root", "ROOT", "--lesion-masks", "/masks"], "must be relative to the data root"),
        (["--data-root", "ROOT", "--least", "3"], "least must be 0 (off), or 5 or more, got 3"),
        (["--data-root", "ROOT", "--base", "0"], "base must be 1 or more"),
        (["--data-root", "ROOT", "--privacy", "required"], "needs max_epsilon"),
        (["--data-root", "ROOT", "--max-epsilon", "-1"], "max_epsilon must be a number above 0"),
        (["--data-root", "ROOT", "--max-delta", "1"], "max_delta must be between 0 and 1"),
        (["--data-root", "ROOT", "--max-epsilon", "2"], "--max-epsilon would have no effect where privacy is allowed"),
        (["--data-root", "ROOT", "--max-delta", "0.01"], "--max-delta would have no effect"),
        (["--data-root", "ROOT", "--least-noise", "1"], "--least-noise would have no effect"),
        (
            ["--data-root", "ROOT", "--privacy", "forbidden", "--max-epsilon", "2"],
            "no effect where privacy is forbidden; add --privacy required",
        ),
        (["--data-root", "ROOT", "--show"], "--show changes nothing"),
    ],
)
def test_a_wrong_call_says_what_is_accepted_and_writes_nothing(kit, root, arguments, words, capsys):
    assert configure(kit, *(str(root) if a == "ROOT" else a for a in arguments)) == 2
    assert words in capsys.readouterr().err
    assert not (kit / "local" / "privacy.json").exists()


def test_a_folder_that_is_no_kit_is_refused(tmp_path, kit, root, capsys):
    assert configure(tmp_path, "--data-root", root) == 2
    assert "is no startup kit; name a site's folder" in capsys.readouterr().err
    assert configure(kit / "startup", "--data-root", root) == 2
    assert configure(kit.with_name("no"), "--data-root", root) == 2


def test_the_server_has_no_scans(made, root, capsys):
    assert configure(made.with_name("server"), "--data-root", root) == 2
    assert "is the server's kit" in capsys.readouterr().err


def test_a_file_that_is_not_what_flare_reads_is_not_overwritten(kit, root, capsys):
    path = kit / "local" / "privacy.json"
    for text, words in (("{", "not valid JSON"), ("[]", "must hold scopes"), ('{"scopes": [{}]}', "a name each")):
        path.write_text(text)
        assert configure(kit, "--data-root", root) == 2
        assert words in capsys.readouterr().err
        assert path.read_text() == text


def test_show_tells_what_is_decided_in_words(kit, root, capsys):
    assert configure(kit, "--show") == 1
    assert "has no policy yet" in capsys.readouterr().err
    configure(kit, "--data-root", root, "--privacy", "required", "--max-epsilon", "8", "--block", "mhsev_table")
    capsys.readouterr()
    assert configure(kit, "--show") == 0
    said = capsys.readouterr().out
    assert "required, epsilon 8 at most over all jobs" in said
    assert "mhsev_table; no job can run without mhsev_table" in said
    assert "from 1 to 4 are hidden" in said


def test_the_command_line_spells_the_policy_s_own_words():
    assert site_commands.ENTRIES == site_policy.BLOCKABLE
    assert set(site_commands.PRIVACY_RULES) == set(site_policy.PRIVACY_RULES)
