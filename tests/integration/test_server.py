# SPDX-License-Identifier: Apache-2.0
"""llama-server with four requests at once.

Which requests share a batch depends on when they arrive, and rounding depends on the batch, so that
native itself varies from run to run.  Four prompts in one HTTP request always share their batches:
those texts must be identical.  Four requests that race are compared with several native runs, alone
and racing: a text that equals one of them is right; else its log-probabilities must follow one to
within 1e-3 up to the first token where they part, where both tokens must have been that close."""
import concurrent.futures

import pytest

import host as lib

PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
TOKENS = 64
CLOSE = 1e-3


def racing(server):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda p: server.complete(p, TOKENS, n_probs=2), PROMPTS))


def alone(server):
    return [server.complete(p, TOKENS, n_probs=2) for p in PROMPTS]


def together(server):
    return server.complete(PROMPTS, TOKENS)


def answers(host, side, model, *ways):
    server = lib.Server(host, side, model, "-np", "4", "-c", "4096")
    try:
        return [way(server) for way in ways]
    finally:
        server.stop()


def steps(answer):
    return [(p["id"], p["logprob"], {t["id"]: t["logprob"] for t in p["top_logprobs"]})
            for p in answer["completion_probabilities"]]


def agrees(inside, native):
    """None, or what is different."""
    for i, (a, b) in enumerate(zip(steps(inside), steps(native))):
        if a[0] == b[0]:
            if abs(a[1] - b[1]) > CLOSE:
                return f"token {i}: log-probability {a[1]} inside, {b[1]} native"
            continue
        gap = abs(b[1] - b[2].get(a[0], -1e9))
        return None if gap < 2 * CLOSE else f"token {i}: {a[0]} inside, {b[0]} native, {gap} apart"
    return None


@pytest.fixture(params=["small", "gemma"])
def model(request):
    return request.getfixturevalue(request.param)


def test_four_prompts_that_share_their_batches_answer_identically(host, model):
    host.start_broker()
    native, = answers(host, "native", model, together)
    inside, = answers(host, "inside", model, together)
    assert len(native) == 4 and all(a["tokens_predicted"] == TOKENS for a in native)
    assert [a["content"] for a in inside] == [a["content"] for a in native]


def test_four_racing_requests_answer_as_native_does(host, model):
    host.start_broker()
    natives = answers(host, "native", model, alone, racing, racing, together)
    inside, = answers(host, "inside", model, racing)
    for i, prompt in enumerate(PROMPTS):
        texts = {run[i]["content"] for run in natives}
        print(f"{prompt!r}: {len(texts)} native texts")
        assert inside[i]["tokens_predicted"] == TOKENS
        if inside[i]["content"] not in texts:
            why = [agrees(inside[i], run[i]) for run in natives]
            assert None in why, f"{prompt!r}: {why}"
