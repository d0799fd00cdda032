# SPDX-License-Identifier: Apache-2.0
"""A whisper model in whisper.cpp's own file format, which is older than GGUF.

The file: a magic number, eleven numbers of the shape, the mel filters, the words, then each tensor
with its dimensions, name, type and data.  Numbers are 32-bit, little endian.  The vocabulary must have
OpenAI's size, for its last tokens are known by their numbers; so only the width makes a model small.
"""
import struct

import numpy as np

import gguf
import vocabulary
from archs import matrix
from gguf import Tensor, bias, ones

MAGIC = 0x67676D6C
VOCAB, WORDS = 51864, 50257  # English only; what follows the words is made by whisper.cpp
AUDIO_CONTEXT, TEXT_CONTEXT, MELS, FFT = 1500, 448, 80, 201


class Whisper:
    name = "whisper"
    shape = {"layers": 2, "width": 64, "ffn": 256, "heads": 2, "kv_heads": 2, "vocab": VOCAB, "tied": True}

    def __init__(self, args):
        self.args, self.w, self.layers = args, args.width, args.layers
        self.type = "F32" if args.type == "F32" else "F16"  # the format's own quantised types are not made

    def head(self):
        a = self.args
        shape = [VOCAB, AUDIO_CONTEXT, a.width, a.heads, a.layers, TEXT_CONTEXT, a.width, a.heads,
                 a.layers, MELS, gguf.TYPES[self.type][0]]
        return struct.pack("<12i", MAGIC, *shape)

    def filters(self):
        """Each of the mel filters takes a few neighbours of the spectrum."""
        bank = np.zeros((MELS, FFT), dtype="<f4")
        for i in range(MELS):
            at = 2 * i + 20
            bank[i, at:at + 4] = (0.01, 0.02, 0.02, 0.01)
        return struct.pack("<2i", MELS, FFT) + bank.tobytes()

    def words(self):
        more = vocabulary.words()
        texts = [bytes([b]) for b in range(256)]
        texts += [next(more).replace("\u2581", " ").encode() for _ in range(WORDS - 256)]
        return struct.pack("<i", WORDS) + b"".join(struct.pack("<i", len(t)) + t for t in texts)

    def normed(self, name):
        yield ones(name + ".weight", self.w)
        yield bias(name + ".bias", self.w)

    def block(self, b, crossed):
        for kind in ("attn", "cross_attn") if crossed else ("attn",):
            yield from self.normed(f"{b}{kind}_ln")
            for name in ("query", "key", "value", "out"):
                yield matrix(f"{b}{kind}.{name}.weight", self.w, self.w)
                if name != "key":
                    yield bias(f"{b}{kind}.{name}.bias", self.w)
        yield from self.normed(f"{b}mlp_ln")
        for i, n_in, n_out in ((0, self.w, 4 * self.w), (2, 4 * self.w, self.w)):
            yield matrix(f"{b}mlp.{i}.weight", n_in, n_out)
            yield bias(f"{b}mlp.{i}.bias", n_out)

    def tensors(self):
        w = self.w
        found = [Tensor("encoder.positional_embedding", [w, AUDIO_CONTEXT], 0.5, exact=True)]
        for i, n_in in ((1, MELS), (2, w)):
            found.append(Tensor(f"encoder.conv{i}.weight", [3, n_in, w], (1.0 / n_in) ** 0.5))
            found.append(Tensor(f"encoder.conv{i}.bias", [1, w], 0.1, exact=True))
        found += self.normed("encoder.ln_post")
        found.append(Tensor("decoder.positional_embedding", [w, TEXT_CONTEXT], 0.5, exact=True))
        # what is no word must not be generated
        rows = np.where(np.arange(VOCAB) < WORDS - 1, np.float32(1), np.float32(0.2))
        found.append(matrix("decoder.token_embedding.weight", w, VOCAB, 3, rows=rows))
        found += self.normed("decoder.ln")
        for i in range(self.layers):
            found += self.block(f"encoder.blocks.{i}.", False)
            found += self.block(f"decoder.blocks.{i}.", True)
        return found

    def write(self, f):
        f.write(self.head() + self.filters() + self.words())
        raw = np.random.PCG64(self.args.seed)
        for t in self.tensors():
            name, kind = t.name.encode(), t.type_name(self.type)
            f.write(struct.pack("<3i", len(t.shape), len(name), gguf.TYPES[kind][0]))
            f.write(struct.pack(f"<{len(t.shape)}i", *t.shape) + name)
            for weights in gguf.chunks(t, raw):
                f.write(gguf.quantise(weights, kind))
