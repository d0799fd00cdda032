# SPDX-License-Identifier: Apache-2.0
"""The device protocol from the program's side, for clients that behave badly (src/wire/wire.h)."""
import os
import pathlib
import re
import socket
import struct

MAGIC, VERSION, OPEN = 0x4E4C4950, 2, 2
GGML, NULL = (1, 1), (2, 1)  # an API and its version
WELCOME_BYTES = 48  # before the body of the API's own
F32 = 0
NODE = 1 | 32  # to be computed
SOURCES = pathlib.Path(__file__).parents[2] / "src"


def numbers(file, word):
    text = (SOURCES / file).read_text()
    return {name: int(number) for number, name in re.findall(rf"^{word}\((\d+), (\w+)", text, re.M)}


OPS = numbers("wire/core.def", "OP") | numbers("wire/mem.def", "OP") | numbers("api/ggml/ops.def", "OP")
TENSOR_OPS = numbers("api/ggml/tensor_ops.def", "TENSOR_OP")
NO_ANSWER = {"BUFFER_FREE", "BUFFER_CLEAR", "WEIGHT", "SET", "FILL", "COPY", "GRAPH_DEFINE",
             "GRAPH_PATCH", "GRAPH_RUN", "GRAPH_FREE"}


def tensor(op, offset, ne, src=(), params=(), buffer=1):
    """A dense F32 tensor; @src are positions in the graph, from 1."""
    ne = (*ne, 1, 1, 1)[:4]
    nb = (4, 4 * ne[0], 4 * ne[0] * ne[1], 4 * ne[0] * ne[1] * ne[2])
    return struct.pack("<IIIIQ4q4Q16i10IIIQ64s", F32, TENSOR_OPS[op], NODE if src else 0, buffer,
                       offset, *ne, *nb, *(*params, *[0] * 16)[:16], *(*src, *[0] * 10)[:10],
                       0, 0, 0, b"")


class Session:
    """One program's stream to the device."""

    def __init__(self, path, token, timeout=120, device=0, api=GGML):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(timeout)
        self.s.connect(str(path))
        self.s.sendall(struct.pack("<IHH32sI64sHH16x", MAGIC, VERSION, OPEN, token, device, b"test", *api))
        status = struct.unpack("<IHHII", self.take(16))[2]
        assert status == 0, f"hello: {status}"
        welcome = self.take(WELCOME_BYTES)
        self.status, _, body_bytes = struct.unpack_from("<HII", welcome, 6)
        self.take(body_bytes)

    def take(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(min(n - len(data), 1 << 20))
            if not more:
                raise EOFError
            data += more
        return data

    def send(self, op, body=b""):
        self.s.sendall(struct.pack("<HHI", OPS[op], 0, len(body)) + body + bytes(-len(body) % 8))

    def answer(self):
        """status, first failure, device time in microseconds, data"""
        _, status, failed, _, _, n, used = struct.unpack("<HHHHQII", self.take(24))
        return status, failed, used, self.take(n)

    def ask(self, op, body=b""):
        self.send(op, body or bytes(8))
        return self.answer()

    def alloc(self, n, handle=1):
        assert self.ask("BUFFER_ALLOC", struct.pack("<IIQ", handle, 0, n))[0] == 0

    def define(self, graph, *tensors):
        self.send("GRAPH_DEFINE", struct.pack("<II", graph, len(tensors)) + b"".join(tensors))

    def start(self, graph):
        self.send("GRAPH_RUN", struct.pack("<Ii", graph, -1))
        self.send("FENCE", bytes(8))

    def run(self, graph):
        """first failure and device time"""
        self.start(graph)
        return self.answer()[1:3]

    def close(self):
        self.s.close()
