"""The selective state space on a CPU: blocks of rows whose state stays in the cache.

A row is one sequence of the batch. All rows of a block take a step together, and the block goes
through all of time before the next one starts. A step is too short to be worth cutting arrays up
for it, so that a chunk of steps is cut from [B, T, F], and its results are put back, at once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Arrays = tuple[jax.Array, ...]

_STATE = 2**15  # numbers in the state of a block of rows: 128 KiB of a cache in float32
_STEPS = 16  # of a chunk


def _by_rows(run: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """`run` of the rows of its arguments, block by block.

    All arguments and results have the rows as their first axis, so that an axis mapped by vmap can
    become part of it. The last argument is a state.
    """

    @jax.custom_batching.custom_vmap
    def by_rows(*arrays: jax.Array) -> Arrays:
        batch, state = arrays[0].shape[0], arrays[-1][0].size
        blocks = -(-batch // max(1, _STATE // state))
        size = -(-batch // blocks)

        def cut(a: jax.Array) -> jax.Array:
            a = jnp.pad(a, ((0, blocks * size - batch), *((0, 0),) * (a.ndim - 1)))
            return a.reshape(blocks, size, *a.shape[1:])

        results = lax.map(lambda block: run(*block), tuple(map(cut, arrays)))
        return tuple(r.reshape(-1, *r.shape[2:])[:batch] for r in results)

    @by_rows.def_vmap
    def fold(mapped: int, is_mapped, *arrays):
        arrays = (
            a if m else jnp.broadcast_to(a, (mapped, *a.shape))
            for a, m in zip(arrays, is_mapped, strict=True)
        )
        results = by_rows(*(a.reshape(-1, *a.shape[2:]) for a in arrays))
        results = tuple(r.reshape(mapped, -1, *r.shape[1:]) for r in results)
        return results, (True,) * len(results)

    return by_rows


def _cut(a: jax.Array, chunk: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A chunk of [B, T, F] as [steps, B, F]."""
    steps = min(_STEPS, a.shape[1])
    a = lax.dynamic_slice_in_dim(a, chunk * steps, steps, axis=1)
    return jnp.swapaxes(a, 0, 1).astype(dtype)


def _put(a: jax.Array, value: jax.Array, chunk: jax.Array) -> jax.Array:
    """Writes [steps, B, F] to where `_cut` takes it from."""
    value = jnp.swapaxes(value, 0, 1).astype(a.dtype)
    return lax.dynamic_update_slice_in_dim(a, value, chunk * value.shape[1], axis=1)


@_by_rows
def _forward(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`scan` of padded arrays, with parameters per row, and the state before each chunk."""

    def step(h, inputs):
        x_t, delta_t, B_t, C_t = inputs
        h = jnp.exp(delta_t[:, None, :] * A) * h + B_t[..., None] * x_t[:, None, :]
        return h, jnp.sum(C_t[..., None] * h, axis=1)

    def chunk(i, carry):
        h, y, borders = carry
        borders = lax.dynamic_update_slice_in_dim(borders, h[:, None], i, axis=1)
        u_c, delta_c, B_c, C_c = (_cut(a, i, h.dtype) for a in (u, delta, B, C))
        h, y_c = lax.scan(step, h, (delta_c * u_c, delta_c, B_c, C_c))
        return h, _put(y, y_c + D * u_c, i), borders

    batch, length, _ = u.shape
    chunks = -(-length // _STEPS)
    borders = jnp.zeros((batch, chunks, *h0.shape[1:]), h0.dtype)
    h_last, y, borders = lax.fori_loop(0, chunks, chunk, (h0, jnp.zeros_like(u), borders))
    return y, h_last, borders


@_by_rows
def _backward(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    borders: jax.Array,
    dy: jax.Array,
    dh_last: jax.Array,
) -> Arrays:
    """With dh_t = C_t dy_t + exp(Δ_{t+1} A) dh_{t+1}, chunk by chunk from the last to the first.

    With x_t = Δ_t u_t: dx_t = B_t·dh_t, dB_t = Σ_D dh_t x_t, dC_t = Σ_D h_t dy_t. The gradient of
    the exponent Δ_t A is s_t = dh_t ⊙ k_t, where k_t = exp(Δ_t A) h_{t−1} is what the step keeps of
    the state: dΔ_t = u_t dx_t + Σ_N s_t A, dA = Σ_{B,T} s_t Δ_t.
    """
    dtype = A.dtype

    def again(h, inputs):
        decay, x_t, B_t, dy_t = inputs
        kept = decay * h
        h = kept + B_t[..., None] * x_t[:, None, :]
        return h, (kept, jnp.einsum("bnd,bd->bn", h, dy_t))

    def back(carry, inputs):
        dh, dA = carry  # dh: what comes from h_{t+1} alone
        decay, kept, x_t, delta_t, B_t, C_t, dy_t = inputs
        dh = dh + C_t[..., None] * dy_t[:, None, :]
        s = dh * kept
        dx = jnp.sum(B_t[..., None] * dh, axis=1)
        dB = jnp.einsum("bnd,bd->bn", dh, x_t)
        dA = dA + s * delta_t[:, None, :]
        return (decay * dh, dA), (dx, jnp.sum(s * A, axis=1), dB)

    def chunk(i, carry):
        dh, dA, dD, *gradients = carry
        i = chunks - 1 - i
        u_c, delta_c, B_c, C_c, dy_c = (_cut(a, i, dtype) for a in (u, delta, B, C, dy))
        x_c = delta_c * u_c
        # The barrier keeps XLA from computing the exponentials twice, one step at a time.
        decay = lax.optimization_barrier(jnp.exp(delta_c[:, :, None, :] * A))
        border = lax.dynamic_index_in_dim(borders, i, axis=1, keepdims=False)
        _, (kept, dC) = lax.scan(again, border, (decay, x_c, B_c, dy_c))
        (dh, dA), (dx, ddelta, dB) = lax.scan(
            back, (dh, dA), (decay, kept, x_c, delta_c, B_c, C_c, dy_c), reverse=True
        )
        values = (delta_c * dx + D * dy_c, u_c * dx + ddelta, dB, dC)
        gradients = (_put(g, v, i) for g, v in zip(gradients, values, strict=True))
        return dh, dA, dD + jnp.sum(dy_c * u_c, axis=0), *gradients

    chunks = borders.shape[1]
    zeros = (jnp.zeros_like(a) for a in (A, D, u, delta, B, C))
    dh0, dA, dD, du, ddelta, dB, dC = lax.fori_loop(0, chunks, chunk, (dh_last, *zeros))
    return du, ddelta, dA, dB, dC, dD, dh0


def _per_row(parameter: jax.Array, batch: int) -> jax.Array:
    return jnp.broadcast_to(parameter, (batch, *parameter.shape))


@jax.custom_vjp
def _scan(u, delta, A, B, C, D, h0):
    return _scan_forward(u, delta, A, B, C, D, h0)[0]


def _scan_forward(u, delta, A, B, C, D, h0):
    A_rows, D_rows = (_per_row(p, u.shape[0]) for p in (A, D))
    y, h_last, borders = _forward(u, delta, A_rows, B, C, D_rows, h0)
    return (y, h_last), (u, delta, A, B, C, D, borders)


def _scan_backward(residuals, cotangents):
    u, delta, A, B, C, D, borders = residuals
    A_rows, D_rows = (_per_row(p, u.shape[0]) for p in (A, D))
    du, ddelta, dA, dB, dC, dD, dh0 = _backward(
        u, delta, A_rows, B, C, D_rows, borders, *cotangents
    )
    return du, ddelta, jnp.sum(dA, axis=0), dB, dC, jnp.sum(dD, axis=0), dh0


_scan.defvjp(_scan_forward, _scan_backward)


def scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """h_t = exp(Δ_t A) h_{t−1} + B_t Δ_t u_t, y_t = C_t·h_t + D u_t.

    Args:
      u: [B, T, D].
      delta: [B, T, D].
      A: [N, D], in the dtype of the arithmetic, as D and h0 are.
      B: [B, T, N].
      C: [B, T, N].
      D: [D].
      h0: [B, N, D].

    Returns:
      (y [B, T, D] in the dtype of u, h_T [B, N, D]).
    """
    length = u.shape[1]
    # A padded step has Δ = 0, which keeps the state.
    padding = ((0, 0), (0, -length % min(_STEPS, length)), (0, 0))
    u, delta, B, C = (jnp.pad(a, padding) for a in (u, delta, B, C))
    y, h_last = _scan(u, delta, A, B, C, D, h0)
    return y[:, :length], h_last
