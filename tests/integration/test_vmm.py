# SPDX-License-Identifier: Apache-2.0
"""pillion-vmm as a process: its jail, its end, what it says of bad files.

The guest is tests/tiny/idle.c, which any KVM runs.
"""
import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from slowness import bound, within

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(os.environ.get("PILLION_BUILD", ROOT / "build"))
VMM = BUILD / "src" / "vmm" / "pillion-vmm"
IDLE = BUILD / "tests" / "tiny" / "tiny_idle"
MIB = 1 << 20


def kvm_missing():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as e:
        return f"open /dev/kvm: {e.strerror}"
    return None


needs_kvm = pytest.mark.skipif(kvm_missing() is not None, reason=str(kvm_missing()))


def start(*options, **kwargs):
    """A running machine with two processors; its guest has said that it is there."""
    p = subprocess.Popen([VMM, "--kernel", IDLE, "--memory", "16", "--cpus", "2",
                          "--console-early", *map(str, options)], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
    line = p.stdout.readline()
    if "idle" not in line:
        p.kill()
        pytest.fail(f"the guest does not start: {line}{p.stderr.read()}")
    return p


def machine(p):
    """The /proc folder of the process in the jail; @p only waits for it."""
    pid = pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().strip()
    return pathlib.Path(f"/proc/{pid}")


def gone(pid):
    start = time.monotonic()
    while time.monotonic() - start < bound(2):
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


def refused(*options):
    """Runs it with options that cannot work; returns what it says."""
    done = subprocess.run([VMM, *map(str, options)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert done.stderr.startswith("pillion-vmm: err: ")
    return done.stderr


def status(task):
    return dict(re.findall(r"^(\w+):\s*(.*)$", (task / "status").read_text(), re.M))


@needs_kvm
def test_server_of_folders_that_cuts_the_memory_short_ends_the_machine_only(tmp_path):
    p, other = (start("--fs", f"work,{tmp_path}/socket") for _ in range(2))
    try:
        memory = [fd for fd in (machine(p) / "fd").iterdir() if os.stat(fd).st_size == 16 * MIB]
        assert len(memory) == 1
        with open(memory[0], "r+b") as f:
            f.truncate(0)
        assert p.wait(timeout=5) in (1, 2)  # failed, or the guest did
        assert "the machine" in p.stderr.read()
        assert other.poll() is None
    finally:
        p.kill()
        other.kill()


@needs_kvm
def test_sigterm_ends_it_within_a_second():
    p = start()
    p.send_signal(signal.SIGTERM)
    with within(1.5, "its end"):
        assert p.wait(timeout=5) == 0


@needs_kvm
def test_sigterm_is_not_lost_while_it_starts():
    for delay_ms in range(0, 40, 4):
        p = subprocess.Popen([VMM, "--kernel", IDLE, "--memory", "16"], stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        time.sleep(delay_ms / 1000)
        p.send_signal(signal.SIGTERM)
        assert p.wait(timeout=5) in (0, -signal.SIGTERM)


@needs_kvm
def test_it_ends_with_its_parent():
    code = ("import subprocess, sys, os, signal\n"
            "p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
            "p.stdout.readline()\n"
            "print(p.pid, open(f'/proc/{p.pid}/task/{p.pid}/children').read(), flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n")
    done = subprocess.run([sys.executable, "-c", code, VMM, "--kernel", IDLE, "--memory", "16",
                           "--cpus", "2", "--console-early"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20)
    for pid in done.stdout.split():
        assert gone(int(pid))


@needs_kvm
def test_a_machine_that_is_killed_is_an_error():
    p = start()
    os.kill(int(machine(p).name), signal.SIGKILL)
    assert p.wait(timeout=5) == 1
    assert "killed by signal 9" in p.stderr.read()


@needs_kvm
def test_the_jail_is_closed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "disk").write_bytes(bytes(MIB))
    p = start("--vsock-connect", f"1026:{tmp_path}/a/socket", "--disk", tmp_path / "disk")
    proc = machine(p)
    try:
        for ns in ("user", "mnt", "net", "ipc", "uts", "pid"):
            assert os.readlink(proc / "ns" / ns) != os.readlink(f"/proc/self/ns/{ns}"), ns
        # nothing in the root but the way to the folder of the socket
        seen = [str(d.relative_to(proc / "root")) for d in (proc / "root").rglob("*")]
        assert all(str(tmp_path / "a")[1:].startswith(s) for s in seen), seen
        mounts = (proc / "mounts").read_text().splitlines()
        assert len(mounts) == 2, mounts
        assert any(re.search(r" / tmpfs ro\b", m) for m in mounts), mounts
        filters = {}  # of each thread, by its name
        for task in (proc / "task").iterdir():
            s = status(task)
            filters.setdefault(s["Name"], []).append(s["Seccomp_filters"])
            for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(s[caps], 16) == 0, caps
            assert s["NoNewPrivs"] == "1" and s["Seccomp"] == "2"
        # two processors and a disk have a filter of their own on top of the one of all threads; what
        # these forbid: tests/unit/test_vmm_jail.c
        assert sorted(filters["pillion-vmm"]) == ["1", "2", "2"] and filters["blk"] == ["2"], filters
    finally:
        p.send_signal(signal.SIGTERM)
        assert p.wait(timeout=5) == 0


@needs_kvm
def test_a_kill_leaves_nothing(tmp_path):
    mounts = pathlib.Path("/proc/self/mounts").read_text()
    p = start("--vsock-connect", f"1026:{tmp_path}/socket")
    inside = int(machine(p).name)
    p.kill()
    assert p.wait(timeout=5) == -signal.SIGKILL
    assert gone(inside)
    assert pathlib.Path("/proc/self/mounts").read_text() == mounts
    assert not list(tmp_path.iterdir())


@needs_kvm
def test_a_kill_while_starting_leaves_nothing():
    """Whoever of it lives has the end of the pipe that is its standard output."""
    for i in range(80):
        p = subprocess.Popen([VMM, "--kernel", IDLE, "--memory", "16", "--cpus", "2"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(0.04 * i / 80)
        p.kill()
        p.communicate(timeout=5)


@needs_kvm
def test_it_takes_little_memory_of_its_own():
    p = start()
    try:
        own = 0
        for proc in (pathlib.Path(f"/proc/{p.pid}"), machine(p)):
            for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", (proc / "smaps").read_text(),
                                  flags=re.M):
                size = re.search(r"^Size:\s+(\d+)", block, re.M)
                if size and "tiny_idle" not in block and int(size[1]) < 8 * 1024:
                    own += int(re.search(r"^Rss:\s+(\d+)", block, re.M)[1])
        assert own <= 5 * 1024, f"{own} KiB beside the guest's memory"
    finally:
        p.kill()
        p.wait()


@needs_kvm
def test_a_disk_has_one_machine(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    p = start("--disk", disk)
    try:
        said = refused("--kernel", IDLE, "--disk", disk)
        assert "used by another machine" in said and "hint: " in said
    finally:
        p.kill()
        p.wait()
    p = start("--disk", f"{disk},ro")
    q = start("--disk", f"{disk},ro")
    for one in (p, q):
        one.send_signal(signal.SIGTERM)
        assert one.wait(timeout=5) == 0


@needs_kvm
def test_a_disk_comes_open_and_keeps_its_lock(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    fd = os.open(disk, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    p = start("--disk-fd", f"{fd}:{disk}", pass_fds=[fd])
    os.close(fd)
    try:
        assert "used by another machine" in refused("--kernel", IDLE, "--disk", disk)
        fd = os.open(disk, os.O_RDWR)
        done = subprocess.run([VMM, "--kernel", IDLE, "--disk-fd", f"{fd}:{disk}"], pass_fds=[fd],
                              capture_output=True, text=True, timeout=10)
        assert "used by another machine" in done.stderr
    finally:
        p.kill()
        p.wait()
        os.close(fd)
    assert "--disk-fd: '99'" in refused("--kernel", IDLE, "--disk-fd", "99:disk")


@needs_kvm
def test_bad_files_are_named(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert "open kernel '/none'" in refused("--kernel", "/none")
    assert "not an ELF file" in refused("--kernel", tmp_path / "empty")
    assert "hint: " in refused("--kernel", tmp_path / "empty")
    assert "open initrd '/none'" in refused("--kernel", IDLE, "--initrd", "/none")
    assert "initrd" in refused("--kernel", IDLE, "--initrd", tmp_path / "empty")
    assert "open disk '/none'" in refused("--kernel", IDLE, "--disk", "/none")
    assert str(tmp_path / "empty") in refused("--kernel", IDLE, "--disk", tmp_path / "empty")
    (tmp_path / "large").write_bytes(bytes(3 * MIB))
    assert "does not fit" in refused("--kernel", IDLE, "--memory", "2", "--initrd",
                                     tmp_path / "large")


def test_bad_options_are_named():
    assert "--kernel is needed" in refused()
    assert "--cpus: '129'" in refused("--cpus", "129")
    assert "--memory: '1x'" in refused("--memory", "1x")
    assert "'--nonsense'" in refused("--nonsense")


def test_the_probe_says_one_line():
    done = subprocess.run([VMM, "--probe"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=10)
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    said = json.loads(done.stdout)
    assert said["kvm"] in ("usable", "emulated", "denied", "absent")
    assert (said["slowdown"] is None) == (said["kvm"] in ("denied", "absent"))
    assert bool(said["why"]) == (said["kvm"] != "usable")
