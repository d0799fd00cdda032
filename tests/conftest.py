# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the integration and end-to-end tests; tests/lib/host.py does the work."""
import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "lib"))

import host as host_lib  # noqa: E402
import slowness  # noqa: E402

slowness.scale_subprocesses()


def pytest_configure(config):
    fuse = pathlib.Path("/dev/fuse")
    if os.getuid() == 0 and fuse.exists():
        fuse.chmod(0o666)  # as udev does; a host in a container may have no udev
    config.addinivalue_line("markers", "soak: in `make soak` only")


def pytest_collection_modifyitems(config, items):
    """Tests with the marker `soak` are not there, rather than skipped, elsewhere."""
    if os.environ.get("PILLION_SOAK") != "1":
        left_out = [i for i in items if i.get_closest_marker("soak")]
        items[:] = [i for i in items if i not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def models():
    """Folder of generated models; they are the same everywhere, so they are kept."""
    folder = host_lib.CACHE / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def generated(models, name, *args):
    path = models / (name if "." in name else f"{name}.gguf")
    if not path.exists():
        part = path.with_suffix(".part")
        subprocess.run([ROOT / "tools" / "mkmodel", *args, part], check=True, timeout=300,
                       stdout=subprocess.DEVNULL)
        os.rename(part, path)
    return path


@pytest.fixture(scope="session")
def tiny(models):
    return generated(models, "tiny-1", "--params", "1M", "--type", "F16")


@pytest.fixture(scope="session")
def small(models):
    return generated(models, "small-1", "--params", "15M", "--type", "Q8_0")


@pytest.fixture(scope="session")
def gemma():
    """Gemma 3 270M: PILLION_GEMMA, or where `make demo` keeps it too."""
    if os.environ.get("PILLION_GEMMA"):
        return pathlib.Path(os.environ["PILLION_GEMMA"])
    done = subprocess.run([ROOT / "tools" / "fetch-gemma"], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=600)
    if done.returncode:
        pytest.skip(f"Gemma 270M could not be fetched: {done.stderr.strip()[-200:]}")
    return pathlib.Path(done.stdout.strip())


@pytest.fixture(scope="session", params=["0.25", "0.26"])
def other_ggml(request):
    """llama-completion with another ggml than Debian's, built once from a source package."""
    program = host_lib.CACHE / f"ggml-{request.param}" / "llama-completion"
    if program.exists():
        return program
    if os.environ.get("PILLION_FAST") == "1":
        pytest.skip("PILLION_FAST=1: no other ggml is built")
    build = subprocess.Popen([ROOT / "tests" / "lib" / "build-other-ggml", request.param, program],
                             text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    try:
        said, _ = build.communicate(timeout=900)
    except subprocess.TimeoutExpired:
        os.killpg(build.pid, signal.SIGKILL)
        build.wait()
        pytest.skip(f"ggml {request.param} could not be built in 15 minutes")
    if build.returncode:
        pytest.skip(f"ggml {request.param} could not be built: {said.strip()[-300:]}")
    return program


@pytest.fixture(scope="session")
def tree():
    """A Debian tree with llama.cpp."""
    return host_lib.find_tree()


@pytest.fixture
def host(tree):
    h = host_lib.Host(tree)
    yield h
    h.close()
