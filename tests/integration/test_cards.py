# SPDX-License-Identifier: Apache-2.0
"""Two executors of one card, with a real broker and in their real jails: what a machine gets of the
card does not depend on how many ways lead to it.

The ggml is the one made for tests, with two devices that are the same card.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import threading
import time

import pytest

from host import bound
from test_broker import BUILD, DEVICE, LIST, OK, Stream, hello, wait_for, world  # noqa: F401
import wire

MIB = 1 << 20
QUOTA = 8
NULL_RUN = 64

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


@pytest.fixture
def twins(world):  # noqa: F811
    world.configure("env = FAKE_GGML_TWIN=1\nenv = FAKE_GGML_MS=20\nreference = always\n")
    world.broker()
    world.settings("one", f"[accel]\nquota = {QUOTA}M\n")
    return world


def session(world, device, token=None, api=wire.GGML):  # noqa: F811
    token = token or world.token
    s = wire.Session(world.gate(token), token, bound(30), device, api)
    assert s.status == OK
    return s


def fill(s, handles, together=None):
    """Allocates by the MiB until that is refused."""
    if together:
        together.wait(bound(10))
    while s.ask("BUFFER_ALLOC", struct.pack("<IIQ", len(handles) + 1, 0, MIB))[0] == OK:
        handles.append(len(handles) + 1)


def drain(s, handles):
    for handle in handles:
        s.send("BUFFER_FREE", struct.pack("<II", handle, 0))
    s.ask("FENCE")
    handles.clear()


def memory(s):
    """free and total, in MiB"""
    return [n // MIB for n in struct.unpack("<QQ", s.ask("MEMORY")[3])]


def in_threads(*calls):
    threads = [threading.Thread(target=f, args=args) for f, *args in calls]
    for t in threads:
        t.start()
    for t in threads:
        t.join(bound(60))
        assert not t.is_alive()


def test_two_ways_to_a_card_have_an_executor_each_and_one_quota(twins):
    a, b = session(twins, 0), session(twins, 1)
    assert len(twins.executors()) == 2
    held = [], []
    for _ in range(20):
        together = threading.Barrier(2)
        in_threads((fill, a, held[0], together), (fill, b, held[1], together))
        assert len(held[0]) + len(held[1]) == QUOTA
        assert memory(a) == memory(b) == [0, QUOTA]
        drain(a, held[0])
        fill(b, held[1])
        assert len(held[1]) == QUOTA
        drain(b, held[1])
    assert memory(a) == memory(b) == [QUOTA, QUOTA]


def test_what_a_killed_executor_held_is_there_for_the_other(twins):
    for _ in range(2):
        a, b = session(twins, 0), session(twins, 1)
        held = [], []
        fill(a, held[0])
        assert memory(b) == [0, QUOTA]
        mine, = [p for p in twins.executors()
                 if b"Fake" in (pathlib.Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0"))]
        os.kill(mine, signal.SIGKILL)
        assert wait_for(lambda: memory(b) == [QUOTA, QUOTA])
        fill(b, held[1])
        assert len(held[1]) == QUOTA
        a.close()
        b.close()
        time.sleep(2.1)  # one that lived for long is started anew at once


def test_status_has_a_row_per_card_and_what_leads_to_it(twins):
    a, b = session(twins, 0), session(twins, 1)
    for s, mib in (a, 2), (b, 3):
        s.alloc(mib * MIB)
    done = subprocess.run([BUILD / "src" / "cli" / "pillion", "--status", "--json"], env=twins.env, text=True,
                          capture_output=True, timeout=bound(30))
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    card, = status["cards"]
    assert (card["id"], card["reference"], card["held"]) == ("cpu", True, 5 * MIB)
    assert [(w["index"], w["api"], w["name"]) for w in card["ways"]] == [(0, "ggml", "Fake"), (1, "ggml", "Fake1")]
    assert all(w["runtime"] == str(twins.ggml) for w in card["ways"])
    assert [d["card"] for d in status["devices"]] == ["cpu", "cpu"]


def test_devices_of_one_address_are_one_card_and_others_are_their_own(world):  # noqa: F811
    world.configure("env = FAKE_GGML_GPU=1\nenv = FAKE_GGML_CARD=0000:C1:00.0\nreference = always\n")
    world.broker()
    done = world.list()
    assert [line.split("\t")[1::5] for line in done.stdout.splitlines()] == [["Fake1", "0000:c1:00.0"],
                                                                            ["Fake", "cpu"]]


# ---- two APIs: ggml, and null, whose device is the host's CPU, too ----

@pytest.fixture
def two_apis(world):  # noqa: F811
    world.configure("env = FAKE_GGML_MS=20\nreference = always\n")
    world.broker()
    world.settings("one", f"[accel]\nquota = {QUOTA}M\n")
    return world


def null_session(world, token=None):  # noqa: F811
    listed = Stream(world.gate(token or world.token)).send(hello(LIST, token or world.token, api=wire.NULL))
    status, n = listed.answer()
    row = DEVICE.unpack(listed.take(DEVICE.size))
    assert (status, n) == (OK, 1) and row[4].startswith(b"null\0") and row[6].startswith(b"cpu\0")
    return session(world, row[0], token, wire.NULL)


def test_two_apis_hold_no_more_of_a_card_than_its_quota(two_apis):
    ggml, null = session(two_apis, 0), null_session(two_apis)
    held = [], []
    for _ in range(10):
        together = threading.Barrier(2)
        in_threads((fill, ggml, held[0], together), (fill, null, held[1], together))
        assert QUOTA - 1 <= len(held[0]) + len(held[1]) <= QUOTA  # null's have a few bytes more
        assert memory(ggml) == memory(null) == [0, QUOTA]
        drain(ggml, held[0])
        fill(null, held[1])
        assert len(held[1]) == QUOTA - 1
        drain(null, held[1])
    assert memory(ggml) == memory(null) == [QUOTA, QUOTA]


def null_hog(s, until, used, name):
    """Microseconds of the card, into @used[@name]."""
    s.alloc(4 * MIB)
    while time.monotonic() < until:
        for _ in range(20):
            s.s.sendall(struct.pack("<HHIII", NULL_RUN, 0, 8, 1, 0))
        answer = s.ask("GET", struct.pack("<IIQQ", 1, 0, 0, 8))  # waits for what was posted
        assert answer[:2] == (OK, OK)
        used[name] = used.get(name, 0) + answer[2]


def ggml_hog(s, until, used, name):
    s.alloc(4096)
    s.define(1, wire.tensor("NONE", 0, (8,)), wire.tensor("SQR", 64, (8,), (1,)))
    while time.monotonic() < until:
        failed, us = s.run(1)
        assert failed == OK
        used[name] = used.get(name, 0) + us


def test_a_second_api_does_not_double_a_machines_share(two_apis):
    other = two_apis.machine("other", bytes(range(1, 33)))
    until, used = time.monotonic() + bound(4), {}
    in_threads((ggml_hog, session(two_apis, 0), until, used, "ggml"),
               (null_hog, null_session(two_apis), until, used, "null"),
               (ggml_hog, session(two_apis, 0, other), until, used, "other"))
    share = (used["ggml"] + used["null"]) / sum(used.values())
    assert 0.35 < share < 0.62, used
    assert min(used.values()) > 0, used


def hog(s, until, counts, name):
    s.alloc(4096)
    s.define(1, wire.tensor("NONE", 0, (8,)), wire.tensor("SQR", 64, (8,), (1,)))
    while time.monotonic() < until:
        assert s.run(1)[0] == OK
        counts[name] = counts.get(name, 0) + 1


def test_a_second_way_to_a_card_does_not_double_a_machines_share(twins):
    other = twins.machine("other", bytes(range(1, 33)))
    until, counts = time.monotonic() + bound(4), {}
    in_threads((hog, session(twins, 0), until, counts, "first way"),
               (hog, session(twins, 1), until, counts, "second way"),
               (hog, session(twins, 0, other), until, counts, "other"))
    share = (counts["first way"] + counts["second way"]) / sum(counts.values())
    assert 0.35 < share < 0.6, counts  # two thirds where each executor gives turns of its own
    assert min(counts.values()) > 10, counts


def test_turn_of_a_killed_executor_goes_to_who_waits_elsewhere(twins):
    a, b = session(twins, 0), session(twins, 1, twins.machine("other", bytes(range(1, 33))))
    for s in a, b:
        s.alloc(4096)
        s.define(1, wire.tensor("NONE", 0, (8,)), wire.tensor("SQR", 64, (8,), (1,)))
        assert s.run(1)[0] == OK
    for _ in range(50):
        a.start(1)
    mine, = [p for p in twins.executors()
             if b"Fake" in (pathlib.Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0"))]
    os.kill(mine, signal.SIGKILL)
    start = time.monotonic()
    assert b.run(1)[0] == OK
    assert time.monotonic() - start < bound(5)


def test_executor_that_writes_over_the_ledger_harms_nobody_for_long(world):  # noqa: F811
    world.configure("env = FAKE_GGML_TWIN=1\nenv = FAKE_GGML_HOSTILE=1\nreference = always\n")
    world.broker()
    world.settings("one", f"[accel]\nquota = {QUOTA}M\n")
    victim = session(world, 0)
    hostile = session(world, 1, world.machine("hostile", bytes(range(1, 33))))
    x = [wire.tensor("NONE", 0, (8,)), wire.tensor("SQR", 64, (8,), (1,)),
         wire.tensor("SQR", 128, (8,), (1,))]
    for s, n in (victim, 3), (hostile, 2):
        s.alloc(4096)
        s.define(1, *x[:n])
    done, end = 0, time.monotonic() + bound(20)
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while time.monotonic() < end:  # it goes on until the broker ends all executors of the card
            hostile.start(1)
            held = [1]
            fill(victim, held)
            assert len(held) <= QUOTA
            drain(victim, held[1:])
            assert victim.run(1)[0] == OK
            done += 1
            hostile.answer()
    assert time.monotonic() < end and done > 0
    assert wait_for(lambda: "writes over the ledger of the others" in world.log())
    assert wait_for(lambda: world.ping())

    def works():
        with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError, AssertionError):
            held = []
            fill(session(world, 0), held)
            return len(held) == QUOTA
    assert wait_for(works, 30)
