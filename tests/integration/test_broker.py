# SPDX-License-Identifier: Apache-2.0
"""pillion-broker and pillion-exec as processes, spoken to over their socket.

The executor runs a ggml made for tests (tests/lib/fake_libggml.c), in its real jail; where the
runtime kit is installed, one test uses that as well.
"""
import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest

import host as host_lib
from host import bound, within
import wire

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(os.environ.get("PILLION_BUILD", ROOT / "build"))
BROKER = BUILD / "src" / "broker" / "pillion-broker"
GATE = BUILD / "src" / "broker" / "pillion-gate"
FAKE_GGML = BUILD / "tests" / "lib" / "ggml"
DENY = BUILD / "tests" / "lib" / "deny"

MAGIC, VERSION = 0x4E4C4950, 2
GGML, NULL = (1, 1), (2, 1)  # an API and its version
LIST, OPEN = 1, 2
PING = 1  # on the broker's own socket
OK, E_VERSION, E_TOKEN, E_NO_DEVICE, E_EXECUTOR, E_BUSY, E_NO_MEMORY, E_FAILED, E_UNSUPPORTED, E_INVALID, E_SETTINGS, E_NO_BROKER, E_API = range(13)
OPS = wire.OPS
MEMORY, BUFFER_ALLOC, FENCE = OPS["MEMORY"], OPS["BUFFER_ALLOC"], OPS["FENCE"]
DEVICE = struct.Struct("<IIQQ64s128s32sHHI16s")
WELCOME_BYTES = 48  # before the body of the API's own

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


def processes(needle):
    """Pids of the processes whose command line contains @needle."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if any(needle in w.decode(errors="replace") for w in words):
                found.append(int(entry.name))
    return found


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(what, seconds=10.0):
    start = time.monotonic()
    while True:
        value = what()
        if value or time.monotonic() - start > bound(seconds):
            return value
        time.sleep(0.02)


class Stream:
    def __init__(self, path, timeout=10):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.settimeout(bound(timeout))
        self.s.connect(str(path))

    def send(self, data):
        self.s.sendall(data)
        return self

    def take(self, n):
        """Exactly n bytes, or what came before the end of the stream."""
        data = b""
        while len(data) < n:
            try:
                more = self.s.recv(n - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                break
            data += more
        return data

    def answer(self):
        data = self.take(16)
        if len(data) < 16:
            return None
        magic, _, status, n, _ = struct.unpack("<IHHII", data)
        assert magic == MAGIC
        return status, n

    def command(self, op, body=bytes(8)):
        """Sends one frame and returns (status, value, data) of its answer."""
        self.send(struct.pack("<HHI", op, 0, len(body)) + body)
        head = self.take(24)
        if len(head) < 24:
            return None
        its_op, status, _, _, value, n, _ = struct.unpack("<HHHHQII", head)
        assert its_op == op
        return status, value, self.take(n)

    def works(self):
        """Does the session answer?"""
        answer = self.command(FENCE)
        return answer is not None and answer[0] == OK

    def close(self):
        self.s.close()


def hello(want, token, device=0, magic=MAGIC, version=VERSION, api=GGML):
    return struct.pack("<IHH32sI64sHH16x", magic, version, want, token, device, b"test", *api)


class World:
    """State folders of their own, and the brokers and executors that belong to them."""

    def __init__(self, base, config=""):
        self.base = pathlib.Path(base)
        self.env = {**os.environ, "PILLION_LOG": "info"}
        for name in ("DATA_HOME", "RUNTIME_DIR", "CACHE_HOME", "CONFIG_HOME"):
            folder = self.base / name[:3].lower()
            folder.mkdir(exist_ok=True)
            self.env[f"XDG_{name}"] = str(folder)
        self.runtime = self.base / "run" / "pillion"
        self.socket = self.runtime / "broker.sock"
        # a copy, so that the folder's name is in the executors' command lines and is ours alone
        self.ggml = self.base / "ggml"
        self.ggml.mkdir(exist_ok=True)
        for name in ("libggml.so", "libggml-base.so"):
            shutil.copy(FAKE_GGML / name, self.ggml / name)
        self.configure(config)
        self.children = []
        self.prefix = []
        self.gate_prefix = []
        self.gate_program = GATE
        self.gates = {}  # token -> (process, path of the socket)
        self.token = self.machine("one", bytes(range(32)))

    def configure(self, text):
        folder = self.base / "con" / "pillion"
        folder.mkdir(exist_ok=True)
        (folder / "config").write_text(f"[accel]\nggml_dir = {self.ggml}\n{text}")

    def machine(self, name, token, **files):
        folder = self.runtime / "machines" / name
        folder.mkdir(parents=True, exist_ok=True)
        for part in (self.runtime, self.runtime / "machines"):
            part.chmod(0o700)
        (folder / "token").write_text(token.hex() + "\n")
        for file, text in files.items():
            (folder / file).write_text(text)
        return token

    def settings(self, name, text):
        folder = self.base / "dat" / "pillion" / "distros" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "machine.conf").write_text(text)

    def gate(self, token):
        """The socket of the machine that has this token; its gate is started when first asked."""
        if token not in self.gates:
            name, = [p.parent.name for p in self.runtime.glob("machines/*/token")
                     if p.read_text() == token.hex() + "\n"]
            path = self.runtime / "machines" / name / "guest" / "broker.sock"
            path.parent.mkdir(exist_ok=True)
            if len(str(path)) > 100:  # the address of a socket has 108 bytes
                short = self.base / f"g{len(self.gates)}"
                short.symlink_to(path.parent)
                path = short / path.name
            with socket.socket(socket.AF_UNIX) as s, open(self.base / "log", "ab") as log:
                s.bind(str(path))
                s.listen(4096)
                path.chmod(0o666)
                p = subprocess.Popen([*self.gate_prefix, self.gate_program, "--machine", name, "--listen-fd",
                                      str(s.fileno())], env=self.env, pass_fds=[s.fileno()],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.children.append(p)
            self.gates[token] = p, path
        return self.gates[token][1]

    def start(self, *args):
        log = open(self.base / "log", "ab")
        p = subprocess.Popen([*self.prefix, BROKER, *args], env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                             stderr=log)
        self.children.append(p)
        return p

    def broker(self, *args):
        """A broker of this world that answers."""
        p = self.start(*args)
        assert wait_for(lambda: p.poll() is not None or self.answers()), "no broker"
        assert p.poll() is None, self.log()
        return p

    def ping(self, timeout=5):
        """Does the broker answer a process of the host?"""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(timeout)
            try:
                s.connect(str(self.socket))
                s.send(struct.pack("<I204x", PING))
                return len(s.recv(65536)) == 16
            except OSError:
                return False

    def answers(self):
        try:
            return self.ping() and self.stream(LIST).answer() is not None
        except OSError:
            return False

    def log(self):
        texts = [p.read_text(errors="replace") for p in
                 (self.base / "log", self.runtime / "broker.log") if p.exists()]
        return "\n".join(texts)

    def stream(self, want=None, device=0, token=None, timeout=10, api=GGML):
        token = token or self.token
        s = Stream(self.gate(token), timeout)
        if want:
            s.send(hello(want, token, device, api=api))
        return s

    def open(self, device=None, token=None, api=GGML):
        """A session, its welcome read; or the status with which it was refused."""
        if device is None:  # the first that this API reaches
            device = self.rows(api)[0][0] if api != GGML else 0
        s = self.stream(OPEN, device, token, api=api)
        answer = s.answer()
        if answer is None or answer[0] != OK:
            return answer and answer[0]
        welcome = s.take(WELCOME_BYTES)
        if len(welcome) < WELCOME_BYTES:
            return E_EXECUTOR
        status, _, body_bytes = struct.unpack_from("<HII", welcome, 6)
        s.body = s.take(body_bytes)
        s.memory_total, s.memory_free = struct.unpack_from("<QQ", welcome, 32)
        return s if status == OK else status

    def rows(self, api=GGML):
        s = self.stream(LIST, api=api)
        status, n = s.answer()
        assert status == OK
        rows = [DEVICE.unpack(s.take(DEVICE.size)) for _ in range(n)]
        assert s.take(1) == b""
        return rows

    def devices(self, api=GGML):
        return [(r[4].rstrip(b"\0").decode(), r[1], r[2]) for r in self.rows(api)]

    def executors(self):
        """Pids of executors proper, not of the bwrap around each."""
        return [p for p in processes(str(self.ggml)) if host_lib.name_of(p) == "pillion-exec"]

    def broker_pid(self):
        try:
            return int((self.runtime / "broker.pid").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def list(self):
        return subprocess.run([BROKER, "--list"], env=self.env, text=True, capture_output=True,
                              timeout=30)

    def finish(self):
        pid = self.broker_pid()
        if pid and pid in processes("pillion-broker"):
            host_lib.signal_all([pid])
        for p in self.children:
            p.kill()
            p.wait(10)
        host_lib.signal_all(processes(str(self.ggml)))


@pytest.fixture
def world():
    # not tmp_path: its name is too long for the address of a socket
    with tempfile.TemporaryDirectory(prefix="pb-") as base:
        w = World(base)
        try:
            yield w
        finally:
            w.finish()


def test_list_names_the_device_as_the_reference_device(world):
    world.broker()
    assert world.devices() == [("Fake", 1, 64 << 20)]


def test_calls_that_a_filter_denies_are_not_needed(world):
    world.prefix = [DENY, "close_range=ENOSYS,openat2=ENOSYS,pidfd_open=EPERM"]
    p = world.broker()
    assert world.open().works()
    p.terminate()
    assert p.wait(10) == 0
    assert wait_for(lambda: not processes(str(world.ggml)))


def test_gate_without_descriptors_waits_for_them(world):
    world.gate_prefix = ["prlimit", "--nofile=24"]
    world.broker()
    world.stream().close()
    p = world.gates[world.token][0]
    silent = [world.stream() for _ in range(60)]
    before = cpu_seconds(p.pid)
    time.sleep(1)
    assert cpu_seconds(p.pid) - before < 0.3, "it spins"
    for s in silent:
        s.close()
    assert wait_for(world.answers) and p.poll() is None
    assert world.open().works()


def test_without_a_filter_for_executors_there_is_no_broker(world):
    world.prefix = [DENY, "memfd_create=EMFILE"]
    assert world.start().wait(10) == 1
    assert "seccomp filter: Too many open files" in world.log()


def test_gpu_is_listed_alone_and_the_reference_device_last_on_request(world):
    world.configure("env = FAKE_GGML_GPU=1\n")
    p = world.broker()
    assert [d[0] for d in world.devices()] == ["Fake1"]
    world.configure("env = FAKE_GGML_GPU=1\nreference = always\n")
    p.send_signal(signal.SIGHUP)
    assert wait_for(lambda: world.answers() and len(world.devices()) == 2)
    assert [d[:2] for d in world.devices()] == [("Fake1", 0), ("Fake", 1)]
    assert p.poll() is None
    assert world.open(0).works() and world.open(1).works()
    assert len(world.executors()) == 2


def test_the_table_is_kept_until_what_it_depends_on_changes(world):
    world.configure("env = FAKE_GGML_LINE=probed\n")
    for _ in range(2):
        p = world.broker()
        p.terminate()
        p.wait(10)
    assert world.log().count(": probed") == 1
    world.configure("env = FAKE_GGML_LINE=probed again\n")
    world.broker()
    assert world.log().count(": probed again") == 1


def test_open_hands_over_to_an_executor_that_serves(world):
    world.broker()
    s = world.open()
    assert s.works()
    status, _, data = s.command(MEMORY)
    assert status == OK and struct.unpack("<QQ", data)[1] == 64 << 20
    other = world.open()
    assert other.works() and s.works()
    assert len(world.executors()) == 1


def test_commands_sent_along_with_the_hello_reach_the_executor(world):
    world.broker()
    s = world.stream()
    s.send(hello(OPEN, world.token) + struct.pack("<HHIQ", FENCE, 0, 8, 0))
    assert s.answer() == (OK, 0)
    welcome = s.take(WELCOME_BYTES)
    assert len(welcome) == WELCOME_BYTES
    s.take(struct.unpack_from("<I", welcome, 12)[0])
    assert struct.unpack("<HH", s.take(24)[:4]) == (FENCE, OK)


@pytest.mark.parametrize("what, bytes_, expected", [
    ("magic", lambda t: hello(OPEN, t, magic=1), None),
    ("version", lambda t: hello(OPEN, t, version=9), (E_VERSION, 0)),
    ("token", lambda t: hello(OPEN, bytes(32)), (E_TOKEN, 0)),
    ("want", lambda t: hello(7, t), None),
    ("device", lambda t: hello(OPEN, t, device=5), (E_NO_DEVICE, 0)),
    ("no API", lambda t: hello(LIST, t, api=(0, 0)), None),
    ("another API's device", lambda t: hello(OPEN, t, api=(77, 1)), (E_NO_DEVICE, 0)),
    ("another version of the API", lambda t: hello(OPEN, t, api=(1, 9)), (E_API, 0)),
    ("device", lambda t: hello(OPEN, t, device=0xFFFFFFFF), (E_NO_DEVICE, 0)),
    ("garbage", lambda t: os.urandom(4096), None),
])
def test_wrong_hello_is_refused_and_others_go_on(world, what, bytes_, expected):
    world.broker()
    session = world.open()
    s = world.stream()
    with contextlib.suppress(BrokenPipeError):
        s.send(bytes_(world.token))
    assert s.answer() == expected
    assert s.take(1) == b""
    assert session.works() and world.open().works()
    assert "hello refused" in world.log()


def test_a_token_is_good_at_the_socket_of_its_machine_alone(world):
    world.broker()
    other = world.machine("two", b"\x55" * 32)
    for token, at in ((world.token, other), (other, world.token)):
        for want in (LIST, OPEN):
            s = Stream(world.gate(at))
            s.send(hello(want, token))
            assert s.answer() == (E_TOKEN, 0)


def test_a_token_is_good_only_while_its_machine_is_there(world):
    world.broker()
    token = world.machine("two", b"\x55" * 32)
    assert world.open(token=token).works()
    (world.runtime / "machines" / "two" / "token").unlink()
    assert world.open(token=token) == E_TOKEN


def test_clients_that_dawdle_delay_nobody(world):
    world.broker()
    slow = [world.stream() for _ in range(100)]
    for s in slow:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.send(b"PILN")
    with within(4, "letting those go that dawdle"):
        with within(1, "ten lists beside them"):
            for _ in range(10):
                assert len(world.devices()) == 1
        for s in slow:  # each is let go within the deadline
            assert s.take(1) == b""


def test_one_process_that_dawdles_drives_out_nobody_else(world):
    world.broker()
    mine = world.stream().send(hello(LIST, world.token)[:64])
    child = os.fork()
    if child == 0:
        slow = [world.stream() for _ in range(100)]
        time.sleep(60)
        os._exit(len(slow) & 0)
    try:
        time.sleep(0.5)
        mine.send(hello(LIST, world.token)[64:])
        assert mine.answer()[0] == OK
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_one_that_is_stopped_delays_nobody(world):
    world.broker()
    child = os.fork()
    if child == 0:
        world.open()
        time.sleep(60)
        os._exit(0)
    try:
        assert wait_for(world.executors)
        os.kill(child, signal.SIGSTOP)
        s = world.open()
        with within(1, "a hundred commands"):
            assert all(s.works() for _ in range(100))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_quota_is_what_the_machine_is_told_and_what_it_gets(world):
    world.broker()
    token = world.machine("small", b"\x66" * 32)
    world.settings("small", "[accel]\nquota = 8M\n")
    s = world.open(token=token)
    assert s.memory_total == 8 << 20
    assert s.command(BUFFER_ALLOC, struct.pack("<IIQ", 1, 0, 16 << 20))[0] == E_NO_MEMORY
    assert s.command(BUFFER_ALLOC, struct.pack("<IIQ", 1, 0, 4 << 20))[0] == OK
    listed = world.stream(LIST, token=token)
    listed.answer()
    assert DEVICE.unpack(listed.take(DEVICE.size))[2] == 8 << 20
    assert world.open().memory_total == 64 << 20
    world.settings("small", "[accel]\nquota = 16M\n")  # holds for who comes now
    assert world.open(token=token).memory_total == 16 << 20


def test_machines_whose_names_differ_in_the_last_of_64_letters_have_their_own_accounts(world):
    names = ["m" * 63 + letter for letter in "ab"]
    for n, name in enumerate(names):
        world.machine(name, bytes([n + 1]) * 32)
        world.settings(name, "[accel]\nquota = 16M\n")
    world.broker()
    first, second = (world.open(token=bytes([n + 1]) * 32) for n in range(2))
    assert first.command(BUFFER_ALLOC, struct.pack("<IIQ", 1, 0, 12 << 20))[0] == OK
    assert struct.unpack("<QQ", second.command(MEMORY)[2])[0] == 16 << 20


@pytest.mark.parametrize("text", ["[accel]\nquota = lots\n", "[accel]\nggml_dir = /tmp\n"])
def test_a_machine_whose_settings_cannot_be_read_gets_no_device(world, text):
    world.broker()
    token = world.machine("odd", b"\x66" * 32)
    world.settings("odd", text)
    s = world.stream(OPEN, token=token)
    assert s.answer() == (E_SETTINGS, 0)
    s = world.stream(LIST, token=token)
    assert s.answer() == (E_SETTINGS, 0)
    assert world.open().memory_total == 64 << 20


def hoard(s, n, buffer_bytes):
    """Has the executor hold as much for session @s, the @n-th, as the protocol allows."""
    def frame(op, fixed, tail=b""):
        body = fixed + tail
        return struct.pack("<HHI", op, 0, len(body)) + body

    handle = 1
    s.command(BUFFER_ALLOC, struct.pack("<IIQ", handle, 0, buffer_bytes))
    # a weight announced every 32 bytes
    s.send(b"".join(frame(OPS["WEIGHT"], struct.pack("<IIQ4qII", handle, 0, 32 * i, 8, 1, 1, 1, 4, 0))
                    for i in range(min(buffer_bytes // 32, 65536))))
    # tables of graphs, refused but kept until they are patched
    tensors = bytes(272) * 16384
    for graph in range(1, 5):
        s.send(frame(OPS["GRAPH_DEFINE"], struct.pack("<II", graph, 16384), tensors))
    # many small buffers
    s.send(b"".join(frame(BUFFER_ALLOC, struct.pack("<IIQ", i, 0, 1)) for i in range(2, 512)))
    s.s.settimeout(0.2)
    try:
        s.take(24 * 510)
    except TimeoutError:
        pass
    s.s.settimeout(10)
    s.command(FENCE)
    # and a frame that does not end: rows, or a graph, or a patch
    size = 4 << 20
    if n % 3 == 0:
        s.send(struct.pack("<HHIIIQQQ", OPS["SET_2D"], 0, 32 + size, handle, 1024, 0, 4096, 4096))
        s.send(bytes(size - 8))
    elif n % 3 == 1:
        s.send(struct.pack("<HHIII", OPS["GRAPH_DEFINE"], 0, 8 + 65536 * 272, 9, 65536) + bytes(65536 * 272 - 8))
    else:
        s.send(struct.pack("<HHIII", OPS["GRAPH_PATCH"], 0, 8 + 16384 * 272, 1, 1) + struct.pack("<IHH", 0, 0, 34))


@pytest.mark.parametrize("n_sessions", [12, 64])
def test_a_machine_has_nothing_held_beyond_its_quota_and_a_bound(world, n_sessions):
    quota, free, per_session = 48 << 20, 32 << 20, 1 << 20
    world.settings("one", f"[accel]\nquota = {quota >> 20}M\n")
    world.broker()
    first = world.open()
    assert first.memory_total == quota
    pid, = world.executors()
    before = host_lib.memory_of(pid)[0]
    sessions = []
    for n in range(n_sessions - 1):
        sessions.append(world.open())
        try:
            hoard(sessions[-1], n, quota // 2 // n_sessions & -4096)
        except (OSError, TypeError, struct.error):
            pass  # it may have been ended for it
    time.sleep(0.5)
    held = host_lib.memory_of(pid)[0] - before << 10
    assert held < quota + free + n_sessions * per_session
    assert first.works()
    for s in sessions:
        s.close()
    assert wait_for(lambda: struct.unpack("<QQ", first.command(MEMORY)[2])[0] == quota)


def test_sessions_of_one_machine_are_limited_and_another_still_gets_in(world):
    world.broker()
    other = world.machine("two", b"\x55" * 32)
    open_ones = [world.open() for _ in range(64)]
    assert all(isinstance(s, Stream) for s in open_ones)
    assert world.open() == E_BUSY
    assert world.open(token=other).works()
    open_ones.pop().close()
    assert wait_for(lambda: isinstance(world.open(), Stream))


def test_killed_executor_ends_its_sessions_at_once_and_the_next_open_works(world):
    world.broker()
    for _ in range(4):
        s = world.open()
        assert s.works()
        os.kill(world.executors()[0], signal.SIGKILL)
        with within(1, "the end of the session"):
            assert s.take(1) == b""
        assert wait_for(lambda: isinstance(world.open(), Stream))
        time.sleep(2.1)  # it lived long enough not to be taken for one that dies young


def test_graph_that_does_not_end_ends_its_executor_and_its_machine_waits(world):
    world.configure("env = FAKE_GGML_STUCK=1\n")
    world.broker()
    world.machine("other", bytes(range(1, 33)))
    tokens = {"one": world.token, "other": bytes(range(1, 33))}
    open_of = {name: lambda t=t: wire.Session(world.gate(t), t, 60) for name, t in tokens.items()}
    stuck, other = open_of["one"](), open_of["other"]()
    x = [wire.tensor("NONE", 0, (8,)), wire.tensor("SQR", 64, (8,), (1,)),
         wire.tensor("SQR", 128, (8,), (1,))]
    for s, n in ((stuck, 2), (other, 3)):
        assert s.status == OK
        s.alloc(4096)
        s.define(1, *x[:n])
        assert s.ask("FENCE")[1] == OK
    assert other.run(1)[0] == OK
    stuck.start(1)
    time.sleep(0.3)
    start = time.monotonic()
    with pytest.raises((EOFError, ConnectionResetError)):
        other.run(1)
    assert 15 < time.monotonic() - start < 30
    assert wait_for(lambda: "machine 'one' did not end" in world.log())
    assert wait_for(lambda: open_of["other"]().status == OK)
    assert open_of["one"]().status == E_BUSY
    assert open_of["other"]().status == OK


def test_executor_that_cannot_start_is_not_started_without_end(world):
    world.configure("env = FAKE_GGML_DIES=1\n")
    world.broker()
    end = time.monotonic() + 3
    tries = 0
    while time.monotonic() < end:
        assert world.open() == E_EXECUTOR
        tries += 1
        time.sleep(0.02)
    assert tries > 20
    assert world.log().count("ended (status 3)") <= 8
    assert len(world.devices()) == 1


def test_broker_killed_sessions_go_on_and_the_next_broker_serves(world):
    p = world.broker()
    s = world.open()
    p.kill()
    p.wait()
    assert s.works()
    done = world.list()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0\tFake\treference device\t")
    assert s.works()
    second = world.open()
    assert second.works()
    before = world.executors()
    assert len(before) == 2
    s.close()  # the executor without a broker leaves with its last session
    assert wait_for(lambda: len(world.executors()) == 1)
    assert second.works()


def test_stopped_broker_leaves_no_socket_and_no_executor(world):
    p = world.broker()
    s = world.open()
    p.terminate()
    assert p.wait(5) == 0
    assert not world.socket.exists()
    assert s.works()
    s.close()
    assert wait_for(lambda: not processes(str(world.ggml)))


def test_broker_leaves_when_idle_but_not_while_a_session_or_machine_lives(world):
    p = world.broker("--idle-ms", "400")
    s = world.open()
    time.sleep(1.5)
    assert p.poll() is None and s.works()
    world.machine("one", world.token, pid=f"{os.getpid()}\n")
    s.close()
    time.sleep(1.5)
    assert p.poll() is None
    (world.runtime / "machines" / "one" / "pid").unlink()
    assert p.wait(5) == 0
    assert wait_for(lambda: not processes(str(world.ggml)))


def test_many_that_want_a_broker_at_once_get_the_same_one(world):
    lists = [subprocess.Popen([BROKER, "--list"], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    for p in lists:
        out, err = p.communicate(timeout=30)
        assert p.returncode == 0, err
        assert out.startswith("0\tFake\t")
    base = str(world.base)
    brokers = [p for p in processes("pillion-broker") if
               base in pathlib.Path(f"/proc/{p}/environ").read_text(errors="replace")]
    assert brokers == [world.broker_pid()]
    assert [p.name for p in (world.runtime / "machines").iterdir()] == ["one"]


def test_second_broker_leaves_the_first_alone(world):
    world.broker()
    assert world.start().wait(10) == 0
    assert world.answers()


def test_stale_socket_is_replaced(world):
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(world.socket))
    stale.close()
    assert world.list().returncode == 0


def test_why_a_broker_cannot_start_is_said_with_a_hint(world):
    shutil.rmtree(world.ggml)
    world.ggml.mkdir()
    if os.getuid() == 0:  # whose executor is somebody else
        world.ggml.chmod(0o700)
        done = world.list()
        assert done.returncode == 1
        assert "closed to the executor's user" in done.stderr
        assert "hint: chmod o+rx" in done.stderr
        world.ggml.chmod(0o755)
    done = world.list()
    assert done.returncode == 1
    assert "no libggml" in done.stderr or "in its jail" in done.stderr
    shutil.rmtree(world.ggml)
    done = world.list()
    assert "ggml_dir" in done.stderr and "hint: " in done.stderr
    world.ggml.mkdir()


def test_executor_sees_little_and_may_do_little(world):
    world.broker()
    assert world.open().works()
    proc = pathlib.Path("/proc") / str(world.executors()[0])
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines()
                  if ":\t" in line)
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0
    assert status["Uid"].split()[0] != "0"
    for namespace in ("pid", "net", "ipc", "uts", "mnt"):
        assert os.readlink(proc / "ns" / namespace) != os.readlink(f"/proc/self/ns/{namespace}")
    if os.getuid() == 0:
        seen = {p.name for p in (proc / "root").iterdir()}
        assert not seen & {"root", "home", "var", "mnt", "srv"}
        assert not (proc / "root" / "etc" / "passwd").exists()
        mounts = (proc / "mounts").read_text().splitlines()
        root = [m.split() for m in mounts if m.split()[1] == "/"][-1]
        assert "ro" in root[3].split(",")
    fds = {os.readlink(f).split(":")[0] for f in (proc / "fd").iterdir()}
    assert not any(str(world.runtime) in f for f in fds)


def test_log_is_bounded_in_what_a_peer_can_add(world):
    world.broker()
    for _ in range(500):
        s = world.stream()
        with contextlib.suppress(BrokenPipeError):
            s.send(b"x" * 64)
        s.close()
    assert world.answers()
    assert world.log().count("hello refused") < 20


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_everything_works_for_a_user_who_is_not_root():
    user = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="pb-") as base:
        os.chmod(base, 0o755)
        # the build may lie where only root may go
        programs = pathlib.Path(base) / "bin"
        programs.mkdir()
        for program in (BROKER, GATE, BUILD / "src" / "exec" / "pillion-exec"):
            shutil.copy(program, programs)
        w = World(base)
        w.gate_program = programs / "pillion-gate"
        subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", base], check=True)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
                status = use_as_user(w, programs / "pillion-broker")
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        log = w.log()
        w.finish()
        if os.waitstatus_to_exitcode(status) == 77:
            pytest.skip("the kernel gives users no user namespace")
        assert os.waitstatus_to_exitcode(status) == 0, log


def use_as_user(w, broker):
    bare = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "true"]
    if subprocess.run(bare, capture_output=True).returncode:
        return 77
    done = subprocess.run([broker, "--list"], env=w.env, text=True, capture_output=True, timeout=30)
    if done.returncode or "Fake" not in done.stdout:
        print(done.stderr)
        return 2
    s = w.open()
    if not isinstance(s, Stream) or not s.works():
        return 3
    uid = pathlib.Path(f"/proc/{w.executors()[0]}/status").read_text().split("Uid:\t")[1]
    return 0 if int(uid.split()[0]) == os.getuid() else 4


KIT = pathlib.Path(os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share") / \
    "pillion" / "kits" / "runtime" / "rootfs"


@pytest.mark.skipif(not KIT.exists(), reason="the runtime kit is not installed")
def test_executor_runs_the_ggml_of_the_runtime_kit(world):
    kits = world.base / "dat" / "pillion" / "kits" / "runtime"
    kits.mkdir(parents=True)
    (kits / "rootfs").symlink_to(KIT.resolve())
    (world.base / "con" / "pillion" / "config").write_text("[accel]\nreference = always\n")
    world.ggml = kits  # what the command lines of these executors' bwrap name
    try:
        world.broker()
        names = [d[0] for d in world.devices()]
        assert names[-1] == "CPU"
        s = world.open(device=len(names) - 1)
        assert s.works()
    finally:
        os.kill(world.broker_pid(), signal.SIGTERM)
