# SPDX-License-Identifier: Apache-2.0
"""A second device through another API: Mesa's software Vulkan.  Slow, but a real GPU API."""
import re

import pytest

import backend_ops as ops
import extra
import host as lib

LAVAPIPE = {"GGML_VK_VISIBLE_DEVICES": "0"}
PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
TOKENS = 128


@pytest.fixture
def vulkan(host):
    if not lib.installed_kit().exists():
        pytest.skip("the runtime kit, which has the Vulkan drivers, is not installed")
    host.configure("[accel]\nreference = always\nenv = GGML_VK_VISIBLE_DEVICES=0\n"
                   "env = OMP_WAIT_POLICY=passive\n")
    host.start_broker()
    return host


def device_inside(host):
    done = host.run(host.inside("llama-completion", "--list-devices"))
    found = re.search(r"(Pillion\d+): (?!reference device).*llvmpipe", done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    return found.group(1)


def test_both_devices_are_listed_and_only_the_cpu_is_called_reference(vulkan):
    done = vulkan.run(vulkan.inside("llama-completion", "--list-devices"))
    names = re.findall(r"Pillion\d+: (.*)", done.stdout)
    assert len(names) == 2
    assert sorted("reference device" in n for n in names) == [False, True]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_text_is_identical_to_vulkan_outside(vulkan, tiny, prompt):
    device = device_inside(vulkan)
    command = lib.traced_completion(prompt, TOKENS)
    native = vulkan.run(vulkan.native_on_kit(command[0], *command[1:], "-dev", "Vulkan0",
                                             model=tiny, env=LAVAPIPE), timeout=300)
    inside = vulkan.run(vulkan.inside(*command, "-dev", device, model=tiny), timeout=300)
    assert native.returncode == 0, native.stderr[-2000:]
    assert inside.returncode == 0, inside.stderr[-2000:]
    assert len(native.stdout) > TOKENS
    lib.assert_on_device(native.stderr, "Vulkan0")
    lib.assert_on_device(inside.stderr, device)
    lib.assert_same_text(inside, native, TOKENS)


def test_a_model_on_both_devices_is_the_same_as_on_cpu_and_vulkan_outside(vulkan, tiny):
    """Two of its four layers on the reference device, the others and the output on Vulkan."""
    device = device_inside(vulkan)
    reference = "Pillion1" if device == "Pillion0" else "Pillion0"
    command = lib.traced_completion(PROMPTS[0], TOKENS)
    native = vulkan.run(vulkan.native_on_kit(command[0], *command[1:], "-dev", "Vulkan0", "-ngl",
                                             "3", model=tiny, env=LAVAPIPE), timeout=300)
    inside = vulkan.run(vulkan.inside(*command, "-dev", f"{reference},{device}", "-ts", "2,3",
                                      model=tiny), timeout=300)
    assert native.returncode == 0, native.stderr[-2000:]
    assert inside.returncode == 0, inside.stderr[-2000:]
    lib.assert_on_device(inside.stderr, reference)
    lib.assert_on_device(inside.stderr, device)
    lib.assert_same_text(inside, native, TOKENS)


# ---- upstream's tests, a sample that fits the time

# Each has few cases: a shader takes lavapipe about a second to compile.
OPERATIONS = ["ARGMAX", "CLAMP", "LEAKY_RELU", "SCALE"]
# The rules are of what ggml's CPU back end computes; these have cases that Vulkan alone takes.
VULKAN_ALONE = {"MUL_MAT", "SOFT_MAX_BACK"}


def on_both(vulkan, *command):
    """(inside, native on the kit's drivers) of a program of upstream's tests; `{}` is the device."""
    extra.add_to(vulkan)
    libs = extra.environment(vulkan.tree)["LD_LIBRARY_PATH"]
    tree = extra.environment(vulkan.tree, "/tmp/tree")["LD_LIBRARY_PATH"]
    fill = lambda name: [word.replace("{}", name) for word in command]
    native = vulkan.native_on_kit("env", *fill("Vulkan0"), model=None,
                                  env={**LAVAPIPE, "LD_LIBRARY_PATH": f"{tree}:{libs}"})
    device = device_inside(vulkan)
    return [vulkan.run(argv, timeout=300) for argv in (vulkan.inside(*fill(device)), native)]


def test_a_sample_of_operations_fails_and_is_refused_where_it_is_outside(vulkan):
    inside, native = on_both(vulkan, "test-backend-ops", "support", "-b", "{}", "--output", "csv")
    taken = [ops.supported(done.stdout) for done in (inside, native)]
    assert len(taken[1]) > 10000 and taken[0].keys() == taken[1].keys(), native.stderr[-2000:]
    sample = [case for case in taken[1] if case[0] in OPERATIONS]
    refused = {op for (op, params), there in taken[1].items() if there and not taken[0][op, params]}
    assert refused - ops.documented().keys() - VULKAN_ALONE == set()
    done = on_both(vulkan, "test-backend-ops", "test", "-b", "{}", "-o", ",".join(OPERATIONS), "-p",
                   ops.without(ops.huge(sample)))
    counts = [re.search(r"(\d+)/(\d+) tests passed", d.stdout) for d in done]
    assert all(counts), [d.stdout[-1000:] + d.stderr[-1000:] for d in done]
    failed = [{line.strip() for line in d.stdout.splitlines() if "FAIL" in line and "(" in line} for d in done]
    assert int(counts[1][2]) > 10 and failed[0] == failed[1]
