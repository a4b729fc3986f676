"""The linear scan in plain JAX."""

import jax

from pallas_kernels.baseline import associative_scan, in_float32


def _associative_scan(a: jax.Array, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
    h = associative_scan(a, x, h0)
    return h, h[:, -1]


BASELINES = {"lax.associative_scan": in_float32(_associative_scan)}
