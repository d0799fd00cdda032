# SPDX-License-Identifier: Apache-2.0
"""The programs of llama.cpp and whisper.cpp, inside against outside, with random-weight models.

Wherever a program prints or returns something, it equals native: text and files are identical, vectors
are within 1e-4, perplexity within 0.1 %.  Where it does not say otherwise, a case also asserts that the
whole model was on the device.
"""
import http.client
import json
import pathlib
import re
import urllib.error
import urllib.request

import pytest

import extra
import host as lib
import random_models

PROMPT = "The old car went to town with a cat"
PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam, I write about the car that you sold me"]
TOKENS = 48
CLOSE = 1e-4


@pytest.fixture(scope="module")
def pair(tree):
    host = lib.Host(tree)
    extra.add_to(host)
    host.tree_args += ["--ro-bind", random_models.make_all(), "/tmp/models"]
    for side in ("inside", "native"):
        (host.root / side).mkdir()
    host.start_broker()
    yield host
    host.close()


def argv_of(host, side, command):
    """The command of that side, with a folder of its own to write to at /tmp/out."""
    argv = getattr(host, side)(*command)
    at = argv.index("--")
    return [*argv[:at], "--bind", host.root / side, "/tmp/out", "--chdir", "/tmp/out", *argv[at:]]


def both(host, *command, timeout=120):
    """(inside, native) of a command that ends well."""
    done = [host.run(argv_of(host, side, command), timeout=timeout) for side in ("inside", "native")]
    for side, one in zip(("inside", "native"), done):
        assert one.returncode == 0, (side, one.stderr[-3000:], one.stdout[-500:])
    return done


def completion(model, *more):
    argv = lib.traced_completion(PROMPT, TOKENS, *more)
    argv[argv.index("-m") + 1] = f"/tmp/models/{model}-1.gguf"
    return argv


def assert_no_token_is_lost(inside, native, n=TOKENS):
    lib.assert_same_text(inside, native, n)
    assert len(native.stdout.strip()) > 4, native.stdout


# ---- llama-completion

@pytest.mark.parametrize("arch", ["llama", "deepseek2", "gemma3", "granitehybrid", "mamba2", "qwen2moe", "t5"])
def test_greedy_text_of_each_architecture_is_native_text(pair, arch):
    inside, native = both(pair, *completion(arch))
    lib.assert_on_device(inside.stderr)
    assert_no_token_is_lost(inside, native)


WHOLE = {
    "flash attention": ["-fa", "on"],
    "no flash attention": ["-fa", "off"],
    "cache of q8_0": ["-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"],
    "cache of q4_0": ["-fa", "on", "-ctk", "q4_0", "-ctv", "q4_0"],
    "cache of bf16": ["-fa", "on", "-ctk", "bf16", "-ctv", "bf16"],
    "cache of f32": ["-fa", "off", "-ctk", "f32", "-ctv", "f32"],
    "cache of two kinds": ["-fa", "off", "-ctk", "q8_0", "-ctv", "f16"],
    "context shift": ["-c", "64", "--context-shift", "-fa", "off"],
    "context shift, q8_0": ["-c", "64", "--context-shift", "-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"],
    "context shift, q4_0": ["-c", "64", "--context-shift", "-fa", "on", "-ctk", "q4_0", "-ctv", "q4_0"],
    "no mmap": ["--load-mode", "none"],  # --no-mmap of older ones
    "mlock": ["--load-mode", "mlock"],
    "mmap and mlock": ["--load-mode", "mmap+mlock"],
    "small batches": ["-b", "8", "-ub", "4"],
    "cache in memory of the host": ["--no-kv-offload"],
    "no operation offload": ["--no-op-offload"],
    "adapter": ["--lora", "/tmp/models/lora-1.gguf"],
    "adapter, half": ["--lora-scaled", "/tmp/models/lora-1.gguf:0.5"],
}


@pytest.mark.parametrize("name", WHOLE)
def test_greedy_text_with_an_option_is_native_text(pair, name):
    inside, native = both(pair, *completion("llama", *WHOLE[name]))
    lib.assert_on_device(inside.stderr)
    assert_no_token_is_lost(inside, native)


PARTLY = {
    "two layers of four": ("llama", ["-ngl", "2"]),
    "no layer": ("llama", ["-ngl", "0"]),
    "experts on the CPU": ("qwen2moe", ["--cpu-moe"]),
    "experts on the CPU, MLA": ("deepseek2", ["--cpu-moe"]),
    "experts of two layers on the CPU": ("qwen2moe", ["--n-cpu-moe", "2"]),
    "tensors by name on the CPU": ("llama", ["-ot", r"ffn_(up|down)=CPU"]),
    "state on the CPU": ("mamba2", ["-ngl", "2"]),
    "half a hybrid": ("granitehybrid", ["-ngl", "2"]),
}


@pytest.mark.parametrize("name", PARTLY)
def test_greedy_text_of_a_model_in_two_places_is_native_text(pair, name):
    model, options = PARTLY[name]
    inside, native = both(pair, *completion(model, *options))
    if name != "no layer":
        assert re.search(r"Pillion0 +model buffer size", inside.stderr), inside.stderr[-2000:]
    assert_no_token_is_lost(inside, native)


def test_a_model_in_several_files_says_the_same(pair):
    both(pair, "llama-gguf-split", "--split", "--split-max-tensors", "10", "/tmp/models/llama-1.gguf", "part")
    for side in ("inside", "native"):
        assert len(list((pair.root / side).glob("part-*-of-*.gguf"))) > 2
    command = completion("llama")
    command[command.index("-m") + 1] = "part-00001-of-00004.gguf"
    inside, native = both(pair, *command)
    lib.assert_on_device(inside.stderr)
    assert_no_token_is_lost(inside, native)


@pytest.mark.parametrize("model", ["llama", "mamba2", "granitehybrid"])
def test_a_session_file_takes_up_where_it_was_left(pair, model):
    command = completion(model, "--prompt-cache", f"session-{model}")
    first = both(pair, *command)
    assert_no_token_is_lost(*first)
    inside, native = both(pair, *command)
    for done in (inside, native):
        assert re.search(r"session file (has exact|matches)|loaded a session", done.stderr), done.stderr[-2000:]
    lib.assert_on_device(inside.stderr)
    assert_no_token_is_lost(inside, native)
    assert first[0].stdout[:40] == inside.stdout[:40]


# ---- other programs

def last_number(text, pattern):
    found = re.findall(pattern, text)
    assert found, text[-2000:]
    return float(found[-1])


def test_perplexity_is_within_a_thousandth_of_native(pair):
    inside, native = both(pair, "llama-perplexity", "-m", "/tmp/models/llama-1.gguf", "-f", "/tmp/models/text",
                          "-c", "128", "--chunks", "8", "-v")
    lib.assert_on_device(inside.stderr)
    a, b = (last_number(d.stdout + d.stderr, r"PPL = ([\d.]+)") for d in (inside, native))
    assert abs(a / b - 1) < 1e-3, (a, b)


def floats_of(path):
    """All the numbers in the tensors of a GGUF with F32 tensors."""
    import numpy
    data = path.read_bytes()
    return numpy.frombuffer(data[len(data) % 4:], dtype="<f4")


def test_an_importance_matrix_is_native(pair):
    inside, native = both(pair, "llama-imatrix", "-m", "/tmp/models/llama-1.gguf", "-f", "/tmp/models/text",
                          "-c", "128", "--chunks", "4", "-o", "imatrix.gguf", "-v")
    lib.assert_on_device(inside.stderr)
    a, b = (pair.root / side / "imatrix.gguf" for side in ("inside", "native"))
    assert a.stat().st_size == b.stat().st_size > 1000
    if a.read_bytes() != b.read_bytes():
        import numpy
        tail = a.stat().st_size // 2 // 4
        assert numpy.allclose(floats_of(a)[-tail:], floats_of(b)[-tail:], rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q8_0", "IQ4_NL"])
def test_quantize_writes_the_file_that_native_writes(pair, kind):
    """It computes on the CPU; a device must not disturb it."""
    both(pair, "llama-quantize", "/tmp/models/llama-1.gguf", f"{kind}.gguf", kind)
    a, b = ((pair.root / side / f"{kind}.gguf").read_bytes() for side in ("inside", "native"))
    assert len(b) > 100000 and a == b


def test_finetune_ends_with_the_loss_of_native(pair):
    inside, native = both(pair, "llama-finetune", "-m", "/tmp/models/llama-f32-1.gguf", "-f",
                          "/tmp/models/lesson", "-c", "256", "-b", "256", "-ub", "256", "-epochs", "1", "-o",
                          "tuned.gguf", "-v", timeout=400)
    lib.assert_on_device(inside.stderr)
    for what in ("train", "val"):
        rows = [re.findall(rf"{what}:.*?loss=([\d.]+)", d.stdout + d.stderr) for d in (inside, native)]
        assert rows[0] and abs(float(rows[0][-1]) / float(rows[1][-1]) - 1) < 1e-3, (rows[0][-1], rows[1][-1])


def test_a_picture_is_described_as_outside(pair):
    inside, native = both(pair, "llama-mtmd-cli", "-m", "/tmp/models/llama-1.gguf", "--mmproj",
                          "/tmp/models/clip-1.gguf", "--image", "/tmp/models/picture.bmp", "-p", "What is it?", "-n",
                          "24", "--temp", "0", "--seed", "1", "--chat-template", "vicuna", "-v")
    assert re.search(r"Pillion0 +model buffer size", inside.stderr), inside.stderr[-3000:]
    assert re.search(r"CLIP using Pillion0 backend", inside.stderr), inside.stderr[-3000:]
    assert len(native.stdout.strip()) > 8 and inside.stdout == native.stdout


def without_amx(pair, argv):
    """The variant of ggml's CPU back end with AMX is hidden from the program; ggml takes the next one.  whisper.cpp
    puts some weights of 16 bits into AMX's layout; their sums round otherwise than all other kernels' of AVX-512.
    It tells a device no names of weights, so that the device leaves them as they are."""
    variant = next(pathlib.Path(lib.find_tree(), "usr/lib").glob("*/ggml/*/libggml-cpu-sapphirerapids.so"), None)
    if variant:
        empty = pair.root / "no-amx"
        empty.touch()
        argv = lib.bind(argv, empty, "/" + str(variant.relative_to(lib.find_tree())))
    return argv


@pytest.mark.parametrize("model", ["whisper", "whisper-f32"])
@pytest.mark.parametrize("flash", ["-fa", "-nfa"])
def test_whisper_writes_down_what_native_writes_down(pair, model, flash):
    command = ["whisper-cli", "-m", f"/tmp/models/{model}-1.bin", "-f", "/tmp/models/sound.wav", "-nf",
               "-bs", "1", "-bo", "1", "-ac", "128", flash]
    inside = pair.run(argv_of(pair, "inside", command), timeout=120)
    native = pair.run(without_amx(pair, argv_of(pair, "native", command)), timeout=120)
    assert (inside.returncode, native.returncode) == (0, 0), (inside.stderr[-3000:], native.stderr[-1000:])
    assert "AMX total size" not in native.stderr
    assert re.search(r"using Pillion0 backend", inside.stderr), inside.stderr[-3000:]
    assert len(native.stdout.split()) > 8 and inside.stdout == native.stdout


# ---- servers

class Refused(Exception):
    pass


class Asked(lib.Server):
    """A llama-server with a model of ours, and a folder to write to."""

    def __init__(self, host, side, model, *args):
        self.folder = host.root / side
        super().__init__(Bound(host), side, None, *args, "-m", f"/tmp/models/{model}-1.gguf")

    def ask(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data,
                                         {"Content-Type": "application/json"}, method=method)
        try:
            return json.load(urllib.request.urlopen(request, timeout=120))
        except urllib.error.HTTPError as e:
            raise Refused(f"{path}: {e.code} {e.read()[:500]}") from e


class Bound:
    """A Host whose programs have /tmp/out."""

    def __init__(self, host):
        self.host = host
        self.root, self.start = host.root, host.start

    def inside(self, *command, model=None):
        return argv_of(self.host, "inside", command)

    def native(self, *command, model=None):
        return argv_of(self.host, "native", command)


def answers(host, model, args, questions, on_device=True):
    """{side: [answer, ...]}: a server of each side is asked the same."""
    found = {}
    for side in ("inside", "native"):
        server = Asked(host, side, model, *args)
        try:
            found[side] = [question(server) for question in questions]
            if side == "inside" and on_device:
                lib.assert_on_device(server.said())
        finally:
            server.stop()
    return found["inside"], found["native"]


def text(prompt, **more):
    return lambda server: [a["content"] for a in as_list(server.complete(prompt, TOKENS, **more))]


def as_list(answer):
    return answer if isinstance(answer, list) else [answer]


def chat(server):
    answer = server.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0,
                                                 "seed": 1, "max_tokens": TOKENS})
    return answer["choices"][0]["message"]["content"]


def infill(server):
    return server.ask("/infill", {"input_prefix": "the old ", "input_suffix": " to town", "n_predict": TOKENS,
                                  "temperature": 0, "seed": 1})["content"]


def slots(server):
    """Saves the state of a slot, erases it, restores it, goes on."""
    more = {"id_slot": 2, "cache_prompt": True}
    first = server.complete(PROMPT, TOKENS, **more)
    saved = server.ask("/slots/2?action=save", {"filename": "slot"})
    erased = server.ask("/slots/2?action=erase", {})
    restored = server.ask("/slots/2?action=restore", {"filename": "slot"})
    again = server.complete(PROMPT + first["content"], TOKENS, **more)
    assert saved["n_saved"] == restored["n_restored"] > TOKENS and erased["n_erased"] > 0
    assert again["timings"]["cache_n"] > 8
    return [first["content"], saved["n_saved"], saved["n_written"], again["content"]]


SERVER = ["-np", "4", "-c", "4096", "--slot-save-path", "/tmp/out/", "--lora", "/tmp/models/lora-1.gguf",
          "--lora-init-without-apply"]
QUESTIONS = {
    "completion": text(PROMPT),
    "four prompts at once": text(PROMPTS),
    "chat": chat,
    "infill": infill,
    "slots": slots,
    "adapter on": text(PROMPT, lora=[{"id": 0, "scale": 1.0}]),
    "adapter off": text(PROMPT, lora=[{"id": 0, "scale": 0.0}]),
}


@pytest.fixture(scope="module")
def served(pair):
    """{question: (answer inside, answer of native)}, of one server per side."""
    def safely(question):
        def ask(server):
            try:
                return question(server)
            except (Refused, AssertionError, OSError) as e:
                return e
        return ask
    inside, native = answers(pair, "llama", SERVER, [safely(q) for q in QUESTIONS.values()])
    return dict(zip(QUESTIONS, zip(inside, native)))


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_server_answers_as_native_does(served, question):
    inside, native = served[question]
    for one in (inside, native):
        assert not isinstance(one, Exception), one
    assert native and inside == native


def test_an_adapter_changes_what_the_server_says(served):
    assert served["adapter on"][0] != served["adapter off"][0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("flash", ["on", "off", "auto"])
def test_the_server_embeds_as_native_does(pair, pooling, flash):
    def embed(server):
        got = server.ask("/v1/embeddings", {"input": PROMPTS})
        return [row["embedding"] for row in got["data"]]
    inside, native = answers(pair, f"bert-{pooling}", ["--embedding", "-np", "2", "-fa", flash], [embed])
    assert len(native[0]) == len(PROMPTS) and all(any(v) and len(v) == 128 for v in native[0])
    off = max(abs(x - y) for a, b in zip(inside[0], native[0]) for x, y in zip(a, b))
    assert off < CLOSE


def test_the_server_ranks_as_native_does(pair):
    def rank(server):
        got = server.ask("/rerank", {"query": PROMPT, "documents": PROMPTS})
        return {row["index"]: row["relevance_score"] for row in got["results"]}
    inside, native = answers(pair, "bert-rank", ["--reranking"], [rank])
    assert len(native[0]) == len(PROMPTS) and len(set(native[0].values())) > 1
    assert all(abs(inside[0][i] - score) < CLOSE for i, score in native[0].items())


@pytest.mark.parametrize("draft", ["llama", "draft"])
def test_speculation_with_a_draft_model_says_what_native_says(pair, draft):
    """The model as its own draft: all is accepted.  Another one: most is not."""
    args = ["-md", f"/tmp/models/{draft}-1.gguf", "--spec-type", "draft-simple", "-np", "1", "-c", "1024"]

    def ask(server):
        answer = server.complete(PROMPT, TOKENS, n_probs=0)
        return answer["content"], answer["timings"].get("draft_n", 0) > 0
    inside, native = answers(pair, "llama", args, [ask])
    assert native[0][1] and inside == native


@pytest.mark.parametrize("model", ["mamba2", "granitehybrid", "gemma3"])
def test_the_server_takes_four_prompts_of_an_architecture_with_a_cache_of_its_own(pair, model):
    inside, native = answers(pair, model, ["-np", "4", "-c", "2048"], [text(PROMPTS), text(PROMPT)])
    assert inside == native


@pytest.mark.parametrize("cache", ["f16", "q8_0", "q4_0"])
def test_the_server_shifts_its_context_as_native_does(pair, cache):
    args = ["-np", "1", "-c", "256", "--context-shift", "-fa", "on", "-ctk", cache, "-ctv", cache]

    def ask(server):
        try:
            return server.complete(PROMPT, 400)["content"]
        except (OSError, http.client.HTTPException):
            lib.wait_for("llama-server ends", lambda: server.process.poll() is not None)
            return "died"  # as this llama.cpp's does with a quantised cache, outside too
    inside, native = answers(pair, "llama", args, [ask])
    assert cache != "f16" or len(native[0]) > 400
    assert inside == native


def test_the_whisper_server_answers_as_native_does(pair):
    found = {}
    for side in ("inside", "native"):
        server = Whisper(pair, side)
        try:
            found[side] = server.transcribe()
            if side == "inside":
                assert "using Pillion0 backend" in server.said(), server.said()[-2000:]
        finally:
            server.stop()
    assert len(found["native"].split()) > 8 and found["inside"] == found["native"]


class Whisper(lib.Server):
    program = ["whisper-server", "-m", "/tmp/models/whisper-f32-1.bin", "-bs", "1", "-bo", "1", "-ac", "128", "-nf"]

    def __init__(self, host, side):
        self.port = lib.free_port()
        argv = argv_of(host, side, [*self.program, "--host", "127.0.0.1", "--port", str(self.port)])
        self.log = open(host.root / f"whisper-{side}.log", "w+")
        self.sound = (random_models.folder() / "sound.wav").read_bytes()
        self.process = host.start(argv, stdout=self.log, stderr=self.log)
        lib.wait_for("whisper-server listens", lambda: self.port in lib.listening_ports(), timeout=60)

    def transcribe(self):
        mark = "pillion-part"
        body = (f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="s.wav"\r\n'
                "Content-Type: audio/wav\r\n\r\n").encode() + self.sound + f"\r\n--{mark}--\r\n".encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/inference", body,
                                         {"Content-Type": f"multipart/form-data; boundary={mark}"})
        return json.load(urllib.request.urlopen(request, timeout=120))["text"]

