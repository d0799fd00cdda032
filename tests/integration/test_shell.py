# SPDX-License-Identifier: Apache-2.0
"""A command in a machine behaves like the same command outside: its streams, its terminal, its
arguments, its folder, its limits."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import pytest

import host as host_lib
from host import wait_for
from terminal import Terminal


def quoted(pil, *args):
    """A command line of pillion for a shell."""
    return " ".join("'" + a.replace("'", "'\\''") + "'" for a in pil.argv(*args))


@contextlib.contextmanager
def outer_shell(pil):
    """An interactive bash of the host with jobs, on a terminal, which knows `p`, pillion."""
    t = Terminal(["bash", "--norc", "--noediting", "-i"], {**pil.env, "PS1": "outer> "})
    t.send("p() { " + quoted(pil) + " \"$@\"; }; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null\n")
    t.send("echo re''ady\n")
    t.expect("ready\r\n")
    try:
        yield t
    finally:
        os.kill(t.pid, signal.SIGKILL)
        t.wait()


# ---- streams ----

KINDS = 'for f in 0 1 2; do [ -t $f ] && printf "tty " || printf "no "; done'


@pytest.mark.parametrize("redirection, kinds", [("", "tty tty tty"), ("</dev/null", "no tty tty"), ("2>/dev/null", "tty tty no"),
                                                ("</dev/null 2>/dev/null", "no tty no")])
def test_each_stream_is_a_terminal_if_it_is_one_outside(shared, redirection, kinds):
    with outer_shell(shared) as t:
        t.send(f"p -e sh -c '{KINDS}; echo end' {redirection}\n")
        t.expect(f"{kinds} end\r\n")


def test_streams_of_a_pipe_and_a_file_get_what_is_written_to_them(shared):
    with tempfile.TemporaryDirectory() as folder, outer_shell(shared) as t:
        t.send(f"cd {folder}; p -e sh -c '{KINDS}; echo err >&2; echo tty >/dev/tty' >out 2>err; echo status $?\n")
        t.expect("tty\r\n")
        t.expect("status 0")
        assert pathlib.Path(folder, "out").read_text() == "tty no no "
        assert pathlib.Path(folder, "err").read_text() == "err\n"


def test_output_and_errors_in_one_pipe_stay_in_order(shared):
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done"
    done = subprocess.run(shared.argv("-e", "sh", "-c", script), env=shared.env, cwd="/", stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.stdout.split() == [f"{c}{i}" for i in range(1, 10) for c in "oe"]


# ---- jobs ----

def test_background_job_is_not_stopped(shared):
    with outer_shell(shared) as t:
        t.send("p -e sh -c 'sleep 1; echo d''one' & wait; jobs; echo e''nd\n")
        t.expect("done\r\n")
        t.expect("end\r\n")
        assert "Stopped" not in t.all


def test_background_job_that_reads_the_terminal_stops_until_it_is_in_the_foreground(shared):
    with outer_shell(shared) as t:
        t.send("p -e sh -c 'read line; echo got $line' &\n")
        for _ in range(100):
            t.send("jobs; echo e''nd\n")
            t.expect("end\r\n")
            if "Stopped" in t.before:
                break
            time.sleep(0.2)
        else:
            pytest.fail("not stopped")
        t.send("fg\n")
        time.sleep(0.5)
        t.send("hello\n")
        t.expect("got hello\r\n")


def test_keys_are_left_to_who_reads_them(shared):
    """As to a pager behind a pipe: what is typed while the command does not read stays there."""
    with outer_shell(shared) as t:
        t.send("p -e sh -c 'echo from inside; sleep 4' | { read first; echo \"$first\"; read key </dev/tty; "
               "echo key=$key; }\n")
        t.expect("from inside\r\n")
        time.sleep(1)
        t.send("abc\n")
        t.expect("key=abc\r\n")


def test_command_with_neither_end_at_the_terminal_gets_no_keys(shared):
    """Behind it may be a program that asks for a password of the host's."""
    with outer_shell(shared) as t:
        t.send("p -e sh -c 'echo up; read a </dev/tty; echo stole $a' </dev/null | "
               "{ read first; echo \"$first\"; sleep 1; read key </dev/tty; echo key=$key; }\n")
        t.expect("up\r\n")
        time.sleep(1.5)
        t.send("abc\n")
        t.expect("key=abc\r\n")
        assert "stole" not in t.all.split("key=abc")[0].split("up\r\n")[-1]
        t.send("\x03")


def test_command_in_a_pipe_gets_keys_when_it_reads(shared):
    with outer_shell(shared) as t:
        t.send("p -e sh -c 'read a; echo got $a; read a; echo then $a' | cat\n")
        time.sleep(1)
        t.send("one\n")
        t.expect("got one\r\n")
        t.send("two\n")
        t.expect("then two\r\n")
        t.expect("outer> ")
        t.send("stty -a | grep -o -- '-icanon\\|icanon'; echo e''nd\n")
        t.expect("end\r\n")
        assert "-icanon" not in t.before  # the terminal is as it was


def test_pager_inside_reads_keys_beside_its_input(shared):
    with outer_shell(shared) as t:
        t.send("seq 200 | p -e less; echo s''tatus $?\n")
        t.expect("20\r\n")
        t.send("G")
        t.expect("200\r\n")
        t.send("q")
        t.expect("status 0")


def test_typed_ahead_is_not_lost(shared):
    with outer_shell(shared) as t:
        t.send("p -e sh -c 'sleep 1' </dev/null; echo f''irst\necho s''econd\n")
        t.expect("first\r\n")
        t.expect("second\r\n")


def test_job_is_stopped_and_goes_on(shared):
    with outer_shell(shared) as t:
        t.send("p -e sh -c 'echo on; i=0; while [ $i -lt 30 ]; do i=$((i+1)); sleep 0.1; done; echo over' | cat\n")
        t.expect("on\r\n")
        t.send("\x1a")
        t.expect("Stopped")
        t.send("fg\n")
        t.expect("over\r\n")


def test_hangup_is_ignored_where_it_is_outside(shared):
    p = subprocess.Popen(["nohup", *shared.argv("-e", "sh", "-c", "echo ready; sleep 2; echo survived")], env=shared.env,
                         cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert p.stdout.readline() == "ready\n"
    p.send_signal(signal.SIGHUP)
    assert p.stdout.read() == "survived\n" and p.wait(10) == 0


def test_terminal_inside_has_the_settings_of_the_one_outside(shared):
    with outer_shell(shared) as t:
        t.send("stty erase ^H intr ^X iutf8; p -e stty -a; echo e''nd; stty sane -echo\n")
        t.expect("end\r\n")
        assert "erase = ^H" in t.before and "intr = ^X" in t.before and " iutf8" in t.before and "-iutf8" not in t.before


# ---- arguments ----

def test_several_arguments_arrive_as_given(anyones):
    assert anyones.ok("--", "printf", "<%s>", "a  b", "", "c", "$HOME", "'", "\\") == "<a  b><><c><$HOME><'><\\>"
    assert anyones.run("--", "bash", "-c", "exit 7").returncode == 7
    assert "builtin" in anyones.ok("--", "type", "cd")  # a word of the shell's is a command, too
    assert anyones.ok("--", "cd / && pwd; echo $((1 + 1))") == "/\n2\n"
    assert anyones.ok("--shell-type", "login", "printf", "<%s>", "a  b") == "<a  b>"


def test_arguments_as_long_as_execve_takes(shared):
    assert len(shared.ok("-e", "printf", "%s", "x" * 100000)) == 100000
    assert shared.ok("-e", "sh", "-c", "echo $#", "sh", *["w"] * 5000) == "5000\n"
    assert len(shared.ok("--", "echo", *["x" * 100000] * 10)) == 1000010


def test_folder_that_is_not_there_refuses_the_command(anyones):
    done = anyones.run("--cd", "/nope", "-e", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "") and "/nope" in done.stderr
    assert anyones.run("--cd", "~/nope", "-e", "true").returncode == 1


# ---- a machine is the same whoever starts it ----

DEFAULTS_OF_A_MACHINE = "umask; ulimit -Sf; ulimit -Ss; ulimit -Sn; ulimit -Sc; ps -o ni= -p $$"


def test_starter_does_not_decide_umask_limits_and_niceness(pil):
    starter = "umask 077; ulimit -S -f 100000; ulimit -S -s 1024; ulimit -S -n 200; exec nice -n 5 \"$@\""
    pil.as_user = ["sh", "-c", starter, "sh"]
    pil.ok("-e", "true")
    pil.as_user = []
    assert pil.ok("-u", "root", "-e", "bash", "-c", DEFAULTS_OF_A_MACHINE).split() == \
        ["0022", "unlimited", "8192", "1024", "0", "0"]


# ---- what keeps a machine ----

def test_process_that_was_left_keeps_the_machine(anyones_own):
    anyones_own.configure("[wsl2]\nvmIdleTimeout=300\n")
    anyones_own.ok("-e", "sh", "-c", "nohup setsid sleep 985 >/dev/null 2>&1 &")
    before = anyones_own.supervisor()
    time.sleep(2)
    assert anyones_own.running() and anyones_own.supervisor() == before
    anyones_own.ok("-e", "pkill", "-f", "^sleep 985")
    wait_for("the machine stops", lambda: not anyones_own.running())


# ---- what programs expect to be there ----

def test_shared_memory_queues_and_run_are_for_every_user(anyones):
    assert anyones.ok("-e", "stat", "-c", "%a %F", "/dev/shm", "/dev/mqueue", "/run/lock").split("\n")[:3] == \
        ["1777 directory"] * 3
    assert anyones.ok("-u", "nobody", "-e", "sh", "-c", "touch /dev/shm/x && rm /dev/shm/x; cd $XDG_RUNTIME_DIR && "
                      "stat -c '%a %U' .") == "700 nobody\n"
    assert "mqueue" in anyones.ok("-e", "stat", "-f", "-c", "%T", "/dev/mqueue")


def test_user_may_become_root_by_what_root_allows(anyones):
    """Set-user-id programs and programs with capabilities do what they are for."""
    anyones.ok("-u", "root", "--", "umask 022; echo 'nobody ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/tried; "
               "cp /usr/bin/id /opt/id && chmod 4755 /opt/id")
    try:
        assert anyones.ok("-u", "nobody", "-e", "sudo", "-n", "id", "-u") == "0\n"
        assert anyones.ok("-u", "nobody", "-e", "/opt/id", "-u") == "0\n"
    finally:
        anyones.ok("-u", "root", "-e", "rm", "-f", "/etc/sudoers.d/tried", "/opt/id")


def test_set_user_id_programs_of_the_host_are_none_inside(anyones):
    """What comes from the host, and what pillion makes, is mounted without them."""
    for line in anyones.ok("-u", "root", "-e", "cat", "/proc/self/mountinfo").splitlines():
        place, options = line.split()[4:6]
        assert place == "/" or "nosuid" in options.split(","), line


def test_fuse_is_there_where_the_host_offers_it(shared):
    fuse = pathlib.Path("/dev/fuse")
    there = fuse.exists() and fuse.stat().st_mode & 6 == 6
    assert (shared.run("-u", "nobody", "-e", "sh", "-c", ": <>/dev/fuse").returncode == 0) == there


# ---- ports ----

def test_port_of_a_machine_is_reached_at_both_addresses_of_localhost(shared):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    p = shared.start("-e", "perl", "-e", host_lib.COUNTER, "127.0.0.1", str(port), stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("the port", lambda: port in host_lib.listening_ports())
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port), timeout=host_lib.bound(20)) as s:
                s.sendall(b"abc")
                s.shutdown(socket.SHUT_WR)
                assert s.makefile("rb").read() == b"got 3\n"
    finally:
        p.kill()
        p.wait(10)
