# SPDX-License-Identifier: Apache-2.0
"""What the graph check lets through does no harm to the real ggml of the Debian tree."""
import os
import re
import subprocess
import time

import host as lib

SECONDS = int(os.environ.get("PILLION_STRESS_SECONDS", "15"))


def run_graph(tree, *args):
    argv = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--ro-bind", tree, "/",
            "--dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/run",
            "--ro-bind", lib.BUILD / "tests" / "lib" / "run_graph", "/run/run_graph",
            "--", "/run/run_graph", *args]
    return subprocess.run(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=SECONDS + 120,
                          env={**os.environ, "PILLION_SLOWNESS": f"{lib.slowness():.1f}"})


def test_no_graph_that_passes_crashes_ggml(tree):
    seed = os.environ.get("PILLION_STRESS_SEED", "1")  # the same graphs each time; "time": others
    if seed == "time":
        seed = time.time_ns() & ((1 << 48) - 1)
    done = run_graph(tree, "--seconds", str(SECONDS), "--threads", "3", "--seed", str(seed))
    assert done.returncode == 0, done.stdout[-4000:]
    ran, ops = map(int, re.search(r"(\d+) run, (\d+) operations, 0 crashes", done.stdout).groups())
    assert ran > 1000 and ops >= 80, done.stdout[-1000:]
