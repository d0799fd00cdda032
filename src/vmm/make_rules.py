#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the monitor's lists of system calls from notes beside the functions that make them.

    make_rules.py SOURCE.c... >jail_rules.h

A note stands in a comment and ends with its line:

    #syscalls [KIND...]: NAME NAME(ARG OP VALUE) ...

KIND is a kind of thread (vcpu, disk); without one the note is of the loop's thread.  What any thread
may do, the whole process may, as the filters of threads come on top of its own.  In parentheses stands
a condition on argument number ARG: `=` it has this value, `&` it has these bits, `!` it has none of
them; the value `pid` is the process's own number.
"""
import pathlib
import re
import sys

KINDS = ("vcpu", "disk")
NOTE = re.compile(r"#syscalls((?: \w+)*):((?:[ \t]+\w+(?:\(\d[=&!]\w+\))?(?=[\s.*]))+)")
CALL = re.compile(r"(\w+)(?:\((\d)([=&!])(\w+)\))?")
OPS = {"=": "IF_EQUAL", "&": "IF_SET_BITS", "!": "IF_ZERO_BITS"}


def rule(name, arg, op, value):
    if not op:
        return f"{{SYS_{name}}}"
    if value == "pid":
        return f"{{SYS_{name}, IF_OWN_PID, {arg}}}"
    return f"{{SYS_{name}, {OPS[op]}, {arg}, (uint32_t){value}}}"


def read(paths):
    rules = {"machine": set(), **{kind: set() for kind in KINDS}}
    for path in paths:
        text = pathlib.Path(path).read_text()
        notes = NOTE.findall(text)
        if len(notes) != len(re.findall(r"#syscalls[ \w]*:", text)):
            sys.exit(f"{path}: a #syscalls note that cannot be read")
        for kinds, calls in notes:
            found = {rule(*call) for call in CALL.findall(calls)}
            for kind in kinds.split() or ["machine"]:
                if kind not in rules:
                    sys.exit(f"{path}: #syscalls of an unknown kind of thread: {kind}")
                rules[kind] |= found
    for kind in KINDS:
        rules["machine"] |= rules[kind]
    return rules


def main():
    print("/* Made by make_rules.py from the #syscalls notes. */")
    for kind, rules in read(sys.argv[1:]).items():
        print(f"\nstatic const struct rule {kind}_rules[] = {{")
        for line in sorted(rules):
            name = re.search(r"SYS_\w+", line)[0]  # newer architectures lack the oldest calls
            print(f"#ifdef {name}\n\t{line},\n#endif")
        print("};")


main()
