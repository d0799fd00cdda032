# SPDX-License-Identifier: Apache-2.0
"""Broker, executor and plugin under Debian's llama.cpp, without a machine around them."""
import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

import host as lib

PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
TOKENS = 128
KILLS = 100 if os.environ.get("PILLION_SOAK") else 10


@pytest.fixture
def pair(host):
    host.start_broker()
    return host


def text_of(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def assert_text_of_device_is_native(host, model, prompt):
    command = lib.traced_completion(prompt, TOKENS)
    native = host.run(host.native(*command, model=model))
    inside = host.run(host.inside(*command, model=model))
    assert len(text_of(native)) > TOKENS and text_of(inside)
    lib.assert_on_device(inside.stderr)
    lib.assert_same_text(inside, native, TOKENS)


def test_the_program_sees_one_device_and_what_it_is(pair):
    done = pair.run(pair.inside("llama-completion", "--list-devices"))
    assert re.search(r"Pillion0: .*reference device", done.stdout + done.stderr), done.stderr


def test_the_model_is_placed_on_the_device(pair, tiny):
    done = pair.run(pair.inside(*lib.completion("a", 4, "-v"), model=tiny))
    assert text_of(done)
    lib.assert_on_device(done.stderr)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_of_a_generated_model_is_the_same(pair, small, prompt):
    assert_text_of_device_is_native(pair, small, prompt)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_of_gemma_is_the_same(pair, gemma, prompt):
    assert_text_of_device_is_native(pair, gemma, prompt)


def test_two_programs_share_the_device(pair, small):
    argv = pair.inside(*lib.traced_completion(PROMPTS[0], TOKENS), model=small)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = list(pool.map(pair.run, [argv, argv]))
    for one in done:
        assert text_of(one)
        lib.assert_on_device(one.stderr)
    lib.assert_same_text(*done, TOKENS)
    assert len(pair.executors()) == 1


def lines_of_pillion(done):
    return [line for line in done.stderr.splitlines() if "pillion" in line.lower() and
            "load_backend" not in line]


def test_without_a_broker_the_program_goes_on_and_one_line_says_why(host, tiny):
    command = lib.traced_completion("a", TOKENS)
    inside = host.run(host.inside(*command, model=tiny))
    native = host.run(host.native(*command, model=tiny))
    assert text_of(inside) and text_of(native)
    lib.assert_same_text(inside, native, TOKENS)
    lines = lines_of_pillion(inside)
    assert len(lines) == 1 and "broker.sock" in lines[0], lines


def test_with_its_broker_killed_the_program_goes_on_soon_and_one_line_says_why(pair, tiny):
    argv = pair.inside(*lib.completion("a", 4 + lib.SPARE), model=tiny)
    text_of(pair.run(argv))
    kill_broker(pair)
    with lib.within(4, "a short program without a broker"):
        done = pair.run(argv)
    assert text_of(done)
    lines = lines_of_pillion(done)
    assert len(lines) == 1 and "no broker" in lines[0], lines


def test_an_unknown_ggml_is_refused_in_one_line_and_the_program_goes_on(pair, tiny):
    library, = pathlib.Path(pair.tree, "usr/lib").glob("*/libggml-base.so.0.*")
    own = b"\0%s\0" % library.name.partition(".so.")[2].encode()
    assert library.read_bytes().count(own) == 1
    other = pair.root / library.name
    other.write_bytes(library.read_bytes().replace(own, b"\0%-*b\0" % (len(own) - 2, b"0.28.0")))
    command = lib.traced_completion("a", TOKENS)
    inside = pair.run(lib.bind(pair.inside(*command, model=tiny), other,
                               "/" / library.relative_to(pair.tree)))
    native = pair.run(pair.native(*command, model=tiny))
    assert text_of(inside) and text_of(native)
    lib.assert_same_text(inside, native, TOKENS)
    lines = lines_of_pillion(inside)
    assert len(lines) == 1 and "0.28.0" in lines[0] and "0.25 to 0.27" in lines[0], lines
    assert not pair.executors()


def test_a_wrong_token_gets_no_device(pair, tiny):
    pair.machine("one")
    wrong = pair.root / "wrong"
    wrong.write_text("0" * 64 + "\n")
    done = pair.run(pair.inside(*lib.completion("a", 8), model=tiny, token=wrong))
    assert text_of(done)
    assert "Pillion0" not in done.stderr
    assert re.search(r"pillion.*(token|refuse)", done.stderr), done.stderr[-2000:]


def start_long(host, model, *more, stderr=subprocess.PIPE, **kwargs):
    """A program that would run for a long time, once it has begun to compute."""
    process = host.start(host.inside(*lib.completion("The", 100000, "-c", "4096",
                                                     "--context-shift", *more),
                                     model=model, **kwargs),
                         stdout=subprocess.PIPE, stderr=stderr)
    if not process.stdout.read(200):
        pytest.fail(f"it ended early: {process.stderr and process.stderr.read()[-2000:]}")
    return process


def ends_within(process, seconds):
    with lib.within(seconds, "the end of the program"):
        _, err = process.communicate(timeout=seconds + 20)
    return process.returncode, err.decode(errors="replace")


def test_a_killed_executor_ends_the_program_with_a_failure_status_within_2_s(pair, tiny):
    process = start_long(pair, tiny)
    os.kill(pair.executors()[0], signal.SIGKILL)
    status, err = ends_within(process, 2)
    assert status not in (0, -signal.SIGABRT, 128 + signal.SIGABRT, 128 + signal.SIGSEGV), err
    text_of(pair.run(pair.inside(*lib.completion("a", 8), model=tiny)))
    assert len(pair.executors()) == 1


def test_a_killed_broker_leaves_the_program_running_and_the_next_one_works(pair, tiny):
    process = start_long(pair, tiny)
    executors = lib.children(pair.broker.pid)
    pair.broker.kill()
    pair.broker.wait()
    try:
        # either way is right, but neither a hang nor an abort is
        if process.poll() is None:
            assert process.stdout.read(100) or process.wait(timeout=2) != 0
        process.kill()
        process.wait(timeout=10)
        pair.start_broker()
        text_of(pair.run(pair.inside(*lib.completion("a", 8), model=tiny)))
    finally:
        lib.signal_all(executors)


def crashed(status):
    """What bwrap says of a program that ended by a signal of its own making."""
    return abs(status) % 128 in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)


def kill_executor(host):
    """With the jail around it, which may be all there is of it yet."""
    lib.signal_all(lib.children(host.broker.pid))


def kill_broker(host):
    host.broker.kill()
    host.broker.wait()


@pytest.mark.parametrize("kill", [kill_executor, kill_broker])
def test_killed_at_any_moment_of_a_run_it_harms_no_program(pair, tiny, small, kill):
    argv = pair.inside(*lib.completion("The", 48), model=small)
    text_of(pair.run(argv))  # the second time everything is warm, as it will be
    begin = time.monotonic()
    whole = text_of(pair.run(argv)).strip()
    duration = time.monotonic() - begin
    for delay in (duration * i / KILLS for i in range(KILLS)):
        process = pair.start(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(delay)
        executors = lib.children(pair.broker.pid)
        kill(pair)
        begin = time.monotonic()
        text, err = process.communicate(timeout=60)
        took = time.monotonic() - begin
        print(f"killed after {delay:.2f} s: status {process.returncode} {took:.2f} s later")
        assert not crashed(process.returncode), err
        # what has lost nothing goes on to its end; ggml reports a loss with the next graph, so that
        # the program makes a word of the zeroes that it has read
        assert took < lib.bound(2 if process.returncode else 4 + duration), err
        right = text.strip() if process.returncode == 0 else text.strip().rpartition(" ")[0]
        both = min(len(right), len(whole))  # the last words of any run can be missing, or parts of one
        assert right[:both] == whole[:both]
        lib.wait_for("the executors leave", lambda: not any(map(lib.name_of, executors)))
        pair.restart_broker()  # who dies young over and over would have to wait
        done = pair.run(pair.inside(*lib.completion("a", 4 + lib.SPARE, "-v"), model=tiny))
        assert text_of(done)
        lib.assert_on_device(done.stderr)


def test_a_stopped_client_does_not_stop_another(pair, tiny):
    process = start_long(pair, tiny)
    lib.signal_all(lib.children(process.pid), signal.SIGSTOP)
    text_of(pair.run(pair.inside(*lib.completion("a", 32), model=tiny), timeout=30))
    lib.signal_all(lib.children(process.pid), signal.SIGCONT)
    assert process.stdout.read(100)


def test_a_killed_client_gives_its_memory_back(pair, small):
    def resident():
        return sum(lib.memory_of(pair.executors()[0]))
    text_of(pair.run(pair.inside(*lib.completion("a", 8), model=small)))
    process = start_long(pair, small)
    busy = resident()
    lib.signal_all(lib.children(process.pid))
    lib.wait_for("the executor frees what the client had", lambda: resident() < busy - 12000)


def test_a_model_larger_than_the_quota_fails_as_on_a_small_card(pair, small):
    pair.machine("poor", quota=8 << 20)
    done = pair.run(pair.inside(*lib.completion("a", 8, "-ngl", "99", "-fit", "off"), model=small,
                                machine="poor"))
    assert done.returncode not in (0, -signal.SIGABRT, 128 + signal.SIGABRT), done.stderr[-2000:]
    assert re.search(r"unable to allocate|failed to allocate", done.stderr), done.stderr[-2000:]
    text_of(pair.run(pair.inside(*lib.completion("a", 8), model=small)))


def listed_memory(host, machine):
    """(total, free) MiB of the device, as a program of that machine lists it."""
    done = host.run(host.inside("llama-completion", "--list-devices", machine=machine))
    found = re.search(r"Pillion0: .*\((\d+) MiB, (\d+) MiB free\)", done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    return tuple(map(int, found.groups()))


def test_listed_memory_is_what_the_machine_has_left_of_its_quota(pair, small):
    pair.machine("one", quota=2 << 30)
    pair.machine("other", quota=2 << 30)
    assert listed_memory(pair, "one") == (2048, 2048)
    process = start_long(pair, small, machine="one")
    total, free = listed_memory(pair, "one")
    used = pathlib.Path(small).stat().st_size / (1 << 20)
    assert total == 2048 and free < 2048 - used, (total, free, used)
    assert listed_memory(pair, "other") == (2048, 2048)
    lib.signal_all(lib.children(process.pid))
    lib.wait_for("the machine has all of its quota again",
                 lambda: listed_memory(pair, "one") == (2048, 2048))


def test_garbage_on_the_socket_does_not_reach_anybody_else(pair, tiny):
    import socket
    process = start_long(pair, tiny)
    path = str(pair.gate() / "broker.sock")
    for junk in (b"", b"\0", b"\xff" * 4096, os.urandom(65536)):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(lib.bound(5))
            s.connect(path)
            try:
                s.sendall(junk)
            except OSError:
                pass
    assert process.stdout.read(100)
    assert pair.broker.poll() is None


def test_broker_and_executor_stay_within_40_mib_beyond_the_model(pair, small):
    log = pair.root / "program.log"
    with open(log, "w") as stderr:
        # a batch of 16: all of a compute buffer for 512 is asked for, and never touched
        process = start_long(pair, small, "-ub", "16", "-lv", "4", stderr=stderr)
    sizes = re.findall(r"Pillion0 +(model|KV|compute) buffer size = +([\d.]+) MiB", log.read_text())
    own = {what: float(mib) for what, mib in sizes}
    assert len(sizes) == len(own) == 3, sizes
    pids = [pair.broker.pid, *lib.children(pair.broker.pid)]
    assert {"bwrap", "pillion-exec"} <= set(map(lib.name_of, pids))
    anon, file, shmem = (sum(v) / 1024 for v in zip(*map(lib.memory_of, pids)))
    # of the model's file, which the program has mapped too, nothing is left out of the account
    in_part, in_full = (sum(v) / 1024 for v in zip(*(lib.mapping_of(p, small) for p in pids)))
    process.kill()
    beyond = anon + file + shmem + in_full - in_part - sum(own.values())
    print(f"broker, jail and executor: {beyond:.1f} MiB beyond the model's {own}: anonymous "
          f"{anon:.1f} MiB, files {file:.1f} MiB, shared {shmem:.1f} MiB, of the model's file "
          f"{in_full:.1f} MiB")
    assert beyond < 40
