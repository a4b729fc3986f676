"""Decoding: the prompt in chunks, then token by token, greedily or by sampling.

`prefill` and `decode` own the state that they are given (it is donated), so that a cache is written
in place and memory is that of one state. All sequences of a batch have one length: a state counts
positions once for the whole batch. Prompts of unequal length are decoded in groups of equal length,
without padding, so that nothing but its own prompt decides what a sequence becomes.

Letters: B batch, T time, V vocabulary.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from arch.interface import State
from arch.model.backbone import Backbone
from arch.nn import options

_CHUNK = 512  # tokens of a prompt at a time: memory does not depend on its length


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The rule by which the next token is drawn from logits.

    The logits are divided by the temperature; then all but the likeliest tokens are left out, first
    by `top_k` (Fan et al. 2018, arXiv 1805.04833), then by `top_p` among those that are left
    (Holtzman et al. 2019, arXiv 1904.09751).

    Attributes:
      temperature: 0 is greedy: the likeliest token, of several the first.
      top_k: number of tokens to draw from; None is all.
      top_p: draw from the fewest likeliest tokens that have this probability together; None is all.

    Raises:
      ValueError: an impossible value.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if not (0 <= self.temperature < math.inf):
            raise ValueError(
                f"temperature is {self.temperature}, expected a number of at least 0; 0 is greedy"
            )
        if self.top_k is not None:
            options.at_least("top_k", self.top_k, 1)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected a probability above 0, at most 1")


GREEDY = Sampling(temperature=0.0)


def sample(logits: jax.Array, keys: jax.Array | None, sampling: Sampling) -> jax.Array:
    """Draw a token from each row of logits [B, V], with a key for each [B]; returns [B] int32.

    Keys are not needed for a temperature of 0.
    """
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if keys is None:
        raise ValueError(f"no keys are given, expected one a row for {sampling}")
    logits = logits.astype(jnp.float32) / sampling.temperature
    draw = jax.vmap(jax.random.categorical)
    if sampling.top_k is None and sampling.top_p is None:
        return draw(keys, logits).astype(jnp.int32)
    vocab_size = logits.shape[-1]
    logits, ids = jax.lax.top_k(logits, min(sampling.top_k or vocab_size, vocab_size))
    if sampling.top_p is not None:
        probabilities = jax.nn.softmax(logits)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        logits = jnp.where(before < sampling.top_p, logits, -jnp.inf)
    drawn = draw(keys, logits)
    return jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0].astype(jnp.int32)


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """Return a key for each row number of `rows` [B].

    `decode` folds in the position as well, so that a row's tokens depend neither on the rows beside
    it nor on how many tokens one call decodes (up to rounding of the logits).
    """
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def prefill(
    model: Backbone, prompt: jax.Array, max_length: int, chunk: int = _CHUNK
) -> tuple[State, jax.Array]:
    """Feed a prompt to a model in its state before the first token.

    Args:
      model: a causal backbone.
      prompt: [B, T >= 1] int.
      max_length: tokens that the state must have room for, those of the prompt included.
      chunk: tokens that are fed at a time.

    Returns:
      The state, and the logits of the next token [B, V].

    Raises:
      ValueError: an empty prompt, or a sequence that is longer than the state or the model allows.
    """
    batch_size, length = prompt.shape
    options.at_least("the prompt's length", length, 1)
    options.at_least("max_length", max_length, length)
    state = _initial_state(model, batch_size, max_length)
    for start in range(0, length, chunk):
        state, logits = _feed(model, state, prompt[:, start : start + chunk])
    return state, logits


def repeat(
    model: Backbone, state: State, logits: jax.Array, times: int, max_length: int
) -> tuple[State, jax.Array]:
    """Copy each sequence of a prefilled batch `times` times, B to B · times, side by side.

    Args:
      model: as for `prefill`.
      state: from `prefill`; it stays usable.
      logits: [B, V].
      times: samples of each prompt.
      max_length: as for `prefill`.
    """
    batch_size = logits.shape[0]
    like = jax.eval_shape(lambda m: m.initial_state(batch_size * times, max_length), model)

    def copied(leaf: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        grown = [
            i
            for i, sizes in enumerate(zip(leaf.shape, like.shape, strict=True))
            if len({*sizes}) > 1
        ]
        return jnp.repeat(leaf, times, axis=grown[0]) if grown else jnp.copy(leaf)

    return jax.tree.map(copied, state, like), jnp.repeat(logits, times, axis=0)


@functools.partial(
    jax.jit, static_argnames=("num_tokens", "sampling"), donate_argnames=("state", "logits")
)
def decode(
    model: Backbone,
    state: State,
    logits: jax.Array,
    keys: jax.Array | None,
    *,
    num_tokens: int,
    sampling: Sampling,
) -> tuple[State, jax.Array, jax.Array]:
    """Decode the next tokens after a state.

    Args:
      model: as for `prefill`.
      state: from `prefill`, `repeat` or this function; donated, not to be used again.
      logits: [B, V] of the next token, likewise.
      keys: [B], from `row_keys`, the same for every call; None for a temperature of 0.
      num_tokens: decoded in one dispatch.
      sampling: the rule.

    Returns:
      The state, the logits of the token after, and the tokens [B, num_tokens] int32.
    """

    def step(carry: tuple[State, jax.Array], _: None) -> tuple[tuple[State, jax.Array], jax.Array]:
        state, logits = carry
        own = None
        if keys is not None:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, state["position"])
        token = sample(logits, own, sampling)
        state, logits = model.extend(state, token[:, None])
        return (state, logits[:, 0]), token

    (state, logits), tokens = jax.lax.scan(step, (state, logits), length=num_tokens)
    return state, logits, tokens.T


def greedy(model: Backbone, prompt: jax.Array, num_tokens: int) -> jax.Array:
    """Decode the most likely next token, `num_tokens` times.

    Args:
      model: a causal backbone.
      prompt: [B, T >= 1] int.
      num_tokens: number of tokens to decode.

    Returns:
      [B, num_tokens] int32.

    Raises:
      ValueError: num_tokens is less than 1.
    """
    options.at_least("num_tokens", num_tokens, 1)
    state, logits = prefill(model, prompt, prompt.shape[1] + num_tokens)
    return decode(model, state, logits, None, num_tokens=num_tokens, sampling=GREEDY)[2]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _initial_state(model: Backbone, batch_size: int, max_length: int) -> State:
    # Two leaves that are one array (a cache's empty keys and values) cannot both be donated.
    state = model.initial_state(batch_size, max_length)
    return jax.lax.optimization_barrier(state)


@functools.partial(jax.jit, donate_argnames=("state",))
def _feed(model: Backbone, state: State, tokens: jax.Array) -> tuple[State, jax.Array]:
    last = jnp.full((tokens.shape[0], 1), tokens.shape[1] - 1)
    state, logits = model.extend(state, tokens, positions=last)
    return state, logits[:, 0]
