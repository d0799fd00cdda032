#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the words of the sentences in Markdown files.

    prose.py [FILE...]      all documents of the project, or these

A document is read once when its sentences are short.  Fails when the median sentence of a file is longer than
17 words, or one is longer than 45.  Code, tables, headings and links' targets are no sentences; an item of a
list is one, with or without a full stop.
"""
import pathlib
import re
import statistics
import sys

MEDIAN, LONGEST, FEW = 17, 45, 5
ROOT = pathlib.Path(__file__).resolve().parents[2]
# A full stop, a question or exclamation mark at the end of a word, then a space and what may begin a sentence.
# Not behind what is shortened.
END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bNo)[.!?][)\"'`*_]*\s+(?=[`*_\"(]*[A-Z0-9`\[])")


def blocks(text):
    """Paragraphs and items of lists, each as one line."""
    text = re.sub(r"^```.*?^```", "\n", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    block = []
    for line in [*text.splitlines(), ""]:
        starts_item = re.match(r"\s*([-*+]|\d+\.)\s", line)
        if starts_item or not line.strip() or re.match(r"    \S|\t|\s*\||#", line) and not block:
            if block:
                yield " ".join(block)
            block = []
        if re.match(r"\s*\||#", line) or not line.strip() or (not block and not starts_item
                                                              and re.match(r"    |\t", line)):
            continue
        block.append(re.sub(r"^\s*([-*+]|\d+\.)\s+", "", line).strip())


def sentences(text):
    for block in blocks(text):
        block = re.sub(r"\]\([^)]*\)", "]", block)     # where a link leads to
        block = re.sub(r"`[^`]*`", "Code", block)      # one word, however long
        for sentence in END.split(block):
            words = re.findall(r"[\w'’.,/%-]*\w[\w'’.,/%-]*", sentence)
            if words:
                yield len(words), sentence


def judge(path):
    """What is wrong with a file, as lines."""
    found = list(sentences(path.read_text()))
    wrong = [f"{n} words: {s}" for n, s in found if n > LONGEST]
    if len(found) >= FEW and statistics.median(n for n, _ in found) > MEDIAN:
        wrong.append(f"the median sentence has {statistics.median(n for n, _ in found):g} words")
    return wrong


def documents():
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def main():
    bad = False
    for path in [pathlib.Path(a) for a in sys.argv[1:]] or documents():
        for line in judge(path):
            bad = True
            print(f"{path}: {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
