"""`mhsev gateway`: check, status and retry, beside a gateway that runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from gateways import Site, eventually, send
from mr_objects import mr_image

from mhsev_flare.cli import main


@pytest.fixture
def config(site) -> str:
    return written(site)


def written(site: Site) -> str:
    path = site.folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(site.held))
    return str(path)


def test_status_and_retry_work_beside_a_running_gateway(site, config, in_process, capsys):
    site.wish("refused")
    in_process(site)
    send(site.port, [mr_image("1.2.840.77")])
    assert eventually(lambda: site.states() == ["failed"])
    assert main(["gateway", "status", "--config", config, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["series"]["failed"] == 1
    (failed,) = told["failed"]
    assert failed["reason"] == "it is refused by the stand-in"
    assert "1.2.840.77" not in failed["series"]
    site.wish("done")
    assert main(["gateway", "retry", failed["series"], "--config", config]) == 0
    assert capsys.readouterr().out == "1 series set going again\n"
    assert eventually(lambda: site.states() == ["committed"])
    assert main(["gateway", "status", "--config", config]) == 0
    assert "committed    1" in capsys.readouterr().out


def test_status_tells_what_has_no_result_of_a_series_that_is_committed(tmp_path, in_process, pacs, capsys):
    site = Site(tmp_path, destinations=[pacs.destination])
    site.wish("partly")
    in_process(site)
    send(site.port, [mr_image("1.2.840.77")])
    assert eventually(lambda: site.states() == ["committed"])
    arguments = ["gateway", "status", "--config", written(site)]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == []
    (partly,) = told["graded_in_part"]
    assert partly["reason"] == "a part was not graded: slices are missing; the pipeline failed with a fault"
    assert main(arguments) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{partly['series']}  ")
    assert line.endswith(f"  committed: {partly['reason']}")
    # Once that part is mended, nothing is left to tell.
    site.wish("done")
    send(site.port, [mr_image("1.2.840.77", 2)])
    assert eventually(lambda: site.n_runs == 2 and site.states() == ["committed"])
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["graded_in_part"] == []


def test_uids_are_shown_only_when_asked_for(site, config, in_process, capsys):
    site.wish("refused")
    in_process(site)
    send(site.port, [mr_image("1.2.840.77")])
    assert eventually(lambda: site.states() == ["failed"])
    main(["gateway", "status", "--config", config])
    assert "1.2.840.77" not in capsys.readouterr().out
    main(["gateway", "status", "--config", config, "--uids"])
    assert "1.2.840.77" in capsys.readouterr().out


def test_a_series_that_is_not_failed_cannot_be_retried(site, config, in_process, capsys):
    in_process(site)
    send(site.port, [mr_image()])
    assert eventually(lambda: site.states() == ["committed"])
    assert main(["gateway", "retry", "1.2.3.4", "--config", config]) == 2
    assert "1 of 1 are no failed series" in capsys.readouterr().err


def test_check_names_what_a_start_would_stumble_over(site, capsys):
    site.held["monitor"] = {"port": 9470}
    site.held["pipeline"]["command"] = ["/no/such/program"]
    site.held["receiver"]["tls"] = {"certificate": "/a.pem", "key": "/a.key", "ca": "/ca.pem"}
    site.held["receiver"]["host"] = site.held["monitor"]["host"] = "192.0.2.1"
    site.config.folders.make()
    site.config.folders.key.write_text("")
    assert main(["gateway", "--check", "--config", written(site)]) == 1
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["state"] == "folder         well"
    assert told["model"].startswith("cannot be loaded")
    assert told["pipeline"].startswith("/no/such/program is not a program")
    assert "cannot be listened on" in told["address"]
    assert "192.0.2.1 port 9470 cannot be listened on" in told["monitor"]
    assert "pseudonym.key is damaged" in told["pseudonym"]
    assert "a.pem cannot be read" in told["TLS"]


def test_a_damaged_key_ends_the_start_with_one_sentence(site):
    site.config.folders.make()
    site.config.folders.key.write_text("")
    command = [sys.executable, "-m", "mhsev_flare.cli", "gateway", "--config", written(site)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("mhsev: the gateway cannot start (pseudonym.key is damaged")
    assert len(done.stderr.splitlines()) == 1


def test_check_says_that_the_disk_is_too_full(site, capsys):
    site.held["limits"]["reserve_mb"] = 1 << 20
    main(["gateway", "--check", "--config", written(site)])
    assert "too little free space" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["status", "1.2.3"], "series are named for retry only"),
        (["status"], "there is no journal yet"),
    ],
)
def test_wrong_calls_are_told(site, config, capsys, arguments, told):
    assert main(["gateway", *arguments, "--config", config]) != 0
    assert told in capsys.readouterr().err


def test_a_port_in_use_is_told(site, in_process, tmp_path_factory):
    in_process(site)
    other = Site(tmp_path_factory.mktemp("other"))
    other.held["receiver"]["port"] = site.port
    command = [sys.executable, "-m", "mhsev_flare.cli", "gateway", "--config", written(other)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the gateway cannot start (Address already in use); look with --check" in done.stderr
