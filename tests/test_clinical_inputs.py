"""Clinical variables as a network's input: what is read, what is unknown, and that the scan is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mhsev_monai.cases import Case
from mhsev_monai.clinical_inputs import COLUMNS, ClinicalInputs
from mhsev_monai.feature_cache import compute_features

ABSENT = Path("no", "such", "scan.nii.gz")


def case(**clinical) -> Case:
    return Case("sub-1", ABSENT, None, 3, clinical)


def test_numbers_and_words_are_read_and_the_rest_is_unknown():
    inputs = ClinicalInputs(["age", "sex", "hypertension", "diabetes", "apoe_e4"])
    found = inputs.assemble(inputs(case(age=71.0, sex="M", hypertension=" Yes", diabetes="perhaps")))
    np.testing.assert_array_equal(found, [71, 1, 1, 0, 0, 1, 1, 1, 0, 0])


def test_nothing_that_tells_of_microbleeds_is_read():
    assert not any("count" in column or "bleed" in column for column in COLUMNS)


def test_the_scan_is_not_opened_and_a_changed_table_is_read_again(tmp_path):
    inputs = ClinicalInputs(["age"])
    first, second = (compute_features([case(age=age)], inputs, tmp_path) for age in (60.0, 80.0))
    assert first.features[0, 0] == 60
    assert second.features[0, 0] == 80
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [[], ["age", "age"]])
def test_columns_that_are_none_are_refused(columns):
    with pytest.raises(ValueError, match="different names"):
        ClinicalInputs(columns)


def test_another_choice_is_another_input():
    assert ClinicalInputs(["age"]).fingerprint() != ClinicalInputs(["sex"]).fingerprint()
