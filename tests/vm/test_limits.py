# SPDX-License-Identifier: Apache-2.0
"""What a control group limits, in a Debian kernel that has one with all controllers."""
import ctypes.util
import pathlib
import sys

import host as host_lib
import outer as outer_lib
import pytest

sys.path.insert(0, str(host_lib.ROOT / "tests" / "hostile"))
import arena as arena_lib  # noqa: E402


@pytest.fixture(scope="module")
def outer():
    why = outer_lib.missing()
    if why:
        pytest.skip(why)
    library = ctypes.util.find_library("cmocka")
    folders = [pathlib.Path("/usr/lib/x86_64-linux-gnu"), pathlib.Path("/usr/lib64"), pathlib.Path("/usr/lib")]
    path = next(f / library for f in folders if (f / library).exists())
    o = outer_lib.Outer(files=[host_lib.BUILD / "tests" / "unit" / "test_cgroup", path, arena_lib.HOSTILE])
    yield o
    o.close()


@pytest.mark.parametrize("place", ["/sys/fs/cgroup", "/sys/fs/cgroup/above/own"])
def test_group_of_a_machine_limits_what_is_in_it(outer, place):
    said = outer.ok(f"mkdir -p {place} && echo $$ >{place}/cgroup.procs && LD_LIBRARY_PATH=/test /test/test_cgroup 2>&1;"
                    " find /sys/fs/cgroup -name 'pillion-*'", 60)
    assert "[       OK ] test_real_group_limits_what_is_in_it" in said, said
    assert "pillion-" not in said, said  # nothing is left behind


# ---- a whole sandbox, of a user who has been given a group of his own ----

GROUP = "/sys/fs/cgroup/of-tester"
CONTROL = ("for c in pids memory; do echo +$c >/sys/fs/cgroup/cgroup.subtree_control; done;"
           f" mkdir -p {GROUP}/shell && chown tester: {GROUP} {GROUP}/cgroup.* {GROUP}/shell {GROUP}/shell/cgroup.procs")
TREE = """mkdir -p /test/user/config/pillion /test/user/cache/pillion /run/tester
cd /test/user && printf '[wsl2]\\nmemory=128MB\\nvmIdleTimeout=600000\\n' >config/pillion/config
r=data/pillion/distros/box/rootfs
for d in bin etc root proc sys dev run tmp usr/lib mnt; do mkdir -p $r/$d; done
echo '{"name":"box","flavor":"debian","version":1,"defaultUid":0}' >data/pillion/distros/box/distro.json
echo root:x:0:0::/root:/bin/sh >$r/etc/passwd; echo root:x:0: >$r/etc/group
cp /test/busybox $r/bin/sh; cp /test/hostile $r/hostile
for c in dd sleep seq cat; do ln -s sh $r/bin/$c; done
chown -R tester: /test/user /run/tester; chmod 700 /run/tester"""


@pytest.fixture(scope="module")
def box(outer):
    """Runs a command line in the group, as that user."""
    env = {f"XDG_{kind.upper()}_HOME": f"/test/user/{kind}" for kind in ("data", "cache", "config")}
    env.update(XDG_RUNTIME_DIR="/run/tester", HOME="/home/tester", PATH="/test/src/cli:/usr/local/bin:/usr/bin:/bin")

    def run(command, timeout=60):
        return outer.run(f"echo $$ >{GROUP}/shell/cgroup.procs; exec setpriv --reuid tester --regid tester --clear-groups"
                         f" --inh-caps=-all pillion {command}", timeout, env=env)

    outer.ok(f"useradd -m tester; {CONTROL}")
    outer.ok(TREE)
    started = run("-d box -e sh -c true")
    assert started.status == 0, (started, outer.run("cat /run/tester/pillion/machines/box.log"))
    yield run
    run("--terminate box")
    assert "pillion-" not in outer.ok(f"ls {GROUP}")  # nothing is left behind


def group_of(outer):
    return outer.ok(f"ls -d {GROUP}/pillion-*").strip()


def test_sandbox_lives_in_the_group_that_pillion_made(outer, box):
    group = group_of(outer)
    names = outer.ok(f"for p in $(cat {group}/cgroup.procs); do cat /proc/$p/comm; done").split()
    assert "pillion-init" in names and "pillion-room" in names, names
    assert not {"pillion-machine", "pasta", "pillion-gate"} & set(names), names
    assert int(outer.ok(f"cat {group}/memory.max")) == 128 << 20
    assert int(outer.ok(f"cat {group}/pids.max")) > 0


def test_sandbox_gets_no_more_memory_than_its_group(outer, box):
    done = box("-d box -e dd if=/dev/zero of=/dev/null bs=400M count=1")
    assert done.status == 137, done
    assert "oom_kill 0\n" not in outer.ok(f"cat {group_of(outer)}/memory.events")
    assert box("-d box -e sh -c true").status == 0


def test_sandbox_gets_no_more_processes_than_its_group(outer, box):
    group = group_of(outer)
    before = outer.ok(f"cat {group}/pids.max").strip()
    try:
        outer.ok(f"echo 24 >{group}/pids.max")
        done = box("-d box -e sh -c 'for i in $(seq 60); do sleep 1 & done; wait'")
        assert "can't fork" in done.err, done
    finally:
        outer.ok(f"echo {before} >{group}/pids.max")
    assert box("-d box -e sh -c true").status == 0


def test_root_of_a_sandbox_cannot_raise_what_its_group_limits(outer, box):
    cases = [name for name, (where, kind) in arena_lib.cases().items()
             if "group_" in name and where != "kvm" and kind == "refused"]
    assert len(cases) >= 3
    said = arena_lib.results(box(f"-d box -e /hostile {' '.join(cases)}").out)
    assert {name: verdict for name, (verdict, _) in said.items() if verdict not in ("refused", "skipped")} == {}
    assert set(said) == set(cases)
    group = group_of(outer)
    assert int(outer.ok(f"cat {group}/memory.max")) == 128 << 20
