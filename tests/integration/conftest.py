# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of machines; tests/lib/machines.py does the work."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import host as host_lib
from machines import DEFAULTS, Pillion


@pytest.fixture(scope="session")
def data():
    return host_lib.installed_data()


@pytest.fixture(scope="module")
def shared(data):
    p = Pillion(data)
    yield p
    p.close()


@pytest.fixture
def pil(data):
    p = Pillion(data)
    yield p
    p.close()


@pytest.fixture(scope="session")
def rootless(data):
    """The same as an unprivileged user that the test makes, who installs it all from the start."""
    if os.getuid() != 0:
        pytest.skip("making a user needs root; the other tests ran rootless already")
    name = f"pilt{os.getpid()}"
    home = pathlib.Path(tempfile.mkdtemp(prefix="pilu-"))
    home.chmod(0o755)
    if subprocess.run(["id", name], capture_output=True, check=False).returncode:
        subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), name], check=True)
    build = home / "build" / "src"
    for folder, programs in {"cli": ["pillion"], "broker": ["pillion-broker", "pillion-gate"], "exec": ["pillion-exec"],
                             "machine": ["pillion-machine", "pillion-fusermount"], "guest/init": ["pillion-init"],
                             "guest/ggml": ["libggml-pillion.so"]}.items():
        (build / folder).mkdir(parents=True)
        for program in programs:
            shutil.copy(host_lib.BUILD / "src" / folder / program, build / folder)
    cache = home / "cache"
    (cache / "pillion").mkdir(parents=True)
    trees = host_lib.USER_CACHE / "trees"
    if trees.exists():
        shutil.copytree(trees, cache / "pillion" / "trees")
    p = Pillion(home / "data", build / "cli" / "pillion",
                ["setpriv", "--reuid", name, "--regid", name, "--clear-groups", "--inh-caps=-all"], cache)
    (home / "data").mkdir()
    p.env["HOME"] = str(home)
    p.env["USER"] = name
    subprocess.run(["chown", "-R", f"{name}:", home, p.root], check=True)
    try:
        p.ok("--install", "debian", "--no-launch", timeout=900)
        yield p
    finally:
        p.close()
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run(["userdel", name], check=False, capture_output=True)


WHO = ["me", "rootless"]  # whoever runs the tests, root or not; an unprivileged user


@pytest.fixture(params=WHO)
def anyones(request):
    """The shared machine of each."""
    return request.getfixturevalue({"me": "shared", "rootless": "rootless"}[request.param])


@pytest.fixture(params=WHO)
def anyones_own(request):
    """A machine that the test may stop, kill and configure."""
    p = request.getfixturevalue({"me": "pil", "rootless": "rootless"}[request.param])
    p.ok("--shutdown")
    yield p
    p.configure(DEFAULTS)
    p.run("--shutdown")
