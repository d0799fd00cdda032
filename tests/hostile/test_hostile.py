# SPDX-License-Identifier: Apache-2.0
"""Root of a sandbox tries what the cases of `hostile` try; each must be refused, or harm nobody.

What is refused is said by errno; whether something was harmed the arena looks at.  A case that can
only be harmless names, in HARMLESS, what is looked at while it goes on.
"""
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time

import arena as arena_lib
import pytest

CASES = arena_lib.cases()
IN_SANDBOX = [name for name, (where, _) in CASES.items() if where in ("ns", "both")]
MODES = ["root", "rootless"]
SOON = 5  # seconds, on a host that has other things to do

# Cases that root of the host cannot succeed with in the scratch world either, and why.
NEVER = {
    "signal_host": "the scratch world has a pid namespace; the driver looks at the process itself",
    "userns_below": "the kernel locks the mounts of every namespace below",
    "userns_parent": "the first user namespace has no parent",
    "userns_owners": "all owners are the one user namespace there is",
    "setns_others": "its own processes have its own namespaces",
    "mount_namespaces_next": "depends on whether another mount namespace was made later",
    "key_in_named_session": "another session is found by its name alone",
    "read_proc_kmsg": "what one has read is gone for the next",
    "fresh_read_kmsg": "as read_proc_kmsg",
    "quota": "its root is a tmpfs without quotas",
    "oom_score": "needs CAP_SYS_RESOURCE, which root of a container has not always",
    "raise_files": "as oom_score",
    "raise_processes": "as oom_score",
    "raise_locked": "as oom_score",
    "fspick_superblock": "a bind mount of a tmpfs that is writable itself",
    "fresh_devtmpfs": "the host's kernel may not have it",
    "fresh_agent_named": "needs cgroup v1",
    "fresh_agent_pids": "needs cgroup v1",
}
for _name in CASES:
    if _name.startswith(("vsock_", "audit_", "localhost_", "group_", "fresh_group_", "node_of_disk")):
        NEVER.setdefault(_name, "depends on what this host has")
LACKING = ("ENOSYS", "ENOENT", "ENXIO", "ENODEV")  # this kernel has it not; test_microvm.py tries Debian's


@pytest.fixture(scope="module", params=MODES)
def arena(request):
    if os.getuid() != 0:
        pytest.skip("makes users, device nodes and control groups: run it as root")
    a = arena_lib.Arena(request.param)
    yield a
    a.close()


@pytest.fixture(scope="module")
def scratch():
    if os.getuid() != 0:
        pytest.skip("the self-test runs as root")
    arena_lib.keyctl(1, 0)  # KEYCTL_JOIN_SESSION_KEYRING
    keys = arena_lib.add_key(-3), arena_lib.add_key(-4, 0x3f3f0000)
    name = f"pillion-hostile-{os.getpid()}-scratch"
    with tempfile.TemporaryDirectory(prefix="pilh-") as folder, socket.create_server(("127.0.0.1", 0)) as tcp, \
            socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0" + name)
        abstract.listen()
        done = subprocess.run([arena_lib.HOSTILE, "--self-test", f"folder={folder}", f"session-key={keys[0]}",
                               f"user-key={keys[1]}", f"abstract={name}", f"port={tcp.getsockname()[1]}"],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        arena_lib.keyctl(9, keys[1], -4)  # KEYCTL_UNLINK
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        return arena_lib.results(done.stdout)


# ---- what is looked at while a case goes on ----

def takes(function, *args, **kwargs):
    start = time.monotonic()
    done = function(*args, **kwargs)
    return time.monotonic() - start, done


# What the kernel counts by user, and all machines of a user are one: they can take it from each other.
BY_USER = ("in_flight",)


def others_get_theirs(arena, case):
    """Another machine, and the user's programs, get what this bomb takes all of."""
    what = case.removeprefix("bomb_")

    def denied():
        """Who does not get it, and how it was refused."""
        machine = arena.pil.run("-d", "second", "-u", "root", "-e", "/hostile", "--use", what, timeout=30).stdout
        host = arena.on_host("--use", what).stdout
        return [f"{who}: {said.strip()}" for who, said in (("another machine", machine), ("the user's programs", host))
                if "\tallowed\t" not in said and not (who == "another machine" and what in BY_USER)]

    before = denied()  # a filter may deny it to all machines
    with arena.held(case):
        now = denied()
        assert now == before, "\n".join(now)
        seconds, done = takes(arena.pil.run, "--status", timeout=30)
        assert done.returncode == 0 and seconds < SOON, (seconds, done)


def a_machine_starts(arena, case):
    with arena.held(case):
        arena.pil.run("--terminate", "second", timeout=30)
        arena.pil.ok("-d", "second", "-e", "/hostile", "--list", timeout=30)
    others_get_theirs(arena, case)


def broker_answers(arena, case):
    arena.pil.run("--terminate", "debian", timeout=60)  # a machine and a gate that no earlier case has been at
    arena.again()
    arena.pil.run("--status", timeout=60)
    with arena.held(case):
        for _ in range(3):
            seconds, done = takes(arena.pil.run, "--status", timeout=60)
            assert "Device 0: " in done.stdout and seconds < SOON, f"{seconds:.1f} s: {done.stdout}{done.stderr}"
        seconds, done = takes(arena.pil.run, "-d", "second", "-e", "/hostile", "--list", timeout=60)
        assert done.returncode == 0 and seconds < SOON, (seconds, done)


def was_refused(arena, case):
    """None: its root may not even stop the first process, which is fine too."""
    arena.again()
    said = arena.hostile(case, timeout=90).stdout
    return None if f"{case}\todd\tEPERM" in said else f"the first process was not stopped: {said}"


def machine_ends_when_told(arena, case):
    with arena.held(case, says=None):  # what it says goes through the process that it stops
        stopped = arena.first_is_stopped()
        seconds, done = takes(arena.pil.run, "--terminate", "debian", timeout=60)
        assert done.returncode == 0 and seconds < 10, (seconds, done)
    return None if stopped else was_refused(arena, case)


def command_line_ends_when_told(arena, case):
    """By a signal, as by Ctrl-C, whatever its machine does."""
    with arena.held(case, says=None):
        if not arena.first_is_stopped():
            return was_refused(arena, case)
        p = arena.pil.start("-e", "/hostile", "--list", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
        time.sleep(1)
        p.send_signal(signal.SIGTERM)
        try:
            p.wait(timeout=SOON)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait(timeout=10)
            pytest.fail("the command line did not end on SIGTERM")
        finally:
            arena.pil.run("--terminate", "debian", timeout=60)
    return None


def log_stays_short(arena, case):
    p = arena.pil.start("-u", "root", "-e", "/hostile", case, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    longest = 0
    end = time.monotonic() + 60
    while p.poll() is None and time.monotonic() < end:
        longest = max(longest, arena.log_bytes())
        time.sleep(0.01)
    p.kill()
    p.wait(timeout=10)
    assert longest < arena_lib.LOG_BYTES, f"{longest >> 20} MiB"
    seconds, done = takes(arena.pil.run, "--list", "--running", timeout=30)
    assert done.returncode == 0 and seconds < SOON


def nothing_else(arena, case):
    """The state of the host says it all."""
    arena.hostile(case, timeout=90)


def machine_runs_again(arena, case):
    arena.hostile(case, timeout=90)
    time.sleep(0.3)
    assert arena.pil.run("-d", "second", "-e", "/hostile", "--list", timeout=30).returncode == 0


HARMLESS = {
    "forge_log": nothing_else,
    "flood_log": log_stays_short,
    "stop_first": machine_ends_when_told,
    "silent_agent": command_line_ends_when_told,
    "lingering_agent": command_line_ends_when_told,
    "broker_lingering": broker_answers,
    "broker_flood": broker_answers,
    "frame_to_localhost": nothing_else,
    "frame_to_any": nothing_else,
    "uevent": nothing_else,
    "kill_all": machine_runs_again,
    "bomb_processes": a_machine_starts,
    "bomb_threads": a_machine_starts,
    **{name: others_get_theirs for name in IN_SANDBOX if name.startswith("bomb_")},
    **{name: a_machine_starts for name in ("bomb_processes", "bomb_threads")},
}


# ---- the tests ----

def test_there_are_enough_cases():
    assert len(IN_SANDBOX) >= 80


def test_every_harmless_case_is_looked_at():
    assert {name for name in IN_SANDBOX if CASES[name][1] == "harmless"} == set(HARMLESS)


@pytest.mark.parametrize("case", [name for name in IN_SANDBOX if CASES[name][1] == "refused"])
def test_case_can_succeed(scratch, case):
    verdict, why = scratch[case]
    if verdict == "skipped" or (case in NEVER and verdict != "allowed"):
        pytest.skip(f"{why}; {NEVER.get(case, '')}")
    if verdict != "allowed" and why.split(":")[0] in LACKING:
        pytest.skip(f"{why}: this kernel does not have it")
    assert verdict == "allowed", why


def test_other_users_of_the_host_cannot_reach_a_tree(arena):
    """A rootless machine's root could leave them a program that runs as the user."""
    assert stat.S_IMODE((arena.home / "data" / "pillion").stat().st_mode) == 0o700  # it was made with 0755
    program = arena.home / "data" / "pillion" / "distros" / "debian" / "rootfs" / "hostile"
    # setpriv itself may walk there until it has executed something
    done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", program,
                           "--list"], capture_output=True, check=False, timeout=20)
    assert done.returncode != 0 and b"ermission denied" in done.stderr


def test_mounts_of_a_sandbox_follow_no_link_of_its_tree(arena):
    """Where /usr/lib/pillion leads elsewhere, a program of the tree would be pid 1, outside of all limits."""
    arena.make_distro("linked")
    rootfs = arena.home / "data" / "pillion" / "distros" / "linked" / "rootfs"
    fake = rootfs / "oldroot" / "usr" / "bin" / "pillion-init"
    fake.parent.mkdir(parents=True)
    fake.write_text("#!/bin/sh\necho >/was-first; echo forged >/mnt/host/ro/created\n")
    fake.chmod(0o755)
    uid = arena.uid or arena_lib.ROOTS_FIRST_ID
    try:
        subprocess.run(["chown", "-hR", f"{uid}:{uid}", rootfs.parent if arena.uid else rootfs], check=True)
        for place in ("usr/lib/pillion", "dev", "proc", "run", "sys", "tmp", "usr", "usr/lib", "usr/lib/wsl", "mnt",
                      "mnt/host", "mnt/host/ro", "mnt/models"):
            link, aside = rootfs / place, rootfs / "aside"
            link.parent.mkdir(exist_ok=True)
            if link.exists():
                link.rename(aside)
            link.symlink_to("/oldroot/usr")
            os.chown(link, uid, uid, follow_symlinks=False)
            done = arena.pil.run("-d", "linked", "-e", "/hostile", "--list", timeout=60)
            arena.pil.run("--terminate", "linked")
            link.unlink()
            if aside.exists():
                aside.rename(link)
            assert not (rootfs / "was-first").exists(), place
            if place != "mnt/host/ro":  # which a tmpfs covers before anything is mounted there
                assert done.returncode == 1 and "a symbolic link in its tree" in done.stderr, (place, done)
        arena.pil.ok("-d", "linked", "-e", "/hostile", "--list", timeout=60)
    finally:
        arena.pil.run("--terminate", "linked")
        shutil.rmtree(rootfs.parent)


@pytest.mark.parametrize("case", IN_SANDBOX)
def test_host_holds(arena, case):
    skipped = None
    try:
        if case in HARMLESS:
            skipped = HARMLESS[case](arena, case)
        else:
            said = arena.hostile(case, timeout=90)
            verdict, why = arena_lib.results(said.stdout).get(case, ("nothing", said.stdout + said.stderr))
            skipped = why if verdict == "skipped" else None
            assert skipped or verdict == "refused", f"{verdict}: {why}"
    finally:
        arena.again()
        harm = arena.changed()
    assert not harm, "\n".join(harm)
    if skipped:
        pytest.skip(skipped)
