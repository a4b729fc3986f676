"""The selective state space as a scan over time whose gradient stores one state per chunk only.

The state is laid out [B, N, D]: D is the widest axis, so it is the one to vectorise, and the sum
over N in y_t = C_t·h_t then adds whole vectors. Inside, x_t = Δ_t u_t, and time comes first.
"""

import math

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch


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
    u_, delta, A, B, C = (a.astype(dtype) for a in (u, delta, A, B, C))
    batch, length, width = u.shape
    # With chunks of √T steps, borders and the states recomputed inside one chunk take 2√T states.
    chunk = math.ceil(math.sqrt(length))
    padding = -length % chunk

    def chunks(a: jax.Array) -> jax.Array:
        """[B, T, F] -> [chunks, chunk, B, F]. A padded step has Δ = 0, which keeps the state."""
        a = jnp.pad(jnp.moveaxis(a, 1, 0), ((0, padding), (0, 0), (0, 0)))
        return a.reshape(-1, chunk, *a.shape[1:])

    if h0 is None:
        h0 = jnp.zeros((batch, *A.shape), dtype)
    h0 = jnp.swapaxes(h0.astype(dtype), 1, 2)
    y, h_last = _scan(*map(chunks, (delta * u_, delta, B, C)), A.T, h0)
    y = jnp.moveaxis(y.reshape(-1, batch, width)[:length], 0, 1)
    if D is not None:
        y = y + D.astype(dtype) * u_
    return y.astype(u.dtype), jnp.swapaxes(h_last, 1, 2)


def _decay(delta_t: jax.Array, A: jax.Array) -> jax.Array:
    """exp(Δ_t A): [B, D] and [N, D] give [B, N, D]."""
    return jnp.exp(delta_t[:, None, :] * A)


@jax.custom_vjp
def _scan(
    x: jax.Array, delta: jax.Array, B: jax.Array, C: jax.Array, A: jax.Array, h0: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """h_t = exp(Δ_t A) h_{t−1} + B_t x_t, y_t = C_t·h_t.

    Args:
      x: [chunks, chunk, B, D].
      delta: [chunks, chunk, B, D].
      B: [chunks, chunk, B, N].
      C: [chunks, chunk, B, N].
      A: [N, D].
      h0: [B, N, D].

    Returns:
      (y [chunks, chunk, B, D], h_T [B, N, D]).
    """
    return _scan_forward(x, delta, B, C, A, h0)[0]


def _scan_forward(x, delta, B, C, A, h0):
    def step(h, inputs):
        x_t, delta_t, B_t, C_t = inputs
        h = _decay(delta_t, A) * h + B_t[..., None] * x_t[:, None, :]
        return h, jnp.sum(C_t[..., None] * h, axis=1)

    def scan_chunk(h, inputs):
        h_next, y = jax.lax.scan(step, h, inputs)
        return h_next, (y, h)

    h_last, (y, borders) = jax.lax.scan(scan_chunk, h0, (x, delta, B, C))
    return (y, h_last), (x, delta, B, C, A, borders)


def _scan_backward(residuals, cotangents):
    """With dh_t = C_t dy_t + exp(Δ_{t+1} A) dh_{t+1}, chunk by chunk from the last to the first.

    dx_t = B_t·dh_t, dB_t = Σ_D dh_t x_t, dC_t = Σ_D h_t dy_t, and s_t = dh_t ⊙ exp(Δ_t A) h_{t−1}
    is the gradient of the exponent: dΔ_t = Σ_N s_t A, dA = Σ_{B,T} s_t Δ_t. The kept part
    exp(Δ_t A) h_{t−1} is stored when a chunk's states are recomputed: one exponential less.
    """
    x, delta, B, C, A, borders = residuals
    dy, dh_last = cotangents

    def recompute(h, inputs):
        x_t, delta_t, B_t, dy_t = inputs
        kept = _decay(delta_t, A) * h
        h = kept + B_t[..., None] * x_t[:, None, :]
        return h, (kept, jnp.einsum("bnd,bd->bn", h, dy_t))

    def step_back(carry, inputs):
        dh, dA = carry  # dh: what comes from h_{t+1} alone
        x_t, delta_t, B_t, C_t, dy_t, kept = inputs
        dh = dh + C_t[..., None] * dy_t[:, None, :]
        s = dh * kept
        dA = dA + jnp.sum(s * delta_t[:, None, :], axis=0)
        dx = jnp.sum(dh * B_t[..., None], axis=1)
        ddelta = jnp.sum(s * A, axis=1)
        dB = jnp.einsum("bnd,bd->bn", dh, x_t)
        return (dh * _decay(delta_t, A), dA), (dx, ddelta, dB)

    def chunk_back(carry, inputs):
        x_c, delta_c, B_c, C_c, dy_c, border = inputs
        _, (kept, dC) = jax.lax.scan(recompute, border, (x_c, delta_c, B_c, dy_c))
        carry, grads = jax.lax.scan(
            step_back, carry, (x_c, delta_c, B_c, C_c, dy_c, kept), reverse=True
        )
        return carry, (*grads, dC)

    (dh0, dA), (dx, ddelta, dB, dC) = jax.lax.scan(
        chunk_back, (dh_last, jnp.zeros_like(A)), (x, delta, B, C, dy, borders), reverse=True
    )
    return dx, ddelta, dB, dC, dA, dh0


_scan.defvjp(_scan_forward, _scan_backward)
