"""The selective state space in XLA: a loop over time on a CPU, trees of a chunk's steps elsewhere.

On a GPU or TPU a loop over time would be T tiny kernels.
"""

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels import dispatch
from pallas_kernels.selective_scan import gradient, rows

_STEPS = 64  # of a chunk: six levels of a tree, and 64 states at a time


def selective_scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    h0: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.selective_scan`."""
    run = rows.selective_scan if dispatch.current_target().platform == "cpu" else _trees
    return run(u, delta, A, B, C, D, h0)


def _trees(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    h0: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    A, D, h0 = gradient.parameters(u, delta, A, B, C, D, h0)
    batch, length, width = u.shape
    steps = min(_STEPS, length)

    def chunks(a: jax.Array) -> jax.Array:
        """[B, T, F] -> [chunks, B, steps, F]. A padded step has Δ = 0, which keeps the state."""
        a = jnp.pad(a, ((0, 0), (0, -length % steps), (0, 0)))
        return jnp.moveaxis(a.reshape(batch, -1, steps, a.shape[2]), 1, 0)

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    @jax.checkpoint
    def chunk(h, inputs):
        u_c, delta_c, B_c, C_c = (a.astype(h.dtype) for a in inputs)
        decay = jnp.exp(delta_c[:, :, None, :] * A)  # [B, steps, N, D]
        x = B_c[..., None] * (delta_c * u_c)[:, :, None, :]
        x = x.at[:, 0].add(decay[:, 0] * h)
        h = lax.associative_scan(combine, (decay, x), axis=1)[1]
        y = jnp.sum(C_c[..., None] * h, axis=2) + D * u_c
        return h[:, -1], y.astype(u.dtype)

    h_last, y = lax.scan(chunk, h0, tuple(map(chunks, (u, delta, B, C))))
    return jnp.moveaxis(y, 0, 1).reshape(batch, -1, width)[:, :length], h_last.mT
