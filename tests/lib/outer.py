# SPDX-License-Identifier: Apache-2.0
"""A computer with KVM, wherever the tests run: QEMU's software emulation of one with AMD's SVM.

    host -> QEMU (emulated) -> outer: Debian's kernel with kvm-amd, pillion -> its machines

The outer computer boots from two disks: /dev/vda is a Debian made once (SYSTEM), /dev/vdb is made
for each start and holds what is tested: the programs of the build folder, kits and distributions.
An initramfs of busybox and modules brings them up.  Commands are run by a small server in there
(AGENT) behind a virtio serial port: one line of JSON each way.  QEMU keeps what is written to the
disks for itself; nothing of it outlives the tests.

Emulation is slow: about 10 s until the outer computer answers, 10 to 20 s for a machine in it.
It is not reliable either with several processors: in one of about thirty starts of a machine one
of them loses an interrupt, and the outer kernel stops (QEMU 7.2; never seen with one processor, and
far slower when they take turns).  So there is one, unless a test is about more, and tries again.

Seconds in here are those of a quiet host: what a command may take grows with the slowness of the
host and with that of the emulated computer, which is probed in the same way (slowness.py).
"""
import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import host as host_lib
import pytest
import slowness
from slowness import bound

VM_CACHE = host_lib.CACHE / "vm"
TOOL = host_lib.BUILD / "tests" / "lib" / "vm_tool"
KERNEL = "bookworm"  # of the outer computer
SYSTEM = ("bookworm", "python3,passt,e2fsprogs,uidmap,bubblewrap,zstd,iproute2,procps,util-linux,"
          "libarchive13,libjansson4,libsmartcols1,libinih1,libseccomp2,libext2fs2,libcom-err2,"
          "qemu-system-common")
MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "tun", "veth", "loop", "irqbypass",
           "kvm", "kvm-amd"]
PROGRAMS = {"cli": ["pillion"], "broker": ["pillion-broker", "pillion-gate"], "exec": ["pillion-exec"],
            "machine": ["pillion-machine", "pillion-forward", "pillion-fusermount"], "vmm": ["pillion-vmm"],
            "disk": ["pillion-image"], "guest/init": ["pillion-init"], "guest/ggml": ["libggml-pillion.so"]}

INIT = """#!/busybox sh
/busybox mkdir -p /dev /proc /sys /root
/busybox mount -t devtmpfs dev /dev
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sys /sys
for m in /modules/*; do
	options=
	case $m in *kvm_amd*) options="nested=1 avic=0" ;; esac
	/busybox insmod $m $options || echo "outer: $m does not load"
done
for i in 1 2 3 4 5 6 7 8 9 10; do
	[ ! -b /dev/vdb ] || break
	/busybox sleep 0.2
done
/busybox mount -t ext4 /dev/vda /root && /busybox mkdir -p /root/test &&
	/busybox mount -t ext4 /dev/vdb /root/test || echo "outer: no disks"
for d in dev proc sys; do /busybox mount --move /$d /root/$d; done
exec /busybox switch_root /root /test/start
"""

START = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /dev/pts /dev/shm /sys/fs/cgroup
/test/busybox mount -t devpts devpts /dev/pts -o ptmxmode=0666
for d in /dev/shm /run /tmp; do /test/busybox mount -t tmpfs tmpfs $d -o mode=1777; done
/test/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ip link set lo up
ip addr add 192.168.77.15/24 dev eth0
ip link set eth0 up
ip route add default via 192.168.77.2
echo nameserver 192.168.77.3 >/etc/resolv.conf
chmod 666 /dev/kvm /dev/net/tun
python3 /test/agent &
while :; do sleep 1; done # reaps orphans
"""

AGENT = '''
import glob, json, os, signal, subprocess, sys
port = open(glob.glob("/dev/vport*")[0], "r+b", buffering=0)
def say(data):
    while data:  # a port takes 32 KiB at once
        data = data[port.write(data):]
say(b'{"hello": 1}\\n')
text = b""
while True:
    while b"\\n" not in text:
        text += port.read(65536) or b""
    line, text = text.split(b"\\n", 1)
    asked = json.loads(line)
    out, err = open("/tmp/.out", "w+b"), open("/tmp/.err", "w+b")
    p = subprocess.Popen(["/bin/sh", "-c", asked["command"]], stdout=out, stderr=err,
                         stdin=subprocess.PIPE, start_new_session=True, env={**os.environ, **asked["env"]})
    try:
        p.stdin.write(asked["input"].encode())
        p.stdin.close()
    except BrokenPipeError:
        pass
    try:
        status = p.wait(asked["timeout"])
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        status = -1
    said = []
    for f in (out, err):
        f.seek(0)
        said.append(f.read(1 << 20).decode(errors="replace"))
        f.close()
    say(json.dumps({"status": status, "out": said[0], "err": said[1]}).encode() + b"\\n")
'''


ADDRESS = "192.168.77.15"  # of the outer computer
FAR = "192.168.78.2"  # of another computer, by a cable: make_far()
IN_FAR = "ip netns exec far "
# What the parts of slowness.probe() take in there on a quiet host, and how often that is looked at.
QUIET, FRESH = (0.50, 0.20, 0.03), 60
PROBE = ("import sys; sys.path.insert(0, '/test'); import slowness as s;"
         " print(*map(s.seconds_of, (s.compute, s.start_programs, s.sleep_briefly)))")


class Lost(AssertionError):
    """The outer computer itself has stopped."""


class Result:
    def __init__(self, command, answer):
        self.command = command
        self.status, self.out, self.err = answer["status"], answer["out"], answer["err"]

    def __repr__(self):
        return f"$ {self.command}\n[{self.status}]\n{self.out}{self.err}"


# ---- what is made once and kept ----

def tool(*args):
    """vm_tool, with a data folder of the tests' own."""
    data = VM_CACHE / "data"
    data.mkdir(parents=True, exist_ok=True)
    # beside the program it starts, as installed
    programs = VM_CACHE / "programs"
    programs.mkdir(exist_ok=True)
    for program in (TOOL, host_lib.BUILD / "src" / "disk" / "pillion-image"):
        if not program.exists():
            pytest.fail(f"{program} is not built")
        part = programs / (program.name + ".part")
        shutil.copy(program, part)
        os.rename(part, programs / program.name)
    done = subprocess.run([programs / TOOL.name, *map(str, args)], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=900,
                          env={**os.environ, "XDG_DATA_HOME": str(data)})
    if done.returncode:
        pytest.fail(f"vm_tool {args}: {done.stderr[-1500:]}")


@contextlib.contextmanager
def cache_lock():
    VM_CACHE.mkdir(parents=True, exist_ok=True)
    with open(VM_CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kit(suite):
    """The folder of a kernel kit."""
    tool("kernel", suite)
    return VM_CACHE / "data" / "pillion" / "kits" / f"kernel-{suite}"


def distro(name, flavor):
    """The folder of a distribution that is a disk."""
    folder = VM_CACHE / "data" / "pillion" / "distros" / name
    if not (folder / "distro.json").exists():
        tool("distro", name, flavor)
    return folder


def system_disk(system):
    key = hashlib.sha256(repr(system).encode()).hexdigest()[:8]
    folder = VM_CACHE / f"system-{key}"
    if not (folder / "disk.ext4").exists():
        tool("disk", folder, *system)
    return folder / "disk.ext4"


# ---- the initramfs ----

def module_text(path):
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def modules_in_order(folder, wanted):
    """[(name, contents)] of modules, each after those it depends on."""
    files = {re.sub(r"\.ko(\.xz)?$", "", p.name).replace("-", "_"): p
             for p in folder.rglob("*.ko*")}
    done = {}

    def add(name):
        name = name.replace("-", "_")
        if name in done or name not in files:  # else built in
            return
        text = module_text(files[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", text)
        for other in depends[1].decode().split(",") if depends and depends[1] else []:
            add(other)
        done[name] = text

    for name in wanted:
        add(name)
    return list(done.items())


def cpio(files):
    """A newc archive of {path: (mode, contents)}."""
    out = bytearray()
    for n, (path, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        name = path.encode() + b"\0"
        fields = [n, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(kit_folder, modules):
    busybox = shutil.which("busybox")
    files = {"init": (0o100755, INIT.encode()), "modules": (0o40755, b""),
             "busybox": (0o100755, pathlib.Path(busybox).read_bytes())}
    for n, (name, text) in enumerate(modules_in_order(kit_folder / "rootfs" / "kit" / "modules",
                                                      modules)):
        files[f"modules/{n:02}-{name}.ko"] = (0o100644, text)
    return cpio(files)


# ---- the computer ----

def missing():
    """Why this host cannot emulate one; None: it can."""
    if os.getuid() != 0:
        return "the disks hold files of many owners, so making them needs root"
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("mke2fs", "e2fsprogs"),
                             ("busybox", "busybox-static")):
        if not shutil.which(program):
            return f"{program} is missing: sudo apt install {package}"
    return None


class Outer:
    """env: variables of every command, with folders for pillion that are on /test."""

    system, modules = SYSTEM, MODULES  # a kind of computer may have others
    # A timer that ticks by itself: where it is set anew for each tick, one that is lost is the last one, and
    # the computer sleeps for ever.  It is coarser, and takes more of the host.
    STEADY = " nohz=off highres=off"
    kernel_options = ""

    def __init__(self, kernels=("trixie",), distros=(("debian", "debian"),), runtime=False,
                 native=(), files=(), memory_mib=3072, processors=1):
        """@runtime: with the runtime kit; @native: flavors whose programs run natively; @files: copied
        to /test."""
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="pilv-"))
        self.env = {f"XDG_{kind}_HOME" if kind != "RUNTIME" else "XDG_RUNTIME_DIR":
                    "/run/test" if kind == "RUNTIME" else f"/test/{kind.lower()}"
                    for kind in ("DATA", "CACHE", "CONFIG", "RUNTIME")}
        self.env["PATH"] = "/test/src/cli:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.log = self.root / "console.log"
        self.qemu = None
        self.text = b""
        self.probed = 0
        with cache_lock():
            kit_folder = kit(KERNEL)
            self.fill(kernels, distros, runtime, native, files)
            system = system_disk(self.system)
        (self.root / "initramfs").write_bytes(initramfs(kit_folder, self.modules))
        self.start(kit_folder, system, memory_mib, processors)

    def fill(self, kernels, distros, runtime, native, files):
        """Makes test.ext4 of all that is tested."""
        stage = self.root / "stage"
        for folder, programs in PROGRAMS.items():
            (stage / "src" / folder).mkdir(parents=True)
            for program in programs:
                if (host_lib.BUILD / "src" / folder / program).exists():
                    shutil.copy(host_lib.BUILD / "src" / folder / program, stage / "src" / folder)
        for kind in ("data/pillion/kits", "data/pillion/distros", "cache", "config/pillion"):
            (stage / kind).mkdir(parents=True)
        data = stage / "data" / "pillion"
        for suite in kernels:
            copy_tree(kit(suite), data / "kits")
        for name, flavor in distros:
            copy_tree(distro(name, flavor), data / "distros")
        if runtime:
            tool("runtime")
            copy_tree(VM_CACHE / "data" / "pillion" / "kits" / "runtime", data / "kits")
        for flavor in native:
            tool("native", flavor)
            copy_tree(VM_CACHE / "data" / "pillion" / "kits" / f"native-{flavor}", data / "kits")
        for path in files:
            shutil.copy(path, stage)
        (stage / "start").write_text(START)
        (stage / "start").chmod(0o755)
        (stage / "agent").write_text(AGENT)
        shutil.copy(slowness.__file__, stage)
        shutil.copy(shutil.which("busybox"), stage)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=16", "-E",
                        "lazy_itable_init=1,lazy_journal_init=1", "-d", stage,
                        self.root / "test.ext4", "24G"], check=True, timeout=300,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(stage)

    def start(self, kit_folder, system, memory_mib, processors):
        agent = self.root / "agent"
        argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt", "-M", "q35",
                "-smp", processors, "-m", memory_mib, "-nodefaults", "-no-user-config", "-display",
                "none", "-no-reboot", "-serial", f"file:{self.log}",
                "-kernel", kit_folder / "rootfs" / "kit" / "vmlinuz",
                "-initrd", self.root / "initramfs",
                # on a busy host the emulated timer is late for the kernel's test of it
                "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check" + self.kernel_options,
                "-snapshot",
                "-drive", f"file={system},format=raw,if=virtio,cache=unsafe,discard=unmap",
                "-drive", f"file={self.root / 'test.ext4'},format=raw,if=virtio,cache=unsafe,"
                          "discard=unmap",
                "-nic", "user,model=virtio-net-pci,restrict=on,net=192.168.77.0/24",
                "-device", "virtio-serial-pci", "-chardev",
                f"socket,id=agent,path={agent},server=on,wait=off",
                "-device", "virtserialport,chardev=agent,name=agent"]
        self.qemu = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL,
                                     stderr=open(self.root / "qemu.log", "w"),
                                     env={**os.environ, "TMPDIR": str(self.root)})
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + bound(20)
        while True:
            try:
                self.socket.connect(str(agent))
                break
            except OSError:
                if self.qemu.poll() is not None or time.monotonic() > end:
                    said = (self.root / "qemu.log").read_text()
                    self.close()
                    raise AssertionError(f"QEMU does not start: {said}") from None
                time.sleep(0.05)
        try:
            assert self.receive(bound(180)) == {"hello": 1}
        except BaseException:
            self.close()
            raise

    def console(self):
        return self.log.read_text(errors="replace")[-12000:] if self.log.exists() else ""

    def receive(self, timeout):
        self.socket.settimeout(timeout)
        try:
            while b"\n" not in self.text:
                got = self.socket.recv(1 << 16)
                if not got:
                    raise Lost(f"the outer computer is gone\n{self.console()}")
                self.text += got
        except TimeoutError:
            self.socket.close()  # what it says later would be taken for the answer to another question
            raise Lost(f"the outer computer does not answer\n{self.console()}") from None
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)

    def probe(self):
        """Now and then: how slow it is in there."""
        if time.monotonic() - self.probed > FRESH:
            done = self.ask(f'python3 -c "{PROBE}"', slowness.MOST * 20)
            assert done.status == 0, done
            self.probed = time.monotonic()
            slowness.note(slowness.factor(map(float, done.out.split()), QUIET))

    def run(self, command, timeout=60, text="", env=None):
        """The timeout is that of a quiet host."""
        self.probe()
        told = {"PILLION_SLOWNESS": f"{slowness.slowness():.2f}"}
        return self.ask(command, bound(timeout), text, {**told, **(env or {})})

    def ask(self, command, timeout, text="", env=None):
        asked = {"command": command, "timeout": timeout, "input": text,
                 "env": {**self.env, **(env or {})}}
        self.socket.settimeout(bound(20))
        try:
            self.socket.sendall(json.dumps(asked).encode() + b"\n")
        except OSError:
            raise Lost(f"the outer computer is gone\n{self.console()}") from None
        return Result(command, self.receive(timeout + bound(20)))

    def ok(self, command, timeout=60, **kwargs):
        result = self.run(command, timeout, **kwargs)
        if result.status:  # its machines' logs say more
            logs = self.run("tail -n 30 /run/*/pillion/machines/*.log; ps -eo pid,ppid,stat,time,args | grep -v ' \\['")
            raise AssertionError(f"{result}{logs.out}")
        return result.out

    def make_far(self):
        """What a machine reaches by the network, and is not the outer computer itself; IN_FAR runs commands there."""
        self.ok("mkdir -p /run/netns && ip netns add far && ip link add near type veth peer name eth0 netns far &&"
                f" ip addr add 192.168.78.1/24 dev near && ip link set near up &&"
                f" {IN_FAR} sh -c 'ip addr add {FAR}/24 dev eth0; ip link set eth0 up; ip link set lo up;"
                " ip route add default via 192.168.78.1'")

    def close(self):
        if self.qemu:
            self.qemu.send_signal(signal.SIGKILL)
            self.qemu.wait(timeout=20)
        shutil.rmtree(self.root, ignore_errors=True)


def copy_tree(source, to):
    """Holes and owners kept."""
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", source, to], check=True,
                   timeout=300)
