"""``mhsev cohort``: what its flags accept, and what its exit status says."""

from __future__ import annotations

import shutil

import pytest

from mhsev_flare import cohort_commands
from mhsev_flare.cli import main
from mhsev_monai.cohort import settings


@pytest.mark.parametrize(
    ("spelt", "accepted"),
    [
        (cohort_commands.DIFFICULTIES, settings.DIFFICULTY_NAMES),
        (cohort_commands.MIXES, settings.MIXES),
        (cohort_commands.LABELS, settings.LABELS),
        (cohort_commands.CONTRASTS, settings.CONTRASTS),
        (cohort_commands.SIZES, settings.SIZES),
    ],
)
def test_the_choices_of_a_flag_are_those_of_the_settings(spelt, accepted):
    assert spelt == accepted
    # Without a flag, the settings' own choice.
    assert spelt[0] in vars(settings.CohortSettings()).values()


def test_make_hands_every_flag_over(monkeypatch, tmp_path, capsys):
    called = {}

    def make_cohort(out, n_subjects, seed, **rest):
        called.update(out=out, n_subjects=n_subjects, seed=seed, **rest)
        return "made"

    monkeypatch.setattr("mhsev_monai.cohort.make_cohort", make_cohort)
    flags = "--difficulty hard --mix lognormal --negatives 0.5 --label all --contrast swi --size small --seed 7"
    call = ["cohort", "make", str(tmp_path / "out"), "--subjects", "30", *flags.split(), "--workers", "1"]
    assert main([*call, "--backgrounds", str(tmp_path)]) == 0
    assert called["settings"] == settings.CohortSettings("hard", "lognormal", 0.5, "all", "swi", "small", tmp_path)
    assert (called["n_subjects"], called["seed"], called["workers"]) == (30, 7, 1)
    assert "made" in capsys.readouterr().out


def test_a_share_of_negatives_out_of_range_is_a_wrong_call(tmp_path, capsys):
    assert main(["cohort", "make", str(tmp_path / "out"), "--negatives", "1.5"]) == 2
    assert "negatives must be a share from 0 to 0.9, got 1.5" in capsys.readouterr().err


def test_check_says_whether_the_files_are_those_that_were_written(cohort, tmp_path, capsys):
    copy = shutil.copytree(cohort[0], tmp_path / "copy")
    assert main(["cohort", "check", str(copy)]) == 0
    (copy / "site-1/README").write_text("else")
    capsys.readouterr()
    assert main(["cohort", "check", str(copy)]) == 1
    assert "changed      1\n  site-1/README\n" in capsys.readouterr().out
    assert main(["cohort", "check", str(tmp_path)]) == 2
