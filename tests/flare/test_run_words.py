"""Every rule and weighting that a job can name has words in the report."""

from __future__ import annotations

import pytest

from mhsev_flare.robust import NORM_LIMIT, RULES
from mhsev_flare.run_words import RULE_WORDS, WEIGHTING_WORDS, rule_words, weighting_words
from mhsev_flare.weighting import WEIGHTINGS


def test_all_names_have_words_and_no_other_has():
    assert set(RULE_WORDS) == set(RULES)
    assert set(WEIGHTING_WORDS) == set(WEIGHTINGS)


def test_the_limit_is_the_one_that_holds():
    assert NORM_LIMIT == 2.0
    assert rule_words("clip") == "weighted mean, norms limited to twice the median norm (clip)"


@pytest.mark.parametrize("words", [rule_words, weighting_words])
def test_a_name_of_another_package_stays(words):
    assert words("of their own") == "of their own"
