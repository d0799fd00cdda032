# SPDX-License-Identifier: Apache-2.0
"""What the graph check lets through does no harm to the real ggml of the Debian tree."""
import os
import re
import subprocess
import time

import pytest

import host as lib

SECONDS = int(os.environ.get("PILLION_STRESS_SECONDS", "15"))


def run_graph(tree, *args, timeout=SECONDS + 120):
    argv = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--ro-bind", tree, "/",
            "--dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/run",
            "--ro-bind", lib.BUILD / "tests" / "lib" / "run_graph", "/run/run_graph",
            "--", "/run/run_graph", *args]
    return subprocess.run(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout,
                          env={**os.environ, "PILLION_SLOWNESS": f"{lib.slowness():.1f}"})


def test_no_graph_that_passes_crashes_ggml(tree):
    seed = os.environ.get("PILLION_STRESS_SEED", "1")  # the same graphs each time; "time": others
    if seed == "time":
        seed = time.time_ns() & ((1 << 48) - 1)
    done = run_graph(tree, "--seconds", str(SECONDS), "--threads", "3", "--seed", str(seed))
    assert done.returncode == 0, done.stdout[-4000:]
    ran, ops = map(int, re.search(r"(\d+) run, (\d+) operations, 0 crashes", done.stdout).groups())
    assert ran > 1000 and ops >= 80, done.stdout[-1000:]


def test_pieces_of_a_node_are_the_node(tree):
    """One thread: rows that are set twice are a race of several, whole or in pieces."""
    done = run_graph(tree, "--cut", "--seconds", "25", "--threads", "1")
    assert done.returncode == 0, done.stdout[-4000:]
    cut = dict(re.findall(r"^cut (\w+): (\d+), 0 differ$", done.stdout, re.M))
    assert "differs" not in done.stdout, done.stdout[-4000:]
    assert len(cut) >= 30 and sum(map(int, cut.values())) > 500, done.stdout[-3000:]


# Numbers too small for fast paths make a step of a scan a hundred times as long.  To say so would
# be to refuse what models do.
LONGER = {"SSM_SCAN": 4}


def too_slow(tree, *args, seconds=45, operations=80):
    """The operations that took longer than was said, in one look at all of them."""
    done = run_graph(tree, "--time", "--seconds", str(seconds), *args, timeout=seconds + 120)
    assert done.returncode == 0, done.stdout[-4000:]
    worst = {op: float(x) for op, x in
             re.findall(r"^(\w+) +\d+ runs, [\d.]+ to ([\d.]+) of", done.stdout, re.M)}
    assert len(worst) >= operations, done.stdout[-3000:]
    return {op: x for op, x in worst.items() if x > LONGER.get(op, 2)}


def test_no_operation_takes_longer_than_the_check_says(tree):
    """What is said is for a CPU half as fast as one core here; twice that is for a busy host.  run_graph looks at
    the core before each graph and takes off what it is slower than that.  Neighbours can take the memory for a
    moment: what is too slow is so in each of three looks."""
    slow = too_slow(tree)
    for _ in range(2):
        slow = {op: x for op, x in too_slow(tree).items() if op in slow} if slow else slow
    assert not slow


@pytest.mark.soak
def test_no_operation_takes_longer_than_the_check_says_at_full_size(tree):
    """Nodes of 0.7 to 4.2 s, the most that is allowed in one piece, of each operation that gets there."""
    assert not too_slow(tree, "--said", "700", seconds=900, operations=40)
