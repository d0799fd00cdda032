# SPDX-License-Identifier: Apache-2.0
"""Debian's packages that the distro `debian` does not have, for tests only: upstream's own tests,
llama.cpp's other programs, whisper.cpp.

They are fetched and unpacked once, into a folder of their own beside the installed distro, and are
bound into a tree at /tmp/extra.  The distro itself stays as a user has it.  Its apt settings and its
list of packages say what to fetch, so that only what is missing comes and all of it fits.
"""
import fcntl
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import host as lib

PACKAGES = ["llama.cpp-tests", "llama.cpp-tools-extra", "llama.cpp-examples", "whisper.cpp-tools"]
AT = "/tmp/extra"


def multiarch(tree):
    return next(pathlib.Path(tree, "usr/lib").glob("*-linux-gnu")).name


def upstream_tests(tree, at=AT):
    return f"{at}/usr/libexec/{multiarch(tree)}/llama.cpp-tests"


def environment(tree, at=AT):
    """What a program needs to find the packages in that folder."""
    libs = f"{at}/usr/lib/{multiarch(tree)}"
    return {"PATH": f"{at}/usr/bin:{upstream_tests(tree, at)}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": ":".join([libs, *(f"{libs}/{n}" for n in ("llama", "blas", "lapack"))])}


def version_of(tree, package):
    status = pathlib.Path(tree, "var/lib/dpkg/status").read_text()
    found = re.search(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (.+)$", status, re.M)
    return found[1] if found else "none"


def apt(tree, state, *command):
    """apt-get of the host with the tree's sources and packages; it changes @state only."""
    options = {"Dir::Etc": tree / "etc/apt", "Dir::State": state / "state",
               "Dir::State::status": tree / "var/lib/dpkg/status", "Dir::Cache": state / "cache",
               "Dir::Etc::TrustedParts": "/usr/share/keyrings", "Debug::NoLocking": "1",
               # a mirror's Release file of sid may be past its date
               "Acquire::Check-Valid-Until": "false", "Acquire::Languages": "none"}
    if os.getuid() == 0:
        options["APT::Sandbox::User"] = "root"
    argv = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items()), *command]
    done = subprocess.run(argv, text=True, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=900, check=False)
    if done.returncode:
        pytest.fail(f"fetch {' '.join(PACKAGES)}: apt-get {command[0]}: {done.stderr[-1000:]}\n"
                    f"hint: check the network and {tree}/etc/apt/sources.list")


def unpack(tree, folder):
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    work = part / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    apt(tree, work, "update")
    apt(tree, work, "install", "--yes", "--no-install-recommends", "--download-only", *PACKAGES)
    for deb in sorted((work / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", deb, part], check=True, timeout=120)
    shutil.rmtree(work)
    part.rename(folder)


def installed(tree):
    """The folder with the packages, of the llama.cpp that the tree has."""
    version = re.sub(r"[^\w.]", "-", version_of(tree, "libllama0"))
    folder = lib.CACHE / f"extra-{version}"
    lib.CACHE.mkdir(parents=True, exist_ok=True)
    with open(lib.CACHE / "extra.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unpack(tree, folder)
    return folder


def add_to(host):
    """From here on the programs of that Host have the packages."""
    host.tree_args += ["--ro-bind", installed(host.tree), AT]
    for name, value in environment(host.tree).items():
        host.tree_args += ["--setenv", name, value]
