# SPDX-License-Identifier: Apache-2.0
"""What upstream's test-backend-ops says and what its cases cost.

`support` lists every case and whether a device takes it, without computing.  That list says which
cases are huge, by the size of their arrays and products: a few hundred of the 22,000 take most of an
hour.  `test` leaves them out by a pattern for its option -p.
"""
import csv
import functools
import io
import math
import pathlib
import re

DOC = pathlib.Path(__file__).parents[2] / "docs" / "ggml-operations.md"
HUGE = 1e6  # see size()


PARAMETER = re.compile(r"(\w+)=(?:\[([\d,]+)\]|(\d+)(?![\d.\w]))")
SIZES = re.compile(r"\b(?:ne\w*|nr|nr23|hs[kv]|nh|m|n|k|r|b|kv|nb|bs|[A-Z]+\w*|n_(?!kv_max|dims|ctx|offs)\w+|head_\w+)="
                   r"(?:\[[\d,]+\]|\d+(?![\d.\w]))")


def numbers(params, names):
    """Of `ne=[10,5],m=16`: {"ne": [10, 5], "m": [16]} for the names that match."""
    return {name: [int(n) for n in (many or one).split(",")]
            for name, many, one in PARAMETER.findall(params) if re.fullmatch(names, name)}


@functools.cache
def size(op, params):
    """About how many numbers a case makes; a hundred products count as one."""
    if op.startswith(("MUL_MAT", "OUT_PROD")):
        n = {k: math.prod(v) for k, v in numbers(params, "m|n|k|bs|nr|n_mats|n_used").items()}
        m, cols, k = n.get("m", 1), n.get("n", 1), n.get("k", 1)
        many = n.get("bs", 1) * n.get("nr", 1)
        mats = n.get("n_mats", 1)
        return (m * k * mats + k * cols + m * cols) * many + m * k * cols * many / 100
    if op == "FLASH_ATTN_EXT":
        n = {k: math.prod(v) for k, v in numbers(params, "hsk|hsv|nh|nr23|kv|nb").items()}
        row = n["nh"] * n["nr23"] * (n["hsk"] + n["hsv"])
        return row * (n["kv"] + n["nb"]) + row * n["kv"] * n["nb"] / 30
    shapes = [math.prod(v) for v in numbers(params, r"ne\w*|\w*shape|nr|\w*input|\w*kernel").values()]
    scalars = [v[0] for v in numbers(params, r"[A-Z]\w*|n|m|r|b|head_\w+|n_\w+|kv|hsk").values()]
    if op.startswith("CONV_") and len(shapes) > 1:
        return sum(shapes) + math.prod(shapes) / max(numbers(params, r"ne_kernel").get(
            "ne_kernel", [1, 1, 1])[2], 1) / 100
    total = math.prod(shapes) if op in ("ADD", "SUB", "MUL", "DIV", "ADD_ID") else sum(shapes)
    return max(total, math.prod(scalars) if not shapes else 0)


def documented():
    """{operation: patterns of its cases that a device does not take} of docs/ggml-operations.md."""
    rows = {}
    for op, pattern in re.findall(r"^\| `(\w+)` \| `(.+?)` \| .+ \|$", DOC.read_text(), re.M):
        rows.setdefault(op, []).append(pattern)
    return rows


def in_manual(case, manual):
    op, params = case
    return any(re.search(pattern, params) for pattern in manual.get(op, ()))


def supported(output):
    """{(operation, parameters): taken} from the output of `support --output csv`."""
    rows = csv.DictReader(io.StringIO(output))
    return {(row["op_name"], row["op_params"]): row["supported"] in ("1", "yes") for row in rows}


@functools.cache
def shape(params):
    """The part of the parameters that size() looks at, from the first number to the last."""
    found = list(SIZES.finditer(params))
    return params[found[0].start():found[-1].end()] if found else params


def kind(op, params):
    return (op, *re.findall(r"type\w*=\w+", params))


def huge(cases):
    """The cases that are too large, but for the smallest of an operation and its types."""
    smallest = {}
    for case in sorted(cases, key=lambda c: size(*c)):
        smallest.setdefault(kind(*case), case)
    kept = {(op, shape(params)) for op, params in smallest.values()}
    return [(op, params) for op, params in cases
            if size(op, params) > HUGE and (op, shape(params)) not in kept]


def without(cases):
    """A pattern for -p that leaves these cases out."""
    return "^(?!.*\\b(" + "|".join(sorted({re.sub(r"([\[\]])", r"\\\1", shape(p)) for _, p in cases})) + ")(,|$))"
