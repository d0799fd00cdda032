# SPDX-License-Identifier: Apache-2.0
"""tools/mkmodel: the models that the other tests and the benchmarks run on."""
import hashlib
import pathlib
import struct
import subprocess

import pytest

MKMODEL = pathlib.Path(__file__).parents[2] / "tools" / "mkmodel"


def make(path, *args):
    return subprocess.run([MKMODEL, *args, path], text=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
def test_same_arguments_give_same_bytes(tmp_path, kind):
    sums = set()
    for name in ("a.gguf", "b.gguf"):
        assert make(tmp_path / name, "--params", "1M", "--type", kind).returncode == 0
        sums.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(sums) == 1


# The first half of each file's SHA-256: tests keep models, and figures are compared over years.
DIGESTS = {
    "bert": "402f3964ae9e77e76dfad1ca07fa3c2e",
    "clip": "e8d0b07f3cc78bbfcdaa3e56e33ffbb6",
    "deepseek2": "e25d9884b891062190fba07b40628d01",
    "gemma3": "16520ecafecd439f144c75a08215142a",
    "granitehybrid": "f2a633e260bccad22cb1f02d70444c3d",
    "llama": "7856e0e8f33e8e326b87805303ca8ffb",
    "lora": "66dfb4cae061106cc5406abf471710d3",
    "mamba2": "30e8f698fd6234aac11b55b024ade4b1",
    "qwen2moe": "9b6f472e2c4c766910625c23e894b66b",
    "t5": "b96a729ea8b541fd7621985ff978a7e7",
    "whisper": "d610356c762d6c5aef89e9b143cfa0fb",
}


@pytest.mark.parametrize("arch", DIGESTS)
def test_a_model_of_each_architecture_has_the_bytes_it_always_had(tmp_path, arch):
    done = make(tmp_path / "m", "--arch", arch, *(["--params", "1M"] if arch == "llama" else []))
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest()[:32] == DIGESTS[arch]


def test_every_architecture_has_its_bytes_noted():
    listed = subprocess.run([MKMODEL, "--help"], text=True, capture_output=True, timeout=60).stdout
    known = listed.partition("--arch {")[2].partition("}")[0].replace("\n", "").replace(" ", "")
    assert set(known.split(",")) == set(DIGESTS)


@pytest.mark.parametrize("pooling", ["mean", "cls", "rank"])
def test_a_bert_says_how_it_pools(tmp_path, pooling):
    done = make(tmp_path / "m.gguf", "--arch", "bert", "--pooling", pooling)
    assert done.returncode == 0, done.stderr
    data = (tmp_path / "m.gguf").read_bytes()
    key = b"bert.pooling_type"
    kind, value = struct.unpack_from("<II", data, data.index(key) + len(key))
    assert (kind, value) == (4, {"mean": 1, "cls": 2, "rank": 4}[pooling])
    assert (b"cls.output.weight" in data) == (pooling == "rank")


def test_another_seed_gives_other_weights(tmp_path):
    make(tmp_path / "a.gguf", "--params", "1M")
    make(tmp_path / "b.gguf", "--params", "1M", "--seed", "1")
    assert (tmp_path / "a.gguf").read_bytes() != (tmp_path / "b.gguf").read_bytes()


def test_the_15m_shape_is_a_version_3_gguf_of_the_stated_size(tmp_path):
    done = make(tmp_path / "m.gguf", "--params", "15M", "--type", "Q8_0")
    assert "15.2M parameters" in done.stdout
    head = (tmp_path / "m.gguf").read_bytes()[:24]
    assert struct.unpack("<4sIQQ", head) == (b"GGUF", 3, 2 + 9 * 6, 21)
    # 34 bytes per block of 32 weights, and the vocabulary
    assert 16.1e6 < (tmp_path / "m.gguf").stat().st_size < 17.5e6


@pytest.mark.parametrize("args", [["--width", "100"], ["--heads", "5"], ["--vocab", "10"]])
def test_an_impossible_shape_is_refused_with_the_reason(tmp_path, args):
    done = make(tmp_path / "m.gguf", *args)
    assert done.returncode == 2 and args[0] in done.stderr
    assert not (tmp_path / "m.gguf").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    done = make(tmp_path / "no" / "m.gguf")
    assert done.returncode == 1 and "no/m.gguf" in done.stderr and "No such" in done.stderr
