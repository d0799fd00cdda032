# SPDX-License-Identifier: Apache-2.0
"""llama-server with four requests at once.

Which requests share a batch depends on when they arrive, and rounding depends on the batch, so that
native itself varies from run to run.  Four prompts in one HTTP request always share their batches:
those answers must be identical.  Four requests that race are compared with many native runs, token
by token up to the first place where native says different things, or the device says another: there
and before, the log-probability of the device's token must be within 1e-3 of what native gives that
token, or within native's own spread where that is wider (it is printed).  What native has not shown
yet it gets more time to show, with a bound."""
import concurrent.futures
import random
import time

import pytest

import host as lib

PROMPTS = ["The old car", "Once upon a time", "2 + 2 =", "Dear Sir or Madam,"]
TOKENS = 128
TOP = 5  # tokens whose log-probability is asked for
CLOSE = 1e-3
MORE_ROUNDS = 8
DELAYS = [0, 0, 0.005, 0.02]  # seconds


def racing(server, n=TOKENS):
    def ask(i):
        time.sleep(DELAYS[random.randrange(len(DELAYS))])
        return server.complete(PROMPTS[i], n, n_probs=TOP)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, range(4)))


def short_races(server):
    return [racing(server, 2) for _ in range(15)]


def alone(server):
    return [server.complete(p, TOKENS, n_probs=TOP) for p in PROMPTS]


def together(server):
    return server.complete(PROMPTS, TOKENS, n_probs=TOP)


def steps(answer):
    return answer["completion_probabilities"]


def native_server(host, model):
    return lib.Server(host, "native", model, "-np", "4", "-c", "4096")


def answer_inside(host, model, way):
    server = lib.Server(host, "inside", model, "-np", "4", "-c", "4096")
    try:
        answers = way(server)
        lib.assert_on_device(server.said())
    finally:
        server.stop()
    assert [len(steps(a)) for a in answers] == [TOKENS] * 4
    return answers


@pytest.fixture(params=["small", "gemma"])
def model(request):
    return request.getfixturevalue(request.param)


def test_four_prompts_that_share_their_batches_answer_identically(host, model):
    host.start_broker()
    inside = answer_inside(host, model, together)
    server = native_server(host, model)
    try:
        native = together(server)
    finally:
        server.stop()
    assert [a["content"] for a in inside] == [a["content"] for a in native]
    off = max(abs(i["logprob"] - n["logprob"]) for a, b in zip(inside, native)
              for i, n in zip(steps(a), steps(b)))
    assert off <= CLOSE


def given(step, token):
    """The log-probability that was given to @token at that step, None if it was not told."""
    if step["id"] == token:
        return step["logprob"]
    return next((t["logprob"] for t in step["top_logprobs"] if t["id"] == token), None)


def first_wrong(prompt, inside, native):
    """The number of the first of the device's tokens that is not native's, None if all are.  Until
    the comparison ends, all runs have said the same, so that what they give can be compared."""
    widest = worst = 0
    for at, step in enumerate(inside):
        here = [run[at] for run in native if at < len(run)]
        known = [p for p in (given(s, step["id"]) for s in here) if p is not None]
        if not known:
            return at
        spread = max(known) - min(known)
        off = min(abs(step["logprob"] - p) for p in known)
        widest, worst = max(widest, spread), max(worst, off)
        wrong = off > max(CLOSE, spread)
        if wrong or {s["id"] for s in here} != {step["id"]}:
            break
    print(f"{prompt!r}: {at + 1} tokens compared with {len(native)} native runs, off by {worst:.5f} "
          f"at most, native's spread {widest:.5f}{', WRONG' if wrong else ''}")
    return at if wrong else None


def wrong_prompts(inside, runs):
    return [p for i, p in enumerate(PROMPTS) if
            first_wrong(p, steps(inside[i]), [steps(run[i]) for run in runs]) is not None]


def test_four_racing_requests_answer_as_native_does(host, model):
    host.start_broker()
    inside = answer_inside(host, model, racing)
    server = native_server(host, model)
    try:
        runs = [alone(server), racing(server), together(server), *short_races(server)]
        for _ in range(MORE_ROUNDS):
            wrong = wrong_prompts(inside, runs)
            if not wrong:
                break
            runs += [racing(server), racing(server), *short_races(server)]
    finally:
        server.stop()
    assert not wrong
