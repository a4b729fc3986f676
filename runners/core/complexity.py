"""Complexity of an architecture with its default options, taken from the code.

The operators that its parallel form traces, how its operations and its state grow with the length,
what its class declares. Operations are counted, not timed: the same on every machine.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import arch
import pallas_kernels
from runners.core import flops, growth

D_MODEL = 256
STATE_LENGTHS = (1024, 8192)


@dataclasses.dataclass(frozen=True)
class _Summary:
    """Complexity of one architecture.

    Attributes:
      operators: those of `pallas_kernels` that its parallel form calls.
      training: growth of the operations on a sequence with its length T, such as "T log T".
      token: growth of those of one decoded token; None if it cannot decode.
      state: bytes after each of STATE_LENGTHS; None likewise.
      causal: the future is hidden.
      packs: keeps packed documents apart.
    """

    operators: tuple[str, ...]
    training: str
    token: str | None
    state: tuple[int, ...] | None
    causal: bool
    packs: bool


@functools.cache
def summary(name: str) -> _Summary:
    """Summary of an architecture, registered or named by its import path."""
    mixer = _abstract(name, STATE_LENGTHS[0])
    with pallas_kernels.used() as operators:
        # A function of its own: jax would not trace `_forward` a second time.
        jax.eval_shape(lambda *args: _forward(*args), mixer, *_inputs(STATE_LENGTHS[0]))
    token = state = None
    if mixer.causal:
        token = growth.of_token([_token_flops(name, n) for n in growth.LENGTHS])
        state = tuple(arch.state_bytes(_abstract(name, n), n) for n in STATE_LENGTHS)
    return _Summary(
        operators=tuple(operators),
        training=training(name),
        token=token,
        state=state,
        causal=mixer.causal,
        packs=mixer.packs,
    )


@functools.cache
def training(name: str) -> str:
    """Growth of the operations on a sequence: "T", "T log T", "T √T" or "T²"."""
    counts = [
        flops.flops(_forward, _abstract(name, length), *_inputs(length))
        for length in growth.LENGTHS
    ]
    return growth.of_sequence(counts)


def _abstract(name: str, length: int) -> Any:
    """The mixer for sequences of `length` tokens, with shapes in place of numbers."""
    return jax.eval_shape(
        lambda: arch.build(name, D_MODEL, rngs=nnx.Rngs(0), max_length=length, num_layers=1)
    )


def _inputs(length: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """x and the tokens behind it."""
    return (
        jax.ShapeDtypeStruct((1, length, D_MODEL), jnp.float32),
        jax.ShapeDtypeStruct((1, length), jnp.int32),
    )


def _forward(mixer: Any, x: jax.Array, tokens: jax.Array) -> jax.Array:
    return mixer(x, arch.Context(tokens=tokens, training=True))


def _token_flops(name: str, length: int) -> int:
    """Operations of one token, given a state with room for `length`."""
    mixer = _abstract(name, length)
    state = jax.eval_shape(lambda mixer: mixer.initial_state(1, length), mixer)
    return flops.flops(
        lambda mixer, state, x, tokens: mixer.extend(state, x, arch.Context(tokens=tokens)),
        mixer,
        state,
        *_inputs(1),
    )
