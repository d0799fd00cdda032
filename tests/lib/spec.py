#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Looks at SPECIFICATION.md: does each promise name what holds it, and is that there?

    spec.py [FILE]

Fails when a number is there twice or out of order, and when a row's `held by` names nothing that can be found.
It is "pending", or names a file or folder, `a_test` of the file or folder before it (with `*` for the
rest of a name), or `make TARGET`.
"""
import fnmatch
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (\d+)\.(\d+) \| (.+) \| (.+) \|$", re.M)
# A path, or what stands between ` and `.  The target of a link is no name.
NAME = re.compile(r"`([^`]+)`|(?<![\w/`])((?:tests|bench|docs)/[\w./-]*\w|test_\w+\.(?:py|c))")


def names_in(path):
    """What the tests of a file, or of the files of a folder, are called."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.suffix in (".py", ".c")]
    text = "\n".join(p.read_text() for p in files)
    return set(re.findall(r"^(?:async )?def (?:test|stage)_(\w+)\(", text, re.M) +
               re.findall(r"^static void test_(\w+)\(", text, re.M))


def judge_holder(cell):
    """What is wrong with one `held by`, as lines."""
    if cell == "pending":
        return
    named = list(NAME.finditer(re.sub(r"\[([^\]]*)\]\([^)]*\)", "", cell)))
    if not named:
        yield "names no test"
    place = None  # where the tests lie that are named next
    for quoted, bare in (m.groups() for m in named):
        word = quoted or bare
        if word.startswith("make "):
            if not re.search(rf"^[\w -]*\b{re.escape(word[5:])}\b[\w -]*:", (ROOT / "Makefile").read_text(), re.M):
                yield f"no target: {word}"
            continue
        if bare or "/" in word:
            # a name alone lies beside the one before it
            path = ROOT / word if "/" in word else (place.parent if place else ROOT) / word
            if path.exists():
                place = path
            else:
                yield f"no such file: {word}"
                place = None
        elif place is None:
            yield f"no file before {word}"
        elif not fnmatch.filter(names_in(place), word.removeprefix("test_")):
            yield f"no {word} in {place.relative_to(ROOT)}"


def judge(path):
    """What is wrong with a specification, as lines."""
    wrong, last = [], (0, 0)
    text = path.read_text()
    for m in ROW.finditer(text):
        number = int(m[1]), int(m[2])
        follows = number in ((last[0], last[1] + 1), (last[0] + 1, 1))
        if not follows:
            wrong.append(f"{m[1]}.{m[2]} does not follow {last[0]}.{last[1]}")
        last = number
        wrong += [f"{m[1]}.{m[2]}: {line}" for line in judge_holder(m[4])]
    rows = re.findall(r"^\| *\d.*$", text, re.M)
    wrong += [f"no row of three columns: {r}" for r in rows if not ROW.match(r)]
    return wrong if rows else ["no promise"]


def main():
    path = pathlib.Path(sys.argv[1]) if sys.argv[1:] else ROOT / "SPECIFICATION.md"
    wrong = judge(path)
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
