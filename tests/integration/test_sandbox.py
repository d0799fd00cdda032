# SPDX-License-Identifier: Apache-2.0
"""What root of a sandbox tries against the host, as root's machine and as a user's."""
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile

import pytest
import wire
from host import children, name_of, signal_all, wait_for

# Perl, which every Debian tree has, makes the calls.  `call` says OK or the error.
CALLS = r"""sub call { my ($n, @a) = @_; my $r = syscall($n, @a); return $r < 0 ? "$!" : "OK" }
my ($mount, $umount, $ptrace, $unshare, $pidfd_open, $pidfd_getfd) = (165, 166, 101, 272, 434, 438);
my ($none, $tmpfs, $cgroup2, $proc, $opt) = ("none", "tmpfs", "cgroup2", "proc", "/opt");
"""


def perl(pil, program, *args):
    return pil.ok("-u", "root", "-e", "perl", "-e", CALLS + program, *args)


def read_only_mounts(pil):
    text = pil.ok("-u", "root", "-e", "cat", "/proc/self/mountinfo")
    return [f[4] for f in map(str.split, text.splitlines()) if "ro" in f[5].split(",")]


# ---- mounts ----

def test_no_read_only_mount_is_made_writable_from_inside(anyones):
    places = read_only_mounts(anyones)
    assert {"/mnt/models", "/run/pillion/host", "/usr/lib/pillion"} < set(places)
    tried = r"""for (@ARGV) { my $p = "$_"; # MS_REMOUNT | MS_BIND
                print "$p: ", call($mount, $none, $p, 0, 0x1020, 0), ", ", call($umount, $p, 2), "\n" }"""
    for line in perl(anyones, tried, *places).splitlines():
        assert re.fullmatch(r"[^:]+: Operation not permitted, Invalid argument", line)
    assert read_only_mounts(anyones) == places
    for folder in ("/mnt/models", "/run/pillion/host", "/usr/lib/pillion/lib"):
        assert "Read-only" in anyones.run("-u", "root", "-e", "touch", f"{folder}/x").stderr


def test_root_of_a_sandbox_still_owns_what_is_its_own(anyones):
    said = perl(anyones, r"""print call($mount, $none, $opt, $tmpfs, 0, 0), "\n", call($umount, $opt, 0), "\n",
                             call($unshare, 0x10000000 | 0x20000 | 0x20000000 | 0x40000000), "\n";
                             if (!fork) { my $p = "/proc"; print call($mount, $proc, $p, $proc, 0, 0), "\n"; exit } wait""")
    assert said == "OK\n" * 4
    anyones.ok("-u", "root", "--", "ip address add 10.9.9.9/32 dev lo && ip address delete 10.9.9.9/32 dev lo")
    anyones.ok("-u", "root", "--", "hostname tried && hostname debian")
    anyones.ok("-u", "root", "--", "touch /root/x && chown 65535:65535 /root/x && chmod 4755 /root/x && rm /root/x")


# ---- other processes ----

def test_descriptors_of_pid_1_are_out_of_reach(anyones):
    said = perl(anyones, r"""my $p = syscall($pidfd_open, 1, 0); die if $p < 0;
                             print call($pidfd_getfd, $p, $_, 0), "\n" for 0 .. 40;
                             print call($ptrace, 16, 1, 0, 0), "\n"; # PTRACE_ATTACH
                             print open(my $f, "<", "/proc/1/mem") ? "OK" : $!, "\n";
                             print readlink("/proc/1/fd/1") ? "OK" : $!, "\n" """)
    assert set(said.splitlines()) == {"Operation not permitted", "Permission denied"}


# ---- control groups ----

def test_cgroups_of_the_host_cannot_be_mounted(anyones):
    said = perl(anyones, r"""print call($mount, $none, $opt, $cgroup2, 0, 0), "\n", call($unshare, 0x02000000), "\n";
                             call($unshare, 0x10000000 | 0x20000) eq "OK" or die;
                             print call($unshare, 0x02000000), "\n" """)
    assert said.splitlines() == ["Operation not permitted"] + ["No space left on device"] * 2


# ---- what a machine need not see ----

def test_no_cgroup_tree_and_no_card_of_the_host_is_shown(anyones):
    assert anyones.ok("-e", "ls", "/sys/fs/cgroup") == ""
    assert anyones.ok("-e", "ls", "/sys/class/net", "/sys/devices/virtual/net").split() == \
        ["/sys/class/net:", "/sys/devices/virtual/net:"]
    assert "cgroup" not in anyones.ok("-e", "cat", "/proc/self/mounts")
    assert anyones.ok("-e", "ls", "/sys/kernel", "/sys/fs").split() == ["/sys/fs:", "cgroup", "/sys/kernel:", "mm"]
    assert "cpu0" in anyones.ok("-e", "ls", "/sys/devices/system/cpu")


def test_what_tells_of_the_hosts_kernel_is_hidden(anyones):
    for name in ("keys", "kallsyms", "interrupts", "kcore", "sysrq-trigger", "timer_list"):
        assert anyones.run("-u", "root", "-e", "cat", f"/proc/{name}").returncode == 1
    assert anyones.ok("-u", "root", "-e", "ls", "/proc/acpi", "/proc/fs").split() == ["/proc/acpi:", "/proc/fs:"]


def test_nothing_of_proc_and_sys_is_writable_but_the_machines_own(anyones):
    said = perl(anyones, r"""open my $l, "-|", "find /proc /sys -path '/proc/[0-9]*' -prune -o -type f -print 2>/dev/null";
                             while (<$l>) { chomp; print "$_\n" if sysopen my $f, $_, 1 }""")
    own = re.compile("/proc/sys/(net/|user/|fs/mqueue/|kernel/(auto_msgmni|msg|ns_last_pid|pid_max|sem|shm))")
    others = [name for name in said.splitlines() if not own.match(name)]
    assert others == []


def test_keyring_of_the_hosts_session_stays_outside(anyones_own):
    keyctl = """import ctypes, subprocess, sys
syscall = ctypes.CDLL(None).syscall
assert syscall(250, 1, None) > 0  # KEYCTL_JOIN_SESSION_KEYRING
assert syscall(248, b"user", b"tried", b"secret", 6, -3) > 0  # add_key to the session's
sys.exit(subprocess.run(sys.argv[1:]).returncode)"""
    search = r"""my ($t, $d) = ("user", "tried"); print call(250, 10, -3, $t, $d, 0), "\n" """
    before = anyones_own.as_user
    anyones_own.as_user = [*before, "/usr/bin/python3", "-c", keyctl]
    try:
        said = perl(anyones_own, search)
    finally:
        anyones_own.as_user = before
    assert said.strip() in ("Required key not available", "Operation not permitted", "Function not implemented")


def test_every_user_of_a_sandbox_may_use_the_device(anyones):
    assert "Pillion0" in anyones.ok("-u", "nobody", "-e", "llama-completion", "--list-devices")


# ---- limits ----

def test_limits_are_set_outside_and_stay(anyones):
    said = perl(anyones, r"""for (glob "/proc/sys/user/max_*_namespaces") { open my $f, ">", $_; print $f "100000\n"; close $f }
                             my $n = 0; $n++ while $n < 600 && call($unshare, 0x20000) eq "OK"; print "$n\n";
                             my @kept; for (1 .. 600) { pipe my $r, my $w; my $p = fork; if (!$p) { close $w;
                                 print call($unshare, 0x40000000) eq "OK" ? "" : "no\n"; <$r>; exit } push @kept, $w }
                             close $_ for @kept; 1 while wait > 0""")
    assert "no" in said  # of 600 network namespaces at once


def computes(pil):
    """Whether a new session of the machine gets an executor, and that computes."""
    folder = pil.runtime / "machines" / "debian"
    s = wire.Session(folder / "guest" / "broker.sock", bytes.fromhex((folder / "token").read_text()), 30)
    s.alloc(4096)
    s.define(1, wire.tensor("NONE", 0, (8,)), wire.tensor("SQR", 64, (8,), (1,)))
    failed, _ = s.run(1)
    s.close()
    return failed == 0


def test_fork_bomb_leaves_the_host_room_for_processes(anyones_own):
    """With limits so low that all of them can be made: broker, executor and command line go on."""
    before = anyones_own.as_user
    anyones_own.as_user = [*before, "prlimit", "--nproc=400"] if before else ["prlimit", "--nproc=4000"]
    bomb = r"""my $n = 0; while (defined(my $p = fork)) { if (!$p) { sleep 20; exit } $n++; last if $n > 3000 } print "$n $!\n" """
    try:
        made = int(perl(anyones_own, bomb).split()[0])
        assert 20 < made < (200 if before else 2000)
        for _ in range(3):
            assert anyones_own.run("--list").returncode == 0
            assert "Device 0: " in anyones_own.ok("--status")
            assert computes(anyones_own)
        left = int(anyones_own.ok("-e", "sh", "-c", "set -- /proc/[0-9]*; echo $#")) if not before else made
        assert left >= made, "the bomb was over too soon"
    finally:
        anyones_own.as_user = before
        anyones_own.run("--shutdown")


# ---- the log ----

def test_what_a_sandbox_prints_cannot_fill_or_forge_the_log(anyones_own):
    pil = anyones_own
    pil.ok("-u", "root", "-e", "tee", "/etc/wsl.conf", input="[boot]\ncommand=perl /root/boot.pl\n")
    pil.ok("-u", "root", "-e", "tee", "/root/boot.pl", input=r"""
        $| = 1; print "pillion-vmm: err: forged\n\e]0;owned\a\n";
        print STDERR "fallocate: ", syscall(285, 1, 0, 0, 3 << 30) ? "$!" : "OK", "\n"; # not on a pipe
        print STDERR "append: ", fcntl(STDOUT, 4, 0) ? "OK" : "$!", "\n"; seek STDOUT, 0, 0;
        print "x" x 999, "\n" for 1 .. 40000; print "end\n"; sleep 30""")
    log = pil.runtime / "machines" / "debian.log"
    try:
        pil.ok("--terminate", "debian")
        pil.ok("-e", "true")
        wait_for("it has printed", lambda: "append" in log.read_text(errors="replace"))
        wait_for("it is let go on", lambda: pil.run("-e", "pgrep", "-f", "boot.pl").returncode == 0, timeout=30)
        lines = log.read_text().splitlines()
        assert "sandbox: pillion-vmm: err: forged" in lines and "sandbox: \\x1b]0;owned\\x07" in lines
        assert "sandbox: fallocate: Illegal seek" in lines
        assert all(line.startswith(("beside: ", "sandbox: ", "pillion-machine: ")) for line in lines)
        assert log.stat().st_size < 3 << 20
    finally:
        pil.ok("-u", "root", "-e", "rm", "-f", "/etc/wsl.conf", "/root/boot.pl")
        pil.ok("--terminate", "debian")


# ---- system calls ----

def test_calls_that_containers_do_not_make_are_denied(anyones_own):
    tried = r"""print call(321, 0, 0, 0), ", ", call(425, 1, 0), ", ", call(323, 0), ", ", call(41, 40, 1, 0), ", ", call(999)"""
    assert perl(anyones_own, tried) == ("Operation not permitted, Function not implemented, Operation not permitted, "
                                        "Address family not supported by protocol, Function not implemented")
    assert anyones_own.ok("-e", "grep", "Seccomp:", "/proc/1/status").split()[1] == "2"
    anyones_own.ok("--terminate", "debian")
    anyones_own.configure("[sandbox]\nsystemCallFilter=false\n")
    assert anyones_own.ok("-e", "grep", "Seccomp:", "/proc/1/status").split()[1] == "0"


# ---- folders of the host ----

def test_read_only_share_stays_as_it_is(anyones_own):
    folder = anyones_own.root / "shared"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    notes = folder / "notes"
    notes.write_text("mine\n")
    notes.chmod(0o666)
    anyones_own.configure(f"[wsl2]\nshare = {folder}\n")
    try:
        said = perl(anyones_own, r"""my $p = "/mnt/host/shared"; print call($mount, $none, $p, 0, 0x1020, 0), "\n",
                                     call($umount, $p, 2), "\n"; print open(my $f, ">", "$p/notes") ? "OK" : $!, "\n";
                                     call($unshare, 0x10000000 | 0x20000); print call($mount, $none, $p, 0, 0x1020, 0), "\n" """)
        assert said.splitlines() == ["Operation not permitted", "Invalid argument", "Read-only file system",
                                     "Operation not permitted"]
        assert notes.read_text() == "mine\n"
    finally:
        subprocess.run(["rm", "-r", folder], check=True)


CONNECT = r"""use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0);
               print connect($s, sockaddr_un("/mnt/host/shared/agent")) ? "OK" : $! """


@pytest.fixture
def shared_folder(anyones_own):
    """With a socket that is listened at, a FIFO that is read, and a file."""
    folder = anyones_own.root / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "notes").write_text("mine\n")
    (folder / "notes").chmod(0o666)
    os.mkfifo(folder / "fifo")
    (folder / "fifo").chmod(0o666)
    fifo = os.open(folder / "fifo", os.O_RDWR | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "agent"))
        (folder / "agent").chmod(0o777)
        server.listen()
        yield folder, fifo
    os.close(fifo)
    anyones_own.run("--terminate", "debian")
    subprocess.run(["rm", "-r", folder], check=True)


def test_read_only_share_shows_files_as_they_are_but_no_way_out(anyones_own, shared_folder):
    folder, fifo = shared_folder
    pil = anyones_own
    pil.configure(f"[wsl2]\nshare = {folder}\n")
    assert "fuse" in pil.ok("-e", "grep", "/mnt/host/shared", "/proc/self/mounts")
    assert pil.ok("-e", "cat", "/mnt/host/shared/notes") == "mine\n"
    (folder / "notes").write_text("longer than it was\n")
    (folder / "later").write_text("new\n")
    wait_for("the machine sees what changed",
             lambda: pil.ok("-e", "cat", "/mnt/host/shared/notes") == "longer than it was\n", timeout=3)
    assert pil.ok("-e", "cat", "/mnt/host/shared/later") == "new\n"
    (folder / "later").unlink()
    wait_for("the machine sees it gone", lambda: pil.run("-e", "cat", "/mnt/host/shared/later").returncode, timeout=3)
    assert perl(pil, CONNECT) == "Connection refused"
    pil.run("-u", "root", "-e", "timeout", "1", "sh", "-c", "exec 3<>/mnt/host/shared/fifo; echo out >&3")
    with pytest.raises(BlockingIOError):
        os.read(fifo, 10)


def test_share_marked_sockets_lets_them_be_used(anyones_own, shared_folder):
    """The other way round: what the test above refuses would work."""
    folder, _ = shared_folder
    anyones_own.configure(f"[wsl2]\nshare = {folder}:sockets\n")
    assert perl(anyones_own, CONNECT) == "OK"
    assert "Read-only" in anyones_own.run("-u", "root", "-e", "touch", "/mnt/host/shared/notes").stderr
    log = (anyones_own.runtime / "machines" / "debian.log").read_text()
    assert "can use its sockets and FIFOs (2" in log and "microVM" in log


def test_folder_of_models_with_a_socket_refuses_the_sandbox(anyones_own):
    """It is bound as it is, so that a program inside could connect."""
    pil = anyones_own
    pil.ok("-e", "true")
    pil.ok("--terminate", "debian")
    folder = pathlib.Path(pil.env["XDG_CACHE_HOME"]) / "pillion" / "models" / "deep" / "down" / "there"
    folder.mkdir(parents=True)
    try:
        os.mkfifo(folder / "fifo")
        done = pil.run("-e", "true")
        assert done.returncode == 1 and "fifo' is a socket or a FIFO" in done.stderr, done
        (folder / "fifo").unlink()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "agent"))
            done = pil.run("-e", "true")
            assert done.returncode == 1 and "agent' is a socket or a FIFO" in done.stderr, done
        (folder / "agent").unlink()
        pil.ok("-e", "true")
    finally:
        subprocess.run(["rm", "-r", folder.parents[1]], check=True)


def test_share_whose_server_is_killed_gives_errors_and_says_so(anyones_own, shared_folder):
    folder, _ = shared_folder
    pil = anyones_own
    pil.configure(f"[wsl2]\nshare = {folder}\n")
    pil.ok("-e", "true")
    servers = [pid for pid in children(pil.supervisor()) if "bindfs" in name_of(pid)]
    assert servers
    signal_all(servers)
    wait_for("the folder gives errors", lambda: "not connected" in pil.run("-e", "cat", "/mnt/host/shared/notes").stderr)
    log = pil.runtime / "machines" / "debian.log"
    wait_for("the log says it", lambda: f"share '{folder}': bindfs ended" in log.read_text())
    assert pil.run("-e", "true").returncode == 0


def test_no_server_of_a_share_outlives_the_supervisor(anyones_own, shared_folder):
    pil = anyones_own
    pil.configure(f"[wsl2]\nshare = {shared_folder[0]}\n")
    pil.ok("-e", "true")
    all_ = children(pil.supervisor())
    assert any("bindfs" in name_of(pid) for pid in all_)
    os.kill(pil.supervisor(), signal.SIGKILL)
    wait_for("all of them end", lambda: not [p for p in all_ if name_of(p)])


def test_read_only_share_without_bindfs_refuses_the_machine(anyones_own, shared_folder):
    pil = anyones_own
    with tempfile.TemporaryDirectory() as programs:
        os.chmod(programs, 0o755)
        for folder in ("/usr/sbin", "/usr/bin"):
            for program in pathlib.Path(folder).iterdir():
                if program.name != "bindfs" and not os.path.lexists(f"{programs}/{program.name}"):
                    os.symlink(program, f"{programs}/{program.name}")
        before = pil.env["PATH"]
        pil.env["PATH"] = programs
        try:
            pil.configure(f"[wsl2]\nshare = {shared_folder[0]}\n")
            done = pil.run("-e", "true")
            assert done.returncode == 1 and "read-only in a sandbox: bindfs is missing" in done.stderr
            assert "hint: sudo apt install bindfs fuse3" in done.stderr
            pil.configure(f"[wsl2]\nshare = {shared_folder[0]}:sockets\n")
            assert pil.run("-e", "true").returncode == 0
        finally:
            pil.env["PATH"] = before
            pil.run("--shutdown")


def test_share_in_a_writable_share_is_refused(anyones_own):
    """Programs could put a link there, to any folder of the user's."""
    pil = anyones_own
    outer = pathlib.Path(pil.env["HOME"]) / f"shared-{pathlib.Path(pil.root).name}"
    try:
        subprocess.run([*pil.as_user, "mkdir", "-p", outer / "inner", outer / "other"], check=True)
        pil.configure(f"[wsl2]\nshare = {outer}:rw\nshare = {outer}/inner\n")
        done = pil.run("-e", "true")
        assert done.returncode == 1 and "it lies in another share" in done.stderr, done
        (outer / "inner").rmdir()
        (outer / "inner").symlink_to("/etc")  # as a program may have done
        assert "it lies in another share" in pil.run("-e", "true").stderr
        pil.configure(f"[wsl2]\nshare = {outer}\nshare = {outer}/other:rw\n")
        pil.ok("-e", "true")
        pil.ok("--shutdown")
        pil.configure(f"[wsl2]\nshare = {outer}:rw\n[accel]\nggml_dir = {outer}/other\n")
        assert "what executors run" in pil.run("-e", "true").stderr
    finally:
        subprocess.run(["rm", "-r", outer], check=True)


def test_share_that_gives_the_host_away_is_refused(anyones_own):
    pil = anyones_own
    home = pil.env["HOME"]
    programs = pathlib.Path(pil.program).parents[1]
    for share, why in ((home, "your home folder"), ("/tmp", ""), ("/run", "sockets"),
                       (pil.root, "sockets"), (pil.runtime, "sockets"),
                       (f"{programs}:rw", "what pillion runs"), (f"{programs}/machine:rw", "what pillion runs"),
                       (f"{pil.root}/config/pillion:rw", "settings")):
        pil.configure(f"[wsl2]\nshare = {share}\n")
        done = pil.run("-e", "true")
        assert done.returncode == 1 and "is refused: " in done.stderr and why in done.stderr, (share, done)
        assert "hint: share a folder below it" in done.stderr
    pil.configure(f"[wsl2]\nshare = {home}:unsafe\n")
    assert "may act for you outside" in pil.run("-e", "true").stderr
