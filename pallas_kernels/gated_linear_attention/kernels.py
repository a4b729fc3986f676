"""What the Pallas kernels have in common: the layout of arrays and the gradient.

Arrays are laid out [M, T, X] with M = B·H sequences, the state transposed [M, V, K], as in `chunk`.
A kernel is a pair of functions,

    forward(plan, (q, k, v, g), S_0) -> (o, S_T, entering)
    backward(plan, (q, k, v, g), entering, do, dS_T) -> ((dq, dk, dv, dg), dS_0)

where `entering` are the states that enter each of N chunks [M, N, V, K], the length is a multiple
of plan.size, and g is [M, T, K], [M, T, 1] or None.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels import dispatch
from pallas_kernels.gated_linear_attention.decay import Decay, decay

Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]


class Plan(NamedTuple):
    """How to compute: the steps in a chunk, and what else is fixed when a kernel is traced."""

    size: int
    scale: float
    precision: jax.lax.Precision
    interpret: bool


def per_chunk(plan: Plan, x: Any, last_first: bool = False) -> pl.BlockSpec:
    """One chunk of x in a grid (M, N): of [M, T, X], or the state of a chunk in [M, N, V, K]."""
    block = (plan.size, x.shape[2]) if len(x.shape) == 3 else (None, *x.shape[2:])
    chunks = x.shape[1] // plan.size if len(x.shape) == 3 else x.shape[1]
    zeros = (0,) * (len(x.shape) - 2)
    return pl.BlockSpec(
        (None, *block), lambda m, n: (m, chunks - 1 - n if last_first else n, *zeros)
    )


def per_sequence(state: jax.Array) -> pl.BlockSpec:
    """The state of one sequence in [M, V, K], in a grid (M, N)."""
    return pl.BlockSpec((None, *state.shape[1:]), lambda m, n: (m, 0, 0))


def states(plan: Plan, x: jax.Array, state: jax.Array) -> jax.ShapeDtypeStruct:
    """A state [M, V, K] for each chunk of x [M, T, X]: [M, N, V, K]."""
    sequences, *shape = state.shape
    return jax.ShapeDtypeStruct((sequences, x.shape[1] // plan.size, *shape), jnp.float32)


def read(plan: Plan, inputs: Inputs) -> tuple[jax.Array, jax.Array, jax.Array, Decay]:
    """Scaled q, k, v and the decays of a chunk in float32, from references to its inputs."""
    q, k, v, g = jax.tree.map(lambda ref: ref[...].astype(jnp.float32), inputs)
    return plan.scale * q, k, v, decay(g)


def write_gradients(
    plan: Plan,
    references: Inputs,
    gradients: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None],
) -> None:
    """What `chunk.gradients` returns, that of the scaled q first."""
    dq, *others = gradients
    values = jax.tree.leaves((plan.scale * dq, *others))
    for ref, value in zip(jax.tree.leaves(references), values, strict=True):
        ref[...] = value.astype(ref.dtype)


def differentiable(
    forward: Callable, backward: Callable, chunk_size: int, padded_width: Callable[[int], int]
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The operator by a kernel.

    Args:
      forward: see above.
      backward: see above.
      chunk_size: the largest, a power of two.
      padded_width: the K or V that the kernel takes, for any.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def run(plan, inputs, state):
        return forward(plan, inputs, state)[:2]

    def run_forward(plan, inputs, state):
        o, last, entering = forward(plan, inputs, state)
        return (o, last), (inputs, entering)

    def run_backward(plan, residuals, cotangents):
        return backward(plan, *residuals, *cotangents)

    run.defvjp(run_forward, run_backward)

    def gated_linear_attention(q, k, v, log_decay, initial_state, *, scale):
        batch, length, heads, key_width = q.shape
        value_width = v.shape[-1]
        size = min(chunk_size, max(16, 1 << (length - 1).bit_length()))
        plan = Plan(
            size,
            scale,
            dispatch.matmul_precision(q, k, v),
            dispatch.current_target().interpret,
        )

        def sequences(x, width):
            """[B, T, H, X] -> [M, T, width]. Zeros as padding keep the state: k = 0, g = 0."""
            padding = ((0, 0), (0, -length % size), (0, 0), (0, width - x.shape[-1]))
            return jnp.moveaxis(jnp.pad(x, padding), 2, 1).reshape(batch * heads, -1, width)

        widths = (padded_width(value_width), padded_width(key_width))
        g = log_decay
        if g is not None:
            g = sequences(g[..., None], 1) if g.ndim == 3 else sequences(g, widths[1])
        inputs = (*(sequences(x, widths[1]) for x in (q, k)), sequences(v, widths[0]), g)
        if initial_state is None:
            initial_state = jnp.zeros((batch, heads, key_width, value_width))
        state = initial_state.astype(jnp.float32).mT.reshape(-1, value_width, key_width)
        padding = [(0, 0), *((0, w - n) for w, n in zip(widths, state.shape[1:], strict=True))]
        o, last = run(plan, inputs, jnp.pad(state, padding))
        o = jnp.moveaxis(o.reshape(batch, heads, -1, widths[0]), 1, 2)
        last = last.reshape(batch, heads, *widths)[..., :value_width, :key_width]
        return o[:, :length, :, :value_width], last.mT

    return gated_linear_attention
