"""The rules of what may leave a site: they fit every job and every refusal, and say nothing of what they refuse."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from nvflare.apis.dxo import MetaKey

from mhsev_flare.payload_forms import Entries, Number, Sentence, kind_of
from mhsev_flare.payload_rules import MOST_BYTES, REFUSAL_NAMES, payload_complaint, task_rules
from mhsev_flare.protocol import Meta, Moments

ROOT = Path(__file__).resolve().parents[2]
CANARY = "DOE^JANE_19500101"


@pytest.mark.parametrize(
    ("what", "value"),
    [("device", "DOE JANE"), ("device", "cpu 19500101"), ("torch", "1950.01.01"), ("mhsev", "jane"), ("scale", "jane")],
)
def test_a_report_that_is_none_is_blocked(what, value):
    report = {"mhsev": "0.1.0", "nvflare": "2.9.0", "torch": "2.13.0+cpu", "scale": "paper", "device": "cpu"}
    rules = task_rules()
    sent = {"kind": "WEIGHTS", "data": {Moments.N: np.zeros(1)}, "meta": {Meta.REPORT: report}}
    assert payload_complaint("standardise", sent, rules) == ""
    report["device"] = "NVIDIA H100 80GB HBM3"
    assert payload_complaint("standardise", sent, rules) == ""
    report[what] = value
    assert payload_complaint("standardise", sent, rules)


@pytest.mark.skipif(not (ROOT / "jobs").is_dir(), reason="needs the checkout, not the wheel alone")
def test_the_weights_of_every_job_have_a_name_on_the_list():
    configurations = sorted((ROOT / "jobs").glob("*/*/config/config_fed_client.json"))
    assert configurations
    rules = task_rules()
    for path in configurations:
        for entry in json.loads(path.read_text())["executors"]:
            described = entry["executor"]["args"].get("network")
            if described is None:
                continue
            module, name = described["path"].rsplit(".", 1)
            network = getattr(importlib.import_module(module), name)(**described["args"])
            weights = {key: value.numpy() for key, value in network.state_dict().items()}
            sent = {"kind": "WEIGHTS", "data": weights, "meta": {Meta.N_SAMPLES: 5}}
            assert payload_complaint("submit_model", sent, rules) == "", path.parts[-4]


def test_every_refusal_that_the_code_can_word_may_leave():
    """A new message with a word that is not on the list would be blocked at the hospital; it is found out here."""
    known = {
        "SITE_FILE": "mhsev_site.json",
        "where": "dwi/*_dwi.nii.gz",
        "prefix": "sub",
        "because": "",
        "DATA_ROOT_VARIABLE": "MHSEV_DATA_ROOT",
        "COHORT_ROOT_VARIABLE": "MHSEV_COHORT_ROOT",
        "COUNT_COLUMN": "microbleed_count",
    }
    sentence, n = Sentence(REFUSAL_NAMES), 0
    for package in ("mhsev_monai", "mhsev_flare"):
        for path in Path(importlib.import_module(package).__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                    "SiteError",
                    "CohortError",
                    "ScanError",
                ):
                    n += 1
                    assert sentence(_worded(node.args[0], known)) == "", (path.name, node.lineno)
    assert n > 100


def _worded(node: ast.expr, known: dict[str, str]) -> str:
    """The text of a message; a hole is what ``known`` says of its name, or a number."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_worded(part, known) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _worded(node.left, known) + _worded(node.right, known)
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    return known.get(getattr(inner, "id", ""), "7")


def test_kinds_are_told_by_type_and_size():
    assert kind_of(CANARY) == "a text of 17 characters"
    assert kind_of(type(CANARY, (), {})()) == "an object of a kind that is not on the list"
    assert Entries(Number())([1, [2, "x"]]) == (
        "has an entry, 2 of 2, that has an entry, 2 of 2, that is a text of 1 characters where a number is expected"
    )


def test_each_task_has_a_rule_in_the_words_of_flare():
    rules = task_rules()
    assert set(rules) >= {"standardise", "train", "validate", "submit_model", "personalise", "compare"}
    assert all(0 < rule.most_bytes <= MOST_BYTES for rule in rules.values())
    assert MetaKey.NUM_STEPS_CURRENT_ROUND == "NUM_STEPS_CURRENT_ROUND"
    assert MetaKey.FILTER_HISTORY == "filter_history"
