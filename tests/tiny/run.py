#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one tiny guest in pillion-vmm and judges how it ended.

    run.py VMM GUEST SOURCE

The first comment of SOURCE says "run: OPTIONS" and "status: N", and may say "stderr: TEXT", which
must then be there in one line, or "often: TEXT", in some, but not more than the seconds it took: what
a guest can provoke at will is not said more often.  In the options stand
@DISK for a scratch image of 1 MiB, @DIR for its folder,
@ECHO for a Unix socket where a program sends back what it gets, @PARROT for a descriptor that does,
@FRAMES for one that does so and hangs up on 0xdddddddd (another comes by the descriptor @CONTROL),
@CALLER for a listening one on which a program calls, says "ping" and waits for "pong",
@BACKEND for a Unix socket with a vhost-user back end that answers every ring with one.
Prints TAP; exit status 77: skipped.
"""
import itertools
import os
import pathlib
import re
import select
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "lib"))
from slowness import bound  # noqa: E402

vmm, guest, source = sys.argv[1:4]
head = pathlib.Path(source).read_text().split("*/")[0]
want = {key: value.strip() for key, value in re.findall(r"^ \* (run|status):(.*)$", head, re.M)}

try:
    os.close(os.open("/dev/kvm", os.O_RDWR))
except OSError as e:
    print(f"1..0 # SKIP open /dev/kvm: {e.strerror}")
    sys.exit(77)

heard = []  # what programs of the host were told


def background(function, *args):
    threading.Thread(target=function, args=args, daemon=True).start()


def echo(conn):
    try:
        while data := conn.recv(65536):
            conn.sendall(data)
    except OSError:
        pass  # the machine has ended
    conn.close()


def wire(conn, control):
    while b"\xdd" * 4 not in (data := conn.recv(65536)):
        conn.sendall(data)
    conn.close()
    time.sleep(0.3)  # for the guest to see that
    ours, theirs = socket.socketpair()
    socket.send_fds(control, [b"n"], [theirs.fileno()])
    theirs.close()
    echo(ours)


def serve(listener):
    while True:
        background(echo, listener.accept()[0])


def call(path):
    with socket.socket(socket.AF_UNIX) as conn:
        conn.connect(path)
        conn.sendall(b"ping")
        heard.append(conn.recv(4))


# ---- a vhost-user back end ----

(GET_FEATURES, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL) = (1, 11, 12, 13)
MESSAGE = struct.Struct("<III")  # request, flags, size; the payload follows
FEW, MANY = 50, 150              # rings between which the monitor is to sleep
switches = []                    # of the monitor's main thread: at the FEWth ring of a queue, at the MANYth


def times_awake(pid):
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[1])


def ring_back(kick, call, pid):
    """Until the eventfd @kick is closed; @call is another."""
    for n in itertools.count():
        select.select([kick], [], [])
        try:
            os.read(kick, 8)
            os.write(call, struct.pack("Q", 1))
        except OSError:
            return
        if n in (FEW, MANY):
            switches.append(times_awake(pid))


def answer(conn, request, value):
    reply = struct.pack("Q", value) if request == GET_FEATURES else struct.pack("II", 0, value)
    conn.sendall(MESSAGE.pack(request, 1 | 4, len(reply)) + reply)


def back_end(listener):
    conn = listener.accept()[0]
    pid = struct.unpack("3i", conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    call = {}
    while True:
        head, fds, _, _ = socket.recv_fds(conn, MESSAGE.size, 8, socket.MSG_WAITALL)
        if len(head) < MESSAGE.size:
            return
        request, _, size = MESSAGE.unpack(head)
        payload = conn.recv(size, socket.MSG_WAITALL) if size else b""
        if request == GET_FEATURES:
            answer(conn, request, 1 << 32)  # VIRTIO_F_VERSION_1
        elif request == GET_VRING_BASE:
            answer(conn, request, 0)
        elif request == SET_VRING_CALL:
            call[payload] = fds[0]
        elif request == SET_VRING_KICK:
            background(ring_back, fds[0], call[payload], pid)


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


kernel = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


def host_programs(text, tmp):
    """Puts what they need into the options; returns those and the sockets to pass on."""
    keep = []
    if "@ECHO" in text:
        background(serve, listen(f"{tmp}/echo"))
    if "@CALLER" in text:
        keep.append(listen(f"{tmp}/caller"))
        text = text.replace("@CALLER", str(keep[-1].fileno()))
        background(call, f"{tmp}/caller")
    if "@BACKEND" in text:
        background(back_end, listen(f"{tmp}/backend"))
        text = text.replace("@BACKEND", f"{tmp}/backend")
    if "@PARROT" in text:
        ours, theirs = socket.socketpair()
        keep.append(theirs)
        text = text.replace("@PARROT", str(theirs.fileno()))
        background(echo, ours)
    if "@FRAMES" in text:
        ours, theirs = socket.socketpair()
        control, their_control = socket.socketpair()
        keep += [theirs, their_control]
        text = text.replace("@FRAMES", str(theirs.fileno()))
        text = text.replace("@CONTROL", str(their_control.fileno()))
        background(wire, ours, control)
    return text.replace("@ECHO", f"{tmp}/echo").replace("@DIR", tmp), keep


with tempfile.TemporaryDirectory() as tmp:
    disk = pathlib.Path(tmp, "disk")
    disk.write_bytes(b"".join(bytes([i & 255]) * 512 for i in range(2048)))
    text, keep = host_programs(want["run"], tmp)
    options = shlex.split(text.replace("@DISK", str(disk)))
    if re.search(b"__[at]san_init", pathlib.Path(vmm).read_bytes()):
        options.append("--no-jail")  # the sanitizers look at files and processes
    start = time.monotonic()
    done = subprocess.run([vmm, "--kernel", guest, "--memory", "16", "--console-early", *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", timeout=bound(60),
                          pass_fds=[s.fileno() for s in keep])
    seconds = int(time.monotonic() - start)

for line in done.stdout.splitlines():
    if not re.match(r"1\.\.\d+$", line):  # the plan is ours: there are more tests below
        print(line if re.match(r"(not )?ok |#", line) else f"# {line}")
n = len(re.findall(r"^(?:not )?ok ", done.stdout, re.M))
checks = [(done.returncode == int(want["status"]),
           f"the machine ends with status {want['status']} (it was {done.returncode})")]
for key, text in re.findall(r"^ \* (stderr|often):\s*(.*)$", head, re.M):
    times = sum(text in line for line in done.stderr.splitlines())
    most = 1 if key == "stderr" else 1 + seconds
    checks.append((0 < times <= most, f"the log says '{text}' (times: {times} of {most})"))
if "@CALLER" in want["run"]:
    checks.append((heard == [b"pong"], f"the caller was answered (it heard {heard})"))
if "@BACKEND" in want["run"] and kernel >= (5, 11):  # which consumes what an irqfd has passed on
    awake = switches[-1] - switches[-2] if len(switches) > 1 else -1
    checks.append((0 <= awake < (MANY - FEW) / 2,
                   f"the monitor slept while the back end rang {MANY - FEW} times (awake: {awake})"))
elif "@BACKEND" in want["run"]:
    n += 1
    print(f"ok {n} - the monitor sleeps # SKIP before Linux 5.11 it is woken as well")
for good, what in checks:
    n += 1
    print("ok" if good else "not ok", n, "-", what)
for line in done.stderr.splitlines():
    print("#", line)
print(f"1..{n}")
sys.exit(0 if all(g for g, _ in checks) and "not ok" not in done.stdout else 1)
