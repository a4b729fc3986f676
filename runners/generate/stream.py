"""Tokens of several prompts, a few at a time."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import arch
from arch.model.decoding import Sampling, decode, prefill, repeat, row_keys

_DISPATCH = 16  # tokens of a sequence in one program: long enough to hide what a dispatch costs


def stream(
    model: arch.Backbone,
    prompts: Sequence[np.ndarray],
    samples: int,
    num_tokens: int,
    sampling: Sampling,
    seed: int,
    done: Callable[[int], bool],
    dispatch: int = _DISPATCH,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (row, its next tokens) until each row has `num_tokens` or is done.

    Row p · samples + s is sample s of prompt p. Prompts of one length are decoded together, and one
    length after another: nothing is padded, so that a text depends on its prompt, the seed and its
    number s alone, and not on what else is asked for.

    Args:
      model: a causal backbone with the head "token".
      prompts: [T] int32 each, T >= 1.
      samples: of each prompt, which is read once.
      num_tokens: the most tokens of a row.
      sampling: the rule by which tokens are drawn.
      seed: of all draws.
      done: True for a row that wants no more tokens.
      dispatch: tokens of a row at a time.
    """
    lengths = dict.fromkeys(len(prompt) for prompt in prompts)
    for length in lengths:
        chosen = [p for p, prompt in enumerate(prompts) if len(prompt) == length]
        rows = [p * samples + s for p in chosen for s in range(samples)]
        keys = row_keys(jax.random.key(seed), jnp.tile(jnp.arange(samples), len(chosen)))
        room = length + num_tokens
        state, logits = prefill(model, jnp.asarray(np.stack([prompts[p] for p in chosen])), room)
        if samples > 1:
            state, logits = repeat(model, state, logits, samples, room)
        left = num_tokens
        while left and not all(map(done, rows)):
            count = min(left, dispatch)
            state, logits, tokens = decode(
                model, state, logits, keys, num_tokens=count, sampling=sampling
            )
            yield from zip(rows, np.asarray(tokens), strict=True)
            left -= count
