# SPDX-License-Identifier: Apache-2.0
"""The command line: lists, texts, and what installing does when things go wrong."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

import host as host_lib


class Cli:
    def __init__(self, data=None, trees=False):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="pilc-"))
        self.root.chmod(0o755)
        self.env = dict(os.environ)
        for kind in ("data", "config", "cache", "runtime"):
            name = "XDG_RUNTIME_DIR" if kind == "runtime" else f"XDG_{kind.upper()}_HOME"
            (self.root / kind).mkdir(mode=0o700)
            self.env[name] = str(self.root / kind)
        if data:
            self.env["XDG_DATA_HOME"] = str(data)
        self.data = pathlib.Path(self.env["XDG_DATA_HOME"]) / "pillion"
        if trees:  # what was fetched once serves all tests
            (self.root / "cache" / "pillion").mkdir()
            (self.root / "cache" / "pillion" / "trees").symlink_to(host_lib.USER_CACHE / "trees")

    def argv(self, *args, prefix=()):
        return [*prefix, str(host_lib.PILLION), *args]

    def run(self, *args, prefix=(), timeout=300):
        return subprocess.run(self.argv(*args, prefix=prefix), env=self.env, capture_output=True, text=True,
                              timeout=timeout, stdin=subprocess.DEVNULL, cwd="/")

    def close(self):
        self.run("--shutdown")
        pid_file = self.root / "runtime" / "pillion" / "broker.pid"
        if pid_file.exists():
            try:
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
            except (OSError, ValueError):
                pass
        for name in json.loads(self.run("--list", "--json").stdout or "[]"):
            if str(self.data).startswith(str(self.root)):
                self.run("--unregister", name["name"])
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture
def empty():
    c = Cli()
    yield c
    c.close()


@pytest.fixture
def installed():
    c = Cli(host_lib.installed_data())
    yield c
    c.close()


@pytest.fixture
def with_trees():
    host_lib.installed_data()
    if not (host_lib.USER_CACHE / "trees").exists():
        pytest.skip("the trees are not in the cache")
    c = Cli(trees=True)
    yield c
    c.close()


# ---- texts ----

def test_nothing_installed_says_how_to(empty):
    for args in ((), ("--list",), ("-e", "true")):
        done = empty.run(*args)
        assert done.returncode == 1
        assert "pillion --install debian" in done.stdout + done.stderr


def test_list_shows_names_states_and_the_default(installed):
    lines = installed.run("--list", "--verbose").stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "VERSION"]
    assert lines[1].split() == ["*", "debian", "Stopped", "1"]
    assert installed.run("-l", "-q").stdout == "debian\n"
    assert "debian (Default)" in installed.run("--list").stdout
    done = installed.run("--list", "--running")
    assert "There are no running distributions." in done.stdout
    listed = json.loads(installed.run("--list", "--json").stdout)
    assert listed == [{"name": "debian", "default": True, "state": "Stopped", "version": 1}]


def test_list_shows_what_is_being_made(with_trees):
    def rows():
        lines = with_trees.run("--list", "--verbose").stdout.splitlines()[1:]
        return [line.replace("*", "").split() for line in lines]

    for finish in (False, True):  # killed in the middle, then to the end
        installer = subprocess.Popen(with_trees.argv("--install", "debian", "--no-launch", "--version", "1"),
                                     env=with_trees.env, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host_lib.wait_for("it is shown", lambda: rows() == [["debian", "Installing", "1"]], timeout=60)
        listed = json.loads(with_trees.run("--list", "--json").stdout)
        assert [d["state"] for d in listed] == ["Installing"]
        assert with_trees.run("--list", "--running").returncode == 1
        if not finish:
            installer.kill()
            installer.wait()  # what it ran is killed with it, and may take a moment
            host_lib.wait_for("it is forgotten", lambda: rows() == [], timeout=10)
    assert installer.wait(timeout=300) == 0
    assert rows() == [["debian", "Stopped", "1"]]


def test_list_online_names_what_can_be_installed(empty):
    done = empty.run("--list", "--online")
    assert "The following is a list of valid distributions that can be installed." in done.stdout
    assert "debian" in done.stdout


def test_status_names_back_end_kit_and_reference_device(installed):
    text = installed.run("--status").stdout
    assert "Default Distribution: debian" in text and "Default Version: 1" in text
    assert "sandbox" in text and "reference device (host CPU)" in text
    report = json.loads(installed.run("--status", "--json").stdout)
    assert report["runtimeKit"] is True and report["devices"][0]["reference"] is True
    assert set(report["hugePages"]) == {"memory", "sharedMemory", "command"}


def test_version_has_the_lines_of_wsl(empty):
    lines = [line.split(" version: ", 1) for line in empty.run("--version").stdout.splitlines()]
    assert [name for name, _ in lines] == ["pillion", "Kernel", "WSLg", "MSRDC", "Direct3D", "DXCore", "Windows"]
    assert lines[1][1].startswith(f"{os.uname().release} (the host's")
    assert all(value.startswith("none (") for _, value in lines[2:])
    assert os.uname().release in lines[6][1]


def test_version_names_the_kernel_of_microvms(empty):
    def kernel():
        return empty.run("-v").stdout.splitlines()[1].removeprefix("Kernel version: ")

    kit = empty.data / "kits" / "kernel-trixie"
    (kit / "rootfs" / "kit" / "modules" / "6.12.9-test").mkdir(parents=True)
    assert "the host's" in kernel()  # it is not whole yet
    (kit / "stamp").write_text("x")
    assert kernel() == "6.12.9-test"
    config = empty.root / "config" / "pillion" / "config"
    config.parent.mkdir(exist_ok=True)
    for value, expected in (("/boot/mine", "/boot/mine"), ("sid", f"{os.uname().release} (the host's"),
                            ("trixie", "6.12.9-test"), ("trixie\nmemory = much", "6.12.9-test")):
        config.write_text(f"[wsl2]\nkernel = {value}\n")
        assert kernel().startswith(expected), value


def test_help_names_the_commands(empty):
    text = empty.run("--help").stdout
    for word in ("--install", "--list, -l", "--set-default, -s", "--terminate, -t", "--unregister", "--exec, -e"):
        assert word in text


@pytest.mark.parametrize("args", [("-d", "nix"), ("--terminate", "nix"), ("--unregister", "nix"),
                                  ("--set-default", "nix"), ("--set-default", "../../etc")])
def test_unknown_name(installed, args):
    done = installed.run(*args)
    assert done.returncode == 1
    assert "There is no distribution with the supplied name." in done.stderr


def test_unknown_option_is_named(installed):
    done = installed.run("--frobnicate")
    assert done.returncode == 1 and "--frobnicate" in done.stderr and "--help" in done.stderr


@pytest.mark.parametrize("args,why", [
    (("--list", "--frob"), "pillion: --list: unknown option --frob"),
    (("--list", "-qx"), "pillion: --list: unknown option -x"),
    (("--list", "--all=yes"), "pillion: --list: --all=yes: it takes no value"),
    (("--update", "--frob"), "pillion: --update: unknown option --frob"),
    (("--install", "debian", "--frob"), "pillion: --install: unknown option --frob"),
    (("--install", "debian", "--name"), "pillion: --install: --name needs a value"),
    (("--install", "debian", "--version", "9"), "--version is 1 (sandbox) or 2 (microVM)"),
    (("bench", "-m"), "pillion: bench: -m needs a value"),
    (("bench", "--frob"), "pillion: bench: unknown option --frob"),
    (("--manage", "debian", "--frob"), "pillion: manage 'debian': unknown option --frob"),
    (("--manage", "debian", "--set"), "pillion: manage 'debian': --set needs a value"),
    (("--shutdown", "debian"), "--terminate NAME"),
    (("--shell-type", "fish"), "standard, login or none"),
])
def test_wrong_option_is_named_with_what_is_right(installed, args, why):
    done = installed.run(*args)
    assert done.returncode == 1 and why in done.stderr, done.stderr
    assert re.search("^(usage|hint): |--help", done.stderr, re.M), done.stderr


def test_command_without_its_dashes_is_hinted_at(installed):
    done = installed.run("status")
    assert done.returncode == 127 and done.stderr.endswith("hint: pillion --status is a command of pillion\n"), done
    assert "hint" not in installed.run("no-such-program").stderr


def test_model_that_is_none_is_named_before_it_is_run(installed):
    for model, why in (("/nonexistent", "No such file"), ("/etc/passwd", "it is no GGUF file")):
        done = installed.run("bench", "-m", model)
        assert done.returncode == 1 and f"model '{model}': {why}" in done.stderr, done.stderr
        assert "\nhint: " in done.stderr and "bench: 1/" not in done.stderr


# ---- completion ----

BASH = """. $COMPLETION/pillion
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pillion; printf '%s\\n' "${COMPREPLY[@]}" """

# what zsh's own widgets would show is printed
ZSH = """compadd() { shift; print -l -- $@ }
_describe() { local -a all=(${(P)3}); print -l -- ${all%%:*} }
_files() { print -l -- *(/N) ${~2}(N) }
functions[_pillion_file]="$(<$COMPLETION/_pillion)"; _pillion_file
words=("$@"); CURRENT=$#; _pillion | while read -r word; do
    [[ $word == $words[-1]* ]] && print -r -- $word; done; true"""

FISH = """source $COMPLETION/pillion.fish
complete -C (string join ' ' -- $argv) | string replace -r '\\t.*' '' """

SHELLS = {"bash": ["bash", "-c", BASH, "bash"], "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
          "fish": ["fish", "--no-config", "-c", FISH]}


def complete(shell, cli, *words):
    """What the shell offers for the last of the words."""
    env = dict(cli.env, PATH=f"{host_lib.PILLION.parent}:{os.environ['PATH']}", COMPLETION=str(host_lib.BUILD / "packaging"))
    done = subprocess.run([*SHELLS[shell], "pillion", *words], env=env, text=True, capture_output=True, timeout=30,
                          stdin=subprocess.DEVNULL, cwd=cli.root)
    assert not done.stderr, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_offers_what_help_lists(empty, shell):
    managing = empty.run("--help").stdout.split("Arguments for managing pillion:")[1]
    commands = re.findall(r"^    (bench|--[a-z-]+)(.*\n(?:(?:        .*)?\n)*)", managing, re.M)
    assert len(commands) > 20
    for name, text in commands:
        assert name in complete(shell, empty, name[:-1])
        options = set(re.findall(r"^            (--[a-z-]+)", text, re.M))
        assert not options or complete(shell, empty, name, "--") >= options, name


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_names_files_and_where_the_machine_begins(installed, shell):
    (installed.root / "a.gguf").touch()
    (installed.root / "b.txt").touch()
    for words in (("-d", ""), ("--terminate", "de"), ("-t", ""), ("bench", "-d", ""), ("--set-version", ""),
                  ("--manage", "")):
        assert {"debian"} <= complete(shell, installed, *words) - {"--set", "--unset", "--get", "--json"}, words
    assert complete(shell, installed, "--install", "debian-") == {"debian-stable"}
    found = complete(shell, installed, "bench", "-m", "")
    assert "a.gguf" in found and "b.txt" not in found
    assert complete(shell, installed, "-d", "debian", "--u") == {"--user"}
    assert complete(shell, installed, "-d", "debian", "-e", "ls", "--u") == set()
    assert complete(shell, installed, "-d", "debian", "ls", "--u") == set()
    assert complete(shell, installed, "--set-version", "debian", "") == {"1", "2"}
    assert complete(shell, installed, "--install", "--version", "") == {"1", "2"}
    assert complete(shell, installed, "--shell-type", "l") == {"login"}
    assert complete(shell, installed, "--terminate", "debian", "") == set()


def test_the_manual_page_lists_what_help_lists(empty):
    page = (host_lib.BUILD / "docs" / "man" / "pillion.1.scd").read_text()
    words = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", empty.run("--help").stdout))
    refused = set(re.findall(r'^\t\{"(--[a-z-]+)", "', (host_lib.ROOT / "src/cli/main.c").read_text(), re.M))
    assert len(words) > 40
    words |= refused
    assert not [word for word in words if f"*{word}*" not in page]


# ---- installing ----

def test_unknown_flavor_lists_the_known(empty):
    done = empty.run("--install", "nix")
    assert done.returncode == 1
    assert "There is no distribution with the supplied name." in done.stderr and "debian" in done.stderr


def test_a_name_that_is_there_is_refused(installed):
    done = installed.run("--install", "debian")
    assert done.returncode == 1
    assert "already exists" in done.stderr and "--name" in done.stderr


def say_kvm_emulates(user):
    """What the probe found on this boot of the host, as it keeps it."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    version = user.run("--version").stdout.split()[2]  # "pillion version: X"
    kept = user.root / "cache" / "pillion" / "kvm"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(f'{boot} {version}\n{{"kvm": "emulated", "slowdown": 5000.0}}\n')


def refused_as_version_2(done):
    return done.returncode == 1 and "no microVM on this host: " in done.stderr


def test_version_2_is_refused_with_the_reason(empty):
    say_kvm_emulates(empty)
    done = empty.run("--install", "debian", "--version", "2")
    assert refused_as_version_2(done) and "--set-version" in done.stderr
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert "5000 times slower" in done.stderr


def test_default_version_of_the_config_holds_for_install(empty):
    config = empty.root / "config" / "pillion" / "config"
    config.parent.mkdir(exist_ok=True)
    config.write_text("[wsl2]\ndefaultVersion=2\n")
    say_kvm_emulates(empty)
    assert refused_as_version_2(empty.run("--install", "debian"))
    config.write_text("[wsl2]\ndefaultVersion=two\n")
    done = empty.run("--install", "debian")
    assert done.returncode == 1 and "line 2" in done.stderr


# Stands for mmdebstrap: packages of one version, by the file SUITE in this program's folder, and an
# archive with nothing in it but what tells the versions of ggml and the kernel.  No such file: no
# such suite.
FAKE_SUITES = r"""#!/bin/sh
set -e
simulate=
while case "$1" in --simulate) simulate=1 ;; -*) ;; *) false ;; esac; do shift; done
here=$(dirname "$0") suite=$1 archive=$2
[ -f "$here/$suite" ] || { echo "E: $suite does not have a Release file" >&2; exit 1; }
version=$(cat "$here/$suite")
if [ "$simulate" ]; then
    echo "Inst libggml0 ($version Debian:$suite [amd64]) []" >&2
    echo "Inst linux-image-cloud-amd64 ($version Debian:$suite [amd64])" >&2
    exit
fi
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
echo "$@" >>"$here/calls"
mkdir -p "$tree/usr/lib/x86_64-linux-gnu" "$tree/kit/modules/$version"
: >"$tree/usr/lib/x86_64-linux-gnu/libggml-base.so.$version"
{ printf '\177ELF'; head -c 200000 /dev/zero; echo "$version"; } >"$tree/kit/vmlinuz"
tar --create --zstd --file "$archive" --directory "$tree" .
"""


@pytest.fixture
def debian(empty):
    """Makes Debian's suites have these versions of ggml; the command line then fetches from them."""
    folder = empty.root / "suites"
    folder.mkdir()
    (folder / "mmdebstrap").write_text(FAKE_SUITES)
    (folder / "mmdebstrap").chmod(0o755)
    empty.env["PATH"] = f"{folder}:{empty.env['PATH']}"
    empty.env["TMPDIR"] = str(empty.root)
    say_kvm_emulates(empty)

    def has(**versions):
        for suite, version in versions.items():
            (folder / suite).write_text(version)
        return empty
    yield has


def suites_fetched(cli):
    return [call.split()[0] for call in (cli.root / "suites" / "calls").read_text().splitlines()]


def ggml_of_kit(cli):
    files = (cli.data / "kits" / "runtime" / "rootfs").rglob("libggml-base.so.*")
    return [f.name.removeprefix("libggml-base.so.") for f in files]


def test_known_ggml_of_sid_is_taken_without_a_word(debian):
    cli = debian(sid="0.27.0", trixie="0.26.0")
    done = cli.run("--install", "debian", "--no-launch", "--version", "1")
    assert done.returncode == 0 and "ggml 0." not in done.stderr, done
    assert ggml_of_kit(cli) == ["0.27.0"]


def test_kit_falls_back_to_a_suite_with_a_known_ggml(debian):
    cli = debian(sid="0.28.0", trixie="0.27.0")
    done = cli.run("--install", "debian", "--no-launch", "--version", "1")
    assert done.returncode == 0, done
    assert "Debian sid has ggml 0.28.0, and this pillion knows 0.25 to 0.27: trying" in done.stderr
    assert ggml_of_kit(cli) == ["0.27.0"]
    assert "trixie-backports" in (cli.root / "suites" / "calls").read_text()
    assert "'debian' has ggml 0.28.0" in done.stderr  # there, programs come with their ggml
    assert "the runtime kit has" not in done.stderr
    done = cli.run("--update")
    assert done.stdout == "Runtime kit: the most recent version is already there (libggml0 0.27.0)\n"
    assert "ggml 0." not in done.stderr and suites_fetched(cli).count("trixie") == 1


def test_update_to_a_suite_with_an_unknown_ggml_keeps_one_that_is_known(debian):
    def update(**versions):
        done = debian(**versions).run("--update")
        assert done.returncode == 0, done
        return done.stdout.splitlines()[0]

    cli = debian(sid="0.26.0", trixie="0.26.1")
    assert update() == "Runtime kit: installed (libggml0 0.26.0)"
    assert update(sid="0.28.0") == "Runtime kit: updated (libggml0 0.26.1)"
    assert update(trixie="0.26.2") == "Runtime kit: updated (libggml0 0.26.2)"
    stamp = (cli.data / "kits" / "runtime" / "stamp").stat().st_ino
    assert update(trixie="0.28.1") == "Runtime kit: kept, as nothing newer would do (libggml0 0.26.2)"
    assert ggml_of_kit(cli) == ["0.26.2"]
    assert (cli.data / "kits" / "runtime" / "stamp").stat().st_ino == stamp
    assert sorted(p.name for p in (cli.data / "kits").iterdir()) == ["runtime", "runtime.last"]


@pytest.mark.parametrize("others", [{"trixie": "0.29.0"}, {}])
def test_ggml_that_is_unknown_everywhere_is_told(debian, others):
    cli = debian(sid="0.28.0", **others)
    version = others.get("trixie", "0.28.0")
    done = cli.run("--update")
    told = f"the runtime kit has ggml {version}, and this pillion knows 0.25 to 0.27"
    assert done.returncode == 0 and told in done.stderr and "hint:" in done.stderr, done
    assert ggml_of_kit(cli) == [version]
    assert told in cli.run("--update").stderr
    config = cli.root / "config" / "pillion" / "config"
    config.parent.mkdir(exist_ok=True)
    config.write_text("[accel]\nggml_dir = /opt/llama.cpp/build/bin\n")
    assert told not in cli.run("--update").stderr  # as the hint said


def test_update_follows_the_mirror_and_says_what_it_did(debian):
    cli = debian()
    distro = cli.data / "distros" / "disk"
    distro.mkdir(parents=True)
    (distro / "distro.json").write_text('{"name":"disk","flavor":"debian","version":2,"defaultUid":0}')
    kits = cli.data / "kits"

    def update(version):
        done = debian(sid=version, trixie=version).run("--update")
        assert done.returncode == 0, done.stderr
        assert ggml_of_kit(cli) == [version]
        vmlinux = kits / "kernel-trixie" / "vmlinux"
        assert vmlinux.read_text().endswith(f"{version}\n")
        assert vmlinux.stat().st_blocks * 512 < 100_000  # its zeroes are holes
        assert sorted(p.name.removesuffix(".last") for p in kits.iterdir()) in (
            ["kernel-trixie", "runtime"], ["kernel-trixie"] * 2 + ["runtime"] * 2)
        return done.stdout.splitlines()

    assert update("0.26.0") == ["Runtime kit: installed (libggml0 0.26.0)",
                                "Guest kernel: installed (linux-image-cloud-amd64 0.26.0)"]
    running = open(kits / "kernel-trixie" / "vmlinux", "rb")
    assert update("0.26.0") == [
        "Runtime kit: the most recent version is already there (libggml0 0.26.0)",
        "Guest kernel: the most recent version is already there (linux-image-cloud-amd64 0.26.0)"]
    assert update("0.26.1")[:2] == ["Runtime kit: updated (libggml0 0.26.1)",
                                    "Guest kernel: updated (linux-image-cloud-amd64 0.26.1)"]
    assert running.read().endswith(b"0.26.0\n")
    assert suites_fetched(cli) == ["sid", "trixie"] * 2
    (kits / "runtime" / "packages").unlink()  # the archive knows
    assert update("0.26.1")[0] == "Runtime kit: updated (libggml0 0.26.1)"
    assert suites_fetched(cli) == ["sid", "trixie"] * 2

    (cli.root / "suites" / "mmdebstrap").write_text(
        "#!/bin/sh\necho 'E: Could not resolve the mirror' >&2\nexit 1\n")
    done = cli.run("--update")
    assert done.returncode == 1
    assert "the Debian mirror cannot be reached" in done.stderr
    assert cli.run("--install", "--no-distribution").stdout.splitlines() == [
        "Runtime kit: already there (libggml0 0.26.1)",
        "Guest kernel: already there (linux-image-cloud-amd64 0.26.1)"]


def test_kit_of_before_packages_were_noted_serves_until_it_is_updated(debian):
    cli = debian(sid="0.26.0")
    assert cli.run("--update").returncode == 0
    for noted in (*cli.root.rglob("packages"), *cli.root.rglob("*.packages")):
        noted.unlink()
    done = cli.run("--install", "--no-distribution")
    assert (done.stdout, done.stderr) == ("Runtime kit: already there\n", "")
    assert cli.run("--update").stdout.startswith("Runtime kit: updated (libggml0 0.26.0)\n")
    assert suites_fetched(cli) == ["sid", "sid"]


def test_machine_that_never_answers_is_given_up(installed):
    """A supervisor that says it serves and does not; it would be started for ever."""
    folder = installed.root / "bin"
    folder.mkdir()
    shutil.copy(host_lib.PILLION, folder)
    starts = installed.root / "starts"
    fake = folder / "pillion-machine"
    fake.write_text(f"#!/bin/sh\necho >>{starts}\n")
    fake.chmod(0o755)
    done = subprocess.run([folder / "pillion", "-d", "debian", "-e", "true"], env=installed.env, timeout=30,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "does not answer" in done.stderr and "hint:" in done.stderr, done
    assert 1 < len(starts.read_text()) < 100


@pytest.mark.skipif(os.getuid() != 0, reason="cutting the network off needs root")
def test_no_network_leaves_nothing_half_registered(empty):
    done = empty.run("--install", "debian", "--no-launch", prefix=["unshare", "-n"])
    assert done.returncode == 1, done.stdout
    assert "cannot be reached" in done.stderr and "hint:" in done.stderr
    assert empty.run("--list", "--quiet").stdout == ""
    assert not (empty.data / "distros" / "debian").exists()
    assert not list((empty.root / "cache").rglob("*.tar.zst"))


needs_small_disk = pytest.mark.skipif(os.getuid() != 0, reason="a small disk needs root")


@contextlib.contextmanager
def small_disk(cli, variable, size):
    """A disk of its own for what @variable names."""
    disk = cli.root / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
    cli.env[variable] = str(disk)
    try:
        yield disk
        cli.run("--shutdown")
    finally:
        subprocess.run(["umount", disk], check=True)


def assert_full_disk_is_named(cli, disk, variable, prefix=()):
    done = cli.run("--install", "debian", "--no-launch", "--version", "1", prefix=prefix)
    assert done.returncode == 1
    assert f"the disk is full: {disk}" in done.stderr and "hint: is there room? df -h " in done.stderr, done.stderr
    assert f"{variable}=DIR" in done.stderr
    assert len(done.stderr.splitlines()) < 12, "tar's word on every file is no use"
    assert cli.run("--list", "--quiet").stdout == ""
    assert not list(pathlib.Path(cli.env["XDG_DATA_HOME"]).glob("pillion/distros/*"))


@needs_small_disk
def test_full_disk_leaves_nothing_half_registered(with_trees):
    with small_disk(with_trees, "XDG_DATA_HOME", "64m") as disk:
        assert_full_disk_is_named(with_trees, disk, "XDG_DATA_HOME")


@needs_small_disk
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "TMPDIR"])
def test_disk_too_small_to_begin_with_is_said_at_once(empty, variable):
    with small_disk(empty, variable, "1m") as disk:
        assert_full_disk_is_named(empty, disk, variable, prefix=["unshare", "-n"])  # before anything is fetched
        assert not list(empty.root.rglob("*.tar.zst*")) and not list(disk.glob("pillion-*"))


# Fills what it is given until the disk is full, says what the real one says, and cleans up.
FAKE_MMDEBSTRAP = """#!/bin/sh
for word; do case "$word" in *.part.tar.zst) part=$word ;; esac; done
if ! head -c 512M /dev/zero >"$FILL_FIRST" 2>/dev/null; then
    rm -f "$TMPDIR/tree"
    echo "zstd: error 70 : Write error : cannot write block : No space left on device" >&2
    exit 1
fi
"""


@needs_small_disk
@pytest.mark.parametrize("variable, size, file", [("XDG_CACHE_HOME", "24m", "$part"), ("TMPDIR", "80m", "$TMPDIR/tree")])
def test_disk_that_fills_up_while_fetching_is_named(empty, variable, size, file):
    tools = empty.root / "tools"
    tools.mkdir()
    (tools / "mmdebstrap").write_text(FAKE_MMDEBSTRAP.replace("$FILL_FIRST", file))
    (tools / "mmdebstrap").chmod(0o755)
    empty.env["PATH"] = f"{tools}:{empty.env['PATH']}"
    with small_disk(empty, variable, size) as disk:
        assert_full_disk_is_named(empty, disk, variable)
        assert not list(empty.root.rglob("*.tar.zst*")) and not list(disk.glob("pillion-*"))


def start_install(cli, *args):
    return subprocess.Popen(cli.argv("--install", "debian", "--no-launch", *args), env=cli.env, cwd="/",
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def unpacking(cli):
    return list(cli.data.glob("distros/*/rootfs.part/usr/bin/*"))


def programs_of(cli):
    """Processes that were given a path of this test."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(cli.root) in path.read_text(errors="replace"):
                found.append(path.parent.name)
        except OSError:
            pass
    return found


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_install_cleans_up_and_says_how_to_go_on(with_trees, sign):
    p = start_install(with_trees)
    host_lib.wait_for("unpacking", lambda: unpacking(with_trees), timeout=60)
    if sign == signal.SIGINT:
        os.killpg(p.pid, sign)  # as the terminal does
    else:
        p.send_signal(sign)
    _, stderr = p.communicate(timeout=60)
    assert p.returncode == 130 and "interrupted" in stderr and "run the same command again" in stderr
    assert not (with_trees.data / "distros" / "debian").exists()
    assert programs_of(with_trees) == []
    assert with_trees.run("--list", "--quiet").stdout == ""


@pytest.mark.skipif(os.getuid() != 0, reason="looks for what root left behind")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_fetch_leaves_nothing_behind(empty, sign):
    scratch = empty.root / "scratch"
    scratch.mkdir(mode=0o755)
    empty.env["TMPDIR"] = str(scratch)
    p = start_install(empty)
    time.sleep(3)  # the mirror may be slow or away: any moment will do
    p.send_signal(sign)
    p.communicate(timeout=60)
    host_lib.wait_for("no program is left", lambda: not programs_of(empty), timeout=30)
    if sign == signal.SIGINT:
        assert p.returncode in (1, 130)
        assert not list((empty.root / "cache").rglob("*.tar.zst")) and not list(scratch.iterdir())
        return
    done = empty.run("--install", "debian", "--no-launch", prefix=["unshare", "-n"])  # gets to where it cleans up
    assert done.returncode == 1
    assert not list((empty.root / "cache").rglob("*.tar.zst")) and not list(scratch.iterdir())


def test_two_installs_of_one_name_do_not_disturb_each_other(with_trees):
    both = [start_install(with_trees) for _ in range(2)]
    done = [p.communicate(timeout=300) for p in both]
    assert sorted(p.returncode for p in both) == [0, 1], done
    assert "already exists" in done[0][1] + done[1][1]
    works = with_trees.run("-e", "echo", "works")
    assert works.stdout == "works\n", works


def test_names_are_the_same_in_any_case(installed):
    for args in (("-d", "DEBIAN", "-e", "true"), ("--set-default", "Debian"), ("--terminate", "DeBian")):
        done = installed.run(*args)
        assert done.returncode == 0, done.stderr
    done = installed.run("--install", "debian", "--name", "Debian")
    assert done.returncode == 1 and "already exists" in done.stderr
    assert installed.run("--list", "--quiet").stdout == "debian\n"


@pytest.mark.parametrize("word", ["--distribution-id", "--mount", "--unmount", "--system"])
def test_what_is_not_supported_is_named(empty, word):
    done = empty.run(word, "debian")
    assert done.returncode == 1
    assert f"{word} is not supported" in done.stderr and "hint:" in done.stderr


def test_flags_without_a_meaning_are_ignored_with_a_word(empty):
    done = empty.run("--install", "nix", "--fixed-vhd", "--web-download")
    assert "--fixed-vhd has no meaning" in done.stderr and "--web-download has no meaning" in done.stderr


@pytest.fixture
def managed(empty):
    """A distribution that is registered, and nothing more."""
    folder = empty.data / "distros" / "deb"
    folder.mkdir(parents=True)
    (folder / "distro.json").write_text('{"name":"deb","flavor":"debian","version":1,"defaultUid":0}')
    return empty


def test_setting_of_a_machine_is_set_shown_and_taken_back(managed):
    conf = managed.data / "distros" / "deb" / "machine.conf"
    done = managed.run("--manage", "DEB", "--set", "memory=4GB")
    assert done.returncode == 0 and done.stdout == "The operation completed successfully.\n", done.stderr
    assert conf.read_text() == "[wsl2]\nmemory = 4GB\n"
    assert managed.run("--manage", "deb", "--get", "memory").stdout == "4GB\n"
    done = managed.run("--manage", "deb", "--set", "share=/srv/a", "--set", "share=/srv/b:rw")
    assert managed.run("--manage", "deb", "--get", "wsl2.share").stdout == "/srv/a\n/srv/b:rw\n"
    all_of_them = json.loads(managed.run("--manage", "deb", "--get", "--json").stdout)
    assert {"key": "wsl2.memory", "value": "4GB", "from": "machine"} in all_of_them
    assert {"key": "accel.weight", "value": "100", "from": "default"} in all_of_them
    assert managed.run("--manage", "deb", "--unset", "memory").returncode == 0
    assert managed.run("--manage", "deb", "--get", "memory").stdout == "half the host's\n"


def test_setting_of_the_user_is_shown_where_the_machine_has_none(managed):
    config = managed.root / "config" / "pillion"
    config.mkdir()
    (config / "config").write_text("[accel]\nquota = 3GB\n")
    assert re.search(r"^accel.quota +config +3GB$", managed.run("--manage", "deb", "--get").stdout, re.M)


@pytest.mark.parametrize("args,why", [
    (["--set", "quota=lots"], "quota: 'lots' is not a valid value"),
    (["--set", "ggml_dir=/opt"], "ggml_dir cannot be set for one machine"),
    (["--set", "colour=red"], "there is no setting 'colour'"),
    (["--set", "memory"], "--set takes KEY=VALUE"),
    (["--set", "memory=1GB", "--set", "memory=2GB"], "one value of one key at a time"),
    (["--set", "memory=1GB", "--unset", "memory"], "one thing at a time"),
    (["--get", "memory", "swap"], "what is 'swap'?"),
    (["--move", "/tmp", "--compact"], "one thing at a time"),
    ([], "nothing to do"),
])
def test_setting_that_cannot_be_is_refused_and_changes_nothing(managed, args, why):
    done = managed.run("--manage", "deb", *args)
    assert done.returncode == 1 and why in done.stderr, done.stderr
    assert [p.name for p in (managed.data / "distros" / "deb").iterdir()] == ["distro.json"]


def test_settings_that_no_machine_could_use_are_not_shown(managed):
    config = managed.root / "config" / "pillion" / "config"
    config.mkdir(parents=True)
    done = managed.run("--manage", "deb", "--get", "memory")
    assert done.returncode == 1 and f"read config '{config}': Is a directory\nhint: " in done.stderr, done
    config.rmdir()
    config.write_text("[wsl2]\nmemory = much\n")
    done = managed.run("--manage", "deb", "--get", "memory")
    assert done.returncode == 1 and f"config '{config}' line 2" in done.stderr and "much" not in done.stdout


def test_setting_of_an_unknown_machine(managed):
    done = managed.run("--manage", "nix", "--get")
    assert done.returncode == 1 and "no distribution with the supplied name" in done.stderr


def test_version_of_a_distribution(installed):
    say_kvm_emulates(installed)
    assert refused_as_version_2(installed.run("--set-version", "debian", "2"))
    assert installed.run("--set-version", "debian", "7").returncode == 1
    assert installed.run("--set-version", "nix", "1").returncode == 1


@pytest.mark.parametrize("command", ["bench", "--install", "--list", "--set-version", "-t"])
def test_each_command_explains_itself(empty, command):
    done = empty.run(command, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: pillion "), done
    assert len(done.stdout.splitlines()) == 2 and done.stderr == ""


def test_help_and_version_need_no_folders(empty):
    for name in ("XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        empty.env[name] = "/proc/none"
    assert empty.run("--help").returncode == 0 and empty.run("--version").returncode == 0
    done = empty.run("--list")
    assert done.returncode == 1 and "/proc/none" in done.stderr
    empty.env["XDG_DATA_HOME"] = str(empty.root / "data")
    empty.env["XDG_RUNTIME_DIR"] = str(empty.root / "runtime")
    empty.env["XDG_CACHE_HOME"] = str(empty.root / "cache")


def test_killed_install_is_taken_up_again(with_trees):
    p = subprocess.Popen(with_trees.argv("--install", "debian", "--no-launch"), env=with_trees.env, cwd="/",
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         start_new_session=True)
    host_lib.wait_for("unpacking", lambda: unpacking(with_trees), timeout=60)
    p.kill()  # it alone: what it started must end with it
    p.wait(timeout=10)
    assert with_trees.run("--list", "--quiet").stdout == ""
    leftover = with_trees.data / "distros" / "other" / "rootfs"
    leftover.mkdir(parents=True)  # of another name, which nobody installs again
    done = with_trees.run("--install", "debian", "--no-launch")
    assert done.returncode == 0, done.stderr
    assert not leftover.parent.exists()
    assert "Distribution successfully installed. It can be launched via 'pillion -d debian'" in done.stdout
    done = with_trees.run("-e", "echo", "works")
    assert done.stdout == "works\n", done.stderr
    done = with_trees.run("--unregister", "debian")
    assert done.returncode == 0, done.stderr
    assert not (with_trees.data / "distros" / "debian").exists()
    assert with_trees.run("--list", "--quiet").stdout == ""
