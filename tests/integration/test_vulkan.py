# SPDX-License-Identifier: Apache-2.0
"""A second device through another API: Mesa's software Vulkan.  Slow, but a real GPU API."""
import re

import pytest

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
