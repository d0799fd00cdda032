# SPDX-License-Identifier: Apache-2.0
"""The models with random weights that the tests of programs run on: name, arguments of mkmodel."""
import math
import os
import random
import struct
import subprocess

import host as lib

TINY = ["--params", "1M", "--type", "F16"]
MODELS = {
    "llama-1.gguf": [*TINY, "--infill"],
    "llama-f32-1.gguf": ["--params", "1M", "--type", "F32"],
    "draft-1.gguf": [*TINY, "--layers", "1", "--seed", "7"],  # of the same vocabulary
    "lora-1.gguf": ["--arch", "lora", "--params", "1M"],
    "bert-mean-1.gguf": ["--arch", "bert", "--pooling", "mean", "--type", "F16"],
    "bert-cls-1.gguf": ["--arch", "bert", "--pooling", "cls", "--type", "F16"],
    "bert-rank-1.gguf": ["--arch", "bert", "--pooling", "rank", "--type", "F16"],
    "clip-1.gguf": ["--arch", "clip", "--type", "F16"],
    "deepseek2-1.gguf": ["--arch", "deepseek2"],
    "gemma3-1.gguf": ["--arch", "gemma3", "--type", "F16"],
    "granitehybrid-1.gguf": ["--arch", "granitehybrid", "--type", "F16"],
    "mamba2-1.gguf": ["--arch", "mamba2", "--type", "F16"],
    "qwen2moe-1.gguf": ["--arch", "qwen2moe"],
    "t5-1.gguf": ["--arch", "t5", "--type", "F16"],
    # F32: of F16 the CPU back end has two ways to compute, AMX and another, and which one a program gets
    # depends on where it asks for memory
    "whisper-f32-1.bin": ["--arch", "whisper", "--type", "F32"],
}


def write_text(path, n=1500):
    """Words without a meaning: for perplexity, imatrix and training."""
    choose = random.Random(1).choice
    words = ["the", "old", "car", "went", "to", "town", "with", "a", "cat", "and", "2 + 2 = 4"]
    path.write_text(" ".join(choose(words) for _ in range(n)))


def write_picture(path, side=56):
    rows = b"".join(bytes(((x * 5 + y) % 256, y * 4 % 256, x * y % 256)) for y in range(side) for x in range(side))
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows)


def write_sound(path, seconds=3, rate=16000):
    pcm = b"".join(struct.pack("<h", int(8000 * math.sin(2 * math.pi * (200 + i / 60) * i / rate)))
                   for i in range(seconds * rate))
    head = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    path.write_bytes(b"RIFF" + struct.pack("<I", 36 + len(pcm)) + b"WAVEfmt " + head + b"data" +
                     struct.pack("<I", len(pcm)) + pcm)


def folder():
    return lib.CACHE / "models" / "random"


def make_all():
    """Makes what is missing, and returns the folder."""
    folder().mkdir(parents=True, exist_ok=True)
    for name, args in MODELS.items():
        make(folder() / name, lambda part, args=args: subprocess.run(
            [lib.ROOT / "tools" / "mkmodel", *args, part], check=True, timeout=300, stdout=subprocess.DEVNULL))
    for name, write in (("text", write_text), ("lesson", lambda part: write_text(part, 400)),
                        ("picture.bmp", write_picture), ("sound.wav", write_sound)):
        make(folder() / name, write)
    return folder()


def make(path, write):
    if not path.exists():
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        write(part)
        part.rename(path)
