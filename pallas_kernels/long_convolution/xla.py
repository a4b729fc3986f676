"""The convolution as a matrix product where the sequence is short, by FFT where it is long."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch

# Time of the product over that of the FFT, forward and backward, D = 64, two CPU cores, B = 64 to
# 512 and nine kernels under vmap: 0.4-0.7 at T = 64, 1.4-1.6 at T = 128, 1.6-3.7 at T = 256.
_LONGEST_PRODUCT = 64


def long_convolution(u: jax.Array, kernel: jax.Array, *, causal: bool) -> jax.Array:
    """See `pallas_kernels.long_convolution`."""
    dtype = dispatch.arithmetic_dtype(u, kernel)
    convolve = _by_fft
    if causal and kernel.ndim == 2 and u.shape[1] <= _LONGEST_PRODUCT:
        convolve = _by_product
    return convolve(u.astype(dtype), kernel.astype(dtype), causal).astype(u.dtype)


def _by_product(u: jax.Array, kernel: jax.Array, causal: bool) -> jax.Array:
    """y_t = Σ_s M_{s,t} u_s with the Toeplitz matrices M_{s,t} = kernel_{t−s}, one a channel."""
    del causal
    length, taps = u.shape[1], kernel.shape[-1]
    delay = jnp.arange(length) - jnp.arange(length)[:, None]  # [s, t]
    kernel = jnp.pad(kernel, ((0, 0), (0, length - taps)))
    toeplitz = jnp.where(delay >= 0, kernel[:, jnp.maximum(delay, 0)], 0)
    return jnp.einsum("bsd,dst->btd", u, toeplitz)


def _by_fft(u: jax.Array, kernel: jax.Array, causal: bool) -> jax.Array:
    """The product of spectra; zero padding keeps a causal convolution from wrapping around.

    Transforms along axis 1, of two sequences as one complex sequence, to powers of two only, or
    with a gradient written by hand are no faster on a CPU; transforms of a few channels at a time
    take 0.7 of the time forward, but 1.1 of it forward and backward.
    """
    length = u.shape[1]
    padded = fast_length(2 * length - 1) if causal else kernel.shape[-1]
    u = jnp.moveaxis(u, 1, 2)  # [B, D, T]: a transform along the last axis is the fastest
    spectrum = jnp.fft.rfft(u, padded) * jnp.fft.rfft(kernel, padded)
    return jnp.moveaxis(jnp.fft.irfft(spectrum, padded)[..., :length], 2, 1)


def fast_length(minimum: int) -> int:
    """At least the minimum, and fast to transform: m · 2^i with m of small prime factors."""
    return min(m << (-(-minimum // m) - 1).bit_length() for m in (1, 3, 5, 9, 15))
