# SPDX-License-Identifier: Apache-2.0
"""tools/demo by itself: what it concludes from what the programs it starts say."""
import os
import shutil
import subprocess

import pytest

import host as lib

FAKE_PILLION = """#!/bin/sh
case "$*" in
*llama-completion*) cat "$LOG" >&2; echo 1. Be helpful ;;
*--quiet*) echo debian ;;
bench*) echo measured; exit ${BENCH_STATUS:-0} ;;
esac
"""
DEVICE = "0.00.1 I llama_prepare_model_devices: using device Pillion0 (a card) (unknown id) - 100 MiB free\n"
TRIED = "0.00.1 I load_tensors:     Pillion0 model buffer size =     0.00 MiB\n"
PLACED = "0.00.2 I load_tensors:     Pillion0 model buffer size =    60.12 MiB\n"
FALLBACK = "pillion: warn: no device: connect: Connection refused: the program goes on with its CPU\n"


@pytest.fixture
def demo(tmp_path):
    def run(log, bench_status=0):
        (tmp_path / "log").write_text(log)
        return subprocess.run([tmp_path / "tools" / "demo"], capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL,
                              env={**os.environ, "LOG": str(tmp_path / "log"),
                                   "BENCH_STATUS": str(bench_status),
                                   "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    for name, text in (("build/build.ninja", ""), ("build/src/cli/pillion", FAKE_PILLION),
                       ("bin/ninja", "#!/bin/sh\n"), ("tools/fetch-gemma", "#!/bin/sh\necho /m/g.gguf\n")):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    shutil.copy(lib.ROOT / "tools" / "demo", tmp_path / "tools" / "demo")
    return run


def test_demo_names_the_device_of_the_run_itself(demo):
    done = demo(DEVICE + TRIED + DEVICE + PLACED)
    assert done.returncode == 0, done.stderr
    assert "Computed by: Pillion0 (a card) (unknown id) - 100 MiB free\n60.12 MiB of weights on Pillion0\n" \
        in done.stdout
    assert "measured" in done.stdout


def test_demo_ends_well_on_a_machine_too_busy_to_be_measured(demo):
    assert demo(DEVICE + TRIED + DEVICE + PLACED, bench_status=3).returncode == 0
    assert demo(DEVICE + TRIED + DEVICE + PLACED, bench_status=1).returncode == 1


@pytest.mark.parametrize("log", [FALLBACK, DEVICE + TRIED, DEVICE,
                                 "I load_tensors:   CPU_Mapped model buffer size =    60.12 MiB\n"])
def test_demo_fails_when_the_device_was_not_used(demo, log):
    done = demo(log)
    assert done.returncode == 1 and "Computed by" not in done.stdout and "measured" not in done.stdout
    assert "demo: the program ran, but not on pillion's device" in done.stderr
    assert ("Connection refused" in done.stderr) == (log == FALLBACK)
