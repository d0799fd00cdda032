# SPDX-License-Identifier: Apache-2.0
"""Upstream's own tests (Debian's llama.cpp-tests), inside against outside.

The rule of all of them: what fails inside is what fails outside, measured in the same run, and
nothing inside ends by a signal.  The lists of architectures and operations come from the programs,
so that what upstream adds is tested by itself.
"""
import concurrent.futures
import os
import re
import subprocess

import pytest

import backend_ops as ops
import extra
import host as lib

AT_ONCE = 2
ALL = os.environ.get("PILLION_UPSTREAM_ALL") == "1"  # the huge cases as well: an hour
# programs that say by their exit status whether they are content: (name, arguments, seconds)
LONG = ["-m", "/tmp/model.gguf", "-ngl", "99"]
DEVICE = "the device"  # CPU outside, Pillion0 inside
PROGRAMS = [
    ("test-thread-safety", [*LONG, "-np", "2", "-n", "16", "-c", "512", "-p", "The old car"], 120),
    ("test-llama-context", LONG, 120),
    ("test-model-load-cancel", ["/tmp/model.gguf"], 60),
    # it wants a list of what a back end fuses, which neither the CPU's nor the device's has
    ("test-fusion", ["--model", "/tmp/model.gguf", "--device", DEVICE], 60),
    ("test-autorelease", ["/tmp/model.gguf"], 60),
    ("test-tiled-mulmat", [], 300),  # tables of the i-quants: 25 s of CPU time, and 8 threads that spin
    # not test-opt: it gives ggml's scheduler every device, and that asserts that the last one is a CPU,
    # on any machine with two devices
]


@pytest.fixture(scope="module")
def pair(tree):
    host = lib.Host(tree)
    extra.add_to(host)
    host.start_broker()
    host.gate()  # before threads ask for it
    yield host
    host.close()


class Ended:
    """How a program ended; @ok: content, @why: what it said last."""

    def __init__(self, host, argv, seconds):
        try:
            done = host.run(argv, timeout=seconds)
            self.status, self.said = done.returncode, done.stdout + "\n" + done.stderr
            self.stdout = done.stdout
        except subprocess.TimeoutExpired as e:
            self.stdout = (e.stdout or b"").decode(errors="replace")
            self.status, self.said = None, f"{self.stdout}\nno end within {seconds} s"
        self.ok = self.status == 0
        # a program that ends by a signal makes bwrap say 128 and the number
        self.crashed = self.status is not None and (self.status < 0 or 128 < self.status < 160)

    def last(self, n=3):
        return f"status {self.status}: " + " | ".join(self.said.strip().splitlines()[-n:])


def each(items, function):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(items, pool.map(function, items)))


# ---- architectures

def computed(text):
    """{architecture: devices that computed it} of the table; one that is skipped has none."""
    found = {}
    for cells in (line.split("|") for line in text.splitlines() if line.count("|") >= 6):
        name, device, result = cells[1].strip(), cells[2].strip(), cells[4]
        if re.fullmatch(r"[a-z0-9][\w.-]*", name):
            found.setdefault(name, set()).update({device} if "SKIP" not in result else ())
    return found


def archs(argv, host, seconds):
    """A run of test-llama-archs.  It writes its table in a thread and may end before that has, on any
    side: what is not whole is run again."""
    for _ in range(8):
        ended = Ended(host, argv, seconds)
        if not ended.ok or "Summary:" in ended.stdout:
            break
    return ended


def archs_outside(host):
    """({name: passes}, names that are computed) by one run natively.  It ends at the first that
    fails; then another one goes on."""
    passes, tables = {}, {}
    while True:
        skip = "".join(f"{re.escape(n)}|" for n in passes)
        done = archs(host.native("test-llama-archs", "-s", "1", "-a", f"^(?!({skip}-)$)"), host, 900)
        new = {n: d for n, d in computed(done.stdout).items() if n not in passes}
        passes.update(dict.fromkeys(new, True))
        tables.update(new)
        if done.ok or not new:
            return passes, {name for name, devices in tables.items() if devices}
        passes[list(new)[-1]] = False


def test_every_architecture_that_passes_outside_passes_inside_on_the_device(pair):
    outside, has_test = archs_outside(pair)
    assert len(outside) > 100 and len(has_test) > 100, outside
    inside = each(outside, lambda name: archs(
        pair.inside("test-llama-archs", "-s", "1", "-a", f"^{re.escape(name)}$"), pair, 180))
    print(f"{len(outside)} architectures, {sum(outside.values())} pass outside, "
          f"{sum(e.ok for e in inside.values())} inside, {len(has_test)} of them computed")
    crashed = {n: e.last() for n, e in inside.items() if e.crashed and outside[n]}
    assert not crashed, crashed
    failed = {n: e.last() for n, e in inside.items() if not e.ok and outside[n]}
    assert not failed, f"{len(failed)} of {len(outside)}: {failed}"
    elsewhere = [n for n, e in inside.items() if e.ok and n in has_test and
                 not any("reference device" in d for d in computed(e.stdout).get(n, ()))]
    assert not elsewhere, elsewhere


# ---- operations

@pytest.fixture(scope="module")
def cases(pair):
    """({case: inside takes it}, {case: the CPU back end takes it})"""
    def ask(argv):
        done = pair.run(argv, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        return ops.supported(done.stdout)
    command = ["test-backend-ops", "support", "--output", "csv", "-b"]
    inside, native = ask(pair.inside(*command, "Pillion0")), ask(pair.native(*command, "CPU"))
    assert len(native) > 10000 and inside.keys() == native.keys()
    return inside, native


def test_each_case_that_the_cpu_takes_the_device_takes_or_the_manual_says_why(cases):
    inside, native = cases
    manual = ops.documented()
    refused = [c for c, taken in native.items() if taken and not inside[c] and not ops.in_manual(c, manual)]
    assert not refused, (len(refused), refused[:20])


def test_the_manual_names_no_case_that_the_device_takes(cases):
    inside, native = cases
    manual = ops.documented()
    named = [c for c, taken in native.items() if taken and ops.in_manual(c, manual)]
    assert not [c for c in named if inside[c]]
    idle = [(op, p) for op, patterns in manual.items() for p in patterns
            if not any(ops.in_manual(c, {op: [p]}) for c in named)]
    assert not idle, idle


def test_what_is_left_out_for_its_size_leaves_a_case_of_every_operation_and_type(cases):
    taken = [case for case, taken in cases[0].items() if taken]
    left = set(taken) - set(ops.huge(taken))
    assert {ops.kind(*c) for c in taken} == {ops.kind(*c) for c in left}


def groups(inside):
    """Lists of operations, the longest first.  Those with the i-quants are in one process, which makes
    the tables of these once; every other operation has one of its own."""
    names = dict.fromkeys(op for op, _ in inside)
    tables = [op for op in names if op.startswith("MUL_MAT") or op in ("OUT_PROD", "GET_ROWS", "CPY")]
    first = [["FLASH_ATTN_EXT"], tables]
    return first + [[op] for op in names if op not in sum(first, [])]


def test_every_operation_inside_computes_what_the_cpu_computes(pair, cases):
    inside, _ = cases
    assert any(inside.values())

    def run(group):
        argv = ["test-backend-ops", "test", "-b", "Pillion0", "-o", ",".join(group)]
        huge = ops.huge([c for c in inside if c[0] in group])
        if huge and not ALL:
            argv += ["-p", ops.without(huge)]
        return Ended(pair, pair.inside(*argv), 7200 if ALL else 900)
    ended = each([tuple(g) for g in groups(inside)], run)
    counts = [tuple(map(int, re.search(r"(\d+)/(\d+) tests passed", e.said).groups()))
              for e in ended.values() if e.ok]
    print(f"{sum(n for n, _ in counts)} of {len(inside)} cases computed")
    bad = {g: (e.last(), [line for line in e.stdout.splitlines() if "FAIL" in line][:5])
           for g, e in ended.items() if not e.ok}
    assert not bad, bad
    assert sum(n for n, _ in counts) > 0.5 * sum(inside.values())


# ---- the others

@pytest.mark.parametrize("name,args,seconds", PROGRAMS, ids=[p[0] for p in PROGRAMS])
def test_a_program_of_upstreams_tests_ends_inside_as_outside(pair, tiny, name, args, seconds):
    def on(device):
        return [device if a == DEVICE else a for a in args]
    outside = Ended(pair, pair.native(name, *on("CPU"), model=tiny), seconds)
    inside = Ended(pair, pair.inside(name, *on("Pillion0"), model=tiny), seconds)
    assert not inside.crashed or outside.crashed, inside.last(10)
    assert inside.status == outside.status, (outside.last(5), inside.last(10))


def test_each_sampler_of_a_back_end_passes_inside_as_outside(pair, tiny):
    """One by one: the first that is not content aborts the program."""
    command = ["test-backend-sampler", "--model", "/tmp/model.gguf", "--test"]
    names = re.findall(r"^  (\w+)$", Ended(pair, pair.native(*command, "?", model=tiny), 60).said, re.M)
    assert len(names) >= 15
    outside = each(names, lambda name: Ended(pair, pair.native(*command, name, model=tiny), 60).status)
    inside = each(names, lambda name: Ended(pair, pair.inside(*command, name, model=tiny), 60))
    assert sum(status == 0 for status in outside.values()) >= 10, outside
    assert not {n: e.last(10) for n, e in inside.items() if e.status != outside[n]}
