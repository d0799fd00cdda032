# SPDX-License-Identifier: Apache-2.0
"""bench/spine by itself: what it makes of the figures that `pillion bench` prints."""
import json
import os
import subprocess

import pytest

import host as lib

FAKE_PILLION = """#!/bin/sh
echo "$*" >>"$FAKE/argv"
case "$*" in *15M*) exec cat "$FAKE/small.json" ;; esac
exec cat "$FAKE/gemma.json"
"""


def ratio(value):
    return {"median": value, "min": value / 2, "max": value * 2}


def report(load, **tests):
    """As of `pillion bench --json`: native is 1000 t/s and 1 s in each of three rounds."""
    return json.dumps({
        "pillion": "0.1.0", "device": {"name": "CPU", "reference": True},
        "machine": {"name": "debian", "backend": "ns"},
        "tests": [{"name": name, "native": [1000.0] * 3, "inside": [1000 * value] * 3, "ratio": ratio(value)}
                  for name, value in tests.items()],
        "load_s": {"native": 1.0, "inside": load, "ratio": ratio(load)}})


@pytest.fixture
def spine(tmp_path):
    pillion = tmp_path / "src" / "cli" / "pillion"
    pillion.parent.mkdir(parents=True)
    pillion.write_text(FAKE_PILLION)
    pillion.chmod(0o755)

    def run(*args, pp=1.0, tg=1.0, load=1.0, small=1.0):
        (tmp_path / "gemma.json").write_text(report(load, pp512=pp, tg128=tg))
        (tmp_path / "small.json").write_text(report(9.0, tg512=small))
        return subprocess.run([lib.ROOT / "bench" / "spine", "--gemma", "/m/gemma.gguf", *args],
                              capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
                              env={**os.environ, "PILLION_BUILD": str(tmp_path), "FAKE": str(tmp_path),
                                   "XDG_CACHE_HOME": str(tmp_path)})
    run.argv = tmp_path / "argv"
    run.pillion = pillion
    return run


def test_all_aims_reached_is_status_0_and_names_code_and_machine(spine):
    done = spine("--rounds", "3", "-d", "deb", pp=0.98, tg=0.99, load=1.25, small=0.95)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": reached\n") == 4 and "missed" not in done.stdout
    for word in ("commit ", "CPUs: ", "reference device (host CPU)", "debian (ns), 3 rounds"):
        assert word in done.stdout
    asked = spine.argv.read_text().splitlines()
    assert asked[0] == "bench -m /m/gemma.gguf -d deb -p 512 -n 128 -r 3 --json"
    assert asked[1].endswith("-d deb -p 0 -n 512 -r 3 --json")


@pytest.mark.parametrize("figures,row", [
    ({"pp": 0.979}, "Gemma 270M pp512"), ({"tg": 0.989}, "Gemma 270M tg128"),
    ({"load": 1.26}, "Gemma 270M load"), ({"small": 0.94}, "15M tg512"),
])
def test_an_aim_missed_is_said_in_its_row_and_is_status_1(spine, figures, row):
    done = spine(**figures)
    assert done.returncode == 1
    assert [line.startswith(row) for line in done.stdout.splitlines() if line.endswith(": missed")] == [True]


def test_the_small_model_may_be_slower_by_40_us_a_token(spine):
    done = spine("--json", small=1000 / 1039)  # a token takes 1 ms natively
    row = next(r for r in json.loads(done.stdout)["rows"] if r["test"] == "tg512")
    assert round(row["added_us"]) == 39 and row["reached"] and done.returncode == 0
    done = spine("--json", small=1000 / 1060)
    assert done.returncode == 1


def test_what_could_not_be_measured_is_status_2(spine):
    spine.pillion.write_text("#!/bin/sh\necho '{\"host\": {\"busy\": true, \"elsewhere\": 0.41}}'\nexit 3\n")
    done = spine()
    assert done.returncode == 2 and not done.stdout
    assert "spine: the machine was busy, 41 % of its CPU time went elsewhere" in done.stderr
    spine.pillion.write_text("#!/bin/sh\necho 'pillion: bench: no device' >&2\nexit 1\n")
    done = spine()
    assert done.returncode == 2 and "no device" in done.stderr and "spine: pillion ended with status 1" in done.stderr
