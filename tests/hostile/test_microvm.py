# SPDX-License-Identifier: Apache-2.0
"""Root of a microVM tries what the cases of `hostile` try there, in an emulated computer that has KVM.

Starting a machine takes a minute there, so the cases of a machine run one after another in it; those that
may end it come last.  Two machines are tried: root's, and an unprivileged user's.
"""
import os
import re

import arena as arena_lib
import outer as outer_lib
import pytest

CASES = arena_lib.cases()
IN_MICROVM = [name for name, (where, _) in CASES.items() if where in ("kvm", "both")]
BOOT = 330  # seconds: a machine that does not start has said so by then
PORT = 5999
LAST = {"root": ["pci_bars", "pci_config", "unbind_devices", "kill_all"], "rootless": ["crash"]}
MILD = [name for name in IN_MICROVM if name not in sum(LAST.values(), [])]
HOLDERS = """python3 -c '
import glob, os
for fd in glob.glob("/proc/[0-9]*/fd/*"):
    if os.path.islink(fd) and os.path.realpath(fd).endswith("/debian.log"):
        print(open("/proc/" + fd.split("/")[2] + "/comm").read().strip())'"""
SPEAKERS = ("beside: ", "guest: ", "microVM: ", "passt: ", "pillion-machine: ", "virtiofsd: ")
HARM = ["owned", "forged", "\x1b", "\x07"]

LISTEN = r"""
import os, select, socket, sys
def listen(family, address, kind=socket.SOCK_STREAM):
    s = socket.socket(family, kind)
    s.bind(address)
    if kind == socket.SOCK_STREAM:
        s.listen()
    return s
os.chdir("/test/ro")
all_ = [listen(socket.AF_INET, ("127.0.0.1", 5999)), listen(socket.AF_INET, ("127.0.0.1", 5999), socket.SOCK_DGRAM),
        listen(socket.AF_UNIX, "\0pillion-hostile"), listen(socket.AF_UNIX, "sock")]
os.chmod("sock", 0o777)
try:
    all_.append(listen(socket.AF_VSOCK, (socket.VMADDR_CID_ANY, 5999)))
except OSError:
    pass
all_.append(os.open("fifo", os.O_RDWR))
print("listening", flush=True)
while True:
    for s in select.select(all_, [], [])[0]:
        if isinstance(s, int):
            print("owned: FIFO", os.read(s, 100), flush=True)
        elif s.type == socket.SOCK_DGRAM:
            print("owned: datagram", s.recv(100), flush=True)
        else:
            print("owned: connection to", s.getsockname(), flush=True)
            s.accept()[0].close()
"""
STATE = ("cd /test && find ro {models} /test/src {config} -type f -exec sha256sum {{}} +;"
         " find ro {models} /test/src {config} -printf '%p %m %U\\n'; pgrep -f '[/]tmp/listen'; cat /tmp/came;"
         " sysctl -a 2>/dev/null | grep -E '^(kernel.(core_pattern|panic|hostname|modprobe|sysrq)|vm.overcommit|fs.file-max)';"
         " grep -c . /proc/mounts; test $(stat -c %s {log}) -lt 17825792 && echo log is short")


class SteadyOuter(outer_lib.Outer):
    kernel_options = outer_lib.Outer.STEADY


def make_outer():
    o = SteadyOuter(files=[arena_lib.HOSTILE])
    o.ok("mkdir -p /test/ro && chmod 777 /test/ro && cd /test/ro && echo of the host >note && chmod 666 note &&"
         " mkfifo -m 666 fifo && cat >/tmp/listen", text=LISTEN)
    o.ok("(setsid python3 /tmp/listen >/tmp/came 2>&1 </dev/null &); until grep -q listening /tmp/came; do sleep 0.2; done")
    return o


class Tried:
    """What came of all cases in one machine, and of the host."""

    def __init__(self, outer, mode):
        self.outer, self.env, self.user, self.owner = outer, {}, "", "root"
        self.data, self.runtime = "/test", "/run/test"
        if mode == "rootless":
            self.make_user()
        outer.ok(f"mkdir -p {self.data}/cache/pillion/models && echo of the host >{self.data}/cache/pillion/models/note &&"
                 f" chmod -R a+rwX {self.data}/cache/pillion/models && chown -R {self.owner}: {self.data}/cache &&"
                 f" printf '[wsl2]\\nmemory=512MB\\nvmIdleTimeout=3600000\\nshare=/test/ro\\n' >{self.data}/config/pillion/config",
                 env=self.env)
        self.ok("-d debian -e true", BOOT)
        self.copy_hostile()
        victim = outer.ok("(setsid sleep 5000 >/dev/null 2>&1 & echo $!)").strip()
        self.told = f"port={PORT} vsock={PORT} abstract=pillion-hostile victim={victim}"
        self.victim = victim
        self.before = self.state()
        said = self.run(f"-d debian -u root -e /run/hostile {self.told} {' '.join(MILD)}", 240)
        self.results = arena_lib.results(said.out)
        self.said = said
        self.after = self.state()
        self.log = self.read_log()
        self.holders = outer.run(HOLDERS).out
        self.lives = self.run("-d debian -e echo lives", 60).out
        for case in LAST[mode]:
            self.results[case] = self.last(case)
        self.at_end = self.state()
        self.log += self.read_log()
        self.status = self.run("--status", 60)
        self.ended = self.run("--terminate debian", 60)

    def copy_hostile(self):
        self.ok("-d debian -u root -e sh -c 'cat >/run/hostile && chmod 755 /run/hostile' </test/hostile")

    def last(self, case):
        """In a machine that answers; what comes of it does not matter to the host."""
        if self.run("-d debian -u root -e test -x /run/hostile", 10).status:
            self.run("--terminate debian", 60)
            self.ok("-d debian -e true", BOOT)
            self.copy_hostile()
        said = self.run(f"-d debian -u root -e /run/hostile {case}", 15)
        return arena_lib.results(said.out).get(case, ("allowed", "the machine ended"))

    def make_user(self):
        self.outer.ok("pillion --shutdown; useradd -m tester; mkdir -p /test/user/data/pillion/kits /test/user/data/pillion/distros"
                      " /test/user/config/pillion /run/tester && cd /test/data/pillion && cp -a kits/kernel-trixie"
                      " /test/user/data/pillion/kits/ && mv distros/debian /test/user/data/pillion/distros/ &&"
                      " chown -R tester: /test/user /run/tester && chmod 700 /run/tester", 120)
        self.data, self.runtime = "/test/user", "/run/tester"
        self.env = {f"XDG_{kind.upper()}_HOME": f"/test/user/{kind}" for kind in ("data", "cache", "config")}
        self.env.update(XDG_RUNTIME_DIR="/run/tester", HOME="/home/tester", PATH="/test/src/cli:/usr/local/bin:/usr/bin:/bin")
        self.owner = "tester"
        self.user = "setpriv --reuid tester --regid tester --clear-groups --inh-caps=-all "

    def run(self, command, timeout):
        return self.outer.run(f"{self.user}pillion {command}", timeout, env=self.env)

    def ok(self, command, timeout=60):
        return self.outer.ok(f"{self.user}pillion {command}", timeout, env=self.env)

    def read_log(self):
        return self.outer.run(f"tail -c 200000 {self.runtime}/pillion/machines/debian.log | tail -n +2").out

    def state(self):
        return self.outer.ok(STATE.format(models=f"{self.data}/cache/pillion/models", config=f"{self.data}/config",
                                          log=f"{self.runtime}/pillion/machines/debian.log")
                             + f"; kill -0 {self.victim} && echo the process lives")


@pytest.fixture(scope="module", params=["root", "rootless"])
def tried(request):
    """The computer that is emulated may stop by itself (outer.py): it is tried once more then."""
    why = outer_lib.missing()
    if why:
        pytest.skip(why)
    for attempt in (1, 2):
        outer = make_outer()
        try:
            yield request.param, Tried(outer, request.param)
            return
        except outer_lib.Lost:
            if attempt == 2:
                raise
        finally:
            outer.close()


def test_there_are_enough_cases():
    assert len(MILD) + sum(map(len, LAST.values())) >= 50  # in each of two machines


@pytest.mark.parametrize("case", IN_MICROVM)
def test_host_holds(tried, case):
    mode, t = tried
    if case not in t.results and case in sum(LAST.values(), []):
        pytest.skip("may end the machine: tried in the other user's")
    verdict, why = t.results.get(case, ("nothing", str(t.said)))
    if verdict == "skipped":
        pytest.skip(why)
    if CASES[case][1] == "refused":
        assert verdict == "refused", f"{verdict}: {why}"
    assert t.before == t.after == t.at_end


def test_machine_outlives_what_is_refused(tried):
    assert tried[1].lives == "lives\n"


def test_host_answers_when_the_worst_is_over(tried):
    _, t = tried
    assert t.status.status == 0 and t.ended.status == 0, (t.status, t.ended)
    assert not [c for c in HARM[2:] if c in t.status.out]


def test_no_part_of_the_machine_holds_its_log(tried):
    """But the supervisor, each has the end of a pipe: it could fill the disk, or forge others' words."""
    assert set(tried[1].holders.split()) == {"pillion-machine"}


def test_log_shows_whose_words_they_are(tried):
    """What the guest's console says is escaped, and cannot pass for a line of pillion's."""
    _, t = tried
    assert not re.search("^pillion-[a-z]+: forged", t.log, re.M), t.log[-3000:]
    assert all(line.startswith(SPEAKERS) for line in t.log.splitlines()), t.log[-3000:]
    assert "\x1b" not in t.log and "\x07" not in t.log, t.log[-3000:]


def test_cases_that_the_kernel_of_the_tests_lacks_can_succeed_on_debians(tried):
    """The self-test once more: modules, kexec, ports and memory are there."""
    outer = tried[1].outer
    done = outer.run("mkdir -p /tmp/scratch && /test/hostile --self-test folder=/tmp/scratch | cat", 120)  # a case cuts files
    results = arena_lib.results(done.out)
    wanted = ["load_module", "load_module_file", "kexec", "write_sysrq", "write_modprobe", "read_kcore", "read_mem",
              "ports", "all_ports", "node_of_memory"]
    assert not [(name, results.get(name)) for name in wanted if results.get(name, ("",))[0] != "allowed"]
