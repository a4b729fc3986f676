"""One step of the selective scan and its gradient, for the kernels; see `gradient`.

States are [N, D]; of one step, u, Δ and y are rows [1, D], B and C columns [N, 1]. A is [N, D] and
D a row.
"""

import jax
import jax.numpy as jnp


def forward(
    h: jax.Array,
    A: jax.Array,
    D: jax.Array,
    u: jax.Array,
    delta: jax.Array,
    B: jax.Array,
    C: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """(h_t, y_t) from h_{t−1}."""
    h = jnp.exp(delta * A) * h + B * (delta * u)
    return h, jnp.sum(C * h, axis=0, keepdims=True) + D * u


def backward(
    dh: jax.Array,
    h: jax.Array,
    A: jax.Array,
    D: jax.Array,
    u: jax.Array,
    delta: jax.Array,
    B: jax.Array,
    C: jax.Array,
    dy: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, jax.Array]]:
    """From the gradient that reaches h_t through h_{t+1}, and from h_{t−1}.

    Returns:
      (that which reaches h_{t−1} through h_t, (du_t, dΔ_t, dB_t, dC_t), what step t adds to
      (dA, dD)).
    """
    decay, x = jnp.exp(delta * A), delta * u
    g = dh + C * dy
    kept = decay * h
    s = g * kept
    dx = jnp.sum(B * g, axis=0, keepdims=True)
    of_step = (
        delta * dx + D * dy,
        u * dx + jnp.sum(s * A, axis=0, keepdims=True),
        jnp.sum(g * x, axis=1, keepdims=True),
        jnp.sum((kept + B * x) * dy, axis=1, keepdims=True),
    )
    return decay * g, of_step, (s * delta, u * dy)
