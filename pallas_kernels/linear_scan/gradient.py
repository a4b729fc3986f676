"""The gradient of the linear recurrence, for every backend: it is the same recurrence backwards.

With h_t = a_t h_{t−1} + x_t and g_t the gradient of h_t,

    g_t = dh_t + a_{t+1} g_{t+1},  dx_t = g_t,  da_t = g_t h_{t−1},  dh_0 = a_1 g_1.

A backend is one function that runs either order of the two operations in a step,

    scan(a, x, c, reverse, decay_after) -> (y, c_last)
      decay first:  c ← a_t c + x_t, y_t = c            (forward)
      decay after:  y_t = c + x_t,   c ← a_t y_t        (backward, in the other direction)

with a and x [B, T, D], c [B, D]; c_last has the dtype of c, y that or the common one of a and x.
JAX's cotangents of complex numbers are those of the transposed map, not of the adjoint, so nothing
is conjugated.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

_Scan = Callable[[jax.Array, jax.Array, jax.Array, bool, bool], tuple[jax.Array, jax.Array]]


def differentiable(scan: _Scan) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The backend `scan` as (a, x, h0, *, reverse) -> (h, h_last), with its gradient."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
    def run(a, x, h0, reverse):
        h, h_last = scan(a, x, h0, reverse, False)
        return h.astype(jnp.result_type(a, x)), h_last

    def forward(a, x, h0, reverse):
        h, h_last = run(a, x, h0, reverse)
        # h is kept as it is returned: what rounding it to bfloat16 does to da is no more than what
        # rounding da does. Of x the gradient needs nothing but the dtype.
        return (h, h_last), (a, h, h0, jnp.zeros((0,), x.dtype))

    def backward(reverse, residuals, cotangents):
        a, h, h0, like_x = residuals
        dh, dh_last = cotangents
        g, dh0 = scan(a, dh, dh_last, not reverse, True)
        da = g.astype(h0.dtype) * _before(h, h0, reverse)
        return _cast(da, a.dtype), _cast(g, like_x.dtype), dh0

    run.defvjp(forward, backward)

    def linear_scan(a, x, h0, *, reverse):
        return run(a, x, h0, reverse)

    return linear_scan


def _before(h: jax.Array, h0: jax.Array, reverse: bool) -> jax.Array:
    """The state that step t starts from, [B, T, D]: h_{t−1}, or h_{t+1} with `reverse`."""
    border = h0[:, None]
    if reverse:
        return jnp.concatenate([h[:, 1:], border], axis=1)
    return jnp.concatenate([border, h[:, :-1]], axis=1)


def _cast(gradient: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Of a real input of a complex recurrence the gradient is the real part."""
    if jnp.iscomplexobj(gradient) and not jnp.issubdtype(dtype, jnp.complexfloating):
        gradient = gradient.real
    return gradient.astype(dtype)
