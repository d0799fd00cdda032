# SPDX-License-Identifier: Apache-2.0
"""MicroVMs with Debian's kernels in them, in an emulated computer that has KVM.

The machine of a test is `pillion -d debian`, started by its first command; tests that end it leave
the next one to start it again.
"""
import json
import os
import re
import time

import outer as outer_lib
import pytest

import slowness
import terminal
from host import COUNTER

MIB = 1 << 20
CONFIG = "[wsl2]\nmemory=1GB\nvmIdleTimeout=3600000\n"
BOOT = 330  # seconds: a machine that does not start has said so by then
RESET = "perl -e 'syscall(169, 0xfee1dead, 672274793, 0x01234567, 0)'"  # reboot(2)
PASST = "pidof passt passt.avx2"  # it has a program per processor
FOLDER_CAPS = 0x880401df  # those that src/machine/virtiofsd.c adds
PARTS = "pillion-machine pillion-vmm pillion-forward passt passt.avx2 virtiofsd bwrap"


@pytest.fixture(scope="module")
def outer(tiny):
    why = outer_lib.missing()
    if why:
        pytest.skip(why)
    o = outer_lib.Outer(kernels=("trixie", "bookworm", "sid"), runtime=True, native=("debian",),
                        files=[tiny, terminal.__file__],
                        distros=(("debian", "debian"), ("bookworm", "bookworm")))
    configure(o, CONFIG)
    o.make_far()
    yield o
    o.close()


@pytest.fixture
def machine(outer):
    """A running machine: what runs in its shell."""
    def run(command, timeout=60, name="debian", **kwargs):
        return outer.ok(f"pillion -d {name} -- {quote(command)}", timeout, **kwargs)

    outer.ok("pillion -d debian -e true", BOOT, env={"PILLION_BOOT_TIMER": "1"})
    return run


def configure(outer, text):
    outer.ok("cat >/test/config/pillion/config", text=text)


def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def log(outer, name="debian"):
    return outer.run(f"tail -n 40 /run/test/pillion/machines/{name}.log").out


def monitor(outer, jailed=True):
    """The pid of the pillion-vmm that is the machine, or of the one that waits for it outside the
    jail."""
    pids = [int(pid) for pid in outer.ok("pidof pillion-vmm").split()]
    return max(pids) if jailed else min(pids)


def left(outer):
    """The processes of machines that there are; an executor, which has a bwrap too, outlives them."""
    return outer.run(f"for p in $(pidof {PARTS}); do grep -aq executor /proc/$p/cmdline || echo $p $(tr '\\0' ' ' </proc/$p/cmdline | cut -c-70); done").out


def disk(name="debian"):
    return f"/test/data/pillion/distros/{name}/disk.ext4"


def fsck(outer, name="debian"):
    return outer.run(f"e2fsck -fn {disk(name)}", 120)


def status_of(outer, pid):
    return dict(re.findall(r"^(\w+):\s*(.*)$", outer.ok(f"cat /proc/{pid}/status"), re.M))


def shared_with_host(outer, pid):
    """What a process sees of the host: namespaces that are not its own, and the root folder."""
    return outer.ok(f"for n in user mnt net ipc uts pid; do [ $(readlink /proc/{pid}/ns/$n) != $(readlink /proc/1/ns/$n) ]"
                    f" || echo $n; done; [ $(stat -Lc %d:%i /proc/{pid}/root) != $(stat -c %d:%i /) ] || echo root").split()


def check_jails(outer):
    """passt and virtiofsd of a running machine: neither is root, nor sees the host."""
    for pid in outer.ok(PASST).split():
        status = status_of(outer, pid)
        assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", status
        assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0, status
        assert status["Uid"].split()[0] != "0"
        assert not {"user", "mnt", "root"} & set(shared_with_host(outer, pid))
        assert outer.ok(f"ls -A /proc/{pid}/root") == ""
    folder_servers = outer.ok("pidof virtiofsd").split()
    for pid in folder_servers:
        status = status_of(outer, pid)
        assert status["Seccomp"] == "2" and status["Uid"].split()[0] != "0", status
        assert int(status["CapEff"], 16) & ~FOLDER_CAPS == 0, status  # in a namespace of its own
        assert shared_with_host(outer, pid) == []
        # nothing of the host in its root, and nothing of the folder to be written
        seen = outer.ok(f"ls /proc/{pid}/root").split()
        assert not {"test", "home", "etc", "root"} & set(seen), seen
    assert folder_servers


def wait_for(what, condition, timeout):
    """In seconds of a quiet host; emulation makes most things take long, and a machine in it more so."""
    return slowness.wait_for(what, condition, timeout, pause=0.3)


def wait_for_port(outer, port, where=""):
    wait_for("the port", lambda: f":{port} " in outer.ok(f"{where}ss -ltn"), 60)


def wait_until_gone(outer):
    try:
        wait_for("nothing left", lambda: not left(outer), 60)
    except AssertionError as e:
        all_ = outer.run("ps -eo pid,ppid,stat,wchan:24,args | grep -v ' \\['").out
        raise AssertionError(f"{e}: {left(outer)}\n{all_}\n{log(outer)[-3000:]}") from None


def ticks(outer, program):
    """What processes of this name have computed, in hundredths of seconds."""
    stats = outer.run(f"for p in $(pidof {program}); do cat /proc/$p/stat; done").out
    return sum(sum(map(int, line.rsplit(") ", 1)[1].split()[11:13])) for line in stats.splitlines())


def test_outer_computer_has_kvm(outer):
    assert outer.ok("uname -r").startswith("6.1.")
    outer.ok("test -c /dev/kvm && grep -q svm /proc/cpuinfo")


def test_status_chooses_the_microvm(outer):
    assert "Machine back end: microVM, because: KVM runs guests at the host's speed" in \
        outer.ok("pillion --status")


def test_machine_has_the_kernel_of_the_kit(outer, machine):
    assert re.match(r"6\.1[0-9]\..*-cloud-amd64\n", machine("uname -r"))
    assert machine("nproc") == "1\n"
    assert int(machine("awk '/MemTotal/ { print $2 }' /proc/meminfo")) > 900 << 10
    assert "svm" not in machine("grep ^flags /proc/cpuinfo").split()
    assert "Running" in outer.ok("pillion --list -v")


def test_boot_timer_says_what_a_start_spends_its_time_on(outer, machine):
    marks = re.findall(r"^microVM: boot: (\d+\.\d+) ms (.*)$", log(outer), re.M)
    marks = marks[-9:]  # of the last start
    assert [what for _, what in marks] == ["main", "in the jail", "memory made", "kernel loaded", "processors made",
                                           "devices made", "kernel entry", "init", "agent ready"]
    times = [float(at) for at, _ in marks]
    assert times == sorted(times) and times[-1] < 1000 * slowness.bound(BOOT)


def test_machine_is_set_up_as_a_distribution_expects(machine):
    assert machine("hostname") == "debian\n"
    assert machine("id -un; echo $HOME; pwd") .split() == ["root", "/root", "/root"]
    mounts = machine("cat /proc/mounts")
    for what in ("/dev/vda / ext4", " /proc proc", " /sys sysfs", " /dev/pts devpts", " /dev/shm tmpfs",
                 " /run tmpfs", " /sys/fs/cgroup cgroup2"):
        assert what in mounts, what
    assert " /usr/lib/pillion " in mounts
    machine("test -x /usr/lib/pillion/lib/libggml-pillion.so -o -r /usr/lib/pillion/lib/libggml-pillion.so")
    assert "File system is read-only" in machine("touch /usr/lib/pillion/x 2>&1; true") or \
        "Read-only file system" in machine("touch /usr/lib/pillion/x 2>&1; true")
    assert machine("readlink /usr/lib/wsl/lib") == "/usr/lib/pillion/lib\n"
    machine("test -s /etc/resolv.conf && test -c /dev/null && test -w /dev/shm && test -w /tmp")
    assert abs(int(machine("date +%s")) - time.time()) < slowness.bound(30)


def test_clock_is_the_paravirtual_one(machine):
    clocks = "/sys/devices/system/clocksource/clocksource0"
    assert "kvm-clock" in machine(f"cat {clocks}/available_clocksource")
    assert machine(f"cat {clocks}/current_clocksource").strip() in ("kvm-clock", "tsc")
    assert "kvm-clock: Using msrs" in machine("dmesg")


def test_clock_follows_the_hosts(outer, machine):
    """As after a suspend, during which the machine's clock stands still."""
    def behind():
        return int(outer.ok("date +%s")) - int(machine("date +%s"))

    assert abs(behind()) < slowness.bound(30)
    outer.ok("date -s '+1000 seconds'")
    try:
        wait_for("the machine's clock", lambda: abs(behind()) < slowness.bound(30), 40)
    finally:
        outer.ok("date -s '-1000 seconds'")
    wait_for("the machine's clock", lambda: abs(behind()) < slowness.bound(30), 40)


def test_exit_status_user_and_folder(outer, machine):
    assert outer.run("pillion -d debian -e sh -c 'exit 7'").status == 7
    assert outer.ok("pillion -d debian -u nobody -e id -un") == "nobody\n"
    assert outer.ok("pillion -d debian --cd /usr -e pwd") == "/usr\n"
    assert outer.run("pillion -d debian -e /no/such").status == 127


def test_shell_on_a_terminal_is_as_in_a_sandbox(outer, machine):
    outer.ok("python3 /test/terminal.py pillion -d debian", 120)


def test_signals_reach_the_command(outer, machine):
    said = outer.ok("pillion -d debian -e sh -c 'trap \"echo got; exit 5\" TERM; echo ready; while :; do sleep 0.2; done'"
                    " >/tmp/said & until grep -q ready /tmp/said; do sleep 0.2; done; kill -TERM $!; wait $!;"
                    " echo $?; cat /tmp/said")
    assert said.split() == ["5", "ready", "got"]
    assert outer.run("pillion -d debian -e sh -c 'kill -9 $$'").status == 128 + 9
    outer.ok("pillion -d debian -e sh -c 'echo ready; exec sleep 987' >/tmp/ready &"
             " until grep -q ready /tmp/ready; do sleep 0.2; done; kill -9 $!")
    wait_for("the command of a killed client ends",
             lambda: outer.run("pillion -d debian -e pgrep -f '^sleep 987'").status == 1, 20)


def test_many_commands_at_once(outer, machine):
    said = outer.ok("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do"
                    "  (pillion -d debian -e sh -c \"sleep 2; echo $n; exit $n\"; echo $n:$?) &"
                    "done; wait", 120)
    assert sorted(said.split()) == sorted([str(n) for n in range(1, 13)] +
                                          [f"{n}:{n}" for n in range(1, 13)])


def test_bulk_data_goes_through_unharmed(outer, machine):
    outer.ok("head -c 16M /dev/urandom >/tmp/bulk && pillion -d debian -e cat </tmp/bulk >/tmp/back &&"
             " cmp /tmp/bulk /tmp/back", 120)


def test_network_reaches_a_server(outer, machine):
    outer.ok("mkdir -p /tmp/web && head -c 3M /dev/urandom >/tmp/web/file && cd /tmp/web &&"
             f" ({outer_lib.IN_FAR} setsid python3 -m http.server 8000 >/dev/null 2>&1 </dev/null & )")
    wait_for_port(outer, 8000, outer_lib.IN_FAR)
    assert "default" in machine("ip route")
    got = machine(f"exec 3<>/dev/tcp/{outer_lib.FAR}/8000; printf 'GET /file HTTP/1.0\\r\\n\\r\\n' >&3;"
                  " cat <&3 | tail -c 3145728 | sha256sum", 120)
    assert got == outer.ok("sha256sum </tmp/web/file")


def test_network_comes_back_when_its_server_was_killed(outer, machine):
    asks = f"timeout {slowness.bound(5):.0f} bash -c 'exec 3<>/dev/tcp/{outer_lib.FAR}/8001; cat <&3'"
    outer.ok(f"({outer_lib.IN_FAR} setsid perl -e 'use IO::Socket; $l = IO::Socket::INET->new(Listen => 9, LocalPort => 8001, ReuseAddr => 1);"
             " while ($c = $l->accept) { print $c qq(here\n); close $c }' >/dev/null 2>&1 </dev/null &)")
    wait_for_port(outer, 8001, outer_lib.IN_FAR)
    assert machine(asks) == "here\n"
    before = outer.ok(PASST)
    outer.ok(f"kill -9 {before}")
    wait_for("the network again", lambda: outer.run(f"pillion -d debian -- {quote(asks)}", 30).out == "here\n", 60)
    assert outer.ok(PASST) != before
    outer.ok("pkill perl")


def test_ports_are_forwarded_both_ways(outer, machine):
    def ask(size):
        return outer.ok(f"head -c {size} /dev/zero | timeout {slowness.bound(60):.0f} bash -c 'exec 3<>/dev/tcp/127.0.0.1/8911;"
                        " { cat >&3; perl -e \"shutdown(STDIN, 1)\" <&3; } ; cat <&3'", 90)

    machine(f"(setsid perl -e {quote(COUNTER)} 127.0.0.1 8911 >/dev/null 2>&1 </dev/null &)")
    wait_for_port(outer, 8911)
    assert ask(3) == "got 3\n"
    assert ask(5_000_000) == "got 5000000\n"
    assert "127.0.0.1:8911 " in outer.ok("ss -ltn")  # and nowhere else
    machine("pkill perl")
    wait_for("no port", lambda: ":8911 " not in outer.ok("ss -ltn"), 30)

    services = {"10.0.2.2": ("127.0.0.1", 8912), outer_lib.ADDRESS: (outer_lib.ADDRESS, 8913)}  # as the machine names them
    for address, (local, port) in services.items():
        outer.ok(f"(setsid perl -e {quote(COUNTER)} {local} {port} >/dev/null 2>&1 </dev/null &)")
        wait_for_port(outer, port)
        assert "refused" in machine(f"timeout {slowness.bound(10):.0f} bash -c 'exec 3<>/dev/tcp/{address}/{port};"
                                    " cat <&3' || echo refused")
    outer.ok("pillion --shutdown", 60)
    configure(outer, CONFIG + "[experimental]\nhostAddressLoopback=true\n")
    try:
        for address, (_, port) in services.items():
            told = (f"exec 3<>/dev/tcp/{address}/{port}; printf abc >&3; perl -e 'shutdown(STDIN, 1)' <&3; read x <&3;"
                    " echo $x")
            assert outer.ok(f"pillion -d debian -- {quote('bash -c ' + quote(told))}", BOOT) == "got 3\n"
    finally:
        outer.run("pillion --shutdown; pkill perl", 60)
        configure(outer, CONFIG)


def test_folders_that_the_config_names_are_seen(outer):
    outer.ok("pillion --shutdown; mkdir -p /test/seen /test/mine; chmod 777 /test/seen /test/mine;"
             " echo from the host >/test/seen/note", 60)
    configure(outer, CONFIG + "share=/test/seen\nshare=/test/mine:rw\n")
    try:
        said = outer.ok("pillion -d debian -- " + quote(
            "cat /mnt/host/seen/note; touch /mnt/host/seen/new /mnt/host/new; echo back >/mnt/host/mine/back"), BOOT)
        assert said == "from the host\n"
        assert outer.ok("cat /test/mine/back; ls /test/seen") == "back\nnote\n"
    finally:
        outer.ok("pillion --shutdown", 60)
        configure(outer, CONFIG)


def test_folder_of_the_host_is_seen_and_not_written(outer, machine):
    assert " virtiofs " not in machine("cat /proc/mounts")  # nothing to see yet
    outer.ok("pillion --shutdown", 60)
    outer.ok("echo from the host >/test/cache/pillion/models/note; chmod 644 /test/cache/pillion/models/note")
    outer.ok("pillion -d debian -e true", BOOT)
    assert " /mnt/models virtiofs ro," in machine("cat /proc/mounts")
    assert machine("cat /mnt/models/note") == "from the host\n"
    assert "Read-only file system" in machine("echo x 2>&1 >/mnt/models/mine || true; touch /mnt/models/note 2>&1 || true")
    digest = outer.ok("head -c 8M /dev/urandom >/test/cache/pillion/models/bulk;"
                      " sha256sum </test/cache/pillion/models/bulk")
    assert machine("sha256sum </mnt/models/bulk") == digest
    # its server dies while in use: errors perhaps, but the machine lives and the folder comes back
    outer.ok("kill -9 $(pidof virtiofsd)")
    wait_for("the folder again", lambda: outer.run(f"timeout {slowness.bound(10):.0f} pillion -d debian -- 'cat /mnt/models/note'").out
             == "from the host\n", 60)


def test_network_and_folders_are_served_from_jails(outer, machine):
    check_jails(outer)


def test_idle_machine_leaves_the_processors_alone(outer, machine):
    time.sleep(3)
    before = ticks(outer, "pillion-vmm")
    start = time.monotonic()
    time.sleep(8)
    used = (ticks(outer, "pillion-vmm") - before) / 100 / (time.monotonic() - start)
    assert used < 0.5, f"{used:.2f} processors"  # emulated ones; a loop that spins takes all of one


def resident(outer):
    """Of the machine that runs."""
    text = outer.ok(f"cat /proc/{monitor(outer)}/status")
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) << 10


def test_freed_memory_goes_back_to_the_host(outer, machine):
    machine("head -c 400M /dev/zero >/dev/shm/fill", 120)
    full = resident(outer)
    assert full > 400 * MIB
    machine("rm /dev/shm/fill")
    wait_for("memory given back", lambda: resident(outer) < full - 350 * MIB, 180)


def test_caches_that_are_dropped_go_back_to_the_host(outer):
    """Of a machine with a folder: its memory is a file, which virtiofsd maps as well."""
    outer.ok("pillion --shutdown; mkdir -p /test/seen", 60)
    configure(outer, CONFIG + "share=/test/seen\nautoMemoryReclaim=dropCache\n")
    try:
        outer.ok("pillion -d debian -e true", BOOT)
        before = resident(outer)
        outer.ok("(pillion -d debian -- 'yes | head -c 300M >/root/big; sync; sleep 10'"
                 " >/dev/null 2>&1 </dev/null &)")
        wait_for("the file in the cache", lambda: resident(outer) > before + 280 * MIB, 180)
        wait_for("its memory given back", lambda: resident(outer) < before + 80 * MIB, 180)
        assert outer.ok("pillion -d debian -- 'stat -c %s /root/big; rm /root/big'") == f"{300 * MIB}\n"
    finally:
        outer.ok("pillion --shutdown", 60)
        configure(outer, CONFIG)


def test_image_shrinks_when_files_are_deleted(outer, machine):
    def on_disk():
        machine("sync")
        return 512 * int(outer.ok("stat -c %b /test/data/pillion/distros/debian/disk.ext4"))

    before = on_disk()
    machine("yes | head -c 200M >/root/big; sync", 120)
    full = on_disk()
    assert full > before + 190 * MIB
    machine("rm /root/big")
    wait_for("blocks given back", lambda: on_disk() < full - 190 * MIB, 180)


def test_terminate_powers_off_and_files_persist(outer, machine):
    machine("echo kept >/root/persists; mkdir -p /root/many; cd /root/many; for i in $(seq 300); do echo $i >f$i; done")
    assert "completed successfully" in outer.ok("pillion --terminate debian", 60)
    assert not left(outer)
    assert "Stopped" in outer.ok("pillion --list -v")
    checked = fsck(outer)
    assert checked.status == 0, checked
    assert "recover" not in checked.out.lower()
    outer.ok("pillion -d debian -e true", BOOT)
    assert machine("cat /root/persists; ls /root/many | wc -l; cat /root/many/f300").split() == \
        ["kept", "300", "300"]


def test_llama_computes_through_the_broker_as_outside(outer, machine, tiny):
    """The text of the same program in the same tree on the same weights, without any machine."""
    options = ("-p 'Once upon a time' -n 24 --temp 0 --seed 1 -no-cnv --ignore-eos"
               " --no-display-prompt --no-perf -t 1 2>/dev/null </dev/null")
    outer.ok(f"pillion -d debian -- 'cat >/root/tiny.gguf' </test/{tiny.name}", 60)
    devices = machine("llama-completion --list-devices 2>/dev/null", 180)
    assert "Pillion0: reference device (host CPU" in devices
    before = ticks(outer, "pillion-exec")
    inside = machine(f"llama-completion -m /root/tiny.gguf {options}", 300)
    assert ticks(outer, "pillion-exec") > before + 50
    assert len(inside) > 24
    outer.ok("pillion --terminate debian", 60)
    outside = outer.ok(f"mkdir -p /tmp/tree && /test/busybox mount -o ro,loop {disk()} /tmp/tree && bwrap --ro-bind /tmp/tree / --dev /dev"
                       f" --proc /proc --tmpfs /tmp --ro-bind /test/{tiny.name} /tmp/tiny.gguf --"
                       f" llama-completion -m /tmp/tiny.gguf {options}; /test/busybox umount /tmp/tree", 300)
    shorter = min(len(inside), len(outside))  # the last words can be missing, see assert_same_text()
    assert shorter > 24 and inside[:shorter] == outside[:shorter], (inside, outside)


def test_bench_compares_with_the_same_program_outside(outer, machine, tiny):
    outer.ok("pillion -d debian -e true", BOOT)
    report = json.loads(outer.ok(f"pillion bench -d debian -m /test/{tiny.name} -p 8 -n 4 -r 1 --json --even-if-busy", 900))
    assert report["machine"] == {"name": "debian", "backend": "kvm"}, report
    assert [test["name"] for test in report["tests"]] == ["pp8", "tg4"], report
    assert all(test["native"][0] > 0 and test["inside"][0] > 0 for test in report["tests"])


WRITER = """cd /root/w
i=0
while :; do
	i=$((i + 1))
	head -c 20000 /dev/urandom >f$i
	digest=$(sha256sum <f$i)
	sync
	echo $i $digest
done"""


def kill_while_starting(outer):
    """The process that waits for the machine, in the middle of the kernel's boot."""
    outer.ok("(setsid pillion -d debian -e true >/dev/null 2>&1 </dev/null &)", env={"PILLION_LOG": "info"})
    wait_for("the monitor", lambda: len(outer.run("pidof pillion-vmm").out.split()) == 2, 60)
    time.sleep(3)
    outer.ok(f"kill -9 {monitor(outer, jailed=False)}")
    wait_until_gone(outer)


def check_files(outer):
    """What a machine that has ended leaves: its disk."""
    assert outer.run("ls /test/data/pillion/distros/debian").out.split() == ["disk.ext4", "distro.json"]
    assert outer.run("ls -A /run/test/pillion/machines/debian 2>/dev/null").out == ""


@pytest.mark.parametrize("victim", ["monitor", "supervisor", "logout"])
def test_killed_machine_loses_nothing_that_was_synced(outer, victim):
    """kill -9 in the middle of writes, and of the start that follows; or SIGTERM, as when a session ends: a guest
    has 0.6 s then.
    """
    outer.run("pillion --terminate debian", 60)
    mounts = outer.ok("cat /proc/mounts")
    outer.ok("pillion -d debian -- 'rm -rf /root/w; mkdir /root/w; sync'", BOOT)
    outer.ok("rm -f /tmp/status; cat >/tmp/writer; : >/tmp/synced", text=WRITER)
    outer.ok("setsid sh -c 'pillion -d debian -- \"$(cat /tmp/writer)\" >/tmp/synced 2>/tmp/why;"
             " echo $? >/tmp/status' >/dev/null 2>&1 </dev/null &")
    wait_for("some files", lambda: outer.ok("cat /tmp/synced").count("\n") >= 12, 120)
    outer.ok({"monitor": f"kill -9 {monitor(outer)}", "supervisor": "kill -9 $(pidof pillion-machine)",
              "logout": "kill -TERM $(pidof pillion-machine pillion)"}[victim])
    wait_for("the command's end", lambda: outer.run("cat /tmp/status").out, 60)
    assert outer.ok("cat /tmp/status") != "0\n"
    synced = [line.split()[:2] for line in outer.ok("cat /tmp/synced").splitlines(keepends=True) if line.endswith("-\n")]
    wait_until_gone(outer)
    if victim != "supervisor":  # else nobody could clean up
        check_files(outer)
    assert outer.ok("cat /proc/mounts") == mounts
    assert victim == "logout" or "needs_recovery" in outer.ok(f"dumpe2fs -h {disk()}")
    if victim == "monitor" or os.environ.get("PILLION_SOAK"):  # what is left is the same for both
        kill_while_starting(outer)
    else:
        outer.ok("pillion -d debian -e true", BOOT, env={"PILLION_LOG": "info"})
    assert victim == "logout" or "was in use; looking through it" in log(outer)
    outer.ok("pillion -d debian -e true", BOOT)
    there = dict(line.split("  ")[::-1] for line in
                 outer.ok("pillion -d debian -- 'cd /root/w; sha256sum f*'").splitlines())
    assert [(n, there.get(f"f{n}")) for n, _ in synced] == [tuple(s) for s in synced]
    outer.ok("pillion --terminate debian", 60)
    check_files(outer)
    checked = fsck(outer)
    assert checked.status == 0, checked


def test_reboot_inside_ends_the_machine_and_the_next_command_starts_it(outer, machine):
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    before = machine(f"echo kept >/root/reboot; sync; {boot_id}")
    said = outer.run(f"pillion -d debian -- {quote(RESET)}", 60)
    assert said.status != 0
    wait_for("its end", lambda: outer.run("pidof pillion-vmm pillion-machine").out == "", 60)
    after = outer.ok(f"pillion -d debian -- {quote(boot_id)}", BOOT)
    assert after != before
    assert machine("cat /root/reboot") == "kept\n"


def test_panic_is_told_and_its_last_lines_are_kept(outer, machine):
    said = outer.run("pillion -d debian -- 'echo c >/proc/sysrq-trigger'", 60)
    assert said.status == 1
    assert "the machine panicked: Kernel panic - not syncing: sysrq triggered crash" in said.err, said
    path = re.search(r"hint: see (\S+)", said.err)[1]
    kept = outer.ok(f"cat {path}")
    assert "guest: " in kept and "Kernel panic - not syncing: sysrq triggered crash" in kept
    wait_for("its end", lambda: outer.run("pidof pillion-vmm pillion-machine").out == "", 60)
    outer.ok("pillion -d debian -e true", BOOT)


def test_full_disk_of_the_host_fails_writes_and_the_machine_lives(outer, machine):
    machine("echo kept >/root/before-full; sync")
    outer.ok("fallocate -l $(($(stat -f -c '%a * %S' /test) - 8000000)) /test/filler", 120)
    try:
        write = quote("head -c 30M /dev/zero | tr '\\0' x >/root/too-much && sync -d /root/too-much")
        said = outer.run(f"pillion -d debian -- {write}", 300)
        assert said.status != 0, said
        assert "No space left" in log(outer), log(outer)
        assert machine("cat /root/before-full", 120) == "kept\n"
    finally:
        outer.ok("rm /test/filler")
    outer.ok("pillion --terminate debian", 120)
    outer.ok("pillion -d debian -- 'rm -f /root/too-much && sync'", BOOT)
    assert machine("cat /root/before-full") == "kept\n"
    outer.ok("pillion --terminate debian", 60)
    assert fsck(outer).status == 0


@pytest.mark.parametrize("what, damage, said", [
    ("missing", "mv disk.ext4 kept.ext4", "disk.ext4"),
    ("corrupt", "cp --sparse=always disk.ext4 kept.ext4 && dd if=/dev/urandom of=disk.ext4 bs=1M count=3 conv=notrunc", "disk.ext4"),
    ("locked", "cp --sparse=always disk.ext4 kept.ext4; (setsid flock disk.ext4 sleep 6000 >/dev/null 2>&1 </dev/null &);"
     " until ! flock -n disk.ext4 true; do sleep 0.2; done",
     "used by another")])
def test_bad_disk_is_refused_by_name(outer, what, damage, said):
    outer.ok("pillion --shutdown", 60)
    folder = "/test/data/pillion/distros/bookworm"
    outer.ok(f"cd {folder} && {damage}", 120)
    try:
        done = outer.run("pillion -d bookworm -e true", 120)
        assert done.status == 1 and said in done.err + log(outer, "bookworm"), (what, done, log(outer, "bookworm"))
        assert "hint:" in done.err
        assert not left(outer)
    finally:
        outer.ok(f"pkill -f 'sleep 600[0]'; mv {folder}/kept.ext4 {folder}/disk.ext4")


@pytest.mark.parametrize("text, said", [("memory=900GB\n", "memory = in the config"),
                                        ("kernel=/test/none\n", "/test/none"),
                                        ("kernel=/test/data/pillion/kits/kernel-bookworm/vmlinux\n",
                                         "the kernel is 6.1.0-"),
                                        ("kernel=/test/start\n", "/test/start")])
def test_bad_setting_is_refused_by_name(outer, text, said):
    outer.ok("pillion --shutdown", 60)
    configure(outer, "[wsl2]\n" + text)
    try:
        done = outer.run("pillion -d bookworm -e true", 150)
        assert done.status == 1 and said in done.err and "hint:" in done.err, done
        assert not left(outer)
    finally:
        configure(outer, CONFIG)


SETTINGS = """[wsl2]
memory=700MB
swap=96MB
processors=1
kernelCommandLine=pillion.test=1 loglevel=5
nestedVirtualization=true
autoMemoryReclaim=disabled
localhostForwarding=false
vmIdleTimeout=4000
"""


def test_settings_reach_the_machine(outer):
    """All of them at once; the last of them ends it."""
    def run(command, timeout=60):
        return outer.ok(f"pillion -d bookworm -- {quote(command)}", timeout)

    outer.ok("pillion --shutdown", 60)
    configure(outer, SETTINGS)
    try:
        cmdline = run("cat /proc/cmdline", BOOT)
        assert " pillion.test=1 loglevel=5" in cmdline
        assert 600 << 10 < int(run("awk '/MemTotal/ { print $2 }' /proc/meminfo")) < 700 << 10
        swaps = run("cat /proc/swaps").splitlines()
        assert re.match(r"/dev/vdb\s+partition\s+(9[0-9]{4})\s", swaps[1]) and len(swaps) == 2, swaps
        assert run("nproc") == "1\n"
        assert "svm" in run("grep ^flags /proc/cpuinfo").split()
        assert "0x0005" not in run("cat /sys/bus/virtio/devices/*/device")  # no balloon
        outer.ok("pillion -d bookworm -- 'exec sleep 6000' >/dev/null 2>&1 </dev/null &")
        run(f"(setsid perl -e {quote(COUNTER)} 127.0.0.1 8913 >/dev/null 2>&1 </dev/null &)")
        wait_for("the port inside", lambda: ":8913 " in run("ss -ltn"), 40)
        time.sleep(2)  # it would be announced by now
        assert ":8913 " not in outer.ok("ss -ltn")
        run("pkill perl; pkill sleep")
        wait_for("an idle machine stops", lambda: not left(outer), 60)
        assert "Stopped" in outer.ok("pillion --list -v")
        assert fsck(outer, "bookworm").status == 0
    finally:
        configure(outer, CONFIG)


def test_two_machines_at_once_have_a_kernel_each(outer, machine):
    """Debian 12 beside sid."""
    outer.ok("pillion -d bookworm -e true", BOOT)
    assert "bookworm" in machine("cat /etc/os-release", name="bookworm")
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    assert machine(boot_id) != machine(boot_id, name="bookworm")
    outer.ok("pillion --shutdown", 60)
    assert outer.run("pidof pillion-vmm").out == ""


@pytest.mark.parametrize("kernel, release, names", [("bookworm", r"6\.1\.0-", ["debian", "bookworm"]),
                                                    ("sid", r"([7-9]|\d\d)\.", ["bookworm"])])
def test_other_kernels_run_the_distributions(outer, kernel, release, names):
    outer.ok("pillion --shutdown", 60)
    configure(outer, CONFIG + f"kernel={kernel}\n")
    try:
        for name in names:
            said = outer.ok(f"pillion -d {name} -e uname -r", BOOT)
            assert re.match(release, said), said
            outer.ok(f"pillion -d {name} -- 'ip route | grep -q default && echo {kernel} >/root/kernel && sync'")
            outer.ok(f"pillion --terminate {name}", 60)
            assert fsck(outer, name).status == 0
    finally:
        configure(outer, CONFIG)


def test_machine_has_the_processors_it_was_given(outer):
    """In an outer computer of its own, which may stop by itself: see outer.py."""
    del outer  # the reason to skip, and one computer after the other
    for last in (False, False, True):
        try:
            o = outer_lib.Outer(distros=(("bookworm", "bookworm"),), processors=2)
        except outer_lib.Lost:
            if last:
                raise
            continue
        try:
            configure(o, CONFIG + "processors=2\n")
            o.ok("pillion -d bookworm -e true", BOOT)
            assert o.ok("pillion -d bookworm -e nproc") == "2\n"
            said = o.ok("pillion -d bookworm -- 'for c in 0 1; do (taskset -c $c sh -c \"i=0; while [ \\$i -lt 20000 ];"
                        " do i=\\$((i+1)); done; echo done\") & done; wait'", 120)
            assert said.split() == ["done", "done"]
            assert "completed successfully" in o.ok("pillion --terminate bookworm", 60)
            configure(o, CONFIG + "processors=1\n")
            assert o.ok("pillion -d bookworm -e nproc", BOOT) == "1\n"
            return
        except outer_lib.Lost:
            if last:
                raise
        finally:
            o.close()


def test_version_changes_both_ways_and_nothing_is_lost(outer):
    outer.ok("pillion -d bookworm -- 'echo mine >/root/mine; chown 1000:1000 /root/mine; chmod 640 /root/mine;"
             " touch -d @1234567890.123456789 /root/mine; mknod /root/null c 1 3'", BOOT)
    outer.ok("pillion --terminate bookworm", 60)
    look = "pillion -d bookworm -e stat -c '%n %u %g %a %.Y' /root/mine"
    outer.ok("pillion --set-version bookworm 1", 300)
    assert re.search(r"bookworm\s+Stopped\s+1", outer.ok("pillion --list -v"))
    assert outer.ok(look, 120) == "/root/mine 1000 1000 640 1234567890.123456789\n"
    outer.ok("pillion --terminate bookworm", 60)
    configure(outer, CONFIG + "defaultVhdSize=8GB\n")
    outer.ok("pillion --set-version bookworm 2", 300)
    configure(outer, CONFIG)
    assert outer.ok(f"stat -c %s {disk('bookworm')}") == f"{8 << 30}\n"
    assert outer.ok(look, BOOT) == "/root/mine 1000 1000 640 1234567890.123456789\n"
    assert outer.ok("pillion -d bookworm -e stat -c '%F %t:%T' /root/null") == \
        "character special file 1:3\n"
    outer.ok("pillion --terminate bookworm", 60)
    assert fsck(outer, "bookworm").status == 0


def test_rootless_user_has_microvms(outer):
    """Nobody's help: /dev/kvm, a range of ids, and the user's own folders."""
    outer.ok("pillion --shutdown", 60)
    outer.ok("useradd -m tester && mkdir -p /test/user/data/pillion/kits /test/user/data/pillion/distros"
             " /test/user/config/pillion /test/user/cache/pillion/models /run/tester && cd /test/data/pillion &&"
             " cp -a kits/kernel-trixie /test/user/data/pillion/kits/ &&"
             " cp -a --sparse=always distros/bookworm /test/user/data/pillion/distros/ &&"
             " echo shared >/test/user/cache/pillion/models/note && cp /test/config/pillion/config /test/user/config/pillion/ &&"
             " chown -R tester: /test/user /run/tester && chmod 700 /run/tester", 120)
    env = {f"XDG_{kind.upper()}_HOME": f"/test/user/{kind}" for kind in ("data", "cache", "config")}
    env.update(XDG_RUNTIME_DIR="/run/tester", HOME="/home/tester",
               PATH="/test/src/cli:/usr/local/bin:/usr/bin:/bin")
    as_user = "setpriv --reuid tester --regid tester --clear-groups --inh-caps=-all pillion"

    def ok(command, timeout=60):
        return outer.ok(f"{as_user} {command}", timeout, env=env)

    ok("-d bookworm -e true", BOOT)
    assert ok("-d bookworm -e id -u") == "0\n"
    assert ok("-d bookworm -- 'chown 33 /root && stat -c %u /root'") == "33\n"
    assert "default via" in ok("-d bookworm -e ip route")
    assert ok("-d bookworm -e cat /mnt/models/note") == "shared\n"
    owners = outer.ok("ps -o user= -p $(pidof pillion-vmm | tr ' ' ,)").split()
    assert set(owners) == {"tester"}
    check_jails(outer)
    assert "completed successfully" in ok("--terminate bookworm")
    assert not left(outer)
    checked = outer.run("e2fsck -fn /test/user/data/pillion/distros/bookworm/disk.ext4", 120)
    assert checked.status == 0, checked
