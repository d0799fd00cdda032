# SPDX-License-Identifier: Apache-2.0
"""null, the smallest API, through the real gate, broker and jail: what any API gets from them."""
import os
import signal
import struct
import subprocess

import pytest

import test_broker as tb
from slowness import bound
from test_broker import E_BUSY, E_NO_DEVICE, E_NO_MEMORY, NULL, OK, OPS, wait_for, world  # noqa: F401

TOOL = tb.BUILD / "tests" / "lib" / "null_tool"
RUN = 64
OWN_MAX = 8  # src/broker/executors.c

pytestmark = tb.pytestmark


def program(world, *args, token=None):  # noqa: F811
    """A program of machine "one": as it is started inside, but for where it finds the broker."""
    env = {**world.env, "PILLION_BROKER": str(world.gate(token or world.token)),
           "PILLION_TOKEN_FILE": str(world.runtime / "machines" / "one" / "token")}
    p = subprocess.Popen([TOOL, *map(str, args)], env=env, stdin=subprocess.DEVNULL, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    world.children.append(p)
    return p


def finish(p, seconds=20):
    out, err = p.communicate(timeout=bound(seconds))
    return p.returncode, out, err


def open_null(world, token=None):  # noqa: F811
    return world.open(api=NULL, token=token)


def alloc(s, n, handle=1):
    return s.command(OPS["BUFFER_ALLOC"], struct.pack("<IIQ", handle, 0, n))[0]


def test_a_program_computes_in_the_jail(world):  # noqa: F811
    world.broker()
    assert finish(program(world, 1000, 5000)) == (0, "ready\n1000 rounds\n", "")


def test_programs_see_the_devices_of_their_api_and_people_no_example(world):  # noqa: F811
    world.broker()
    (name, flags, _), = world.devices(api=NULL)
    assert name == "null" and flags & 1
    assert [d[0] for d in world.devices()] == ["Fake"]
    listed = world.list().stdout
    assert "Fake" in listed and "null" not in listed
    assert world.devices(api=(77, 1)) == []
    index, = [i for i in range(2) if world.open(i, api=NULL) not in (E_NO_DEVICE, None)]
    assert world.open(index) == E_NO_DEVICE  # not by way of ggml


def test_each_program_has_an_executor_of_its_own(world):  # noqa: F811
    world.broker()
    ggml = [world.open() for _ in range(2)]
    assert len(world.executors()) == 1
    mine = [open_null(world) for _ in range(3)]
    assert all(alloc(s, 4096) == OK for s in mine)
    assert len(world.executors()) == 4
    mine.pop().close()
    assert wait_for(lambda: len(world.executors()) == 3)
    assert all(s.works() for s in mine + ggml)
    for s in mine:
        s.close()
    assert wait_for(lambda: len(world.executors()) == 1)
    assert all(s.works() for s in ggml)


def test_a_killed_executor_ends_its_own_program_alone(world):  # noqa: F811
    world.broker()
    others = [world.open(), open_null(world)]
    before = set(world.executors())
    victim = program(world, 100_000_000)
    assert victim.stdout.readline() == "ready\n"
    its, = wait_for(lambda: set(world.executors()) - before)
    os.kill(its, signal.SIGKILL)
    status, _, err = finish(victim)
    assert (status, err.count("\n")) == (3, 1) and "its executor ended" in err
    assert all(s.works() for s in others)
    for _ in range(5):  # nobody is made to wait for it
        assert finish(program(world, 10))[0] == 0


def test_a_machine_has_a_few_executors_and_takes_none_from_others(world):  # noqa: F811
    world.broker()
    mine = [open_null(world) for _ in range(OWN_MAX)]
    assert all(s.works() for s in mine)
    assert open_null(world) == E_BUSY
    assert open_null(world, world.machine("two", b"\x22" * 32)).works()
    mine.pop().close()
    assert wait_for(lambda: not isinstance(s := open_null(world), int) and s.works())


def test_programs_that_come_and_go_leave_nothing_behind(world):  # noqa: F811
    world.broker()
    busy = 0
    for _ in range(3 * OWN_MAX):
        s = open_null(world)
        if isinstance(s, int):
            assert s == E_BUSY
            busy += 1
        else:
            s.close()
    assert wait_for(lambda: not world.executors())
    assert wait_for(lambda: not isinstance(s := open_null(world), int) and s.works())


def test_two_apis_on_one_card_have_one_quota(world):  # noqa: F811
    world.configure("quota = 8M\n")
    world.broker()
    ggml, null = world.open(), open_null(world)
    assert alloc(ggml, 5 << 20) == OK
    assert alloc(null, 5 << 20) == E_NO_MEMORY
    assert alloc(null, 2 << 20) == OK
    assert alloc(ggml, 2 << 20, 2) == E_NO_MEMORY
    null.close()
    assert wait_for(lambda: alloc(ggml, 2 << 20, 2) == OK)


@pytest.mark.parametrize("op, body", [
    (RUN, struct.pack("<II", 9, 0)),        # no such buffer
    (RUN, struct.pack("<II", 1, 0xFFFFF)),  # no such slot of an event
    (OPS["EVENT_WANT"], struct.pack("<II", 1, 0)),
    (OPS["GRAPH_FREE"], struct.pack("<II", 1, 0)),  # of another API
    (15, bytes(8)),                                 # the executor's own to send
])
def test_what_breaks_the_rules_ends_that_session(world, op, body):  # noqa: F811
    world.broker()
    other, s = open_null(world), open_null(world)
    assert alloc(s, 4096) == OK
    s.send(struct.pack("<HHI", op, 0, len(body)) + body)
    assert s.take(1) == b""
    assert other.works()
