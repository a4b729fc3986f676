"""The selective state space in XLA: a loop over time on a CPU, trees of a chunk's steps elsewhere.

Both cut time into chunks and keep, for the gradient, the state before each chunk only: the other
states are computed again, a chunk at a time. The state is laid out [N, D]: D is the widest axis, so
it is the one to vectorise, and the sum over N in y_t = C_t·h_t then adds whole vectors.
"""

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels import dispatch
from pallas_kernels.selective_scan import rows

_TREE = 64  # steps of a chunk: 6 levels of a tree, and 64 states at a time


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
    dtype = dispatch.arithmetic_dtype(u, delta, A, B, C, D, h0)
    batch, _, width = u.shape
    A = A.T.astype(dtype)
    D = jnp.zeros(width, dtype) if D is None else D.astype(dtype)
    h0 = jnp.zeros((batch, *A.shape), dtype) if h0 is None else h0.mT.astype(dtype)
    run = rows.scan if dispatch.current_target().platform == "cpu" else _trees
    y, h_last = run(u, delta, A, B, C, D, h0)
    return y, h_last.mT


def _trees(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What `rows.scan` computes, with `lax.associative_scan` over the steps of a chunk."""
    batch, length, width = u.shape
    steps = min(_TREE, length)

    def chunks(a: jax.Array) -> jax.Array:
        """[B, T, F] -> [chunks, B, steps, F]. A padded step has Δ = 0, which keeps the state."""
        a = jnp.pad(a, ((0, 0), (0, -length % steps), (0, 0)))
        return jnp.moveaxis(a.reshape(batch, -1, steps, a.shape[2]), 1, 0)

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    @jax.checkpoint
    def chunk(h, inputs):
        u, delta, B, C = (a.astype(h.dtype) for a in inputs)
        decay = jnp.exp(delta[:, :, None, :] * A)  # [B, steps, N, D]
        x = B[..., None] * (delta * u)[:, :, None, :]
        x = x.at[:, 0].add(decay[:, 0] * h)
        h = lax.associative_scan(combine, (decay, x), axis=1)[1]
        y = jnp.sum(C[..., None] * h, axis=2) + D * u
        return h[:, -1], y.astype(inputs[0].dtype)

    h_last, y = lax.scan(chunk, h0, tuple(map(chunks, (u, delta, B, C))))
    return jnp.moveaxis(y, 0, 1).reshape(batch, -1, width)[:, :length], h_last
