# SPDX-License-Identifier: Apache-2.0
"""Machines of the sandbox kind, driven as a user drives them: by the command line."""
import concurrent.futures
import contextlib
import ctypes
import hashlib
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

import host as host_lib
from host import bound, wait_for, within
from machines import DEFAULTS, Pillion
from terminal import Terminal, check_shell


# ---- when system calls fail ----

@pytest.fixture
def under(data):
    """A command line under a program such as prlimit, which all that it starts is under as well."""
    all_ = []

    def start(*prefix):
        all_.append(Pillion(data, as_user=prefix))
        return all_[-1]
    yield start
    for p in all_:
        p.as_user = []
        p.close()


DENY = host_lib.BUILD / "tests" / "lib" / "deny"


def test_calls_that_a_filter_denies_are_not_needed(under):
    pil = under(DENY, "close_range=ENOSYS,openat2=ENOSYS")
    assert pil.ok("-e", "echo", "works") == "works\n"
    pil.ok("--terminate", "debian")
    assert not pil.running()


@pytest.mark.parametrize("prefix", [(DENY, "pidfd_open=EMFILE"), (DENY, "pipe2=EMFILE"), ("prlimit", "--nofile=4"),
                                    ("prlimit", "--nofile=8"), ("prlimit", "--nofile=12"),
                                    ("prlimit", "--nofile=20")])
def test_without_descriptors_no_machine_and_one_line(under, prefix):
    pil = under(*prefix)
    done = pil.run("-d", "debian", "-e", "true")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert done.stderr.startswith("pillion: start 'debian': ") and done.stderr.endswith("Too many open files\n")
    pil.as_user = []
    assert not pil.running()
    assert pil.ok("-e", "echo", "works") == "works\n"  # nothing in the way was left behind


def test_bench_without_descriptors_says_so(under, tiny):
    done = under("prlimit", "--nofile=6").run("bench", "-m", tiny)
    assert done.returncode == 1 and "Too many open files" in done.stderr, done
    assert done.stderr.splitlines()[0].startswith("pillion: bench: ")


# ---- commands ----

def test_exit_status_passes_through(anyones):
    assert anyones.run("-e", "sh", "-c", "exit 42").returncode == 42
    assert anyones.run("-e", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    assert anyones.run("-e", "/no/such/program").returncode == 127


def test_words_after_two_dashes_go_through_the_shell(shared):
    assert shared.ok("--", "echo $HOME && echo two") == "/root\ntwo\n"
    assert shared.ok("-e", "echo", "$HOME") == "$HOME\n"


def test_output_and_error_stay_apart(shared):
    done = shared.run("-e", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_binary_data_passes_both_ways_unchanged(shared):
    blob = os.urandom(1 << 20) * 64
    done = shared.run("-e", "cat", input=blob, text=False)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(blob).digest()


def test_command_that_ignores_its_input_ends(shared):
    assert shared.run("-e", "true", input=b"x" * (8 << 20), text=False).returncode == 0


def test_reader_that_goes_away_ends_the_writer(shared):
    p = shared.start("-e", "yes", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    p.stdout.read(100)
    p.stdout.close()
    assert p.wait(timeout=10) == 128 + signal.SIGPIPE
    wait_for("the writer ends", lambda: shared.run("-e", "pgrep", "-x", "yes").returncode == 1)


def test_output_that_cannot_be_written_is_an_error(shared):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(shared.argv("-e", "echo", "lost"), env=shared.env, stdin=subprocess.DEVNULL,
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 1 and "No space left on device" in done.stderr


def test_nothing_is_lost_where_the_output_does_not_block(shared):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    p = shared.start("-e", "seq", "200000", stdout=writer, stdin=subprocess.DEVNULL)
    os.close(writer)
    time.sleep(1)
    with open(reader) as f:
        assert f.read() == "".join(f"{i}\n" for i in range(1, 200001))
    assert p.wait(timeout=10) == 0


def test_user_and_folder(anyones):
    assert anyones.ok("-u", "nobody", "-e", "id", "-un") == "nobody\n"
    assert anyones.ok("--cd", "/usr", "-e", "pwd") == "/usr\n"
    assert anyones.ok("--cd", "~", "-e", "pwd") == "/root\n"
    done = anyones.run("-u", "no-such-user", "-e", "true")
    assert done.returncode == 1 and "no-such-user" in done.stderr


def test_signals_reach_the_command(anyones):
    p = anyones.start("-e", "sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
                     stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert p.stdout.readline() == "ready\n"
    p.send_signal(signal.SIGTERM)
    assert p.stdout.readline() == "got\n"
    assert p.wait(timeout=10) == 5


def test_killed_client_hangs_its_command_up(anyones):
    p = anyones.start("-e", "sh", "-c", "echo ready; exec sleep 987", stdout=subprocess.PIPE,
                     stdin=subprocess.DEVNULL, text=True)
    assert p.stdout.readline() == "ready\n"
    p.kill()
    p.wait(timeout=10)
    wait_for("the command ends", lambda: anyones.run("-e", "pgrep", "-f", "^sleep 987").returncode == 1)


def test_signals_do_not_wait_behind_input_nobody_reads(shared):
    with open("/dev/zero", "rb") as zero:
        p = shared.start("-e", "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
                         stdout=subprocess.PIPE, stdin=zero, text=True)
    assert p.stdout.readline() == "ready\n"
    time.sleep(0.3)
    p.send_signal(signal.SIGTERM)
    assert p.wait(timeout=10) == 5


def test_killed_client_hangs_its_command_up_even_with_input_nobody_reads(shared):
    with open("/dev/zero", "rb") as zero:
        p = shared.start("-e", "sh", "-c", "echo ready; exec sleep 986", stdout=subprocess.PIPE,
                         stdin=zero, text=True)
    assert p.stdout.readline() == "ready\n"
    time.sleep(0.3)
    p.kill()
    p.wait(timeout=10)
    wait_for("the command ends", lambda: shared.run("-e", "pgrep", "-f", "^sleep 986").returncode == 1)


def test_many_commands_at_once_in_one_machine(anyones):
    anyones.ok("-e", "true")
    before = anyones.supervisor()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda n: anyones.run("-e", "sh", "-c", f"sleep 0.3; echo {n}"), range(20)))
    assert sorted(int(d.stdout) for d in done) == list(range(20))
    assert anyones.supervisor() == before


def test_background_process_does_not_hold_the_command(shared):
    with within(10, "the command"):
        shared.ok("-e", "sh", "-c", "sleep 300 & echo started")


# ---- terminal ----

def test_shell_on_a_terminal(anyones):
    check_shell(Terminal(anyones.argv(), anyones.env))


# ---- what a machine is like inside ----

def test_exposure_of_the_device_path(shared):
    env = dict(line.split("=", 1) for line in shared.ok("-e", "env").splitlines() if "=" in line)
    assert env["GGML_BACKEND_PATH"] == "/usr/lib/pillion/lib/libggml-pillion.so"
    assert "/usr/lib/pillion/bin" in env["PATH"] and env["WSL_DISTRO_NAME"] == "debian"
    assert shared.ok("-e", "readlink", "/usr/lib/wsl/lib") == "/usr/lib/pillion/lib\n"
    assert shared.run("-e", "touch", "/usr/lib/pillion/lib/x").returncode != 0
    assert shared.ok("-e", "cat", "/etc/ld.so.conf.d/ld.wsl.conf") == "/usr/lib/wsl/lib\n"
    assert "libggml-pillion.so" in shared.ok("--", "ls /usr/lib/wsl/lib/")
    assert shared.ok("--", "su - -c 'echo $GGML_BACKEND_PATH'").strip() == env["GGML_BACKEND_PATH"]


# Ways to start a program in an environment that is not that of the command.
CLEAN_STARTS = ("su - root -c env", "env -i su root -c env", "sudo -u nobody env", "env -i PATH=/usr/bin sudo env")


@pytest.mark.parametrize("command", CLEAN_STARTS)
def test_plugin_is_named_in_a_clean_environment_too(anyones, command):
    assert "\nGGML_BACKEND_PATH=/usr/lib/pillion/lib/libggml-pillion.so\n" in "\n" + anyones.ok("--", command)


def test_sudo_does_not_let_its_caller_choose_the_plugin(shared):
    said = shared.ok("--", "GGML_BACKEND_PATH=/tmp/mine sudo env")
    assert "/tmp/mine" not in said and "GGML_BACKEND_PATH=/usr/lib/pillion/" in said


def test_environment_file_stays_the_users(pil):
    def lines():
        return pil.ok("-e", "cat", "/etc/environment").splitlines()

    pil.ok("--", "echo 'A_SETTING=1' >>/etc/environment && chmod 640 /etc/environment")
    try:
        for _ in range(2):
            pil.ok("--terminate", "debian")
            assert [line.split("=")[0] for line in lines()] == ["A_SETTING", "GGML_BACKEND_PATH"]
        assert pil.ok("-e", "stat", "-c", "%a", "/etc/environment") == "640\n"
    finally:
        pil.ok("--", "sed -i /A_SETTING/d /etc/environment; chmod 644 /etc/environment")


def test_model_in_a_machine_is_placed_on_the_device(anyones, tiny):
    models = pathlib.Path(anyones.env["XDG_CACHE_HOME"]) / "pillion" / "models"
    anyones.ok("-e", "true")  # makes the folder
    shutil.copy(tiny, models / "tiny.gguf")
    (models / "tiny.gguf").chmod(0o644)
    done = anyones.run("-e", "llama-completion", "-v", "-m", "/mnt/models/tiny.gguf", "-p", "a", "-n", "4", "-no-cnv")
    assert done.returncode == 0, done.stderr
    assert "Pillion0 model buffer size" in " ".join(done.stderr.split()), done.stderr[-3000:]


def test_ollama_folder_gets_the_plugin(shared):
    shared.ok("--", "mkdir -p /usr/local/lib/ollama")
    try:
        assert "libggml-pillion.so" in shared.ok("--", "ls /usr/local/lib/ollama/pillion")
    finally:
        shared.ok("--", "rm -rf /usr/local/lib/ollama")


def test_machine_is_its_own_world(shared):
    assert shared.ok("-e", "hostname") == "debian\n"
    assert shared.ok("-e", "cat", "/proc/1/comm") == "pillion-init\n"
    assert int(shared.ok("--", "ls -d /proc/[0-9]* | wc -l")) < 20
    assert not pathlib.Path("/root").exists() or shared.run("-e", "test", "-e", str(host_lib.ROOT)).returncode != 0
    assert shared.run("-e", "sh", "-c", "echo 1 > /proc/sys/kernel/panic").returncode != 0
    assert shared.run("-e", "mknod", "/tmp/sda", "b", "8", "0").returncode != 0


def test_nothing_in_it_is_root_outside(anyones):
    p = anyones.start("-e", "sh", "-c", "echo ready; sleep 5", stdout=subprocess.PIPE,
                     stdin=subprocess.DEVNULL, text=True)
    assert p.stdout.readline() == "ready\n"
    for pid in host_lib.children(anyones.supervisor()):
        if host_lib.name_of(pid) == "pillion-init":
            uid = int(pathlib.Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0])
            assert uid != 0
            break
    else:
        pytest.fail("no pillion-init below the supervisor")
    p.kill()
    p.wait(timeout=10)


def test_machine_may_have_half_the_descriptors_of_the_host(shared):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert shared.ok("-e", "sh", "-c", "ulimit -Hn") == f"{hard // 2}\n"


APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Check-Valid-Until=false"  # of an old mirror

# A repository of one package; apt fetches from it as its own user, as from a mirror.
MAKE_REPOSITORY = """set -e
mkdir -p /tmp/repository
cat >/tmp/repository/hello.deb
cd /tmp/repository
dpkg-deb --field hello.deb >Packages
printf 'Filename: ./hello.deb\\nSize: %s\\nSHA256: %s\\n' "$(stat -c %s hello.deb)" \
    "$(sha256sum hello.deb | cut -d' ' -f1)" >>Packages
echo 'deb [trusted=yes] copy:/tmp/repository ./' >/tmp/repository/list
"""
FROM_REPOSITORY = "-o Dir::Etc::SourceList=/tmp/repository/list -o Dir::Etc::SourceParts=-"


def has_network(pil):
    return "default" in pil.ok("-e", "ip", "route")


def update(pil, apt=APT):
    done = pil.run("--", f"{apt} --error-on=any update", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_network_and_names_work(shared):
    assert has_network(shared)
    update(shared)


def test_apt_installs_a_package(anyones, shared):
    apt = APT
    if not has_network(anyones):  # a host whose /dev/net/tun is root's alone
        update(shared)
        shared.ok("--", f"cd /tmp && {APT} download hello", timeout=120)
        package = shared.run("--", "cat /tmp/hello_*.deb", text=False).stdout
        done = anyones.run("-e", "sh", "-c", MAKE_REPOSITORY, input=package, text=False)
        assert done.returncode == 0, done.stderr
        apt = f"{APT} {FROM_REPOSITORY}"
    update(anyones, apt)
    done = anyones.run("--", f"{apt} install -y hello", timeout=120)
    try:
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "W:" not in said and "unsandboxed" not in said, said
        assert anyones.ok("-e", "hello") == "Hello, world!\n"
    finally:
        anyones.ok("--", f"{apt} purge -y hello")


def test_network_comes_back_when_its_server_was_killed(shared):
    def has_route():
        return "default" in shared.ok("-e", "ip", "route")

    def servers():
        return {pid for pid in host_lib.children(shared.supervisor())
                if host_lib.name_of(pid).startswith(("pasta", "passt"))}  # passt.avx2 is one, too

    wait_for("a route", has_route)
    before = servers()
    assert before
    host_lib.signal_all(before)
    wait_for("another server", lambda: servers() - before, timeout=20)
    wait_for("the first one's end", lambda: not any(map(host_lib.alive, before)))  # and its card's
    wait_for("a route again", has_route, timeout=20)


# ---- folders of the host ----

def test_folders_of_the_host_are_seen_as_the_config_says(pil):
    seen, mine = pil.root / "seen", pil.root / "my folder"
    for folder in (seen, mine):
        folder.mkdir()
        folder.chmod(0o777)
    (seen / "note").write_text("from the host\n")
    (seen / "note").chmod(0o666)
    pil.configure(f"[wsl2]\nshare = {seen}\nshare = {mine}:rw\n")
    assert pil.ok("-e", "cat", "/mnt/host/seen/note") == "from the host\n"
    for attempt in ("echo x >>/mnt/host/seen/note", "touch /mnt/host/seen/new",
                    "mount -o remount,rw /mnt/host/seen && touch /mnt/host/seen/new"):
        assert pil.run("--", attempt).returncode != 0
    assert [p.name for p in seen.iterdir()] == ["note"]
    assert (seen / "note").read_text() == "from the host\n"
    pil.ok("--", "echo from the machine >'/mnt/host/my folder/back'")
    assert (mine / "back").read_text() == "from the machine\n"
    assert pil.ok("-e", "ls", "/mnt/host") == "my folder\nseen\n"
    assert pil.run("-e", "touch", "/mnt/host/beside").returncode != 0


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_shared_folder_that_is_none_refuses_the_machine(pil, kind):
    path = pil.root / "folder"
    if kind == "file":
        path.touch()
    pil.configure(f"[wsl2]\nshare = {path}\n")
    done = pil.run("-e", "true")
    assert done.returncode != 0
    assert f"folder '{path}' of the host: " in done.stderr
    assert f"hint: make it, or remove 'share = {path}' from the config" in done.stderr


# ---- ports ----

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def listening(port):
    return port in host_lib.listening_ports()


def count_at(port, data=b""):
    """What COUNTER says of @data."""
    with socket.create_connection(("127.0.0.1", port), timeout=bound(20)) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        return s.makefile("rb").read()


@contextlib.contextmanager
def counter(pil, address, port):
    with tempfile.TemporaryFile() as log:
        p = pil.start("-e", "perl", "-e", host_lib.COUNTER, address, str(port),
                      stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield p
        finally:
            p.kill()
            p.wait(10)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_port_of_a_machine_is_reached_at_localhost(shared, address):
    port = free_port()
    with counter(shared, address, port):
        wait_for("the port", lambda: listening(port))
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            sizes = [(i * 7919) << 5 for i in range(32)]
            said = pool.map(lambda n: count_at(port, b"x" * n), sizes)
            assert list(said) == [f"got {n}\n".encode() for n in sizes]
    wait_for("no port", lambda: not listening(port))


def test_machine_without_a_network_reaches_nobody_and_keeps_its_ports_and_device(pil):
    routes = ("-d", "debian", "-e", "cat", "/proc/net/route")
    if "\t00000000\t" in pathlib.Path("/proc/net/route").read_text():  # the host has a default route, and so
        assert "\t00000000\t" in pil.ok(*routes)
    pil.ok("--terminate", "debian")
    pil.configure(DEFAULTS + "networkingMode=none\n")
    assert len(pil.ok(*routes).splitlines()) == 1  # the head of the table
    port = free_port()
    with counter(pil, "127.0.0.1", port):
        wait_for("the port", lambda: listening(port))
        assert count_at(port, b"abc") == b"got 3\n"
    assert "Pillion0" in pil.ok("-d", "debian", "-e", "llama-cli", "--list-devices")
    assert "starting another" not in (pil.runtime / "machines" / "debian.log").read_text()


def test_ports_come_back_when_the_forwarder_was_killed(shared):
    """More than once, and though the guest has nothing new to say."""
    port = free_port()
    with counter(shared, "127.0.0.1", port):
        for _ in range(3):
            wait_for("the port", lambda: listening(port), timeout=20)
            assert count_at(port, b"abc") == b"got 3\n"
            forwarder = [pid for pid in host_lib.children(shared.supervisor())
                         if host_lib.name_of(pid) == "pillion-forward"]
            os.kill(forwarder[0], signal.SIGKILL)
            wait_for("its end", lambda: not host_lib.alive(forwarder[0]))


def test_port_somebody_has_is_left_alone_until_it_is_free(shared):
    with socket.create_server(("127.0.0.1", 0)) as mine:
        port = mine.getsockname()[1]
        with counter(shared, "127.0.0.1", port):
            time.sleep(3)
            mine.settimeout(bound(5))
            with socket.create_connection(("127.0.0.1", port), timeout=bound(5)):
                mine.accept()[0].close()
            mine.close()
            wait_for("the port", lambda: listening(port))
            assert count_at(port, b"abc") == b"got 3\n"


def test_ports_below_1024_stay_the_hosts(shared):
    low, high = 1023, free_port()
    with counter(shared, "127.0.0.1", low), counter(shared, "127.0.0.1", high):
        wait_for("the other port", lambda: listening(high))
        assert not listening(low)


def test_ports_are_let_go_with_the_machine(pil):
    port = free_port()
    with counter(pil, "127.0.0.1", port):
        wait_for("the port", lambda: listening(port))
        os.kill(pil.supervisor(), signal.SIGKILL)
        wait_for("no port", lambda: not listening(port))


def test_ports_stay_inside_when_the_config_says_so(pil):
    port = free_port()
    pil.configure("[wsl2]\nlocalhostForwarding=false\n")
    with counter(pil, "127.0.0.1", port):
        wait_for("it listens", lambda: f":{port:04X} " in pil.ok("-e", "cat", "/proc/net/tcp"))
        time.sleep(2.5)
        assert not listening(port)


@pytest.mark.parametrize("wanted", [False, True])
def test_localhost_of_the_host_is_reached_on_request_only(pil, wanted):
    pil.configure(f"[experimental]\nhostAddressLoopback={str(wanted).lower()}\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(bound(20))
        port = server.getsockname()[1]
        call = f"""timeout 10 bash -c 'exec 3<>/dev/tcp/$(ip route | sed -n "s/^default via \\([^ ]*\\).*/\\1/p")/{port} && read x <&3 && echo $x'"""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            got = pool.submit(pil.run, "--", call)
            if wanted:
                c, _ = server.accept()
                c.sendall(b"hello\n")
                assert got.result().stdout == "hello\n"
                c.close()
            else:
                assert got.result().returncode != 0


OWN = {"198.51.100.7": "32", "2001:db8::7": "128"}  # of nobody: for documentation


@contextlib.contextmanager
def own_addresses():
    if os.getuid() != 0:
        pytest.skip("gives the host addresses: run it as root")
    try:
        for address, bits in OWN.items():
            subprocess.run(["ip", "address", "add", f"{address}/{bits}", "dev", "lo"], check=True, capture_output=True)
        yield
    finally:
        for address, bits in OWN.items():
            subprocess.run(["ip", "address", "del", f"{address}/{bits}", "dev", "lo"], check=False, capture_output=True)


def reached(pil, address, port):
    call = f"timeout {bound(2):.0f} bash -c 'exec 3<>/dev/tcp/{address}/{port} && read x <&3 && echo $x'"
    return pil.run("--", call).stdout == "hello\n"


@pytest.mark.parametrize("wanted", [False, True])
def test_addresses_of_the_host_are_reached_on_request_only(pil, wanted):
    """Also those that it gets while the machine runs: a service at [::] would see itself connect, over lo."""
    pil.configure(f"[experimental]\nhostAddressLoopback={str(wanted).lower()}\n")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        def serve():
            while True:
                try:
                    c, _ = server.accept()
                except OSError:
                    return
                with c, contextlib.suppress(OSError):
                    c.sendall(b"hello\n")

        port = server.getsockname()[1]
        served = pool.submit(serve)
        try:
            pil.ok("-e", "true")
            with own_addresses():
                time.sleep(bound(3))  # the supervisor looks every other second
                assert [reached(pil, a, port) for a in OWN] == [wanted] * 2
                pil.ok("--terminate", "debian")
                assert [reached(pil, a, port) for a in OWN] == [wanted] * 2
        finally:
            server.shutdown(socket.SHUT_RDWR)
            served.result(timeout=10)


# Packets to the host's localhost by the card itself: from a bound socket, which anybody may have,
# and as frames of root's.  Arguments: card, port.
TO_LOCALHOST = r"""use Socket qw(:DEFAULT inet_pton); my ($card, $port) = @ARGV;
sub bound { socket(my $s, $_[0], SOCK_DGRAM, 0) or die; setsockopt($s, 1, 25, $card) or die "$!";
            send $s, "bound", 0, $_[1] or print "not sent: $!\n" }
bound(PF_INET, pack_sockaddr_in($port, inet_aton($_))) for "127.0.0.1", "127.1.2.3", "0.0.0.0";
bound(PF_INET6, pack_sockaddr_in6($port, inet_pton(PF_INET6, $_))) for "::1", "::ffff:127.0.0.1";
exit if $<;
my ($index, $mac) = `ip -o link show $card` =~ /^(\d+).*ether ([0-9a-f:]+)/; $mac = pack "H*", $mac =~ s/://gr;
socket(my $raw, 17, SOCK_RAW, 0) or die;
for my $to ("127.0.0.1", "127.255.255.254", "0.0.0.0") {
  my $ip = pack "CCnnnCCna4a4", 0x45, 0, 33, 0, 0, 64, 17, 0, inet_aton("192.0.2.2"), inet_aton($to);
  my ($sum) = unpack "%32n*", $ip; $sum = ($sum & 0xffff) + ($sum >> 16);
  substr $ip, 10, 2, pack "n", ~(($sum & 0xffff) + ($sum >> 16)) & 0xffff;
  my $frame = "\xff" x 6 . $mac . pack("n", 0x800) . $ip . pack("nnnn", 4711, $port, 13, 0) . "frame";
  send $raw, $frame, 0, pack "SnlSCCx8", 17, 0x800, $index, 0, 0, 6 or die "frame: $!";
}"""


def index_of_card(pil):
    return pil.run("-e", "sh", "-c", "ip -o link show eth0 | cut -d: -f1").stdout


@pytest.mark.parametrize("again", [False, True])
def test_no_packet_of_a_machine_reaches_localhost_of_the_host(pil, again):
    if again:
        pil.ok("-e", "true")
        before = index_of_card(pil)
        host_lib.signal_all(pid for pid in host_lib.children(pil.supervisor())
                            if host_lib.name_of(pid).startswith(("pasta", "passt")))
        wait_for("another card", lambda: index_of_card(pil) not in (before, ""), timeout=20)
        wait_for("a route", lambda: "default" in pil.ok("-e", "ip", "route"), timeout=20)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 0))
        port = server.getsockname()[1]
        for user in ("nobody", "root"):
            pil.ok("-u", user, "-e", "perl", "-e", TO_LOCALHOST, "eth0", port)
        server.settimeout(2)
        with pytest.raises(TimeoutError):
            got = server.recvfrom(100)
            pytest.fail(f"{got} came out")


# ---- wsl.conf ----

def test_wsl_conf_switches_the_exposure_off(pil):
    pil.ok("--", "printf '[gpu]\\nenabled=false\\n[network]\\nhostname=box\\n[user]\\ndefault=nobody\\n' >/etc/wsl.conf")
    try:
        pil.ok("--terminate", "debian")
        env = pil.ok("-e", "env")
        assert "GGML_BACKEND_PATH" not in env and "pillion" not in env
        assert pil.ok("-e", "hostname") == "box\n"
        assert pil.ok("-e", "id", "-un") == "nobody\n"
        for command in CLEAN_STARTS:
            assert "GGML_BACKEND_PATH" not in pil.ok("-u", "root", "--", command)
        assert pil.run("--", "grep -rs pillion /etc/environment /etc/profile.d /etc/systemd").returncode == 1
    finally:
        pil.ok("-u", "root", "-e", "rm", "/etc/wsl.conf")


def test_boot_command_runs_with_the_device_and_may_stay(pil):
    pil.ok("--", "printf '[boot]\\ncommand=env >/tmp/env; exec sleep 985\\n' >/etc/wsl.conf")
    try:
        pil.ok("--terminate", "debian")
        with within(8, "the boot command's start"):
            wait_for("it runs", lambda: pil.run("-e", "pgrep", "-f", "^sleep 985").returncode == 0)
        env = dict(line.split("=", 1) for line in pil.ok("-e", "cat", "/tmp/env").splitlines() if "=" in line)
        assert env["GGML_BACKEND_PATH"] == "/usr/lib/pillion/lib/libggml-pillion.so"
        assert "/usr/lib/pillion/bin" in env["PATH"]
    finally:
        pil.ok("-e", "rm", "/etc/wsl.conf")


def test_wsl_conf_asks_in_vain_and_the_first_command_says_so(pil):
    pil.ok("--", "printf '[boot]\\nsystemd=true\\n[interop]\\nenabled=false\\n' >/etc/wsl.conf")
    try:
        pil.ok("--terminate", "debian")
        done = [pil.run("-e", "echo", "hello") for _ in range(2)]
        assert [d.stdout for d in done] == ["hello\n"] * 2
        assert "[boot] systemd=true is not supported" in done[0].stderr and "interop" not in done[0].stderr
        assert done[1].stderr == ""
        assert "systemd=true" in (pil.runtime / "machines" / "debian.log").read_text()
    finally:
        pil.ok("-e", "rm", "/etc/wsl.conf")


# ---- life and death ----

def supervisors_of(pil):
    found = []
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if (comm.read_text() == "pillion-machine\n" and
                    str(pil.root) in (comm.parent / "environ").read_text(errors="replace")):
                found.append(comm.parent.name)
    return found


def test_two_starts_at_once_give_one_machine(pil):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: pil.run("-e", "cat", "/proc/sys/kernel/random/boot_id"), range(6)))
    assert all(d.returncode == 0 for d in done), [d.stderr for d in done]
    assert len(list((pil.runtime / "machines").glob("debian"))) == 1
    wait_for("one supervisor", lambda: len(supervisors_of(pil)) == 1)


def test_idle_machine_stops_by_itself(anyones_own):
    anyones_own.configure("[wsl2]\nvmIdleTimeout=1000\n")
    anyones_own.ok("-e", "true")
    assert anyones_own.running()
    wait_for("the machine stops", lambda: not anyones_own.running())
    wait_for("its folder goes", lambda: not (anyones_own.runtime / "machines" / "debian").exists())


def test_running_command_keeps_the_machine(pil):
    pil.configure("[wsl2]\nvmIdleTimeout=100\n")
    assert pil.ok("-e", "sh", "-c", "sleep 1; echo still here") == "still here\n"


def test_terminate_ends_everything(anyones_own):
    p = anyones_own.start("-e", "sh", "-c", "echo ready; exec sleep 500", stdout=subprocess.PIPE,
                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    assert p.stdout.readline() == "ready\n"
    family = [anyones_own.supervisor(), *host_lib.children(anyones_own.supervisor())]
    assert "completed successfully" in anyones_own.ok("--terminate", "debian")
    assert not anyones_own.running()
    assert p.wait(timeout=10) != 0
    wait_for("its processes go", lambda: not any(host_lib.alive(pid) for pid in family))


def test_command_that_meets_the_end_of_a_machine_gets_the_next_one(pil):
    pil.ok("--", "trap '' TERM; sleep 30 >/dev/null 2>&1 & echo stays")  # the end takes its time
    ending = pil.start("--terminate", "debian", stdout=subprocess.DEVNULL)
    time.sleep(0.2)
    assert pil.ok("-e", "echo", "hello") == "hello\n"
    assert ending.wait(timeout=15) == 0


def test_starts_and_stops_at_once_lose_no_command(pil):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(6):
            ending = pool.submit(pil.run, "--terminate", "debian")
            done = list(pool.map(lambda n: pil.run("-e", "echo", n), range(3)))
            assert ending.result().returncode == 0, ending.result().stderr
            for n, d in enumerate(done):  # one that ran already ends with its machine
                assert d.stdout == f"{n}\n" or "the machine has ended" in d.stderr, d.stderr
    wait_for("one supervisor", lambda: len(supervisors_of(pil)) <= 1)


def test_stuck_machine_lets_its_client_be_interrupted(pil):
    pil.ok("-e", "true")
    pid = next(p for p in host_lib.children(pil.supervisor()) if host_lib.name_of(p) == "pillion-init")
    os.kill(pid, signal.SIGSTOP)
    p = pil.start("-e", "true", stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    p.send_signal(signal.SIGINT)
    assert p.wait(timeout=10) == 128 + signal.SIGINT
    pil.ok("--shutdown", "--force")
    assert pil.ok("-e", "echo", "again") == "again\n"


PASSRIGHTS_UNKNOWN = (DENY, "setsockopt/2/83=ENOPROTOOPT")


def init_of(pil):
    return next(p for p in host_lib.children(pil.supervisor()) if host_lib.name_of(p) == "pillion-init")


def guest_that_idles(pil):
    pass


def guest_that_ignores_the_end(pil):
    pil.ok("--", "trap '' TERM HUP; sleep 300 >/dev/null 2>&1 & echo stays")


def guest_that_is_stopped(pil):
    os.kill(init_of(pil), signal.SIGSTOP)


def guest_that_never_stops_forking(pil):
    pil.ok("--", "trap '' TERM HUP; (while :; do (trap '' TERM; exec sleep 300) & done) >/dev/null 2>&1 & sleep 0.3")


@pytest.mark.parametrize("prefix", [(), PASSRIGHTS_UNKNOWN], ids=["kernel", "old kernel"])
@pytest.mark.parametrize("guest", [guest_that_idles, guest_that_ignores_the_end, guest_that_is_stopped,
                                   guest_that_never_stops_forking])
def test_supervisor_ends_on_term_within_a_second(under, prefix, guest):
    pil = under(*prefix)
    pil.ok("-e", "true")
    guest(pil)
    pid = pil.supervisor()
    family = [pid, *host_lib.children(pid)]
    with within(1, "the end of the supervisor"):
        os.kill(pid, signal.SIGTERM)
        wait_for("it ends", lambda: not host_lib.alive(pid))
    wait_for("its processes go", lambda: not any(map(host_lib.alive, family)))
    assert pil.ok("-e", "echo", "again") == "again\n"


def test_supervisor_ends_on_term_while_it_starts(pil):
    pil.ok("-e", "true")
    pil.ok("--shutdown")
    broker = int((pil.runtime / "broker.pid").read_text())
    os.kill(broker, signal.SIGSTOP)  # it is asked before the machine starts
    client = pil.start("-e", "true", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    pid_file = pil.runtime / "machines" / "debian" / "pid"
    wait_for("the supervisor", lambda: pid_file.exists() and pid_file.read_text())
    pid = pil.supervisor()
    time.sleep(0.3)
    with within(1, "the end of the supervisor"):
        os.kill(pid, signal.SIGTERM)
        wait_for("it ends", lambda: not host_lib.alive(pid))
    assert client.wait(timeout=10) == 1
    assert "told to end" in client.stderr.read()
    os.kill(broker, signal.SIGCONT)
    assert pil.ok("-e", "echo", "again") == "again\n"


def test_terminate_gives_programs_their_time_and_term_cuts_it_short(pil):
    seen = pil.root / "seen"
    seen.mkdir()
    seen.chmod(0o777)
    pil.configure(f"[wsl2]\nshare = {seen}:rw\n")
    slow = "trap 'sleep 1.5; echo done > /mnt/host/seen/ended; exit' TERM; echo up; while :; do sleep 0.05; done"
    p = pil.start("-e", "bash", "-c", slow, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "up\n"
    pil.ok("--terminate", "debian")
    assert not pil.running()
    assert (seen / "ended").read_text() == "done\n"
    p.wait(timeout=10)
    guest_that_ignores_the_end(pil)
    pid = pil.supervisor()
    ending = pil.start("--terminate", "debian", stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    assert host_lib.alive(pid)
    with within(1, "the end of the supervisor"):
        os.kill(pid, signal.SIGTERM)
        wait_for("it ends", lambda: not host_lib.alive(pid))
    assert ending.wait(timeout=15) == 0


def test_shutdown_with_nothing_running_is_fine(pil):
    assert pil.ok("--shutdown") == ""


@pytest.mark.parametrize("victim", ["pillion-machine", "pillion-init", "pillion-room"])
def test_kill_leaves_nothing_and_the_next_command_works(anyones_own, victim):
    anyones_own.ok("-e", "true")
    family = [anyones_own.supervisor(), *host_lib.children(anyones_own.supervisor())]
    pid = next(p for p in family if host_lib.name_of(p) == victim)
    os.kill(pid, signal.SIGKILL)
    wait_for("its processes go", lambda: not any(host_lib.alive(p) for p in family if host_lib.name_of(p) != "pillion-machine"
                                                 or victim == "pillion-machine"))
    wait_for("it is seen to be gone", lambda: not anyones_own.running())
    assert anyones_own.ok("-e", "echo", "again") == "again\n"


@pytest.fixture
def orphans():
    """Those of our descendants whose parents have died become our children: what they are called."""
    def subreaper(on):
        assert ctypes.CDLL(None, use_errno=True).prctl(36, on, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER

    def names():
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        children = host_lib.children(os.getpid())
        brokers = [c for c in children if host_lib.name_of(c) == "pillion-broker"]
        theirs = {c for b in brokers for c in [b, *host_lib.children(b)]}
        return [host_lib.name_of(c) for c in children if c not in theirs and host_lib.alive(c)]

    subreaper(1)
    yield names
    subreaper(0)


def test_kill_while_starting_leaves_nothing(pil, orphans):
    pil.ok("-e", "true")  # the broker is there from now on
    pid_file = pil.runtime / "machines" / "debian" / "pid"
    rounds = 200 if os.environ.get("PILLION_SOAK") else 15
    for i in range(rounds):
        pil.ok("--shutdown")
        client = pil.start("-e", "true", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the supervisor", lambda: pid_file.exists() and pid_file.read_text())
        time.sleep(0.08 * i / rounds)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(pil.supervisor(), signal.SIGKILL)
        client.wait(timeout=30)
    pil.ok("--shutdown")
    wait_for("nothing is left", lambda: not orphans())
    assert pil.ok("-e", "echo", "again") == "again\n"


def test_killed_broker_is_replaced(pil):
    pil.ok("-e", "true")
    pid = int((pil.runtime / "broker.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_for("another broker", lambda: (t := (pil.runtime / "broker.pid").read_text()) and int(t) != pid
             and host_lib.alive(int(t)))
    assert "Pillion0" in pil.ok("--", "llama-completion --list-devices 2>/dev/null")


def test_stuck_broker_is_replaced_by_the_supervisor(pil):
    pil.ok("-e", "true")
    pid = int((pil.runtime / "broker.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    wait_for("it is ended", lambda: not host_lib.alive(pid), 30)
    wait_for("another broker", lambda: (t := (pil.runtime / "broker.pid").read_text()) and int(t) != pid
             and host_lib.alive(int(t)))
    assert "Pillion0" in pil.ok("--", "llama-completion --list-devices 2>/dev/null")


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_gate_that_is_stuck_or_killed_is_replaced(pil, number):
    pil.ok("-e", "true")

    def gate():
        return [p for p in host_lib.children(pil.supervisor()) if host_lib.name_of(p) == "pillion-gate"]
    first, = gate()
    os.kill(first, number)
    wait_for("another gate", lambda: gate() and gate() != [first], 15)
    assert "Pillion0" in pil.ok("--", "llama-completion --list-devices 2>/dev/null")


def test_machine_sees_no_socket_of_the_broker_but_its_own(pil):
    (pil.runtime / "machines" / "other" / "guest").mkdir(parents=True)
    (pil.runtime / "machines" / "other" / "guest" / "broker.sock").touch()
    assert pil.ok("-u", "root", "-e", "ls", "-AR", "/run/pillion/host").split() == ["/run/pillion/host:", "broker.sock"]
    assert (pil.runtime / "broker.sock").stat().st_mode & 0o777 == 0o600
    folder = (pil.runtime / "machines" / "debian" / "guest").stat()
    assert (folder.st_mode & 0o777, folder.st_uid) == (0o755, os.getuid())
    inode = (pil.runtime / "machines" / "debian" / "guest" / "broker.sock").stat().st_ino
    assert pil.ok("-u", "root", "-e", "stat", "-c", "%i", "/run/pillion/host/broker.sock").strip() == str(inode)


def test_broker_that_cannot_start_is_tried_less_and_less_often(pil):
    pil.ok("-e", "true")
    log = pil.runtime / "broker.log"
    pil.configure(DEFAULTS + "[accel]\nggml_dir = /nonexistent\n")
    os.kill(int((pil.runtime / "broker.pid").read_text()), signal.SIGKILL)
    wait_for("it is tried", lambda: "nonexistent" in log.read_text(), 15)
    time.sleep(8)
    assert log.read_text().count("pillion-broker: err: start executor") <= 4
    start = time.monotonic()
    pil.ok("--terminate", "debian")
    assert time.monotonic() - start < 5


def test_unknown_name_says_so(pil):
    done = pil.run("-d", "nix", "-e", "true")
    assert done.returncode == 1
    assert "There is no distribution with the supplied name." in done.stderr
    assert "--list" in done.stderr


def test_machine_starts_within_a_second(pil):
    pil.ok("-e", "true")
    pil.ok("--shutdown")
    times = []
    for _ in range(3):
        start = time.monotonic()
        pil.ok("-e", "true")
        times.append(time.monotonic() - start)
        pil.ok("--shutdown")
    assert min(times) < bound(1)


# ---- rootless ----

def test_rootless_users_machine_has_users_and_a_network(rootless):
    assert rootless.ok("-e", "id", "-u") == "0\n"
    assert rootless.ok("--", "touch /root/x && chown nobody /root/x && stat -c %U /root/x") == "nobody\n"
    if os.access("/dev/net/tun", os.W_OK) and os.stat("/dev/net/tun").st_mode & 0o002:
        assert "dev eth0" in rootless.ok("-e", "ip", "route")


def test_rootless_user_without_subuids_is_told_how_to_get_them(rootless):
    p = Pillion(rootless.root / "nodata", rootless.program,
                ["setpriv", "--reuid", "64999", "--regid", "64999", "--clear-groups"])
    subprocess.run(["chown", "-R", "64999:64999", p.root], check=True)
    p.env["XDG_DATA_HOME"] = str(p.root / "data")
    distro = p.root / "data" / "pillion" / "distros" / "debian"
    (distro / "rootfs").mkdir(parents=True)
    (distro / "distro.json").write_text('{"name":"debian","flavor":"debian","version":1,"defaultUid":0}')
    subprocess.run(["chown", "-R", "64999:64999", p.root], check=True)
    try:
        done = p.run("-e", "true")
        assert done.returncode == 1
        assert "subuid" in done.stderr and "usermod" in done.stderr
    finally:
        shutil.rmtree(p.root, ignore_errors=True)
