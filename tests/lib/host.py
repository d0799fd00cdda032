# SPDX-License-Identifier: Apache-2.0
"""A private pillion for one test: its own folders, its own broker, programs on both sides.

`native` runs a program of the Debian tree straight on the host's kernel.  `inside` runs the same
program with the plugin and a machine's token, but without a machine: what it can see is what
a machine shows it, so that the broker, the executor and the plugin are tested by themselves.
"""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request

import pytest

from slowness import bound, slowness, wait_for, within  # noqa: F401  (for tests as well)

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(os.environ.get("PILLION_BUILD", ROOT / "build"))
USER_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or
                          pathlib.Path.home() / ".cache") / "pillion"
CACHE = USER_CACHE / "check"
PILLION = BUILD / "src" / "cli" / "pillion"
BROKER = BUILD / "src" / "broker" / "pillion-broker"
GATE = BUILD / "src" / "broker" / "pillion-gate"
# programs of Debian's load it, so it must be of a build without sanitizers
PLUGIN = pathlib.Path(os.environ.get("PILLION_PLUGIN_BUILD", BUILD), "src", "guest", "ggml",
                      "libggml-pillion.so")
# What a sanitizer in an executor must know; where leaks are comes from calls its jail denies.
IN_THE_JAIL = "".join(f"env = {name}={os.environ[name]}:detect_leaks=0\n"
                      for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if name in os.environ)

GREEDY = ["--temp", "0", "--seed", "1", "-no-cnv", "--ignore-eos", "--no-display-prompt",
          "--no-perf"]


def find_tree():
    """PILLION_TREE, or the tree of the distro that the tests install once into the cache."""
    path = os.environ.get("PILLION_TREE")
    if path:
        return pathlib.Path(path)
    return installed_data() / "pillion" / "distros" / "debian" / "rootfs"


def installed_data():
    """The XDG_DATA_HOME with the distro `debian` and the kits, installed once and kept."""
    data = CACHE / "data"
    done = data / "pillion" / "distros" / "debian" / "rootfs"
    if not PILLION.exists():
        pytest.skip("the pillion program is not built")
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done / "usr" / "bin" / "llama-completion").exists():
            run = subprocess.run([PILLION, "--install", "debian", "--no-launch"], text=True,
                                 stdin=subprocess.DEVNULL, capture_output=True, timeout=900,
                                 env={**os.environ, "XDG_DATA_HOME": str(data)})
            if run.returncode:
                pytest.fail(f"pillion --install debian: {run.stdout[-1000:]}{run.stderr[-1000:]}")
    return data


def installed_kit():
    """The runtime kit that was installed beside the distro."""
    return CACHE / "data" / "pillion" / "kits" / "runtime" / "rootfs"


def children(pid):
    """All descendants of a process."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if int(text.rsplit(")", 1)[1].split()[1]) == pid:
                child = int(stat.parent.name)
                found += [child, *children(child)]
    return found


def signal_all(pids, number=signal.SIGKILL):
    """Signals processes of which the first may take the others with it."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def alive(pid):
    """Has it not ended yet?  What has ended stays in /proc until the host's first process looks at it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def name_of(pid):
    """Empty: it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip() if alive(pid) else ""
    except OSError:
        return ""


def listening_ports():
    """TCP ports that something listens on at an IPv4 address here."""
    rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# A server in Perl, which every Debian tree has: reads all that comes, says how much it was.
# Arguments: address, port.
COUNTER = r"""use IO::Socket::INET; $SIG{CHLD} = "IGNORE";
my $s = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => $ARGV[1], Listen => 64,
                              ReuseAddr => 1) or die;
while (1) { my $c = $s->accept or next; next if fork; my $n = 0;
            while (my $got = sysread $c, my $b, 65536) { $n += $got } print $c "got $n\n"; exit }"""


def memory_of(pid):
    """Proportional set size in KiB: (anonymous, of files, of shared memory)."""
    parts = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        parts[name.rstrip(":")] = int(value)
    return parts.get("Pss_Anon", 0), parts.get("Pss_File", 0), parts.get("Pss_Shmem", 0)


def mapping_of(pid, path):
    """(proportional, resident) KiB of that file in the process."""
    inode = os.stat(path).st_ino
    sizes = {"Pss": 0, "Rss": 0}
    ours = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = line.split()
        if "-" in name and len(values) >= 4:
            ours = int(values[3]) == inode
        elif ours and name.rstrip(":") in sizes:
            sizes[name.rstrip(":")] += int(values[0])
    return sizes["Pss"], sizes["Rss"]


def bind(argv, source, target):
    """The command of Host.native() or Host.inside(), with one more file in its tree."""
    at = argv.index("--")
    return [*argv[:at], "--ro-bind", source, target, *argv[at:]]


class Host:
    def __init__(self, tree):
        self.tree = tree
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="pil-"))
        self.env = dict(os.environ)
        for kind in ("data", "runtime", "cache", "config"):
            name = "XDG_RUNTIME_DIR" if kind == "runtime" else f"XDG_{kind.upper()}_HOME"
            self.env[name] = str(self.root / kind)
            (self.root / kind).mkdir(mode=0o700)
        self.runtime = self.root / "runtime" / "pillion"
        self.kit = self.root / "data" / "pillion" / "kits" / "runtime"
        self.kit.mkdir(parents=True)
        kit = installed_kit()
        (self.kit / "rootfs").symlink_to(kit if kit.exists() else tree)
        self.started = []
        self.gates = {}
        self.broker = None
        self.tree_args = []  # more arguments of bwrap for every program
        # What is tested here is right or wrong, not fast.  Threads that spin while they wait make
        # everything crawl on a machine that has other things to do as well.
        self.env["OMP_WAIT_POLICY"] = "passive"
        self.configure("[accel]\nenv = OMP_WAIT_POLICY=passive\n")

    def close(self):
        pids = []
        for process in self.started:
            pids += children(process.pid)
            process.kill()
            process.wait(timeout=10)
        signal_all(pids)
        said = self.broker_log.read_text(errors="replace") if self.broker else ""
        shutil.rmtree(self.root, ignore_errors=True)
        assert not re.search(r"Sanitizer: |runtime error: ", said), said[-5000:]

    def configure(self, text):
        folder = self.root / "config" / "pillion"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config").write_text(f"{text}[accel]\n{IN_THE_JAIL}")

    def start(self, argv, **kwargs):
        process = subprocess.Popen([str(a) for a in argv], env=kwargs.pop("env", self.env),
                                   stdin=kwargs.pop("stdin", subprocess.DEVNULL), **kwargs)
        self.started.append(process)
        return process

    def start_broker(self):
        self.broker_log = self.root / "broker.log"
        with open(self.broker_log, "a") as log:
            self.broker = self.start([BROKER, "--idle-ms", "600000"], stdout=log, stderr=log)
        sock = self.runtime / "broker.sock"

        def answers():
            assert self.broker.poll() is None, self.broker_log.read_text()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                return sock.exists() and s.connect_ex(str(sock)) == 0
        wait_for("the broker answers", answers)

    def restart_broker(self):
        self.broker.terminate()
        self.broker.wait(timeout=10)
        self.start_broker()

    def executors(self):
        """Pids of the executor processes themselves (not of the jail around them)."""
        return [p for p in children(self.broker.pid) if name_of(p) == "pillion-exec"]

    def machine(self, name, **accel):
        """Makes a machine's folder with a token, as starting the machine does; settings of
        [accel] by name."""
        folder = self.runtime / "machines" / name
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / "token"
        if not token.exists():
            token.write_text(secrets.token_hex(32) + "\n")
            token.chmod(0o600)
        if accel:
            conf = self.root / "data" / "pillion" / "distros" / name / "machine.conf"
            conf.parent.mkdir(parents=True, exist_ok=True)
            conf.write_text("[accel]\n" + "".join(f"{k} = {v}\n" for k, v in accel.items()))
        return token

    def gate(self, name="one"):
        """The folder with the machine's socket, behind which a gate of its own listens."""
        self.machine(name)
        folder = self.runtime / "machines" / name / "guest"
        if name not in self.gates:
            folder.mkdir(exist_ok=True)
            path = folder / "broker.sock"
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(str(path))
                s.listen(4096)
                path.chmod(0o666)
                self.gates[name] = self.start([GATE, "--machine", name, "--listen-fd", s.fileno()],
                                              pass_fds=[s.fileno()])
        return folder

    def _tree(self, model):
        argv = ["bwrap", "--die-with-parent", "--unshare-pid", "--ro-bind", self.tree, "/",
                "--dev", "/dev", "--ro-bind", "/sys", "/sys", "--proc", "/proc", "--tmpfs", "/tmp",
                "--tmpfs", "/run", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp",
                "--unsetenv", "GGML_BACKEND_PATH"]
        if model:
            argv += ["--ro-bind", model, "/tmp/model.gguf"]
        return argv + self.tree_args

    def native(self, *command, model=None, env=()):
        argv = self._tree(model)
        for name, value in dict(env).items():
            argv += ["--setenv", name, value]
        return [*argv, "--", *command]

    def native_on_kit(self, program, *args, model, env=()):
        """The tree's program on the kit's drivers: what a distro does not have, by design."""
        lib = next(pathlib.Path(self.tree, "usr/lib").glob("*-linux-gnu"))
        host = Host._tree(self, model)
        host[host.index(self.tree)] = installed_kit()
        argv = [*host, "--ro-bind", self.tree, "/tmp/tree", "--setenv", "LD_LIBRARY_PATH",
                f"/tmp/tree/usr/lib/{lib.name}:/tmp/tree/usr/lib/{lib.name}/llama"]
        for name, value in dict(env).items():
            argv += ["--setenv", name, value]
        return [*argv, "--", f"/tmp/tree/usr/bin/{program}", *args]

    def inside(self, *command, model=None, machine="one", token=None, env=()):
        token = token or self.machine(machine)
        guest = self.gate(machine)
        argv = [*self._tree(model), "--ro-bind", PLUGIN, "/run/pillion/libggml-pillion.so",
                "--bind", guest, "/run/pillion/host", "--ro-bind", token, "/run/pillion/token",
                "--setenv", "GGML_BACKEND_PATH", "/run/pillion/libggml-pillion.so"]
        for name, value in dict(env).items():
            argv += ["--setenv", name, value]
        return [*argv, "--", *command]

    def run(self, argv, timeout=120, **kwargs):
        return subprocess.run([str(a) for a in argv], text=True, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=timeout, env=self.env,
                              errors="replace", **kwargs)


def completion(prompt, n, *more):
    return ["llama-completion", "-m", "/tmp/model.gguf", "-p", prompt, "-n", str(n), *GREEDY, *more]


SPARE = 32  # tokens, see assert_same_text()


def traced_completion(prompt, n, *more):
    """For the assertions below: what it says of itself on stderr is what they look at."""
    return completion(prompt, n + SPARE, "-v", *more)


def assert_on_device(log, device="Pillion0"):
    """The layers of the model, and not only some, are on that device."""
    assert re.search(rf"{device} +model buffer size", log), log[-3000:]
    layers = re.search(r"offloaded (\d+)/(\d+) layers to GPU", log)
    assert layers and layers[1] == layers[2], log[-3000:]


def assert_same_text(inside, native, n):
    """Both runs of traced_completion() have said the same, and @n tokens of it at least.

    llama-completion prints from a thread it does not wait for at exit, natively as well, so that the
    last words of a run can be missing.  That thread says `n_remain` before the text of each token.
    """
    for done in (inside, native):
        left = [int(x) for x in re.findall(r"n_remain: (\d+)", done.stderr)]
        assert left and left[0] - left[-1] >= n, (left[-1:], done.stderr[-2000:])
    shorter = min(len(inside.stdout), len(native.stdout))
    assert inside.stdout[:shorter] == native.stdout[:shorter]


class Server:
    """llama-server of one side; its network namespace is the host's, the port is free."""

    def __init__(self, host, side, model, *args):
        self.port = free_port()
        argv = getattr(host, side)("llama-server", *(["-m", "/tmp/model.gguf"] if model else []),
                                   "--host", "127.0.0.1", "--port", str(self.port), "-lv", "4",
                                   *args, model=model)
        self.log = open(host.root / f"server-{side}-{self.port}.log", "w+")
        self.process = host.start(argv, stdout=self.log, stderr=self.log)
        wait_for("llama-server is ready", self._ready, timeout=60)

    def _ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"llama-server ended: {self.said()[-2000:]}")
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health",
                                          timeout=bound(5)).status == 200
        except OSError:
            return False

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def complete(self, prompt, n, **more):
        body = {"prompt": prompt, "n_predict": n, "temperature": 0, "seed": 1, "n_probs": 1,
                "ignore_eos": True, "cache_prompt": False, **more}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/completion",
                                         json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=bound(120)))

    def stop(self):
        signal_all(children(self.process.pid))
        self.process.kill()
        self.process.wait(timeout=10)
