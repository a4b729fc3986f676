"""The gated delta rule as its recurrence has it, one step at a time."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch


def gated_delta_rule(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    initial_state: jax.Array | None,
    *,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.gated_delta_rule`."""
    dtype = dispatch.arithmetic_dtype(q, k, v, beta, log_decay, initial_state)
    batch, _, heads, width = q.shape
    if log_decay is None:
        log_decay = jnp.zeros(q.shape[:3], dtype)
    if initial_state is None:
        initial_state = jnp.zeros((batch, heads, width, v.shape[-1]), dtype)

    def step(state, inputs):
        q_t, k_t, v_t, beta_t, g_t = inputs
        state = jnp.exp(g_t)[..., None, None] * state
        recalled = jnp.sum(k_t[..., None] * state, axis=-2)
        state = state + k_t[..., None] * (beta_t[..., None] * (v_t - recalled))[..., None, :]
        return state, jnp.sum(scale * q_t[..., None] * state, axis=-2)

    steps = tuple(jnp.moveaxis(x.astype(dtype), 1, 0) for x in (q, k, v, beta, log_decay))
    state, o = jax.lax.scan(step, initial_state.astype(dtype), steps)
    return jnp.moveaxis(o, 0, 1).astype(q.dtype), state
