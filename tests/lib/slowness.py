# SPDX-License-Identifier: Apache-2.0
"""How much slower this machine is now than a quiet one, for bounds that are seconds.

Every wait of the tests has a bound, and so have the promises that are tested ("within 2 s").  The
numbers in the tests are those of a quiet machine with two cores; other work on the same cores, or a
host that lends them to others, makes everything take longer.  So each bound grows with slowness(): a
short probe of the three things that get slow (computing, starting programs, waking up from sleep),
taken when somebody asks and no answer of the last seconds is there.  What counts is the slowest of
the last probes: load comes and goes, and a bound must hold for both.

PILLION_SLOWNESS=N in the environment is taken instead of a probe.  tests/run gives it to programs in
C, which read it with tests/lib/bound.h.
"""
import collections
import os
import subprocess
import time

MOST = 6        # beyond, a bound would be none
FRESH = 10      # seconds for which a probe is believed
QUIET = (0.024, 0.004, 0.0115)  # seconds that the parts of a probe take on a quiet machine

probes = collections.deque(maxlen=4)  # (when, factor)


def compute():
    n = 0
    for i in range(600000):
        n += i * i


def start_programs():
    for _ in range(5):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def sleep_briefly():
    for _ in range(10):
        time.sleep(0.001)


def seconds_of(function):
    start = time.monotonic()
    function()
    return time.monotonic() - start


def factor(seconds, quiet=QUIET):
    """The largest of what each part of a probe took, in parts of what it takes when it is quiet."""
    return limited(max(took / usual for took, usual in zip(seconds, quiet)))


def limited(times):
    return min(max(times, 1.0), float(MOST))


def note(times):
    """Somebody has measured that factor, now."""
    probes.append((time.monotonic(), times))


def slowness():
    """Between 1 (quiet) and MOST."""
    told = os.environ.get("PILLION_SLOWNESS")
    if told:
        return limited(float(told))
    if not probes or time.monotonic() - probes[-1][0] > FRESH:
        note(factor(map(seconds_of, (compute, start_programs, sleep_briefly))))
    return max(times for _, times in probes)


def bound(seconds):
    """@seconds of a quiet machine, here and now."""
    return seconds * slowness()


def said(seconds):
    """The same, for a message."""
    return f"{bound(seconds):.1f} s ({seconds} s on a quiet machine, {slowness():.1f} times here)"


def wait_for(what, condition, timeout=10, pause=0.02):
    """Waits until condition() holds and returns what it gave.  The bound grows while it waits, should
    the machine get slower."""
    start = time.monotonic()
    while not (got := condition()):
        waited = time.monotonic() - start
        if waited > timeout and waited > bound(timeout):
            raise AssertionError(f"{what}: not within {said(timeout)}")
        time.sleep(pause)
    return got


class Promise:
    """with within(2): ... -- what is done in there takes no longer than 2 s of a quiet machine."""

    def __init__(self, seconds, what="this"):
        self.seconds, self.what = seconds, what

    def __enter__(self):
        self.start = time.monotonic()
        return self

    def __exit__(self, kind, *_):
        self.took = time.monotonic() - self.start
        if kind is None and self.took > self.seconds:
            assert self.took < bound(self.seconds), \
                f"{self.what} took {self.took:.2f} s, more than {said(self.seconds)}"


within = Promise


def scale_subprocesses():
    """Makes each timeout of subprocess one of a quiet machine: they are there to end what hangs."""
    run, wait = subprocess.Popen.communicate, subprocess.Popen.wait

    def communicate(self, input=None, timeout=None):  # noqa: A002  (subprocess's name)
        self.bound_is_grown = True  # it calls wait() with what is left
        try:
            return run(self, input, timeout and bound(timeout))
        finally:
            self.bound_is_grown = False

    def wait_(self, timeout=None):
        return wait(self, timeout if getattr(self, "bound_is_grown", False) else timeout and bound(timeout))

    subprocess.Popen.communicate, subprocess.Popen.wait = communicate, wait_
