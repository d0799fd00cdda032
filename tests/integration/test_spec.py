# SPDX-License-Identifier: Apache-2.0
"""Machines whose spec the test writes: no registry has them, and no setting is theirs."""
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time

import pytest

import host as host_lib
from host import bound, wait_for, within
from machines import Pillion

START, STDOUT, STDERR, EXIT, ERROR = 1, 7, 8, 9, 10  # src/agent/agent.h


class ByHand:
    """Starts machines as a program would that knows nothing of distributions."""

    def __init__(self, data):
        self.pil = Pillion(data)  # for folders of its own, and a broker
        self.root = data / "pillion" / "distros" / "debian" / "rootfs"
        (self.pil.root / "data" / "pillion").mkdir(parents=True)
        (self.pil.root / "data" / "pillion" / "kits").symlink_to(data / "pillion" / "kits")
        self.pil.env["XDG_DATA_HOME"] = str(self.pil.root / "data")
        self.folder = self.pil.runtime / "machines" / "byhand"

    def spec(self, **keys):
        return {"version": 1, "name": "byhand", "root": {"folder": str(self.root)}, **keys}

    def start(self, spec):
        text = spec if isinstance(spec, str) else json.dumps(spec)
        (self.pil.root / "spec").write_text(text)
        with open(self.pil.root / "spec", encoding="utf-8") as file:
            return subprocess.run([host_lib.BUILD / "src" / "machine" / "pillion-machine", "--spec-fd", str(file.fileno())],
                                  pass_fds=[file.fileno()], env=self.pil.env, cwd="/", text=True,
                                  capture_output=True, stdin=subprocess.DEVNULL, timeout=60)

    def run(self, *args, user="", env=()):
        """(status, output) of a command; speaks to the agent itself."""
        strings = [user, "/", *args, *env]
        text = b"".join(s.encode() + b"\0" for s in strings)
        body = struct.pack("<2H3I44x", 2, 0, len(args), len(env), len(text)) + text  # no terminal
        out = b""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(bound(30))
            s.connect(str(self.folder / "agent.sock"))
            s.sendall(struct.pack("<B3xI", START, len(body)) + body)
            stream = s.makefile("rb")
            while True:
                kind, length = struct.unpack("<B3xI", stream.read(8))
                data = stream.read(length)
                if kind in (STDOUT, STDERR):
                    out += data
                elif kind in (EXIT, ERROR):
                    return (struct.unpack("<I", data)[0] if kind == EXIT else data.decode()), out.decode()

    def pid(self):
        return int((self.folder / "pid").read_text())

    def end(self):
        with contextlib.suppress(FileNotFoundError):
            os.kill(self.pid(), signal.SIGTERM)
            wait_for("the machine ends", lambda: not self.folder.exists())

    def close(self):
        self.end()
        self.pil.close()


@pytest.fixture
def byhand(data):
    machine = ByHand(data)
    yield machine
    machine.close()


def started(machine, **keys):
    done = machine.start(machine.spec(**keys))
    assert done.returncode == 0, done.stdout + done.stderr


def test_spec_alone_starts_a_sandbox(byhand):
    (byhand.pil.root / "config" / "pillion" / "config").write_text("[wsl2]\nvmIdleTimeout=nonsense\n")
    started(byhand)
    assert byhand.run("sh", "-c", "echo $WSL_DISTRO_NAME; id -u; exit 3") == (3, "byhand\n0\n")
    status, found = byhand.run("cat", "/etc/hostname", "/proc/sys/kernel/hostname")
    assert status == 0 and found.splitlines()[-1] == "byhand"
    assert byhand.pil.run("--list").returncode != 0  # no distribution is installed
    assert byhand.start(byhand.spec()).returncode == 75  # it runs already
    byhand.end()


def test_spec_says_what_a_sandbox_has(byhand):
    folder = byhand.pil.root / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "file").write_text("text")
    (folder / "file").chmod(0o644)
    started(byhand, user="nobody", environment={"GREETING": "good day", "PATH": "/usr/bin:/bin"},
            shares=[{"source": str(folder), "target": "/tmp/data/here", "direct": True, "required": True},
                    {"source": str(folder / "no"), "target": "/tmp/data/none"}],
            network={"mode": "none"}, devices={"accelerators": False}, limits={"processes": 50})
    said = byhand.run("sh", "-c", "id -un; echo $GREETING; echo $PATH; cat /tmp/data/here/file; echo; ls /tmp/data; "
                      "echo $GGML_BACKEND_PATH; ls /run/pillion; cat /proc/net/route | wc -l; touch /tmp/data/here/x")
    assert said[0] == 1
    assert said[1].splitlines()[:8] == ["nobody", "good day", "/usr/bin:/bin", "text", "here", "", "whole", "1"]
    assert "Read-only" in said[1]
    assert byhand.run("printenv", "GREETING", env=["GREETING=bye"]) == (0, "bye\n")
    time.sleep(bound(3))  # the supervisor looks every other second whether something is missing
    gates = [p for p in host_lib.children(byhand.pid()) if host_lib.name_of(p) == "pillion-gate"]
    assert not gates and not (byhand.pil.runtime / "broker.pid").exists()


def test_spec_has_devices_unless_it_says_no(byhand):
    started(byhand)
    status, said = byhand.run("llama-completion", "--list-devices")
    assert status == 0 and "Pillion0" in said


@pytest.mark.parametrize("change, why", [
    ({"name": "../x"}, "name: takes"),
    ({"colour": "red"}, "colour: unknown key"),
    ({"version": 2}, "version: this pillion knows version 1"),
    ({"microvm": {"kernel": "sid"}}, "microvm.kernel: a sandbox has no such thing"),
    ({"root": {"folder": "/nowhere/at/all"}}, "/nowhere/at/all"),
    ({"shares": [{"source": "/nowhere", "target": "/a", "required": True}]}, "folder '/nowhere' of the host"),
])
def test_wrong_spec_is_refused_with_what_is_wrong(byhand, change, why):
    done = byhand.start({**byhand.spec(), **change})
    assert done.returncode == 1
    assert why in done.stdout + done.stderr
    assert not byhand.folder.exists()


def test_no_spec_is_refused(byhand):
    program = host_lib.BUILD / "src" / "machine" / "pillion-machine"
    for args in ([], ["debian"], ["--spec-fd"], ["--spec-fd", "x"], ["--spec-fd", "99"]):
        done = subprocess.run([program, *args], env=byhand.pil.env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and (done.stdout or done.stderr)
    assert "line 1" in byhand.start("{").stdout


def test_spec_that_never_ends_is_not_waited_for(byhand):
    program = host_lib.BUILD / "src" / "machine" / "pillion-machine"
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"{")
    with within(30):
        done = subprocess.run([program, "--spec-fd", str(read_fd)], pass_fds=[read_fd], env=byhand.pil.env,
                              capture_output=True, text=True, timeout=bound(60))
    assert done.returncode == 1 and "timed out" in done.stdout
    os.close(read_fd)
    os.close(write_fd)


def test_supervisor_has_no_code_that_reads_settings_or_registry():
    symbols = subprocess.run(["nm", host_lib.BUILD / "src" / "machine" / "pillion-machine"], check=True,
                             capture_output=True, text=True).stdout
    assert "spec_parse" in symbols
    assert not re.findall(r" [tT] ((?:config|registry)_\w+)", symbols)


def test_each_key_is_described():
    source = (host_lib.ROOT / "src" / "machine" / "spec.c").read_text()
    keys = re.findall(r'^\t\{"(\w*)", "(\w+)", ', source, re.M)
    text = (host_lib.ROOT / "docs" / "machine-spec.md").read_text()
    assert len(keys) > 20
    for section, key in keys:
        name = f"{section}.{key}" if section and section != "shares" else key
        assert f"`{name}`" in text, name
