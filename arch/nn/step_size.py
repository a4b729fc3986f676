"""Initial step sizes Δ of state-space models."""

import math

import jax
import jax.numpy as jnp

STEP_RANGE = (1e-3, 1e-1)  # of Δ at initialisation, as in the S4 family and Mamba


def log_uniform(key: jax.Array, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    """Draw log Δ with Δ log-uniform in [low, high]."""
    return jax.random.uniform(key, shape, minval=math.log(low), maxval=math.log(high))


def softplus_bias(key: jax.Array, size: int) -> jax.Array:
    """Draw b with softplus(b) log-uniform in `STEP_RANGE`, [size]."""
    return jnp.log(jnp.expm1(jnp.exp(log_uniform(key, (size,), *STEP_RANGE))))
