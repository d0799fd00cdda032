# SPDX-License-Identifier: Apache-2.0
"""Language models in a real machine: the distro `debian`, entered as a user enters it, with no device
option and nothing set by hand.  Native is the same binary of the same tree on the host's kernel."""
import concurrent.futures
import ctypes
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import host as lib

PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
TOKENS = 128


class Machine:
    """The installed distro, with runtime folders of this test run."""

    def __init__(self, host, data):
        self.host = host
        self.env = {**host.env, "XDG_DATA_HOME": str(data)}
        self.models = host.root / "cache" / "pillion" / "models"
        self.models.mkdir(parents=True, exist_ok=True)

    def pillion(self, *args, timeout=180, **kwargs):
        return subprocess.run([str(lib.PILLION), *map(str, args)], env=self.env, text=True,
                              stdin=kwargs.pop("stdin", subprocess.DEVNULL), capture_output=True,
                              timeout=timeout, errors="replace", **kwargs)

    def share(self, model):
        """Puts a model where machines see it; returns its path inside."""
        target = self.models / model.name
        if not target.exists():
            try:
                os.link(model, target)
            except OSError:
                shutil.copyfile(model, target)
        return f"/mnt/models/{model.name}"

    def completion(self, model, prompt):
        argv = lib.traced_completion(prompt, TOKENS)
        argv[argv.index("-m") + 1] = self.share(model)
        return ["-d", "debian", "-e", *argv]


def stop_broker(host):
    """It was started on demand, so it is nobody's child; its settings are read at its start."""
    try:
        pid = int((host.runtime / "broker.pid").read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    lib.wait_for("the broker ends", lambda: not lib.name_of(pid).startswith("pillion-broker"))


@pytest.fixture(scope="module")
def machine():
    data = lib.installed_data()
    host = lib.Host(data / "pillion" / "distros" / "debian" / "rootfs")
    m = Machine(host, data)
    yield m
    m.pillion("--shutdown")
    stop_broker(host)
    host.close()


def test_a_program_inside_sees_the_device_with_nothing_set(machine):
    done = machine.pillion("-d", "debian", "-e", "llama-completion", "--list-devices")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Pillion0: reference device", done.stdout), done.stdout + done.stderr


def assert_text_inside_is_native(machine, model, prompt):
    native = machine.host.run(machine.host.native(*lib.traced_completion(prompt, TOKENS),
                                                  model=model))
    inside = machine.pillion(*machine.completion(model, prompt))
    assert native.returncode == 0, native.stderr[-2000:]
    assert inside.returncode == 0, inside.stderr[-2000:]
    assert len(native.stdout) > TOKENS
    lib.assert_on_device(inside.stderr)
    lib.assert_same_text(inside, native, TOKENS)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_inside_is_native_text(machine, small, prompt):
    assert_text_inside_is_native(machine, small, prompt)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_of_gemma_inside_is_native_text(machine, gemma, prompt):
    assert_text_inside_is_native(machine, gemma, prompt)


def test_two_machines_worth_of_programs_at_once(machine, small):
    argv = machine.completion(small, PROMPTS[0])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: machine.pillion(*argv), range(2)))
    for one in done:
        assert one.returncode == 0, one.stderr[-2000:]
        lib.assert_on_device(one.stderr)
    lib.assert_same_text(*done, TOKENS)


@pytest.fixture
def inherited(machine):
    """What programs leave without waiting for it becomes this process's, for the time of a test."""
    assert machine.pillion("-d", "debian", "-e", "llama-bench", "--list-devices").returncode == 0  # the broker is there
    set_subreaper = functools.partial(ctypes.CDLL(None, use_errno=True).prctl, 36)  # PR_SET_CHILD_SUBREAPER
    assert set_subreaper(1) == 0

    def ended():
        """The names of those that have ended."""
        listed = subprocess.run(["ps", "-o", "stat=,comm=", "--ppid", str(os.getpid())], stdout=subprocess.PIPE,
                                text=True, check=False).stdout.splitlines()
        return [line.split()[1] for line in listed if line.startswith("Z")]
    yield ended
    set_subreaper(0)


def test_bench_waits_for_all_that_ran_outside(machine, tiny, inherited):
    """What it did not wait for would count as the CPU time of others, and a quiet host as a busy one."""
    machine.share(tiny)
    done = machine.pillion("bench", "-m", tiny, "-d", "debian", "-p", "8", "-n", "4", "-r", "1", "--even-if-busy",
                           timeout=300)
    assert done.returncode == 0, done.stderr
    assert not inherited()


def test_bench_measures_both_sides_and_leaves_nothing(machine, small, tmp_path):
    machine.share(small)
    plot = tmp_path / "plot.png"
    done = machine.pillion("bench", "-m", small, "-d", "debian", "-p", "32", "-n", "16", "-r", "2",
                           "--json", "--plot", plot, "--even-if-busy", timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["device"] == {"name": "CPU", "reference": True}
    assert report["machine"] == {"name": "debian", "backend": "ns"}
    assert [t["name"] for t in report["tests"]] == ["pp32", "tg16"]
    for test in report["tests"]:
        assert len(test["native"]) == len(test["inside"]) == 2
        assert test["ratio"]["min"] <= test["ratio"]["median"] <= test["ratio"]["max"]
    assert report["load_s"]["native"] > 0 and report["load_s"]["inside"] > 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
    left = machine.pillion("-d", "debian", "-e", "ls", "/var/tmp")
    assert "pillion-bench" not in left.stdout


def test_bench_fails_when_inside_falls_back_to_its_cpu(machine, tiny):
    """Without the plugin llama-bench goes on with the CPU that the reference device is: ratio 1."""
    machine.share(tiny)
    root = ("-d", "debian", "-u", "root", "--cd", "/", "-e")
    made = machine.pillion(*root, "sh", "-c", "printf '[gpu]\\nenabled=false\\n' >/etc/wsl.conf")
    assert made.returncode == 0, made.stderr
    try:
        machine.pillion("--terminate", "debian")
        done = machine.pillion("bench", "-m", tiny, "-d", "debian", "-p", "8", "-n", "4", "-r", "1")
        assert done.returncode == 1 and not done.stdout, done.stdout
        why = done.stderr.splitlines()
        assert "inside 'debian': llama-bench did not use pillion's device" in done.stderr
        assert "should include Pillion, and are: CPU" in done.stderr
        assert why[-1].startswith("hint: ") and "pillion --status" in why[-1]
    finally:
        machine.pillion(*root, "rm", "-f", "/etc/wsl.conf")
        machine.pillion("--terminate", "debian")


@pytest.mark.parametrize("word,other,why", [
    ("backends", "Pillion", "should not include Pillion, and are: Pillion"),
    ("gpu_info", "A card", "should have used the host's CPU, as the device inside does, and used: A card"),
])
def test_bench_fails_when_native_is_not_native(machine, tiny, word, other, why):
    """A program in front of llama-bench says what that would say with the plugin or a card outside."""
    wrapper = "/usr/local/bin/llama-bench"
    text = f"""#!/bin/sh\n/usr/bin/llama-bench "$@" | sed 's/"{word}": "[^"]*"/"{word}": "{other}"/'\n"""
    root = ("-d", "debian", "-u", "root", "--cd", "/", "-e")
    made = machine.pillion(*root, "sh", "-c", f'printf %s "$0" >{wrapper}; chmod 755 {wrapper}', text)
    assert made.returncode == 0, made.stderr
    try:
        done = machine.pillion("bench", "-m", tiny, "-d", "debian", "-p", "8", "-n", "4", "-r", "1")
        assert done.returncode == 1 and not done.stdout, done.stdout
        assert "native: llama-bench " in done.stderr and why in done.stderr
    finally:
        machine.pillion(*root, "rm", "-f", wrapper)


@pytest.fixture
def busy_host():
    """Something else on every processor."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


def test_bench_on_a_busy_host_gives_no_verdict(machine, tiny, busy_host):
    machine.share(tiny)
    bench = ("bench", "-m", tiny, "-d", "debian", "-p", "32", "-n", "32", "-r", "1")
    done = machine.pillion(*bench, timeout=300)
    assert done.returncode == 3, done.stderr
    assert re.search(r"not measured: the machine was busy, [1-9]\d* % of its CPU time went elsewhere", done.stdout)
    assert "verdict" not in done.stdout and "RATIO" not in done.stdout
    done = machine.pillion(*bench, "--json", timeout=300)
    assert done.returncode == 3 and json.loads(done.stdout)["host"]["busy"] is True
    done = machine.pillion(*bench, "--even-if-busy", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "verdict: none: the machine was busy in 2 of the rounds" in done.stdout and "tg32" in done.stdout


def test_bench_interrupted_leaves_nothing(machine, small):
    process = subprocess.Popen([str(lib.PILLION), "bench", "-m", str(small), "-d", "debian"],
                               env=machine.env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "speed, inside" not in (line := process.stderr.readline()):
        assert line, "it ended early"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "interrupted" in err
    left = machine.pillion("-d", "debian", "-e", "ls", "/var/tmp")
    assert "pillion-bench" not in left.stdout


@pytest.mark.parametrize("args,why", [
    (["-m", "/no/such.gguf"], "No such file"),
    (["-m", "/dev/null", "-d", "nobody"], "There is no distribution with the supplied name."),
    (["-m", "/dev/null", "--device", "Moon0"], "no device is called 'Moon0'"),
    (["-m", "/dev/null", "-r", "0"], "not a number from 1 to 64"),
    ([], "no model given"),
])
def test_bench_says_what_is_wrong(machine, args, why):
    done = machine.pillion("bench", *args)
    assert done.returncode == 1 and why in done.stderr


def test_bench_of_something_that_is_no_model_quotes_llama_bench(machine, tmp_path):
    (tmp_path / "no.gguf").write_text("GGUF and nothing more")
    done = machine.pillion("bench", "-m", tmp_path / "no.gguf", "-r", "1")
    assert done.returncode == 1 and "native: " in done.stderr and "exit status" in done.stderr


def test_bench_measures_a_gpu_api_on_the_drivers_of_the_kit(machine, tiny):
    """Software Vulkan; its figures mean nothing, that both sides use it does."""
    machine.pillion("--shutdown")
    machine.host.configure("[accel]\nreference = always\nenv = GGML_VK_VISIBLE_DEVICES=0\n")
    stop_broker(machine.host)
    try:
        done = machine.pillion("bench", "-m", tiny, "--device", "Vulkan0", "-p", "8", "-n", "4",
                               "-r", "1", "--json", "--even-if-busy", timeout=300)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["device"] == {"name": "Vulkan0", "reference": False}
    finally:
        machine.pillion("--shutdown")
        machine.host.configure("")
        stop_broker(machine.host)
