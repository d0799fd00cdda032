# SPDX-License-Identifier: Apache-2.0
"""The bounds of the tests themselves: tests/lib/slowness.py."""
import subprocess
import time

import pytest

import slowness


@pytest.fixture
def slow(monkeypatch):
    def be(times):
        monkeypatch.setenv("PILLION_SLOWNESS", str(times))
    return be


def test_it_is_measured_and_has_limits(monkeypatch):
    monkeypatch.delenv("PILLION_SLOWNESS", raising=False)
    monkeypatch.setattr(slowness, "probes", slowness.collections.deque(maxlen=4))
    assert 1 <= slowness.slowness() <= slowness.MOST
    assert len(slowness.probes) == 1
    slowness.slowness()
    assert len(slowness.probes) == 1  # which is believed for a while
    assert slowness.factor((0.1, 0.2, 0.6), (0.1, 0.1, 0.2)) == pytest.approx(3)
    assert slowness.factor((0.1, 0.1, 0.1), (1, 1, 1)) == 1
    assert slowness.factor((100, 0.1, 0.1), (1, 1, 1)) == slowness.MOST


def test_what_was_slow_a_moment_ago_counts(monkeypatch):
    monkeypatch.delenv("PILLION_SLOWNESS", raising=False)
    monkeypatch.setattr(slowness, "probes", slowness.collections.deque(maxlen=4))
    slowness.note(4.0)
    slowness.note(1.0)
    assert slowness.slowness() == 4


def test_a_wait_grows_and_says_so(slow):
    slow(3)
    start = time.monotonic()
    slowness.wait_for("it", lambda: time.monotonic() - start > 0.2, timeout=0.1)
    with pytest.raises(AssertionError, match=r"it: not within 0\.2 s \(0\.05 s on a quiet machine, 4\.0 times here\)"):
        slow(4)
        slowness.wait_for("it", lambda: False, timeout=0.05)


def test_a_wait_gives_what_it_waited_for():
    assert slowness.wait_for("it", lambda: "this") == "this"


def test_a_promise_grows_and_is_held(slow):
    slow(3)
    with slowness.within(0.05):
        time.sleep(0.1)
    with pytest.raises(AssertionError, match=r"that took 0\.[23]\d s, more than 0\.2 s \(0\.05 s on a quiet"):
        with slowness.within(0.05, "that"):
            time.sleep(0.2)
    with pytest.raises(ZeroDivisionError):  # what went wrong in it comes first
        with slowness.within(0):
            _ = 1 / 0


def test_timeouts_of_programs_grow(slow):
    slow(3)
    assert subprocess.run(["sleep", "0.3"], timeout=0.2).returncode == 0
    p = subprocess.Popen(["sleep", "0.3"])
    assert p.wait(timeout=0.2) == 0
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["sleep", "10"], timeout=0.1, capture_output=True)
    assert 0.3 <= time.monotonic() - start < 5
