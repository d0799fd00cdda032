# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the integration and end-to-end tests; tests/lib/host.py does the work."""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "lib"))

import host as host_lib  # noqa: E402


@pytest.fixture(scope="session")
def models():
    """Folder of generated models; they are the same everywhere, so they are kept."""
    folder = host_lib.CACHE / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def generated(models, name, *args):
    path = models / f"{name}.gguf"
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
    """Gemma 3 270M, where `make demo` or PILLION_GEMMA put it."""
    path = os.environ.get("PILLION_GEMMA")
    found = [pathlib.Path(path)] if path else sorted(host_lib.USER_CACHE.rglob("gemma*.gguf"))
    found = [p for p in found if p.is_file() and p.stat().st_size == 253113024]
    if not found:
        pytest.skip("Gemma 270M has not been fetched: make demo, or PILLION_GEMMA=FILE")
    return found[0]


@pytest.fixture(scope="session")
def tree():
    """A Debian tree with llama.cpp."""
    return host_lib.find_tree()


@pytest.fixture
def host(tree):
    h = host_lib.Host(tree)
    yield h
    h.close()
