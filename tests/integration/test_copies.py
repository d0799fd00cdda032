# SPDX-License-Identifier: Apache-2.0
"""Copies of distributions: clones, throw-away copies, snapshots, other places; and what is left of them when
the command is killed."""
import json
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

import host as host_lib
from test_distributions import describe, home, inside, made, make_rich, rich, tree_of  # noqa: F401


@pytest.fixture
def busy(home, made):
    home.ok("--import", "busy", home.root / "busy", made / "busy.tar", "--version", "1")
    return home


def leftovers(home):
    """Names in the folders of distributions that no finished command leaves."""
    return [str(p) for pattern in ("*.part", "*/*.part", "*/*.old", "*/snapshots/.*", ".*")
            for p in home.distros.glob(pattern)]


def test_clone_has_the_same_files_and_goes_its_own_way(rich):
    before = describe(tree_of(rich, "rich"))
    rich.ok("--clone", "rich", "second")
    assert describe(tree_of(rich, "second")) == before
    rich.ok("-d", "second", "-e", "sh", "-c", "echo mine > /root/new; rm /rich/plain")
    assert not (tree_of(rich, "rich") / "root" / "new").exists() and (tree_of(rich, "rich") / "rich" / "plain").exists()
    assert "already exists" in rich.fails("--clone", "rich", "second")
    assert "There is no distribution" in rich.fails("--clone", "nobody", "third")
    rich.ok("--unregister", "rich")
    assert rich.ok("-d", "second", "-e", "cat", "/root/new") == "mine\n"


def test_clone_takes_settings_user_and_environment_along(home, made):
    home.ok("--import", "busy", home.root / "busy", made / "busy.tar", "--version", "1")
    home.ok("--manage", "busy", "--set", "weight=7")
    (home.distros / "busy" / "image.json").write_text('{"uid": 0, "env": ["A=b"], "workdir": "/usr"}')
    home.ok("--clone", "busy", "second")
    assert home.ok("--manage", "second", "--get", "weight") == "7\n"
    assert home.ok("-d", "second", "-e", "sh", "-c", "echo $A; pwd") == "b\n/usr\n"


def test_throwaway_copy_runs_the_command_and_is_gone(busy):
    done = busy.run("--rm", "-d", "busy", "-e", "sh", "-c", "echo out > /root/made; cat /root/made; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n"), done.stderr
    assert not (tree_of(busy, "busy") / "root" / "made").exists()
    assert busy.names() == ["busy"] and [p.name for p in busy.distros.iterdir()] == ["busy"]
    assert busy.ok("--rm", "--", "echo $((1 + 1))") == "2\n"


def test_throwaway_copy_of_a_killed_command_is_removed_by_the_next(busy):
    first = subprocess.Popen([host_lib.PILLION, "--rm", "-e", "sleep", "600"], env=busy.env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    host_lib.wait_for("the copy to run", lambda: busy.ok("--list", "--running", "--quiet", "--all").strip(), 60)
    copy = busy.ok("--list", "--running", "--quiet", "--all").strip()
    assert copy.startswith("busy-rm-") and busy.ok("--list", "--quiet") == "busy\n"  # it is nobody's but the command's
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert busy.ok("--rm", "-e", "echo", "next") == "next\n"
    assert [p.name for p in busy.distros.iterdir()] == ["busy"]


def test_throwaway_copy_is_removed_when_the_command_is_told_to_end(busy):
    command = subprocess.Popen([host_lib.PILLION, "--rm", "-e", "sleep", "600"], env=busy.env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host_lib.wait_for("the copy to run", lambda: busy.ok("--list", "--running", "--quiet", "--all").strip(), 60)
    command.terminate()
    assert command.wait(timeout=host_lib.bound(60)) != 0
    assert [p.name for p in busy.distros.iterdir()] == ["busy"]


def test_snapshot_gives_the_files_back_that_were_there(rich):
    before = describe(tree_of(rich, "rich"))
    assert "pillion --restore rich first" in rich.ok("--snapshot", "rich", "first")
    rich.ok("-d", "rich", "-e", "sh", "-c", "rm -r /rich; echo new > /root/new")
    rich.ok("--snapshot", "rich")  # of a machine that runs, under the time
    assert "it is running" in rich.fails("--restore", "rich", "first")
    rich.ok("--terminate", "rich")
    rich.ok("--restore", "rich", "first")
    assert describe(tree_of(rich, "rich")) == before
    rows = json.loads(rich.ok("--list", "--snapshots", "--json"))
    assert len(rows) == 2 and {"name": "rich", "tag": "first", "version": 1} == {k: rows[1][k] for k in ("name", "tag", "version")}
    assert abs(rows[1]["made"] - time.time()) < 3600
    rich.ok("--restore", "rich", rows[0]["tag"])
    assert rich.ok("-d", "rich", "-e", "cat", "/root/new") == "new\n"
    rich.ok("--terminate", "rich")
    assert "first" in rich.ok("--list", "--snapshots")
    assert "there is one already" in rich.fails("--snapshot", "rich", "first")
    assert "has no snapshot 'none'" in rich.fails("--restore", "rich", "none")
    assert "a tag is 1 to 64 letters" in rich.fails("--snapshot", "rich", "../x")
    rich.ok("--snapshot", "rich", "--delete", "first")
    assert len(json.loads(rich.ok("--list", "--snapshots", "--json"))) == 1
    assert not leftovers(rich)
    rich.ok("--unregister", "rich")
    assert not list(rich.distros.iterdir())


MOMENTS = 100 if os.environ.get("PILLION_SOAK") else 8
KILLED = {
    "import": lambda h, made: ("--import", "new", h.root / "new", made / "busy.tar.xz", "--version", "1"),
    "clone": lambda h, made: ("--clone", "rich", "new"),
    "snapshot": lambda h, made: ("--snapshot", "rich", "new"),
    "restore": lambda h, made: ("--restore", "rich", "old"),
    "move": lambda h, made: ("--manage", "rich", "--move", h.root / "moved"),
}


@pytest.mark.parametrize("kind", KILLED)
def test_killed_at_any_moment_leaves_the_old_state_or_the_new(rich, made, kind):
    """The distribution is whole and runs, and so is a new one that is listed.  In the end the same command goes
    through, and nothing is left beside it."""
    rich.ok("--snapshot", "rich", "old")
    before = describe(tree_of(rich, "rich") / "rich")
    argv = KILLED[kind](rich, made)
    for n in range(MOMENTS):
        command = subprocess.Popen([host_lib.PILLION, *map(str, argv)], env=rich.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(random.uniform(0, 0.1))
        command.kill()
        command.wait()
        host_lib.wait_for("its helpers to end", lambda: "ing " not in rich.ok("--list", "-v").replace("Running ", ""), 30)
        assert describe(tree_of(rich, "rich") / "rich") == before, n
        for name in rich.names():
            assert rich.ok("-d", name, "-e", "echo", "alive") == "alive\n"
            rich.ok("--terminate", name)
        undo(rich, kind)
    assert rich.run(*argv).returncode == 0
    assert describe(tree_of(rich, "rich") / "rich") == before
    rich.ok("--snapshot", "rich", "last")
    rich.ok("--clone", "rich", "clone")
    assert not leftovers(rich)


def undo(home, kind):
    """What the command made, if it did, so that it can be given again."""
    if "new" in home.names():
        home.ok("--unregister", "new")
    if kind == "snapshot":
        home.run("--snapshot", "rich", "--delete", "new")
    if kind == "move" and (home.distros / "rich").resolve() == home.root / "moved":
        home.ok("--manage", "rich", "--move", home.root / f"back-{time.monotonic_ns()}")
    if kind in ("move", "import"):  # half a copy in a folder of the user's is the user's to remove
        for name in ("moved", "new"):
            if (home.distros / "rich").resolve() != home.root / name:
                subprocess.run(["rm", "-rf", home.root / name], check=True)


# ---- --manage ----

def test_moved_distribution_is_the_same_elsewhere(rich):
    rich.ok("--snapshot", "rich", "kept")
    before, old = describe(tree_of(rich, "rich")), (rich.distros / "rich").resolve()
    rich.ok("--manage", "rich", "--move", rich.root / "moved")
    assert (rich.distros / "rich").resolve() == rich.root / "moved" and not old.exists()
    assert describe(tree_of(rich, "rich")) == before
    assert rich.ok("-d", "rich", "-e", "echo", "alive") == "alive\n"
    assert "it is running" in rich.fails("--manage", "rich", "--move", rich.root / "again")
    rich.ok("--terminate", "rich")
    rich.ok("--restore", "rich", "kept")
    assert describe(tree_of(rich, "rich")) == before
    assert "already in use" in rich.fails("--manage", "rich", "-m", rich.root)
    assert not leftovers(rich)


def test_default_user_is_one_that_the_machine_knows(busy):
    busy.ok("--manage", "busy", "--set-default-user", "app")
    busy.ok("--terminate", "busy")
    assert busy.ok("-d", "busy", "-e", "id", "-u") == "1000\n"
    assert "there is no user 'nobody-here'" in busy.fails("--manage", "busy", "--set-default-user", "nobody-here")
    assert busy.ok("-d", "busy", "-u", "root", "-e", "id", "-u") == "0\n"


@pytest.mark.parametrize("args", [("--resize", "1GB"), ("-r", "1GB"), ("--compact",), ("--set-sparse", "true")])
def test_what_is_for_disks_is_refused_for_a_sandbox(busy, args):
    assert "is for microVMs (version 2)" in busy.fails("--manage", "busy", *args)
    assert "one thing at a time" in busy.fails("--manage", "busy", "--move", "/x", "--compact")


# ---- the whole ----

def test_default_version_is_written_to_the_config(home):
    home.configure("# mine\n[wsl2]\nmemory=4GB\n")
    home.ok("--set-default-version", "1")
    text = (home.root / "config" / "pillion" / "config").read_text()
    assert "# mine" in text and "memory=4GB" in text and "defaultVersion = 1" in text
    home.ok("--set-default-version", "2")
    assert "defaultVersion = 2" in (home.root / "config" / "pillion" / "config").read_text()
    assert "the version is 1" in home.fails("--set-default-version", "4")


def own_kits(home):
    """Kits that this test may remove: the runtime's stamp and what it names."""
    (home.data / "kits").unlink()
    for name, content in (("runtime", "new"), ("runtime.last", "old")):
        (home.data / "kits" / name / "rootfs").mkdir(parents=True)
        (home.data / "kits" / name / "stamp").write_text(content)
        (home.data / "kits" / name / "packages").write_text(f"libggml0 {content}\n")


def test_update_is_rolled_back_and_forward_again(home):
    assert "there are no kits before these" in home.fails("--update", "--rollback")
    own_kits(home)
    assert "(libggml0 old)" in home.ok("--update", "--rollback")
    assert (home.data / "kits" / "runtime" / "stamp").read_text() == "old"
    assert "(libggml0 new)" in home.ok("--update", "--rollback")
    assert (home.data / "kits" / "runtime" / "stamp").read_text() == "new"


def test_uninstall_says_what_there_is_and_removes_it_when_told(busy):
    models = busy.root / "cache" / "pillion" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / "mine.gguf").write_text("m")
    (busy.root / "cache" / "pillion" / "other").write_text("x")
    busy.configure("[wsl2]\n")
    own_kits(busy)
    said = busy.ok("--uninstall")
    assert f"busy ({busy.root}/busy)" in said and "kits" in said and "--uninstall --yes" in said
    assert (busy.root / "busy" / "rootfs").exists() and "it takes no names" in busy.fails("--uninstall", "busy")
    busy.ok("--uninstall", "--yes")
    assert not (busy.root / "busy").exists() and not busy.data.exists()
    assert not (busy.root / "config" / "pillion" / "config").exists()
    assert [p.name for p in (busy.root / "cache" / "pillion").iterdir()] == ["models"] and (models / "mine.gguf").exists()


def test_link_called_wsl_is_the_same_program(busy):
    (busy.root / "wsl").symlink_to(host_lib.PILLION)
    done = subprocess.run([busy.root / "wsl", "-d", "busy", "-e", "id", "-u"], env=busy.env, text=True, capture_output=True,
                          timeout=60, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


# ---- disks ----

@pytest.fixture
def disked(rich):
    """The same as version 2: a disk.  What is done to it here needs no microVM."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/kvm, without which no distribution becomes version 2")
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    version = rich.run("--version").stdout.split()[2]
    cache = rich.root / "cache" / "pillion"
    cache.mkdir(exist_ok=True)
    (cache / "kvm").write_text(f'{boot} {version}\n{{"kvm": "usable", "processors": 2, "slowdown": 1.0}}\n')  # as if it had been found so
    (cache / "trees").symlink_to(host_lib.USER_CACHE / "trees")
    kits = rich.data / "kits"
    runtime = (kits / "runtime").resolve()
    kits.unlink()
    kits.mkdir()
    (kits / "runtime").symlink_to(runtime)
    rich.before = describe(tree_of(rich, "rich"))
    rich.ok("--set-version", "rich", "2")
    return rich


def test_disk_is_exported_cloned_kept_and_imported(disked):
    """One way through all that is done to disks, each time with all that files are made of."""
    disked.ok("--export", "rich", disked.root / "out.tar")
    disked.ok("--import", "tarred", disked.root / "tarred", disked.root / "out.tar", "--version", "1")
    assert describe(tree_of(disked, "tarred")) == disked.before
    disked.ok("--export", "rich", disked.root / "out.img", "--format", "vhd")
    disked.ok("--import", "copied", disked.root / "copied", disked.root / "out.img", "--vhd")
    subprocess.run(["debugfs", "-w", "-R", "ssv state 0", disked.root / "out.img"], check=True, capture_output=True)
    disked.ok("--import-in-place", "placed", disked.root / "out.img")  # repaired, for it was in use when it was copied
    disked.ok("--clone", "rich", "cloned")
    disked.ok("--snapshot", "rich", "kept")
    for name in ("copied", "placed", "cloned"):
        disked.ok("--set-version", name, "1")
        assert describe(tree_of(disked, name)) == disked.before, name
        disked.ok("--unregister", name)
    assert (disked.root / "out.img").exists()  # what was imported in place stays
    disked.ok("--set-version", "rich", "1")
    disked.ok("--restore", "rich", "kept")  # of the other form
    assert not tree_of(disked, "rich").exists() and (disked.distros / "rich" / "disk.ext4").exists()
    disked.ok("--set-version", "rich", "1")
    assert describe(tree_of(disked, "rich")) == disked.before and not leftovers(disked)


def test_disk_is_resized_and_compacted(disked):
    disk = disked.distros / "rich" / "disk.ext4"
    for size, expected in (("512MB", 512 << 20), ("2GB", 2 << 30)):
        disked.ok("--manage", "rich", "--resize", size)
        assert disk.stat().st_size == expected
        done = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout
    (disked.root / "big").write_bytes(os.urandom(32 << 20))
    subprocess.run(["debugfs", "-w", "-R", f"write {disked.root}/big big", disk], check=True, capture_output=True)
    full = disk.stat().st_blocks
    subprocess.run(["debugfs", "-w", "-R", "rm big", disk], check=True, capture_output=True)
    assert disk.stat().st_blocks >= full - 100
    disked.ok("--manage", "rich", "--compact")
    assert disk.stat().st_blocks * 512 < full * 512 - (30 << 20)
    disked.ok("--manage", "rich", "--set-sparse", "true")
    (disked.root / "bwrap").write_text("#!/bin/sh\nexit 1\n")  # as where it cannot make a namespace
    (disked.root / "bwrap").chmod(0o755)
    path = disked.env["PATH"]
    disked.env["PATH"] = f"{disked.root}:{path}"
    assert "look through the disk" in disked.fails("--manage", "rich", "--compact")
    disked.env["PATH"] = path
    assert "Invalid size: big" in disked.fails("--manage", "rich", "--resize", "big")
    disked.fails("--manage", "rich", "--resize", "64MB")  # its files need more, or it says what it may
    disked.ok("--set-version", "rich", "1")
    assert describe(tree_of(disked, "rich")) == disked.before and not leftovers(disked)


def test_what_is_no_disk_is_not_imported_as_one(disked):
    (disked.root / "text").write_text("x" * 10000)
    for args in (("--import", "new", disked.root / "new", disked.root / "text", "--vhd"),
                 ("--import-in-place", "new", disked.root / "text")):
        said = disked.fails(*args)
        assert "is not an ext4 image" in said and "qemu-img convert" in said
        assert not (disked.distros / "new").exists()
    assert (disked.root / "text").exists()
