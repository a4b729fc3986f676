"""Diagonal state spaces with one input and one output each (SISO), used by S4D and H3.

Letters: B batch, T time, D model width, N state size per channel; one member of each of the N/2
conjugate pairs is stored.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arch.interface import SSMParam, Undecayed
from arch.nn import options
from arch.nn.bidirectional_conv import two_sided_convolution
from arch.nn.hippo import normal_legs
from arch.nn.step_size import log_uniform
from pallas_kernels import long_convolution


class DiagonalSSM(nnx.Module):
    """h' = A h + B u, y = 2 Re(C h) + D u for each channel, in float32 and complex64.

    With Ā and B̄ the discretised A and B, the parallel form is the convolution with
    K_l = 2 Re Σ_n C_n B̄_n Ā_n^l (eq. 4). Its state is h [B, D, N/2] complex64.

    If bidirectional, a second kernel with its own C runs backwards, and the two are added.
    """

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        d_state: int,
        init: str,
        discretization: str,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
    ):
        options.at_least("d_state", d_state, 2)
        options.even("d_state", d_state)
        options.one_of("init", init, tuple(INITS))
        options.one_of("discretization", discretization, ("zoh", "bilinear"))
        options.interval("dt_min", dt_min, "dt_max", dt_max)
        self.discretization, self.bidirectional = discretization, bidirectional
        shape = (d_model, d_state // 2)
        A = jnp.broadcast_to(INITS[init](d_state).astype(np.complex64), shape)
        # A = −exp(decay) + i frequency: the real part stays negative (section 3.4).
        self.decay = SSMParam(jnp.log(-A.real))
        self.frequency = SSMParam(A.imag)
        self.log_step = SSMParam(log_uniform(rngs.params(), (d_model,), dt_min, dt_max))
        self.B = SSMParam(jnp.stack([jnp.ones(shape), jnp.zeros(shape)], axis=-1))
        # Real and imaginary parts of variance ½ each: a complex normal.
        directions = (2,) if bidirectional else ()
        self.C = nnx.Param(
            math.sqrt(0.5) * jax.random.normal(rngs.params(), (*directions, *shape, 2))
        )
        self.D = Undecayed(jax.random.normal(rngs.params(), (d_model,)))

    def discretized(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return (log Ā, B̄, C), [D, N/2] complex64 each; the logarithm gives Ā^l for all l at once.

        If bidirectional, C is [2, D, N/2].
        """
        step = jnp.exp(self.log_step[...])[:, None]
        A = jax.lax.complex(-jnp.exp(self.decay[...]), self.frequency[...])
        B, C = (jax.lax.complex(p[..., 0], p[..., 1]) for p in (self.B[...], self.C[...]))
        if self.discretization == "zoh":  # Ā = exp(ΔA), B̄ = A⁻¹ (Ā − 1) B
            return step * A, jnp.expm1(step * A) / A * B, C
        # Ā = (1 + ΔA/2) / (1 − ΔA/2), B̄ = Δ B / (1 − ΔA/2)
        half = step * A / 2
        return jnp.log1p(half) - jnp.log1p(-half), step / (1 - half) * B, C

    def __call__(self, u: jax.Array) -> jax.Array:
        """Apply to u [B, T, D] float32; the result has the same shape."""
        log_A, B, C = self.discretized()
        kernel = sum_of_powers(C * B, log_A, u.shape[1])
        convolve = two_sided_convolution if self.bidirectional else long_convolution
        return convolve(u, kernel) + self.D[...] * u

    def initial_state(self, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, *self.decay.shape), jnp.complex64)

    def extend(self, h: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        # y = K ∗ u + 2 Re Σ C Ā^{t+1} h_0 and h_T = Ā^T h_0 + Σ_t Ā^{T−1−t} B̄ u_t: the exact
        # recurrence for a chunk of any length, without an array [B, T, D, N].
        length = u.shape[1]
        log_A, B, C = self.discretized()
        from_input = long_convolution(u, sum_of_powers(C * B, log_A, length))
        from_state = sum_of_powers(C * jnp.exp(log_A) * h, log_A, length)
        h = jnp.exp(length * log_A) * h + B * moments(u, log_A)
        return h, from_input + jnp.swapaxes(from_state, -1, -2) + self.D[...] * u


def sum_of_powers(coefficients: jax.Array, log_A: jax.Array, length: int) -> jax.Array:
    """2 Re Σ_n c_n Ā_n^l for l < length, in O(D N √length) memory.

    With l = m i + j the power is Ā^{mi} Ā^j, so the sum over n is a batch of small matrix products.

    Args:
      coefficients: c [..., D, N/2] complex.
      log_A: [D, N/2] complex.
      length: number of powers.

    Returns:
      [..., D, length] float32.
    """
    outer, inner = _powers(log_A, length)
    left = coefficients[..., None, :] * outer
    product = 2 * (_matmul(left.real, inner.real) - _matmul(left.imag, inner.imag))
    return product.reshape(*product.shape[:-2], -1)[..., :length]


def moments(u: jax.Array, log_A: jax.Array) -> jax.Array:
    """Σ_t Ā_n^{T−1−t} u_t, the transpose of `sum_of_powers`.

    Args:
      u: [B, T, D] float32.
      log_A: [D, N/2] complex.

    Returns:
      [B, D, N/2] complex64.
    """
    length = u.shape[1]
    outer, inner = _powers(log_A, length)  # [D, I, N/2], [D, N/2, J]
    backwards = jnp.pad(u[:, ::-1], ((0, 0), (0, outer.shape[1] * inner.shape[2] - length), (0, 0)))
    tiles = backwards.reshape(u.shape[0], outer.shape[1], inner.shape[2], -1)
    tiles = tiles.transpose(0, 3, 1, 2)  # [B, D, I, J]
    transposed = jnp.swapaxes(inner, -1, -2)
    within = jax.lax.complex(_matmul(tiles, transposed.real), _matmul(tiles, transposed.imag))
    return jnp.sum(within * outer, axis=2)


def _powers(log_A: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """(Ā^{m i} [D, I, N/2], Ā^j [D, N/2, m]) with m ≈ √length and I m >= length."""
    m = max(1, math.isqrt(length))
    starts = m * jnp.arange(-(-length // m))
    return jnp.exp(starts[:, None] * log_A[:, None]), jnp.exp(log_A[..., None] * jnp.arange(m))


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    # By default accelerators round the factors to bfloat16 or TF32: too coarse for these sums.
    return jnp.matmul(a, b, precision="highest")


def _lin(d_state: int) -> np.ndarray:
    return -0.5 + 1j * np.pi * np.arange(d_state // 2)


def _inv(d_state: int) -> np.ndarray:
    n = np.arange(d_state // 2)
    return -0.5 + 1j * d_state / np.pi * (d_state / (2 * n + 1) - 1)


def _real(d_state: int) -> np.ndarray:
    return -(np.arange(d_state // 2) + 1) + 0j


INITS = {"lin": _lin, "inv": _inv, "legs": lambda d_state: normal_legs(d_state)[0], "real": _real}
