# SPDX-License-Identifier: Apache-2.0
"""A program with ggml 0.25 (whose tables are of the second generation) or 0.26 (of the third, as
Debian's), statically linked, on an executor with ggml 0.27.

A static program has its CPU back end from the start and loads plugins only when it is asked for a
device or a list of them; so this one is told the device."""
import pytest

import host as lib

PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
TOKENS = 64


def argv_with(argv, program):
    argv = lib.bind(argv, program, "/tmp/llama-completion")
    argv[argv.index("--") + 1] = "/tmp/llama-completion"
    return argv


@pytest.mark.parametrize("prompt", PROMPTS)
def test_text_is_as_with_its_own_ggml(host, other_ggml, tiny, prompt):
    host.start_broker()
    command = lib.traced_completion(prompt, TOKENS)
    native = host.run(argv_with(host.native(*command, model=tiny), other_ggml))
    inside = host.run(argv_with(host.inside(*command, "-dev", "Pillion0", model=tiny), other_ggml))
    assert native.returncode == 0, native.stderr[-2000:]
    assert inside.returncode == 0, inside.stderr[-2000:]
    assert len(native.stdout) > TOKENS
    lib.assert_on_device(inside.stderr)
    lib.assert_same_text(inside, native, TOKENS)
