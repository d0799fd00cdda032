# SPDX-License-Identifier: Apache-2.0
"""What a guest queues on a Unix socket stops nobody but, at worst, its own machine.

The guest's weapon: a TCP socket with SO_LINGER, whose peer, the guest's as well, takes nothing any
more.  Sent along with bytes (SCM_RIGHTS) and closed by its sender, it waits in the receiver's queue;
who takes the bytes, or closes the socket, drops the last reference and waits in the kernel.  The
receiver is stopped meanwhile, as a guest can see to by other means.

Each test runs as the kernel is, and as on one that cannot keep descriptors out of a queue.
"""
import contextlib
import os
import pathlib
import signal
import socket
import struct
import subprocess
import time

import pytest

import host as host_lib
import test_broker as tb
from host import bound, within
from test_broker import DENY, E_BUSY, E_NO_BROKER, FENCE, LIST, OK, OPEN, Stream, hello, wait_for, world  # noqa: F401

pytestmark = tb.pytestmark

SO_PASSRIGHTS = 83
OLD_KERNEL = [DENY, f"setsockopt/2/{SO_PASSRIGHTS}=ENOPROTOOPT"]


def have_passrights():
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 1)
        except OSError:
            return False
    return True


@pytest.fixture(params=["kernel", "old kernel"])
def old(request, world):
    """Whether the kernel lets the guest queue descriptors; the world's programs are under it."""
    if request.param == "old kernel":
        world.prefix = world.gate_prefix = OLD_KERNEL
        return True
    return not have_passrights()


class Lingering:
    """A TCP socket whose last close waits for its peer."""

    def __init__(self):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            self.s = socket.socket()
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            self.s.connect(listener.getsockname())
            self.peer = listener.accept()[0]
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        self.s.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.s.send(bytes(65536))

    def park(self, stream, data):
        """Queues it with @data; False: the kernel lets nobody."""
        try:
            stream.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                     struct.pack("i", self.s.fileno()))])
        except PermissionError:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            return False
        finally:
            self.s.close()
        return True

    def close(self):
        self.peer.close()


@pytest.fixture
def lingering():
    made = []

    def make():
        made.append(Lingering())
        return made[-1]
    yield make
    for each in made:
        each.close()


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def gate_of(world, token):
    world.gate(token)
    return world.gates[token][0]


def assert_all_is_well(world, other):
    """The host's question, and a new session of another machine, within a second each."""
    for question in world.list, lambda: subprocess.run([host_lib.PILLION, "--status"], env=world.env, text=True,
                                                       capture_output=True, timeout=20):
        with within(1, "the host's question"):
            done = question()
        assert done.returncode == 0 and "plain memory" in done.stdout, done.stdout + done.stderr
    with within(1, "another machine's session"):
        s = world.open(token=other)
        assert isinstance(s, Stream) and s.works()


def assert_ends_on_term(*processes):
    for p in processes:
        with within(1, "the end on SIGTERM"):
            p.terminate()
            p.wait(20)


def test_the_weapon_is_one(lingering):
    """A process that takes the bytes is stuck; without this the other tests say nothing."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while theirs.recv(1):
            pass
        os._exit(0)
    theirs.close()
    weapon = lingering()
    with stopped(child):
        assert weapon.park(ours, b"x")
    ours.close()
    time.sleep(0.5)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    weapon.close()
    assert wait_for(lambda: os.waitpid(child, os.WNOHANG)[0] == child)


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("n", [64, 128])
def test_with_part_of_a_hello_or_all_of_it(world, old, lingering, n, hangs_up):
    broker = world.broker()
    other = world.machine("two", b"\x55" * 32)
    gate = gate_of(world, world.token)
    for _ in range(3):
        s = world.stream()
        with stopped(gate.pid):
            assert lingering().park(s.s, hello(OPEN, world.token)[:n]) == old
            if hangs_up:
                s.close()
        time.sleep(0.1)
    assert_all_is_well(world, other)
    assert_all_is_well(world, world.token)  # its own machine, too
    assert_ends_on_term(gate, broker)


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("token", [None, bytes(32)])
def test_behind_a_hello_that_the_broker_has(world, old, lingering, token, hangs_up):
    broker = world.broker()
    other = world.machine("two", b"\x55" * 32)
    world.open(token=other)
    gate = gate_of(world, world.token)
    with stopped(broker.pid):
        s = world.stream().send(hello(OPEN, token or world.token))
        time.sleep(0.3)  # it is the broker's by now
        assert lingering().park(s.s, b"x" * 8) == old
        if hangs_up:
            s.close()
    time.sleep(0.3)
    assert_all_is_well(world, other)
    assert_ends_on_term(gate, broker)


@pytest.mark.parametrize("hangs_up", [False, True])
def test_behind_a_session_too_many(world, old, lingering, hangs_up):
    world.broker()
    other = world.machine("two", b"\x55" * 32)
    sessions = [world.open() for _ in range(64)]
    executor, = world.executors()
    with stopped(executor):
        streams = []
        for _ in range(3):
            streams.append(world.stream().send(hello(OPEN, world.token)))
            assert streams[-1].answer() == (OK, 0)  # it is the executor's by now
            assert lingering().park(streams[-1].s, b"x" * 8) == old
            if hangs_up:
                streams[-1].close()
    if not hangs_up:
        assert struct.unpack_from("<IHH", streams[0].take(8))[2] == E_BUSY
    assert_all_is_well(world, other)
    assert world.executors() == [executor] and sessions[0].works()
    os.kill(executor, signal.SIGTERM)
    assert wait_for(lambda: executor not in world.executors(), 1)
    assert_ends_on_term(gate_of(world, world.token))


def test_in_a_session_is_its_own_affair(world, old, lingering):
    broker = world.broker()
    other = world.machine("two", b"\x55" * 32)
    s = world.open()
    executor, = world.executors()
    with stopped(executor):
        assert lingering().park(s.s, struct.pack("<HHIQ", FENCE, 0, 8, 0))  # memory is passed so
    assert_all_is_well(world, other)
    assert world.open().works()
    os.kill(executor, signal.SIGTERM)
    assert wait_for(lambda: executor not in world.executors(), 1)
    assert_ends_on_term(gate_of(world, world.token), broker)


def test_gate_says_that_it_is_there_whatever_it_has_to_drop(world, old, lingering):
    world.broker()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    token = world.machine("three", b"\x66" * 32)
    path = world.runtime / "machines" / "three" / "guest" / "broker.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        gate = subprocess.Popen([*world.gate_prefix, tb.GATE, "--machine", "three", "--listen-fd",
                                 str(listener.fileno()), "--control-fd", str(theirs.fileno())],
                                env=world.env, pass_fds=[listener.fileno(), theirs.fileno()])
    world.children.append(gate)
    theirs.close()
    world.gates[token] = gate, path
    ours.settimeout(bound(1))
    for _ in range(3):
        ours.send(b"?")
        assert ours.recv(8) == b"?"
        with stopped(gate.pid):
            parked = [lingering().park(world.stream(token=token).s, b"PILN") for _ in range(3)]
        assert parked == ([True] * 3 if old else parked)
    ours.close()
    assert gate.wait(bound(5)) == 0  # the machine is over


# ---- those that do not answer ----

def test_without_a_broker_a_program_is_told_so_and_waits_once(world):
    p = world.broker()
    assert world.open().works()
    p.kill()
    p.wait(5)
    with within(3, "all questions of a program"):
        statuses = [world.open() for _ in range(4)] + [world.stream(LIST).answer()[0] for _ in range(4)]
    assert statuses == [E_NO_BROKER] * 8
    world.broker()
    assert world.open().works()


def test_program_that_asks_while_the_broker_is_replaced_gets_its_device(world):
    p = world.broker()
    gate_of(world, world.token)
    p.kill()
    p.wait(5)
    streams = [world.stream(want) for want in (LIST, OPEN, LIST)]
    time.sleep(0.2)
    world.broker()
    assert [s.answer()[0] for s in streams] == [OK] * 3


def test_broker_that_is_stuck_is_replaced(world):
    p = world.broker()
    s = world.open()
    assert s.works()
    os.kill(p.pid, signal.SIGSTOP)
    start = time.monotonic()
    done = world.list()
    assert done.returncode == 0 and "Fake" in done.stdout, done.stderr
    assert time.monotonic() - start < bound(9)
    assert p.wait(1) == -signal.SIGKILL
    assert world.broker_pid() not in (0, p.pid)
    assert s.works() and world.open().works()


def test_broker_that_only_starts_is_left_alone(world):
    world.configure("env = FAKE_GGML_SLOW=1\n")
    p = world.broker()
    (world.runtime / "broker.pid").write_text("")  # as before it serves
    os.kill(p.pid, signal.SIGSTOP)
    done = world.list()
    assert done.returncode == 1 and "nobody answers" in done.stderr
    os.kill(p.pid, signal.SIGCONT)
    assert wait_for(world.ping) and p.poll() is None


def test_executor_that_is_stuck_is_replaced(world):
    world.broker()
    s = world.open()
    assert s.works()
    executor, = world.executors()
    os.kill(executor, signal.SIGSTOP)
    s.s.settimeout(bound(20))
    assert s.take(1) == b""
    assert wait_for(lambda: isinstance(world.open(), Stream))
    assert executor not in world.executors() and len(world.executors()) == 1
    assert "does not answer" in world.log()


def test_executor_ends_on_term(world):
    world.broker()
    s = world.open()
    assert s.works()
    executor, = world.executors()
    os.kill(executor, signal.SIGTERM)
    assert wait_for(lambda: executor not in world.executors(), 1)
    assert s.take(1) == b""


# ---- the command line, when root of the machine is its agent ----

SIGNAL, STARTED, STDOUT = 4, 5, 7


FORWARD = host_lib.BUILD / "src" / "machine" / "pillion-forward"


def test_forwarder_ends_on_term_whatever_the_guest_does(world, lingering):
    port = host_lib.free_port()
    with socket.socket(socket.AF_UNIX) as guest:  # takes no connection: the next one of ours waits
        guest.bind(str(world.base / "forward.sock"))
        guest.listen(0)
        p = subprocess.Popen([FORWARD, world.base / "forward.sock"], stdin=subprocess.PIPE)
        world.children.append(p)
        p.stdin.write(struct.pack("<HH", 1, port))
        p.stdin.flush()
        assert wait_for(lambda: port in host_lib.listening_ports())
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        assert wait_for(lambda: len(host_lib.children(p.pid)) == 4)
        relays = host_lib.children(p.pid)
        assert_ends_on_term(p)
        assert wait_for(lambda: not any(map(host_lib.name_of, relays)), 1)
        for c in callers:
            c.close()


def frame(kind, data=b""):
    return struct.pack("<B3xI", kind, len(data)) + data


class Agent:
    """Root of a machine in the place of its agent, with one command line attached."""

    def __init__(self, world, prefix, **kwargs):
        folder = world.runtime / "machines" / "debian"
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "agent.sock"))
            listener.listen(1)
            env = {**world.env, "XDG_DATA_HOME": str(host_lib.installed_data())}
            self.p = subprocess.Popen([*prefix, host_lib.PILLION, "-d", "debian", "-e", "true"], env=env,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/", **kwargs)
            world.children.append(self.p)
            self.s = listener.accept()[0]
        self.s.recv(1 << 16)
        self.s.sendall(frame(STARTED) + frame(STDOUT, b"up\n"))
        assert self.p.stdout.readline() == b"up\n"


@pytest.mark.parametrize("signals", [[signal.SIGINT] * 3, [signal.SIGTERM] * 2, [signal.SIGHUP] * 2])
def test_command_line_ends_when_told_to(world, old, lingering, signals):
    agent = Agent(world, world.prefix)
    with stopped(agent.p.pid):
        for _ in range(2):
            assert lingering().park(agent.s, frame(STDOUT, b"more\n")) == old
    for number in signals:
        time.sleep(0.4)  # two that wait at once are one
        start = time.monotonic()
        agent.p.send_signal(number)
    assert agent.p.wait(bound(3)) == 128 + signals[-1]
    assert time.monotonic() - start < bound(1)


def does_nothing(agent, lingering, old):
    pass


def queues_descriptors(agent, lingering, old):
    with stopped(agent.p.pid):
        for _ in range(2):
            assert lingering().park(agent.s, frame(STDOUT, b"more\n")) == old


def stops_in_a_frame(agent, lingering, old):
    agent.s.sendall(frame(STDOUT, b"more\n")[:9])
    time.sleep(0.6)


def prints_what_nobody_reads(agent, lingering, old):
    agent.s.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            agent.s.send(frame(STDOUT, bytes(32768)))


def answers_what_nobody_asked(agent, lingering, old):
    agent.s.sendall(frame(6, struct.pack("<I", 0xffffffff)) * 100)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("guest", [does_nothing, queues_descriptors, stops_in_a_frame, prints_what_nobody_reads,
                                   answers_what_nobody_asked])
def test_command_line_ends_on_one_signal_whatever_the_guest_does(world, old, lingering, number, guest):
    agent = Agent(world, world.prefix, stderr=subprocess.PIPE)
    guest(agent, lingering, old)
    assert agent.p.poll() is None
    with within(1, "the end of the command line"):
        agent.p.send_signal(number)
        assert agent.p.wait(20) == 128 + number
    assert len(agent.p.stderr.read().splitlines()) <= 1


def test_command_line_that_ends_without_its_command_says_so(world):
    agent = Agent(world, [], stderr=subprocess.PIPE)
    agent.p.terminate()
    assert agent.p.wait(20) == 128 + signal.SIGTERM
    assert b"has been told to end" in agent.p.stderr.read()


def test_command_that_ends_when_told_to_gives_its_own_status(world):
    agent = Agent(world, [], stderr=subprocess.PIPE)
    agent.p.terminate()
    passed_on, heard = frame(SIGNAL, struct.pack("<I", signal.SIGTERM)), b""
    while passed_on not in heard:
        more = agent.s.recv(1 << 16)
        assert more
        heard += more
    time.sleep(0.3)
    agent.s.sendall(frame(STDOUT, b"bye\n") + frame(9, struct.pack("<I", 5)))
    assert agent.p.wait(20) == 5
    assert agent.p.stdout.read() == b"bye\n" and agent.p.stderr.read() == b""


def test_command_line_goes_on_when_descriptors_come(world, old, lingering):
    agent = Agent(world, world.prefix)
    with stopped(agent.p.pid):
        if not lingering().park(agent.s, frame(STDOUT, b"more\n")):
            agent.s.sendall(frame(STDOUT, b"more\n"))
    assert agent.p.stdout.readline() == b"more\n"
    agent.s.sendall(frame(9, struct.pack("<I", 7)))
    assert agent.p.wait(bound(3)) == 7
