"""Gated linear attention as its recurrence has it, one step at a time."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch


def gated_linear_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array | None,
    initial_state: jax.Array | None,
    *,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.gated_linear_attention`."""
    dtype = dispatch.arithmetic_dtype(q, k, v, log_decay, initial_state)
    batch, _, heads, width = q.shape
    if log_decay is None:
        log_decay = jnp.zeros(q.shape[:3], dtype)
    if log_decay.ndim == 3:
        log_decay = log_decay[..., None]
    if initial_state is None:
        initial_state = jnp.zeros((batch, heads, width, v.shape[-1]), dtype)

    def step(state, inputs):
        q_t, k_t, v_t, g_t = inputs
        state = jnp.exp(g_t)[..., None] * state + k_t[..., None] * v_t[..., None, :]
        return state, jnp.sum(scale * q_t[..., None] * state, axis=-2)

    steps = tuple(jnp.moveaxis(x.astype(dtype), 1, 0) for x in (q, k, v, log_decay))
    state, o = jax.lax.scan(step, initial_state.astype(dtype), steps)
    return jnp.moveaxis(o, 0, 1).astype(q.dtype), state
