# SPDX-License-Identifier: Apache-2.0
"""A host for hostile machines: what they could harm is there, and is looked at before and after.

Beside the machine of the tests there are a second one, a process of the user in a control group of his
own, keys, shared folders with a socket, a FIFO and a device node in them, and listeners at the host's
127.0.0.1, at an abstract address and at a vsock port.
"""
import contextlib
import ctypes
import hashlib
import os
import pathlib
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time

import host as host_lib

try:
    from machines import Pillion
except ImportError:
    sys.path.insert(0, str(host_lib.ROOT / "tests" / "integration"))
    from test_machine import Pillion

HOSTILE = host_lib.BUILD / "tests" / "hostile" / "hostile"
ROOTS_FIRST_ID = 2013265920  # of the user namespace of root's machines
PROCESSES = 1200  # that the user of the tests may have
LOG_BYTES = 17 << 20  # of a machine
SYSCTLS = ["kernel/core_pattern", "kernel/modprobe", "kernel/panic", "kernel/randomize_va_space", "kernel/pid_max",
           "kernel/hostname", "kernel/sysrq", "vm/overcommit_memory", "vm/swappiness", "fs/file-max",
           "fs/suid_dumpable", "user/max_user_namespaces"]
ADD_KEY, KEYCTL = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
libc = ctypes.CDLL(None, use_errno=True)


def keyctl(*args):
    return libc.syscall(KEYCTL, *[ctypes.c_long(a) for a in args])


def add_key(ring, mode=0x3f010000):
    """As keys are by default: all for who possesses it."""
    key = libc.syscall(ADD_KEY, b"user", b"pillion-hostile", b"secret-of-the-host", ctypes.c_long(18),
                       ctypes.c_long(ring))
    keyctl(8, ring, -3)  # KEYCTL_LINK: only who possesses it may change it
    keyctl(5, key, mode)  # KEYCTL_SETPERM
    keyctl(9, ring, -3)  # KEYCTL_UNLINK
    return key


def cases():
    """{name: (where, "refused" or "harmless")}"""
    if not HOSTILE.exists():
        return {}
    said = subprocess.run([HOSTILE, "--list"], capture_output=True, text=True, check=True, timeout=20)
    return {name: (where, kind) for name, where, kind in
            (line.split("\t") for line in said.stdout.splitlines())}


def results(text):
    """{name: (verdict, why)} of what hostile said."""
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def described(folder):
    """What lies in a folder: kinds, modes, owners, and what is in files."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        with contextlib.suppress(FileNotFoundError):
            s = path.lstat()
            text = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(s.st_mode) else ""
            found[str(path)] = (oct(s.st_mode), s.st_uid, s.st_gid, text)
    return found


def group_folder():
    """Where the host's cgroup2 is, or None."""
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, path, kind = line.split()[:3]
        if kind == "cgroup2" and os.access(path, os.W_OK):
            return pathlib.Path(path)
    return None


def copy_programs(to):
    """All programs and the plugin of the build, but for the monitor: these are sandboxes."""
    for path in (host_lib.BUILD / "src").glob("*/**/*"):
        if path.is_file() and os.access(path, os.X_OK) and "pillion" in path.name and ".p/" not in str(path) and \
                path.name != "pillion-vmm":
            target = to / path.relative_to(host_lib.BUILD)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


class Arena:
    """mode: "root" or "rootless", whose machine it is."""

    def __init__(self, mode):
        self.mode = mode
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="pilh-"))
        self.home.chmod(0o755)
        self.user = f"pilh{os.getpid()}" if mode == "rootless" else "root"
        self.listeners, self.group, self.victim, self.told = [], None, None, []
        try:
            self.make()
        except BaseException:
            self.close()
            raise

    def make(self):
        prefix = ["prlimit", f"--nproc={PROCESSES}"]
        if self.mode == "rootless":
            subprocess.run(["useradd", "--no-create-home", "--home-dir", self.home, self.user], check=True)
            prefix += ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups", "--inh-caps=-all"]
        self.prefix = prefix
        self.uid = pwd.getpwnam(self.user).pw_uid
        copy_programs(self.home / "build")
        shutil.copytree(host_lib.BUILD / "tests" / "lib" / "ggml", self.home / "ggml")
        for name in ("debian", "second"):
            self.make_distro(name)
        self.make_shares()
        self.pil = Pillion(self.home / "data", self.home / "build" / "src" / "cli" / "pillion", prefix,
                           self.home / "cache")
        self.pil.configure(f"[wsl2]\nvmIdleTimeout=600000\nshare = {self.home / 'ro'}\n"
                           f"[accel]\nggml_dir = {self.home / 'ggml'}\n")
        self.pil.env.update(HOME=str(self.home), USER=self.user)
        if self.mode == "rootless":
            for folder in (self.home, self.pil.root):
                subprocess.run(["chown", "-R", f"{self.user}:", folder], check=True)
        for kind in ("b 7 0 image-disk", "c 1 11 image-kmsg"):
            self.make_node(kind, self.home / "data" / "pillion" / "distros" / "debian" / "rootfs")
        self.make_node("c 1 11 kmsg", self.home / "ro")
        self.make_keys()
        self.make_group()
        self.make_listeners()
        self.pil.ok("-e", "/hostile", "--list")
        self.pil.ok("-d", "second", "-e", "/hostile", "--list")
        self.before = self.state()

    def make_distro(self, name):
        folder = self.home / "data" / "pillion" / "distros" / name
        for below in ("bin", "etc", "root", "proc", "sys", "dev", "run", "tmp", "usr/lib", "mnt"):
            (folder / "rootfs" / below).mkdir(parents=True)
        (folder / "distro.json").write_text(f'{{"name":"{name}","flavor":"debian","version":1,"defaultUid":0}}')
        (folder / "rootfs" / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (folder / "rootfs" / "etc" / "group").write_text("root:x:0:\n")
        shutil.copy(HOSTILE, folder / "rootfs" / "hostile")
        shutil.copy(shutil.which("busybox"), folder / "rootfs" / "bin" / "sh")
        if self.mode == "root":
            subprocess.run(["chown", "-R", f"{ROOTS_FIRST_ID}:{ROOTS_FIRST_ID}", folder / "rootfs"], check=True)

    def make_node(self, kind, folder):
        what, major, minor, name = kind.split()
        os.mknod(folder / name, 0o666 | (stat.S_IFBLK if what == "b" else stat.S_IFCHR),
                 os.makedev(int(major), int(minor)))
        (folder / name).chmod(0o666)

    def make_shares(self):
        for folder in (self.home / "ro", self.home / "cache" / "pillion" / "models"):
            folder.mkdir(parents=True)
            folder.chmod(0o777)
            (folder / "note").write_text("of the host\n")
            (folder / "note").chmod(0o666)
        os.mkfifo(self.home / "ro" / "fifo")
        (self.home / "ro" / "fifo").chmod(0o666)
        self.fifo = os.open(self.home / "ro" / "fifo", os.O_RDWR | os.O_NONBLOCK)

    def make_keys(self):
        """In the session that the command line is started from, and in the user's keyring."""
        keyctl(1, 0)  # KEYCTL_JOIN_SESSION_KEYRING
        self.session_key = add_key(-3)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setresuid(self.uid, self.uid, self.uid)
            os.write(write, str(add_key(-4, 0x3f3f0000)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        self.user_key = int(os.read(read, 20))
        os.close(read)
        os.close(write)
        self.told += [f"session-key={self.session_key}", f"user-key={self.user_key}"]

    def make_group(self):
        """As systemd delegates one to a user."""
        self.victim = subprocess.Popen([*self.prefix, "sleep", "3600"], stdin=subprocess.DEVNULL)
        self.told.append(f"victim={self.victim.pid}")
        folder = group_folder()
        if folder is None:
            return
        self.group = folder / f"pillion-hostile-{os.getpid()}-{self.mode}"
        self.group.mkdir()
        (self.group / "cgroup.procs").write_text(str(self.victim.pid))
        for path in [self.group, *self.group.iterdir()]:
            os.chown(path, self.uid, -1)

    def make_listeners(self):
        def listen(family, address, kind=socket.SOCK_STREAM):
            s = socket.socket(family, kind)
            s.bind(address)
            if kind == socket.SOCK_STREAM:
                s.listen()
            s.setblocking(False)
            self.listeners.append(s)
            return s

        port = listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        listen(socket.AF_INET, ("127.0.0.1", port), socket.SOCK_DGRAM)
        name = f"pillion-hostile-{os.getpid()}-{self.mode}"
        listen(socket.AF_UNIX, "\0" + name)
        listen(socket.AF_UNIX, str(self.home / "ro" / "sock"))
        (self.home / "ro" / "sock").chmod(0o777)
        self.told += [f"port={port}", f"abstract={name}"]
        with contextlib.suppress(OSError):
            listen(socket.AF_VSOCK, (socket.VMADDR_CID_ANY, port))
            self.told.append(f"vsock={port}")
        self.uevents = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
        self.uevents.bind((0, 1))
        self.uevents.setblocking(False)

    # ---- what is looked at ----

    def log(self, name="debian"):
        return self.pil.runtime / "machines" / f"{name}.log"

    def log_bytes(self):
        try:
            s = self.log().stat()
        except FileNotFoundError:
            return 0
        return max(s.st_size, s.st_blocks * 512)

    def came_in(self):
        """What the host's listeners have got."""
        came = []
        for s in self.listeners:
            with contextlib.suppress(BlockingIOError):
                if s.type & socket.SOCK_DGRAM:
                    came.append(f"datagram {s.recv(100)}")
                else:
                    s.accept()[0].close()
                    came.append(f"connection to {s.getsockname()}")
        with contextlib.suppress(BlockingIOError):
            came.append(f"FIFO: {os.read(self.fifo, 100)}")
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                text = self.uevents.recv(4096)
                if b"owned" in text:
                    came.append(f"uevent {text}")
        return came

    def forged(self):
        """Lines and controls in the log that pillion's own programs do not write."""
        try:
            text = self.log().read_bytes()[-(1 << 20):]
        except FileNotFoundError:
            return []
        return [line for line in text.split(b"\n") if b"forged" in line and
                (line.startswith(b"pillion-") or b"\x1b" in line or b"\x07" in line or b"\xc2\x9b" in line)]

    def runtime(self):
        """The folder of sockets and tokens, but for what comes and goes with machines."""
        found = {}
        for path in self.pil.runtime.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                s = path.lstat()
                broker = s.st_ino if "broker" in path.name and stat.S_ISSOCK(s.st_mode) and "second" not in str(path) else 0
                if "debian" not in str(path) and not path.name.endswith((".log", ".end", ".new")):
                    found[str(path)] = (oct(s.st_mode), s.st_uid, broker)
        return found

    def victim_state(self):
        if self.victim.poll() is not None:
            return f"ended: {self.victim.returncode}"
        return os.getpriority(os.PRIO_PROCESS, self.victim.pid)

    def state(self):
        group = {}
        if self.group:
            for name in ("cgroup.freeze", "cgroup.procs", "memory.max", "cgroup.subtree_control"):
                with contextlib.suppress(OSError):
                    group[name] = (self.group / name).read_text().replace(str(self.victim.pid), "victim")
        key = ctypes.create_string_buffer(64)
        keyctl_read = libc.syscall(KEYCTL, ctypes.c_long(11), ctypes.c_long(self.session_key), key, ctypes.c_long(64))
        return {
            "shared folder": described(self.home / "ro"),
            "models": described(self.home / "cache" / "pillion" / "models"),
            "programs": described(self.home / "build"),
            "ggml": described(self.home / "ggml"),
            "config": described(self.pil.root / "config"),
            "data": sorted(str(p) for p in (self.home / "data").glob("*/*/*")),
            "second tree": described(self.home / "data" / "pillion" / "distros" / "second"),
            "runtime folder": self.runtime(),
            "control group": group,
            "victim": self.victim_state(),
            "session key": (keyctl_read, key.value),
            "mounts": sorted(line for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()
                             if str(self.home) in line or str(self.pil.root) in line or " /sys" in line),
            "sysctls": {name: pathlib.Path("/proc/sys", name).read_text() for name in SYSCTLS
                        if pathlib.Path("/proc/sys", name).exists()},
            "clock": round((time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME)) / 5),
            "log too long": self.log_bytes() > LOG_BYTES,
            "forged in the log": self.forged(),
            "came in": self.came_in(),
        }

    def changed(self):
        """What is not as it was, in words; it is taken as it is now for the next time."""
        now = self.state()
        said = []
        for what, before in self.before.items():
            if before == now[what]:
                continue
            if isinstance(before, dict):
                keys = [k for k in {**before, **now[what]} if before.get(k) != now[what].get(k)]
                said += [f"{what}: {k}: {before.get(k)} -> {now[what].get(k)}" for k in keys]
            else:
                said.append(f"{what}: {before} -> {now[what]}")
        if said:
            self.mend()
        return said

    def mend(self):
        """For the cases after the one that did harm."""
        if self.log().exists():
            os.truncate(self.log(), 0)
        for name in ("created", "fifo.new"):
            (self.home / "ro" / name).unlink(missing_ok=True)
        (self.home / "ro" / "note").write_text("of the host\n")
        if self.group:
            (self.group / "cgroup.freeze").write_text("0")
        if self.victim.poll() is not None:
            self.make_victim_again()
        self.before = self.state()

    def make_victim_again(self):
        self.told = [t for t in self.told if not t.startswith("victim=")]
        self.victim = subprocess.Popen([*self.prefix, "sleep", "3600"], stdin=subprocess.DEVNULL)
        self.told.append(f"victim={self.victim.pid}")
        if self.group:
            (self.group / "cgroup.procs").write_text(str(self.victim.pid))

    # ---- what is done ----

    def hostile(self, *args, **kwargs):
        return self.pil.run("-u", "root", "-e", "/hostile", *self.told, *args, **kwargs)

    @contextlib.contextmanager
    def held(self, case, says="holding\n"):
        """Runs a case that says "holding" and waits."""
        p = self.pil.start("-u", "root", "-e", "/hostile", *self.told, case, stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            assert not says or (said := p.stdout.readline()) == says, said
            yield p
        finally:
            p.stdin.close()
            try:
                p.wait(timeout=20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait(timeout=10)
            p.stdout.close()

    def first_is_stopped(self):
        """Whether the machine's first process is in a tracer's hands, within some seconds."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for pid in host_lib.children(self.pil.supervisor()):
                with contextlib.suppress(OSError):
                    text = pathlib.Path(f"/proc/{pid}/status").read_text()
                    if "pillion-init" in text and "State:\tt" in text:
                        return True
            time.sleep(0.05)
        return False

    def on_host(self, *args, timeout=30):
        """As the user, outside of any machine."""
        return subprocess.run([*self.prefix, HOSTILE, *args], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, start_new_session=True, cwd="/")

    def again(self):
        """The machines run, and answer."""
        for name in ("debian", "second"):
            done = self.pil.run("-d", name, "-e", "/hostile", "--list", timeout=30)
            if done.returncode:
                self.pil.run("--terminate", name, timeout=30)
                self.pil.ok("-d", name, "-e", "/hostile", "--list", timeout=30)

    def close(self):
        for s in self.listeners:
            s.close()
        if hasattr(self, "pil"):
            self.pil.close()
        if self.victim:
            self.victim.kill()
            self.victim.wait(timeout=10)
        if self.group:
            for _ in range(100):
                try:
                    self.group.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)
        if hasattr(self, "user_key"):
            keyctl(9, self.user_key, -4)  # KEYCTL_UNLINK
        if hasattr(self, "fifo"):
            os.close(self.fifo)
        shutil.rmtree(self.home, ignore_errors=True)
        if self.mode == "rootless":
            subprocess.run(["userdel", self.user], check=False, capture_output=True)
