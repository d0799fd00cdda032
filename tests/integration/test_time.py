# SPDX-License-Identifier: Apache-2.0
"""What a machine can take of a device's time from another one, on the real ggml: hostile programs
speak to a real broker and executor."""
import os
import struct
import threading
import time

import pytest

import host as lib
import wire

MAX_WAIT_S = 2.0


@pytest.fixture
def device(host):
    host.env["PILLION_LOG"] = "info"
    host.start_broker()
    return host


def session(host, machine):
    token = bytes.fromhex(host.machine(machine).read_text().strip())
    s = wire.Session(host.gate(machine) / "broker.sock", token)
    assert s.status == 0
    return s


def products(s, graph, n, rows, count=1):
    """@count products of n x n with n x rows, one after the other into the same place."""
    a, b, c = 0, 4 * n * n, 4 * n * n + 4 * n * rows
    leafs = [wire.tensor("NONE", a, (n, n)), wire.tensor("NONE", b, (n, rows))]
    nodes = [wire.tensor("MUL_MAT", c, (n, rows), (1, 2)) for _ in range(count)]
    s.define(graph, *leafs, *nodes)
    return 4 * n * n + 8 * n * rows


def rows_for(s, n, seconds):
    """So many rows that one product takes about as long."""
    products(s, 9, n, 64)
    s.run(9)
    took = min(s.run(9)[1] for _ in range(5))
    return max(1, int(seconds * 1e6 / took * 64))


def hog_with(device, n, rows, count):
    hog = session(device, "hog")
    hog.alloc(8 * n * n + 12 * n * max(rows, 64) + 4096)
    products(hog, 1, n, rows, count)
    return hog


def longest_wait(victim, seconds):
    """Longest and number of runs of graph 1 within @seconds."""
    longest, end, n = 0, time.monotonic() + seconds, 0
    while time.monotonic() < end:
        start = time.monotonic()
        assert victim.run(1)[0] == 0
        longest = max(longest, time.monotonic() - start)
        n += 1
        time.sleep(0.05)
    return longest, n


def small(device, machine="victim"):
    s = session(device, machine)
    s.alloc(8 << 20)
    products(s, 1, 128, 64)
    assert s.run(1)[0] == 0
    return s


@pytest.mark.parametrize("kind", ["one node", "many nodes"])
def test_second_machine_waits_for_no_graph(device, kind):
    victim = small(device)
    n = 1024
    probe = hog_with(device, n, 64, 1)
    rows = rows_for(probe, n, 8 if kind == "one node" else 0.4)
    rows = min(rows, 200000)
    probe.close()
    hog = hog_with(device, n, rows, 1 if kind == "one node" else 20)
    assert hog.ask("FENCE")[1] == 0
    hog.start(1)
    time.sleep(0.2)
    longest, asked = longest_wait(victim, 6)
    assert asked > 3
    assert longest < MAX_WAIT_S
    failed, used = hog.answer()[1:3]
    assert failed == 0
    assert used > 1.5e6, "the hog was none"


def test_pieces_of_a_node_are_the_node(device):
    """A product that is run in pieces gives what its columns give, each run by itself."""
    n = 512
    s = session(device, "m")
    s.alloc(600 << 20)
    rows = min(rows_for_data(s, n), 60000)
    end = products(s, 1, n, rows)
    assert end < 600 << 20
    assert s.run(1)[0] == 0
    c = 4 * n * n + 4 * n * rows
    for first in (0, rows // 2, rows - 32):
        whole = s.ask("GET", struct.pack("<IIQQ", 1, 0, c + 4 * n * first, 4 * n * 32))[3]
        s.define(2, wire.tensor("NONE", 0, (n, n)),
                 wire.tensor("NONE", 4 * n * n + 4 * n * first, (n, 32)),
                 wire.tensor("MUL_MAT", end, (n, 32), (1, 2)))
        assert s.run(2)[0] == 0
        assert s.ask("GET", struct.pack("<IIQQ", 1, 0, end, 4 * n * 32))[3] == whole
        assert any(whole)


def rows_for_data(s, n):
    """Data into both factors, and rows for more than a second."""
    block = struct.pack("<1024f", *((i * 37 % 101 - 50) / 50 for i in range(1024)))
    for at in range(0, 130 << 20, 4 << 20):
        s.send("SET", struct.pack("<IIQ", 1, 0, at) + block * 1024)
    return rows_for(s, n, 1.5)


class Asking(threading.Thread):
    """Runs graph 1 until @end; connects anew after each run if @anew."""

    def __init__(self, open_session, end, anew=False):
        super().__init__()
        self.open_session, self.end, self.anew = open_session, end, anew
        self.used, self.runs = 0, 0

    def run(self):
        s = self.open_session()
        while time.monotonic() < self.end:
            failed, used = s.run(1)
            assert failed == 0
            self.used += used
            self.runs += 1
            if self.anew:
                s.close()
                s = self.open_session()
        s.close()


def sized(device, machine, n, seconds, count=1):
    """A function that opens a session whose graph 1 takes about @seconds."""
    probe = hog_with(device, n, 64, 1)
    rows = rows_for(probe, n, seconds / count)
    probe.close()

    def open_session():
        s = session(device, machine)
        s.alloc(8 * n * n + 12 * n * rows + 4096)
        products(s, 1, n, rows, count)
        return s
    return open_session


@pytest.mark.parametrize("anew", [False, True])
def test_short_graphs_beside_long_ones_have_their_share(device, anew):
    short = sized(device, "short", 512, 0.005)
    long = sized(device, "long", 1024, 0.5, 5)
    end = time.monotonic() + min(lib.bound(10), 30)
    a, b = Asking(short, end), Asking(long, end, anew)
    a.start()
    b.start()
    a.join()
    b.join()
    assert a.used / (a.used + b.used) >= 0.4, f"{a.used} us in {a.runs}, {b.used} us in {b.runs}"


@pytest.mark.parametrize("seconds", [0.02, 0.3])
def test_twice_the_weight_is_twice_the_time(device, seconds):
    device.machine("heavy", weight=200)
    heavy, usual = (sized(device, machine, 512, seconds, 3) for machine in ("heavy", "usual"))
    end = time.monotonic() + min(lib.bound(10), 30)
    a, b = Asking(heavy, end), Asking(usual, end)
    a.start()
    b.start()
    a.join()
    b.join()
    assert 1.6 <= a.used / b.used <= 2.4, f"{a.used} us in {a.runs}, {b.used} us in {b.runs}"


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def billed_seconds(host, machine):
    """By the log, when its last session has ended."""
    line = [x for x in host.broker_log.read_text().splitlines()
            if f"machine {machine} has used" in x][-1]
    return int(line.split()[-2]) / 1000


def announce(s):
    n = 60000
    s.alloc(32 * n)
    for i in reversed(range(n)):
        s.send("WEIGHT", struct.pack("<IIQ4qII", 1, wire.F32, 32 * i, 8, 1, 1, 1, 1, 0))


def patch(s):
    s.alloc(4096)
    x = wire.tensor("NONE", 0, (8,))
    s.define(1, x, *[wire.tensor("SQR", 64 * (i % 8), (8,), (1,)) for i in range(20000)])
    for i in range(40):
        s.send("GRAPH_PATCH", struct.pack("<IIIHHQ", 1, 1, 0, 2, 1, 0))


@pytest.mark.parametrize("what", [announce, patch])
def test_processor_time_outside_of_turns_is_billed(device, what):
    s = session(device, "busy")
    assert s.ask("FENCE")[0] == 0
    pid = device.executors()[0]
    before = cpu_seconds(pid)
    what(s)
    assert s.ask("FENCE")[1] == 0
    took = cpu_seconds(pid) - before
    s.close()
    lib.wait_for("the bill", lambda: "machine busy has used" in device.broker_log.read_text())
    assert took < 10
    assert billed_seconds(device, "busy") > 0.7 * took - 0.2
