# SPDX-License-Identifier: Apache-2.0
"""Writing a GGUF file with random weights: metadata, block types, tensors.

The same arguments give the same bytes, on every machine and with every version of numpy, because the
weights come from the raw 64-bit stream of PCG64 (uniform, four weights per draw) and not from a
distribution function.  Memory stays within a few times the largest tensor: one tensor is made,
quantised and written at a time.
"""
import struct
import typing

import numpy as np

# name: (number in GGUF, file_type in GGUF, weights per block, bytes per block)
TYPES = {"F32": (0, 0, 1, 4), "F16": (1, 1, 1, 2), "Q4_0": (2, 2, 32, 18), "Q8_0": (8, 7, 32, 34)}

ALIGNMENT = 32
CHUNK_WEIGHTS = 1 << 22


class Tensor(typing.NamedTuple):
    """Weights of base +- amplitude, uniformly; amplitude 0 means all of them are base.

    What has one dimension or is `exact` is F32, everything else of the type that was asked for; so
    does llama.cpp's own converter."""
    name: str
    shape: list
    amplitude: float
    rows: typing.Any = None  # a scale per row
    base: float = 0.0
    exact: bool = False

    def type_name(self, wanted):
        return "F32" if self.exact or len(self.shape) < 2 else wanted


def ones(name, *shape):
    return Tensor(name, list(shape), 0, base=1.0, exact=True)


def bias(name, n):
    return Tensor(name, [n], 0.1)


class Int(int):
    """A signed 32-bit value of the metadata; a plain int is unsigned."""


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_of(value):
    """Encodes (type number, bytes) of a metadata value; lists are arrays of their first type."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, Int):
        return 5, struct.pack("<i", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, string(value)
    kind = value_of(value[0])[0]
    body = b"".join(value_of(v)[1] for v in value)
    return 9, struct.pack("<IQ", kind, len(value)) + body


def quantise(weights, type_name):
    """Turns float32 weights into the bytes of that type, the way ggml's reference code does."""
    if type_name == "F32":
        return weights.astype("<f4").tobytes()
    if type_name == "F16":
        return weights.astype("<f2").tobytes()
    blocks = weights.reshape(-1, 32)
    if type_name == "Q8_0":
        scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        quants = np.rint(blocks / np.where(scale == 0, 1, scale)).astype(np.int8).view(np.uint8)
    else:
        peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
        scale = peak / np.float32(-8)
        nibbles = np.clip(blocks / np.where(scale == 0, 1, scale) + np.float32(8.5), 0, 15)
        nibbles = nibbles.astype(np.uint8)
        quants = nibbles[:, :16] | nibbles[:, 16:] << 4
    return np.hstack([scale.astype("<f2").view(np.uint8), quants]).tobytes()


def padded(n):
    return (n + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def chunks(tensor, raw):
    """Yields the float32 weights of a tensor, some rows at a time."""
    width, n_rows = tensor.shape[0], int(np.prod(tensor.shape[1:]))
    step = max(1, CHUNK_WEIGHTS // width)
    for first in range(0, n_rows, step):
        n = min(step, n_rows - first)
        if tensor.amplitude == 0:
            weights = np.full((n, width), tensor.base, dtype=np.float32)
        else:
            draws = raw.random_raw((n * width + 3) // 4).astype("<u8").view("<i2")[:n * width]
            weights = draws.reshape(n, width).astype(np.float32) * np.float32(tensor.amplitude / 32768)
            if tensor.base:
                weights += np.float32(tensor.base)
        if tensor.rows is not None:
            weights *= tensor.rows[first:first + n, None]
        yield weights


def count(tensors):
    return sum(int(np.prod(t.shape)) for t in tensors)


def header(metadata, tensors, type_name):
    out = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        kind, body = value_of(value)
        out += [string(key), struct.pack("<I", kind), body]
    offset = 0
    for t in tensors:
        number, _, per_block, block_bytes = TYPES[t.type_name(type_name)]
        out += [string(t.name), struct.pack(f"<I{len(t.shape)}Q", len(t.shape), *t.shape),
                struct.pack("<IQ", number, offset)]
        offset += padded(count([t]) // per_block * block_bytes)
    return b"".join(out)


def write(f, metadata, tensors, type_name, seed):
    head = header(metadata, tensors, type_name)
    f.write(head + bytes(padded(len(head)) - len(head)))
    raw = np.random.PCG64(seed)
    for t in tensors:
        n_bytes = sum(f.write(quantise(w, t.type_name(type_name))) for w in chunks(t, raw))
        f.write(bytes(padded(n_bytes) - n_bytes))
