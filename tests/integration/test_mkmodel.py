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
