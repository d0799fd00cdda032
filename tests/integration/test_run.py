# SPDX-License-Identifier: Apache-2.0
"""tests/run itself: what it keeps never makes wrong things right, and what it stops it names."""
import importlib.machinery
import importlib.util
import shutil
import subprocess
import threading
import time

import pytest

from host import ROOT
from verdicts import Verdicts


@pytest.fixture(scope="module")
def run():
    loader = importlib.machinery.SourceFileLoader("tests_run", str(ROOT / "tests" / "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tests_run", loader))
    loader.exec_module(module)
    return module


class Checked:
    """A source file with a header and settings, and a checker that says no to the word BAD."""

    def __init__(self, root):
        self.root = root
        self.source, self.header, self.settings = root / "a.c", root / "a.h", root / "settings"
        self.checker = root / "checker"
        self.source.write_text('#include "a.h"\nint a = A;\n')
        self.header.write_text("#define A 1\n")
        self.settings.write_text("strict\n")
        shutil.copy("/bin/true", self.checker)
        self.argv = ["gcc", "-std=c17"]
        self.options = ["--all"]

    def look(self):
        """Returns (right, whether the checker had to look)."""
        v = Verdicts(self.root / "kept", [self.checker], [self.settings])
        key = v.key(self.argv, self.source, self.root, self.options)
        if v.right(key):
            return True, False
        right = "BAD" not in self.source.read_text() + self.header.read_text()
        if right:
            v.keep(key)
        return right, True


@pytest.fixture
def checked(tmp_path):
    c = Checked(tmp_path)
    assert c.look() == (True, True)
    assert c.look() == (True, False)  # the same again
    return c


def test_a_wrong_file_stays_wrong_and_is_looked_at_each_time(checked):
    for path in (checked.source, checked.header):  # in a comment, which only the checker sees
        before = path.read_text()
        path.write_text(f"{before}/* BAD */\n")
        assert [checked.look() for _ in range(2)] == [(False, True)] * 2
        path.write_text(before)
        assert checked.look() == (True, False)


def change_settings(checked):
    checked.settings.write_text("lax\n")


def change_checker(checked):
    shutil.copy("/bin/false", checked.checker)


def change_checkers_options(checked):
    checked.options.append("--more")


def change_macro(checked):
    checked.argv.append("-DMORE")


def change_comment_of_header(checked):
    checked.header.write_text("#define A 1 /* NOLINT */\n")


def put_other_header_first(checked):
    (checked.root / "first").mkdir()
    (checked.root / "first" / "a.h").write_text("#define A 1\n")
    checked.source.write_text(checked.source.read_text().replace('"a.h"', "<a.h>"))
    checked.argv += ["-I", "first", "-I", "."]


@pytest.mark.parametrize("change", [change_settings, change_checker, change_checkers_options, change_macro,
                                    change_comment_of_header, put_other_header_first])
def test_what_the_checker_might_see_makes_it_look_again(checked, change):
    change(checked)
    assert checked.look() == (True, True)
    assert checked.look() == (True, False)


def test_nothing_is_kept_of_what_cannot_be_preprocessed(checked):
    checked.header.unlink()
    v = Verdicts(checked.root / "kept", [checked.checker])
    assert v.key(checked.argv, checked.source, checked.root, []) is None
    v.keep(None)
    assert not v.right(None)


def test_it_can_be_switched_off(checked, monkeypatch):
    monkeypatch.setenv("PILLION_NO_VERDICTS", "1")
    assert checked.look() == (True, True)


@pytest.fixture
def stage(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "LOGS", tmp_path)
    return run.Stage("some")


SLEEPERS = """
import time
def test_quick(): pass
def test_that_fails(): assert False
def test_endless(): time.sleep(600)
def test_never_reached(): pass
"""


def test_a_stage_that_takes_too_long_names_the_test_and_reports_the_others(run, stage, tmp_path, monkeypatch):
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_x.py").write_text(SLEEPERS)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PILLION_SLOWNESS", "1")
    run.pytest(stage, ["tests"], 5)
    said = (tmp_path / "some.log").read_text()
    assert "FAILED some: stopped after 5 s; the test that ran: tests/test_x.py::test_endless\n" in said
    assert (stage.passed, stage.failed) == (1, 2), said
    assert run.running == set()


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(run, stage, monkeypatch):
    monkeypatch.setenv("PILLION_SLOWNESS", "1")
    status, output = stage.run(["sh", "-c", "echo begun; sleep 4711 & wait"], timeout=1)
    assert status == -1 and output == "begun\n\nno end after 1 s"
    assert subprocess.run(["pgrep", "-f", "^sleep 4711"], check=False, capture_output=True).returncode == 1


def test_a_stage_that_breaks_or_comes_too_late_has_failed(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "LOGS", tmp_path)
    monkeypatch.setitem(run.EVERY, "broken", lambda s: 1 / 0)
    assert run.run_stage("broken").counts == (0, 1, 0)
    monkeypatch.setattr(run, "MINUTES", 0)
    assert run.run_stage("format").counts == (0, 1, 0)
    assert "not run" in capsys.readouterr().out


def test_what_measures_speed_runs_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "LOGS", tmp_path)
    monkeypatch.setattr(run, "NEEDS_MIB", 0)
    began, order = threading.Event(), []

    def kvm(s):
        began.set()
        order.append("kvm")
        time.sleep(0.3)
        order.append("kvm ends")
        s.ok()

    def note(s):
        assert s.name == "build" or began.wait(5)
        order.append(s.name)
        s.ok()

    for name in run.STAGES:
        monkeypatch.setitem(run.EVERY, name, kvm if name == "kvm" else note)
    done = run.run_stages(list(run.STAGES))
    assert [d.name for d in done] == list(run.STAGES) and all(d.counts == (1, 0, 0) for d in done)
    assert order[:2] == ["build", "kvm"]
    assert order.index("unit") < order.index("kvm ends") < min(map(order.index, run.ALONE))
