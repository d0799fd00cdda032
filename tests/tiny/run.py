#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs one tiny guest in pillion-vmm and judges how it ended.

    run.py VMM GUEST SOURCE

The first comment of SOURCE says "run: OPTIONS" (@DISK: a scratch image of 1 MiB) and "status: N",
and may say "stderr: TEXT", which must then be there.  Prints TAP; exit status 77: skipped.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

vmm, guest, source = sys.argv[1:4]
head = pathlib.Path(source).read_text().split("*/")[0]
want = {key: value.strip() for key, value in re.findall(r"^ \* (run|status|stderr):(.*)$", head, re.M)}

try:
    os.close(os.open("/dev/kvm", os.O_RDWR))
except OSError as e:
    print(f"1..0 # SKIP open /dev/kvm: {e.strerror}")
    sys.exit(77)

with tempfile.TemporaryDirectory() as tmp:
    disk = pathlib.Path(tmp, "disk")
    disk.write_bytes(b"".join(bytes([i & 255]) * 512 for i in range(2048)))
    options = shlex.split(want["run"].replace("@DISK", str(disk)))
    if b"__asan_init" in pathlib.Path(vmm).read_bytes():
        options.append("--no-jail")  # the sanitizers look at files and processes
    done = subprocess.run([vmm, "--kernel", guest, "--memory", "16", "--console-early", *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", timeout=60)

for line in done.stdout.splitlines():
    if not re.match(r"1\.\.\d+$", line):  # the plan is ours: there are more tests below
        print(line if re.match(r"(not )?ok |#", line) else f"# {line}")
n = len(re.findall(r"^(?:not )?ok ", done.stdout, re.M))
checks = [(done.returncode == int(want["status"]),
           f"the machine ends with status {want['status']} (it was {done.returncode})")]
if "stderr" in want:
    checks.append((want["stderr"] in done.stderr, f"the log says '{want['stderr']}'"))
for good, what in checks:
    n += 1
    print("ok" if good else "not ok", n, "-", what)
for line in done.stderr.splitlines():
    print("#", line)
print(f"1..{n}")
sys.exit(0 if all(g for g, _ in checks) and "not ok" not in done.stdout else 1)
