"""Scores of a model's answers: the recurrent form reads context, query and answer in parts.

The answer is teacher-forced: each of its tokens is predicted from all before it, the right ones.
Greedy decoding would say the whole answer exactly if every one of these predictions is right.

Letters: N sequences, B read together, T tokens of a part, L length.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import arch
from runners.evaluate.encoding import Encoded
from tasks.averages import token_losses

_PART, _BATCH = 64, 32  # tokens that are read at a time: short lengths share the long ones' program
_LOGITS = 2**26  # of a part, at most: 256 MB


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of N answers.

    Attributes:
      exact: [N] bool, all tokens of the answer are the likeliest ones.
      accuracy: [N], the share of them that are.
      bits: [N], negative log2-likelihood of the answer per byte of it.
    """

    exact: np.ndarray
    accuracy: np.ndarray
    bits: np.ndarray


def check_length(model: arch.Backbone, length: int) -> None:
    """Raises ValueError if a model has no state for so many tokens."""
    jax.eval_shape(lambda model: model.initial_state(1, length), model)


def score(model: arch.Backbone, encoded: Sequence[Encoded], length: int) -> Scores:
    """Scores the answers of sequences of at most L + 1 tokens, the last of which is not read.

    Memory does not grow with L, states aside.

    Args:
      model: a causal backbone, or something with its `embedding`, `initial_state` and `extend`.
      encoded: N.
      length: L.
    """
    tokens = np.zeros((len(encoded), length + 1), np.int32)
    is_answer = np.zeros(tokens.shape, bool)
    for row, own in enumerate(encoded):
        count = len(own.tokens)
        tokens[row, :count] = own.tokens  # a causal model does not see the rest
        is_answer[row, count - len(own.sizes) : count] = True
    is_answer = is_answer[:, 1:]
    nats, is_right = np.zeros(is_answer.shape), np.zeros(is_answer.shape, bool)
    batch = max(1, min(_BATCH, len(encoded), _LOGITS // (_PART * model.embedding.shape[0])))
    for first in range(0, len(encoded), batch):
        rows = np.minimum(np.arange(first, first + batch), len(encoded) - 1)  # one shape for all
        state = _initial_state(model, batch, length)
        for start in range(0, length, _PART):
            chunk = tokens[rows, start : start + _PART + 1]
            state, *found = _read(model, state, chunk[:, :-1], chunk[:, 1:])
            nats[rows, start : start + _PART], is_right[rows, start : start + _PART] = found
    return Scores(
        exact=(is_right | ~is_answer).all(1),
        accuracy=(is_right & is_answer).sum(1) / is_answer.sum(1),
        bits=(nats * is_answer).sum(1) / math.log(2) / [own.sizes.sum() for own in encoded],
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _initial_state(model: arch.Backbone, batch_size: int, length: int) -> Any:
    return model.initial_state(batch_size, length)


@jax.jit
def _read(
    model: arch.Backbone, state: Any, inputs: jax.Array, targets: jax.Array
) -> tuple[Any, jax.Array, jax.Array]:
    """The next state, and of the targets [B, T] their nats and which are the likeliest tokens."""
    state, logits = model.extend(state, inputs)
    return state, token_losses(logits, targets), jnp.argmax(logits, -1) == targets
