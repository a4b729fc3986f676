"""Speed of prefill and of decoding against the tokens before, from a model's own weights."""

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

import arch
from arch.model.decoding import GREEDY, decode, prefill, repeat

BATCHES = (1, 32)
CONTEXTS = (1024, 2048, 4096, 8192, 16384)

_DISPATCH, _ROUNDS = 16, 15  # tokens of a sequence in one program, and programs that are timed
_BUDGET_SECONDS = 3.0  # after this much, three are enough


@dataclasses.dataclass(frozen=True)
class Speed:
    """Measurement of a model after one number of tokens.

    Attributes:
      model: its name.
      trial: its id.
      context: T, the tokens before the first that is decoded.
      prefill: tokens a second that one sequence of T is read with.
      token_seconds: {batch: seconds for one more token of each sequence}, the median of several
        dispatches.
      failure: why the model cannot have this context; the others are then missing.
    """

    model: str
    trial: str
    context: int
    prefill: float | None = None
    token_seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    failure: str | None = None


def measure(
    model: arch.Backbone, name: str, trial: str, contexts: Sequence[int]
) -> Iterator[Speed]:
    """Yields a row for each context, shortest first."""
    vocab_size = model.embedding.shape[0]
    for context in sorted(contexts):
        row = Speed(name, trial, context)
        prompt = jax.random.randint(jax.random.key(context), (1, context), 0, vocab_size)
        try:
            yield dataclasses.replace(row, **_speeds(model, prompt))
        except ValueError as error:  # longer than the model has learned positions or taps for
            yield dataclasses.replace(row, failure=" ".join(str(error).split()))


def _speeds(model: arch.Backbone, prompt: jax.Array) -> dict[str, Any]:
    context = prompt.shape[1]
    room = context + _DISPATCH * (_ROUNDS + 1)
    jax.block_until_ready(prefill(model, prompt, room))  # compiles
    start = time.perf_counter()
    state, logits = jax.block_until_ready(prefill(model, prompt, room))
    seconds = time.perf_counter() - start
    tokens = {}
    for batch in BATCHES:
        own = repeat(model, state, logits, batch, room)  # one prompt: the time is the same
        tokens[batch] = _token_seconds(model, *own)
    return {"prefill": context / seconds, "token_seconds": tokens}


def _token_seconds(model: arch.Backbone, state: Any, logits: jax.Array) -> float:
    samples: list[float] = []
    for _ in range(_ROUNDS + 1):  # the first compiles
        if len(samples) > 3 and _DISPATCH * sum(samples[1:]) > _BUDGET_SECONDS:
            break
        start = time.perf_counter()
        state, logits, tokens = decode(
            model, state, logits, None, num_tokens=_DISPATCH, sampling=GREEDY
        )
        jax.block_until_ready((state, tokens))
        samples.append((time.perf_counter() - start) / _DISPATCH)
    return statistics.median(samples[1:])
