"""Named shapes of the linear scan."""

import jax
import jax.numpy as jnp

from pallas_kernels.example import Arrays, Example


def _real(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int) -> Arrays:
    return {
        "a": jax.nn.sigmoid(3 + jax.random.normal(keys[0], (B, T, D))).astype(dtype),
        "x": jax.random.normal(keys[1], (B, T, D)).astype(dtype),
        "h0": jax.random.normal(keys[2], (B, D)),
    }


def _complex(keys: jax.Array, dtype: jnp.dtype, *, B: int, T: int, D: int) -> Arrays:
    del dtype  # complex64
    radius, angle = jax.random.uniform(keys[0], (2, B, T, D))
    return {
        "a": (0.9 + 0.1 * radius) * jnp.exp(2j * jnp.pi * angle),
        "x": jax.random.normal(keys[1], (B, T, D), jnp.complex64),
        "h0": jax.random.normal(keys[2], (B, D), jnp.complex64),
    }


EXAMPLES = (
    Example("linear_scan", "small", _real, {"B": 4, "T": 1024, "D": 512}),
    Example("linear_scan", "typical", _real, {"B": 4, "T": 8192, "D": 512}, grows=True),
    Example("linear_scan", "long", _real, {"B": 2, "T": 16384, "D": 64}),
    Example("linear_scan", "wide", _real, {"B": 32, "T": 64, "D": 1024}),
    Example(
        "linear_scan",
        "complex",
        _complex,
        {"B": 4, "T": 2048, "D": 256},
        dtypes=("float32",),  # complex numbers have one width
    ),
    Example("linear_scan", "large", _real, {"B": 8, "T": 4096, "D": 4096}, large=True),
)
