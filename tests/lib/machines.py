# SPDX-License-Identifier: Apache-2.0
"""The command line with folders of its own, for tests of machines."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import host as host_lib

DEFAULTS = "[wsl2]\nvmIdleTimeout=60000\n"


class Pillion:
    """The command line with folders of its own; machines of the installed distro `debian`."""

    def __init__(self, data, program=host_lib.PILLION, as_user=(), cache=None):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="pilm-"))
        self.root.chmod(0o755)
        self.program = program
        self.as_user = list(as_user)
        self.env = dict(os.environ, XDG_DATA_HOME=str(data))
        for kind, name in (("runtime", "XDG_RUNTIME_DIR"), ("config", "XDG_CONFIG_HOME"),
                           ("cache", "XDG_CACHE_HOME")):
            folder = self.root / kind
            folder.mkdir(mode=0o700)
            self.env[name] = str(cache) if kind == "cache" and cache else str(folder)
        self.runtime = self.root / "runtime" / "pillion"
        self.configure(DEFAULTS)

    def configure(self, text):
        folder = self.root / "config" / "pillion"
        folder.mkdir(exist_ok=True)
        (folder / "config").write_text(text)

    def argv(self, *args):
        return [*self.as_user, str(self.program), *map(str, args)]

    def run(self, *args, timeout=60, text=True, **kwargs):
        kwargs.setdefault("stdin", subprocess.DEVNULL) if "input" not in kwargs else None
        return subprocess.run(self.argv(*args), env=self.env, capture_output=True, text=text,
                              timeout=timeout, cwd="/", **kwargs)

    def ok(self, *args, **kwargs):
        done = self.run(*args, **kwargs)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *args, **kwargs):
        return subprocess.Popen(self.argv(*args), env=self.env, cwd="/", **kwargs)

    def supervisor(self):
        return int((self.runtime / "machines" / "debian" / "pid").read_text())

    def running(self):
        return "debian" in self.run("--list", "--running", "--quiet").stdout.split()

    def close(self):
        self.run("--shutdown")
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.runtime / "broker.pid").read_text()), signal.SIGTERM)
        shutil.rmtree(self.root, ignore_errors=True)
