# SPDX-License-Identifier: Apache-2.0
"""A made-up vocabulary: every byte, then words.

It is byte level (an SPM tokenizer that falls back to <0x00>..<0xFF> for every input) and is filled up
with made-up words, so that what a model says is printable.
"""
import numpy as np

import gguf

N_CONTROL = 3  # <unk> <s> </s>
N_BYTES = 256


def words():
    """Made-up words, each with a leading blank; no two of them merge in the tokenizer."""
    syllables = [c + v for c in "bdfgjklmnprstvz" for v in "aeiou"]
    for length in (2, 3):
        for i in range(len(syllables) ** length):
            text = ""
            for _ in range(length):
                i, k = divmod(i, len(syllables))
                text += syllables[k]
            yield "\u2581" + text


def quiet(size):
    """Marks what must not be generated: control tokens, bytes that are not printable."""
    marks = np.zeros(size, dtype=bool)
    marks[:N_CONTROL] = True
    for b in range(N_BYTES):
        marks[N_CONTROL + b] = not (0x20 <= b < 0x7F or b == 0x0A)
    return marks


def rows(size):
    """The scale of each token's row: small ones can be read, but greedy sampling never picks them and
    so never stops early."""
    return np.where(quiet(size), np.float32(0.05), np.float32(1))


def metadata(size, infill=False):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(N_BYTES)] + ["\u2581"]
    types = [2, 3, 3] + [6] * N_BYTES + [1]
    more = words()
    while len(tokens) < size:
        tokens.append(next(more))
        types.append(1)
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(i) for i in range(size)],
        "tokenizer.ggml.token_type": [gguf.Int(t) for t in types],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
    }
    if infill:  # three words serve as the marks of prefix, suffix and middle
        for i, name in enumerate(("pre", "suf", "mid")):
            keys[f"tokenizer.ggml.fim_{name}_token_id"] = N_CONTROL + N_BYTES + 1 + i
    return keys
