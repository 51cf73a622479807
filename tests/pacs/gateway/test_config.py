"""The configuration: a file that is right is read, and each mistake is told in one sentence that names its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhsev_monai.pacs.gateway.config import ConfigError, load_config

LEAST = """
state: /var/lib/mhsev
model: /etc/mhsev/model.pt
receiver:
  callers:
    - {ae_title: ORTHANC, hosts: ["10.1.2.3", "10.2.0.0/16"]}
"""
TOML = """
state = "/var/lib/mhsev"
model = "/etc/mhsev/model.pt"
[receiver]
callers = [{ae_title = "ORTHANC", hosts = ["10.1.2.3", "10.2.0.0/16"]}]
"""
ARCHIVE = "sources: [{name: a, url: http://a}]\n"


def config_of(folder: Path, text: str, name: str = "gateway.yaml"):
    (folder / name).write_text(text)
    return load_config(folder / name)


def test_yaml_and_toml_say_the_same(tmp_path):
    assert config_of(tmp_path, LEAST) == config_of(tmp_path, TOML, "gateway.toml")


def test_what_is_left_out_is_safe(tmp_path):
    config = config_of(tmp_path, LEAST)
    assert config.receiver.host == "127.0.0.1"
    assert config.receiver.quiet_s == 60
    assert config.limits.max_pdu_bytes == 1 << 20
    assert config.limits.refuse_at == 0.95
    assert config.training_store is None
    assert config.monitor is None


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("10.1.2.3", True), ("10.1.2.4", False), ("10.2.9.9", True), ("::ffff:10.1.2.3", True), ("::1", False)],
)
def test_callers_are_held_to_their_addresses(tmp_path, address, allowed):
    assert config_of(tmp_path, LEAST).receiver.callers[0].allows(address) is allowed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "gateway.yaml must hold keys and values"),
        ("a: [", "gateway.yaml is not valid yaml"),
        ("state: /a\nmodel: /m", "receiver is absent; add it"),
        (LEAST + "colour: red", "colour is not known; the file may have state, model"),
        (LEAST + "limits: {max_pdu: 3}", "limits.max_pdu is not known; limits may have max_pdu_bytes"),
        (LEAST + "limits: {max_pdu_bytes: 10}", "limits.max_pdu_bytes must be between 16384 and 16777216, got 10"),
        (LEAST + "limits: {max_object_mb: 1.5}", "limits.max_object_mb must be a whole number, got 1.5 (float)"),
        (LEAST + "limits: {refuse_at: high}", "limits.refuse_at must be a number, got 'high' (str)"),
        (LEAST + "limits: {refuse_at: true}", "limits.refuse_at must be a number, got True (bool)"),
        (LEAST + "limits: 3", "limits must hold keys and values, got 3 (int)"),
        (LEAST + "limits: {refuse_at: 0.5}", "retention.purge_at 0.85 is above limits.refuse_at 0.5"),
        (LEAST + "  port: 0", "receiver.port must be between 1 and 65535, got 0"),
        (LEAST + "  ae_title: A_TITLE_THAT_IS_TOO_LONG", "receiver: an AE title has 1 to 16 printable"),
        (LEAST + "  tls: {certificate: a.pem, key: a.key}", "receiver.tls.ca is absent; add it"),
        (
            LEAST.replace("10.1.2.3", "pacs.local"),
            "receiver.callers[0]: hosts of ORTHANC must be addresses or networks",
        ),
        (LEAST.replace("ae_title: ORTHANC, ", ""), "receiver.callers[0].ae_title is absent; add it"),
        (LEAST.replace("/etc/mhsev/model.pt", "7"), "model must be a text, got 7 (int); put it in quotes"),
        (LEAST + "pipeline: {command: dicom}", "pipeline.command must be a list, got 'dicom' (str)"),
        (LEAST + "pipeline: {command: []}", "pipeline: command is empty"),
        (
            LEAST + "pipeline: {report: long}",
            "pipeline.report must be one of comprehensive3d, enhanced, both, none, got 'long'",
        ),
        (
            LEAST + ARCHIVE + "reconcile: {through: a, days: 7}",
            "reconcile looks back 7 days and retention.committed_days is 7",
        ),
        (LEAST + ARCHIVE + "retention: {committed_days: 2.5}", "the source a looks back 2 days"),
        (LEAST + "destinations: [{name: pacs}]", "destinations[0]: destination pacs needs host and port"),
        (LEAST + "destinations: [{name: w, kind: dicomweb, url: ftp://x}]", "needs an url that begins with http"),
    ],
)
def test_each_mistake_is_one_sentence_that_names_its_key(tmp_path, text, told):
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_by_default_what_is_looked_for_again_is_still_known(tmp_path):
    config = config_of(tmp_path, LEAST + ARCHIVE + "reconcile: {through: a}")
    assert config.reconcile.days < config.retention.committed_days


def test_another_ending_and_an_absent_file_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in .yaml, .yml or .toml"):
        load_config(tmp_path / "gateway.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_nobody_may_send_is_told(tmp_path):
    with pytest.raises(ConfigError, match="callers is empty"):
        config_of(tmp_path, "state: /a\nmodel: /m\nreceiver: {callers: []}")
    twice = LEAST + '    - {ae_title: ORTHANC, hosts: ["10.9.9.9"]}\n'
    with pytest.raises(ConfigError, match="names an AE title twice"):
        config_of(tmp_path, twice)
