"""The selective scan as a pair of functions, with the gradient that one of them computes.

With x_t = Δ_t u_t, h_t = k_t + B_t x_t, of which k_t = exp(Δ_t A) h_{t−1} is what step t keeps of
the state, and g_t the gradient of h_t:

    g_t = C_t dy_t + exp(Δ_{t+1} A) g_{t+1},  dh_0 = exp(Δ_1 A) g_1,
    dx_t = B_t·g_t,  dB_t = Σ_D g_t x_t,  dC_t = Σ_D h_t dy_t,
    s_t = g_t ⊙ k_t, the gradient of the exponent Δ_t A,
    du_t = Δ_t dx_t + D dy_t,  dΔ_t = u_t dx_t + Σ_N s_t A,  dA = Σ_{B,T} s_t Δ_t,
    dD = Σ_{B,T} u_t dy_t.

Time is cut into chunks. The state before each chunk, its border, is kept; the other states are
computed again, a chunk at a time. Inside, a state is laid out [N, D]: D is the widest axis, so it
is the one to vectorise, and the sum over N in y_t = C_t·h_t + D u_t then adds whole vectors.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch

_Arrays = tuple[jax.Array, ...]


def parameters(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    h0: jax.Array | None,
) -> _Arrays:
    """(A [N, D], D [D], h0 [B, N, D]) in the dtype of the arithmetic, of the public arguments."""
    dtype = dispatch.arithmetic_dtype(u, delta, A, B, C, D, h0)
    A = A.T.astype(dtype)
    D = jnp.zeros(A.shape[1:], dtype) if D is None else D.astype(dtype)
    h0 = jnp.zeros((len(u), *A.shape), dtype) if h0 is None else h0.mT.astype(dtype)
    return A, D, h0


def differentiable(
    forward: Callable[..., _Arrays],
    backward: Callable[..., _Arrays],
    padded: Callable[[int, int, int], tuple[int, int, int]],
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """A backend of the operator.

    Zeros pad all sizes: a step of Δ = 0 keeps the state, and what is padded to it stays zero.

    Args:
      forward: (u, delta, A, B, C, D, h0, save: bool) -> (y in the dtype of u, h_T) as in the
        operator, but with states [N, D]; to `save` them, also the borders in any layout.
      backward: (u, delta, A, B, C, D, borders, dy, dh_T) -> gradients of the seven, h0 for borders,
        of any dtype.
      padded: (T, D, N) -> the sizes that the two can take.
    """

    @jax.custom_vjp
    def run(*inputs):
        return forward(*inputs, save=False)

    def run_forward(*inputs):
        y, h_last, borders = forward(*inputs, save=True)
        return (y, h_last), (*inputs[:-1], borders)

    def run_backward(residuals, cotangents):
        gradients = backward(*residuals, *cotangents)
        return tuple(g.astype(r.dtype) for g, r in zip(gradients, residuals, strict=True))

    run.defvjp(run_forward, run_backward)

    def selective_scan(u, delta, A, B, C, D, h0):
        A, D, h0 = parameters(u, delta, A, B, C, D, h0)
        (batch, length, width), size = u.shape, len(A)
        T, W, N = padded(length, width, size)
        u, delta = (_pad(a, (batch, T, W)) for a in (u, delta))
        B, C = (_pad(a, (batch, T, N)) for a in (B, C))
        y, h_last = run(u, delta, _pad(A, (N, W)), B, C, _pad(D, (W,)), _pad(h0, (batch, N, W)))
        return y[:, :length, :width], h_last[:, :size, :width].mT

    return selective_scan


def _pad(a: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.pad(a, [(0, n - m) for n, m in zip(shape, a.shape, strict=True)])
