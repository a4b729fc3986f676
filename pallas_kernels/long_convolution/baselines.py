"""The long convolution in plain JAX."""

import jax
import jax.numpy as jnp

from pallas_kernels.baseline import in_float32


def _fft(u: jax.Array, kernel: jax.Array) -> jax.Array:
    length = u.shape[1]
    spectrum = jnp.fft.rfft(u, 2 * length, axis=1)
    spectrum = spectrum * jnp.fft.rfft(kernel, 2 * length).T
    return jnp.fft.irfft(spectrum, 2 * length, axis=1)[:, :length]


BASELINES = {"jnp.fft": in_float32(_fft)}
