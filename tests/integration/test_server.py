# SPDX-License-Identifier: Apache-2.0
"""llama-server with four requests at once.

Which requests share a batch depends on when they arrive, and rounding depends on the batch, so that
native itself varies from run to run.  Four prompts in one HTTP request always share their batches:
those texts must be identical.  Four requests that race are compared with many native runs: a text
that equals one of them is right; else the log-probability of its first token must be within 1e-3 of
what native gave, or within native's own spread where that is wider (it is printed).  What native
has not shown yet it gets more time to show, with a bound."""
import concurrent.futures
import random
import time

import pytest

import host as lib

PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
TOKENS = 64
CLOSE = 1e-3
MORE_ROUNDS = 12
DELAYS = [0, 0, 0.005, 0.02]  # seconds


def racing(server, n=TOKENS):
    def ask(i):
        time.sleep(DELAYS[random.randrange(len(DELAYS))])
        return server.complete(PROMPTS[i], n)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, range(4)))


def short_races(server):
    return [racing(server, 2) for _ in range(15)]


def alone(server):
    return [server.complete(p, TOKENS) for p in PROMPTS]


def together(server):
    return server.complete(PROMPTS, TOKENS)


def answers(host, side, model, *ways):
    server = lib.Server(host, side, model, "-np", "4", "-c", "4096")
    try:
        return [way(server) for way in ways]
    finally:
        server.stop()


def first_logprob(answer):
    return answer["completion_probabilities"][0]["logprob"]


@pytest.fixture(params=["small", "gemma"])
def model(request):
    return request.getfixturevalue(request.param)


def test_four_prompts_that_share_their_batches_answer_identically(host, model):
    host.start_broker()
    native, = answers(host, "native", model, together)
    inside, = answers(host, "inside", model, together)
    assert len(native) == 4 and all(a["tokens_predicted"] == TOKENS for a in native)
    assert [a["content"] for a in inside] == [a["content"] for a in native]


def missing(inside, texts, known):
    """The prompts whose answer is none that native gives, with how far off it is."""
    off = {}
    for i, prompt in enumerate(PROMPTS):
        logprobs = [first_logprob(run[i]) for run in known]
        spread = max(logprobs) - min(logprobs)
        distance = min(abs(first_logprob(inside[i]) - k) for k in logprobs)
        same = inside[i]["content"] in texts[i]
        print(f"{prompt!r}: {len(texts[i])} native texts, {len(known)} native runs, spread "
              f"{spread:.5f}, off {distance:.5f}, {'same' if same else 'another'} text")
        if not same and distance > max(CLOSE, spread):
            off[prompt] = distance
    return off


def test_four_racing_requests_answer_as_native_does(host, model):
    host.start_broker()
    inside, = answers(host, "inside", model, racing)
    assert all(a["tokens_predicted"] == TOKENS for a in inside)
    server = lib.Server(host, "native", model, "-np", "4", "-c", "4096")
    try:
        runs = [alone(server), racing(server), together(server)]
        texts = [{run[i]["content"] for run in runs} for i in range(len(PROMPTS))]
        runs += short_races(server)
        for _ in range(MORE_ROUNDS):
            off = missing(inside, texts, runs)
            if not off:
                break
            runs += short_races(server)
    finally:
        server.stop()
    assert not off
