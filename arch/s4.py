"""S4: structured state spaces (Gu et al. 2021, arXiv 2111.00396).

Letters: B batch, T time, D model width, N state size per channel, R directions (1, or 2 if
bidirectional). One member of each of the N/2 conjugate pairs is stored, so that a sum over states
is twice the real part of a sum over pairs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arch.interface import Context, SequenceMixer, SSMParam, State, Undecayed
from arch.nn import options
from arch.nn.bidirectional_conv import two_sided_convolution, without_padding
from arch.nn.hippo import legs_vectors, normal_legs
from arch.nn.layers import GLU
from arch.nn.step_size import log_uniform
from arch.registry import register
from pallas_kernels import long_convolution

_CAUCHY_ELEMENTS = 2**20  # of the Cauchy matrices in memory at a time: 8 MiB


@register("s4")
class S4(SequenceMixer):
    """One state-space model per channel, diagonal plus low rank, then GELU and a gated linear unit.

    h' = A h + B u, y = C h + D u with A = Λ − P P*, initialised to HiPPO-LegS in the basis in which
    its normal part is diagonal (theorem 1). The bilinear rule gives Ā = (1 − ΔA/2)⁻¹ (1 + ΔA/2) and
    B̄ = (1 − ΔA/2)⁻¹ Δ B (eq. 3).

    The parallel form is the convolution with K_l = C Ā^l B̄, computed from its generating function
    at the roots of unity (algorithm 1). The recurrent form h_t = Ā h_{t−1} + B̄ u_t takes O(N)
    operations (theorem 2). The low-rank term is P P* rather than P Q*, which keeps A stable (Goel
    et al. 2022, arXiv 2202.09729). The paper learns C (1 − Ā^L) for one length L; here C itself is
    the parameter, which works for every length. All of it runs in float32 for every dtype of x.

    Args:
      d_state: N, even.
      dt_min: lower end of the initial Δ, which are log-uniform.
      dt_max: upper end.
      bidirectional: see both ways, with shared A, B and Δ but one C for each direction.

    State: h [B, D, N/2] complex64.
    """

    uses_fft = True
    paper = "S4 (Gu et al. 2021)"
    reference = "https://arxiv.org/abs/2111.00396"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        d_state: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = False,
    ):
        options.at_least("d_state", d_state, 2)
        options.even("d_state", d_state)
        options.interval("dt_min", dt_min, "dt_max", dt_max)
        self.bidirectional = bidirectional
        eigenvalues, V = normal_legs(d_state)
        P, B = (V.conj().T @ vector for vector in legs_vectors(d_state))
        # Λ = −exp(decay) + i frequency: the real part stays negative.
        self.decay = SSMParam(_copies(np.log(-eigenvalues.real), d_model))
        self.frequency = SSMParam(_copies(eigenvalues.imag, d_model))
        self.log_step = SSMParam(log_uniform(rngs.params(), (d_model,), dt_min, dt_max))
        self.P, self.B = (
            SSMParam(_copies(np.stack([v.real, v.imag], axis=-1), d_model)) for v in (P, B)
        )
        # Real and imaginary parts of variance ½ each: a complex normal.
        shape = (*[2] * bidirectional, d_model, d_state // 2, 2)
        self.C = nnx.Param(math.sqrt(0.5) * jax.random.normal(rngs.params(), shape))
        self.D = Undecayed(jax.random.normal(rngs.params(), (d_model,)))
        self.out = GLU(d_model, d_model, rngs=rngs)

    @property
    def causal(self) -> bool:
        """False if bidirectional."""
        return not self.bidirectional

    def continuous(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
        """Return (Δ [D, 1], Λ, P, B, C), the last four [D, N/2] complex; C [2, ...] if
        bidirectional.
        """
        vectors = (jax.lax.complex(p[..., 0], p[..., 1]) for p in (self.P, self.B, self.C))
        eigenvalues = jax.lax.complex(-jnp.exp(self.decay[...]), self.frequency[...])
        return jnp.exp(self.log_step[...])[:, None], eigenvalues, *vectors

    def kernel(self, length: int) -> jax.Array:
        """Return K_l, l < length, [D, length] (algorithm 1); [2, D, length] if bidirectional."""
        step, eigenvalues, P, B, C = self.continuous()
        directions = jnp.moveaxis(C.reshape(-1, *P.shape), 0, 1)  # [D, R, N/2]
        truncated = _truncated(step, eigenvalues, P, directions, length)
        # At ω = exp(−iθ) the sum Σ_{l<L} K_l ω^l is C̃ (1 − Ā ω)⁻¹ B̄ with C̃ = C (1 − Ā^L) (appendix
        # C.3). Half of the roots are enough, because K is real.
        half_angle = np.pi * np.arange(length // 2 + 1) / length

        def spectrum(channel: tuple[jax.Array, ...]) -> jax.Array:
            return _generating_function(*channel, half_angle)

        rows = max(1, _CAUCHY_ELEMENTS // (2 * P.shape[1] * half_angle.size))
        # The Cauchy matrices of all channels at once would take [D, N, T], in both passes.
        spectra = jax.lax.map(
            jax.checkpoint(spectrum),
            (step, eigenvalues, P, B, truncated),
            batch_size=min(rows, P.shape[0]),
        )  # [D, R, F]
        kernels = jnp.moveaxis(jnp.fft.irfft(spectra, length), 1, 0)
        return kernels if self.bidirectional else kernels[0]

    def _block(self, ssm_output: jax.Array, x: jax.Array) -> jax.Array:
        y = ssm_output + self.D[...] * x.astype(jnp.float32)
        return self.out(jax.nn.gelu(y).astype(x.dtype))

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        kernel, u = self.kernel(x.shape[1]), x.astype(jnp.float32)
        if self.bidirectional:
            return self._block(two_sided_convolution(without_padding(u, context), kernel), x)
        self.refuse_packed(context)
        return self._block(long_convolution(u, kernel), x)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        self.require_causal()
        return jnp.zeros((batch_size, *self.decay.shape), jnp.complex64)

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        # Token by token: unlike in S4D, this matrix cannot be diagonalised to take many steps at
        # once, because the eigenvectors of HiPPO have entries of size 2^{4N/3} (lemma 3.2).
        self.require_causal()
        self.refuse_packed(context)
        step, eigenvalues, P, B, C = self.continuous()

        def token(h: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = h + _increment(step, eigenvalues, P, h, B * u[..., None])
            return h, _twice_real(C * h)

        u = jnp.swapaxes(x.astype(jnp.float32), 0, 1)
        state, y = jax.lax.scan(token, state, u)
        return state, self._block(jnp.swapaxes(y, 0, 1), x)


def _increment(
    step: jax.Array, eigenvalues: jax.Array, P: jax.Array, h: jax.Array, drive: jax.Array
) -> jax.Array:
    """Return h_t − h_{t−1} = (1 − ΔA/2)⁻¹ Δ (A h_{t−1} + B u_t), by the Woodbury identity.

    The difference and not h_t, because Ā is so close to 1 that its rounding would outweigh A.

    Args:
      step: Δ [D, 1].
      eigenvalues: Λ [D, N/2].
      P: [D, N/2].
      h: h_{t−1} [..., D, N/2].
      drive: B u_t, likewise.
    """
    change = step * (eigenvalues * h - P * _twice_real(P.conj() * h)[..., None] + drive)
    diagonal = 1 / (1 - step / 2 * eigenvalues)
    correction = _twice_real(P.conj() * diagonal * change)
    correction /= 1 + step[..., 0] / 2 * _twice_real(P.conj() * diagonal * P)
    return diagonal * (change - step / 2 * P * correction[..., None])


def _truncated(
    step: jax.Array, eigenvalues: jax.Array, P: jax.Array, C: jax.Array, length: int
) -> jax.Array:
    """Return C̃ = C (1 − Ā^L), [D, R, N/2] complex like C, by repeated squaring.

    It uses real coordinates (Re h, Im h), in which Ā is one N × N matrix per channel, and E_k =
    Ā^k − 1, so that no digits are lost to the 1: E_{j+k} = E_j + E_k + E_j E_k. Powers of Ā do not
    grow, because A + A* is negative, and so the errors do not grow either.
    """
    eye = jnp.eye(P.shape[-1], dtype=P.dtype)[:, None]  # [N/2, 1, N/2]
    basis = jnp.broadcast_to(jnp.concatenate([eye, 1j * eye]), (2 * eye.shape[0], *P.shape))
    columns = _increment(step, eigenvalues, P, basis, jnp.zeros_like(P))  # [N, D, N/2]
    power = jnp.concatenate([columns.real, columns.imag], axis=-1).transpose(1, 2, 0)  # E_1
    row = 2 * jnp.concatenate([C.real, -C.imag], axis=-1)  # y = C h is 2 Re Σ C_n h_n
    difference = jnp.zeros_like(row)  # C (Ā^k − 1)
    while length:
        if length % 2:
            difference += jnp.matmul(row + difference, power, precision="highest")
        length //= 2
        if length:
            power = 2 * power + jnp.matmul(power, power, precision="highest")
    real, imaginary = jnp.split(-difference, 2, axis=-1)
    return jax.lax.complex(real, -imaginary) / 2


def _generating_function(
    step: jax.Array,
    eigenvalues: jax.Array,
    P: jax.Array,
    B: jax.Array,
    truncated: jax.Array,
    half_angle: np.ndarray,
) -> jax.Array:
    """Return C̃ (1 − Ā ω)⁻¹ B̄ at ω = exp(−iθ) for one channel, [R, F] complex.

    (1 − Ā ω)⁻¹ B̄ = 2/(1 + ω) (g − A)⁻¹ B with g = 2/Δ (1 − ω)/(1 + ω) (appendix C.3). Multiplied
    by exp(iθ/2), so that nothing is infinite at ω = −1, each entry of the diagonal resolvent is
    Δ/2 / (i sin θ/2 − Δ/2 cos θ/2 Λ_n), and the Woodbury identity leaves four Cauchy sums, and
    each further direction adds two.

    Args:
      step: Δ [1].
      eigenvalues: Λ [N/2].
      P: [N/2].
      B: [N/2].
      truncated: C̃ [R, N/2].
      half_angle: θ/2 [F].
    """
    sine, cosine = (f(half_angle).astype(step.dtype) for f in (np.sin, np.cos))
    half = step / 2
    both = jnp.concatenate([eigenvalues, eigenvalues.conj()])[:, None]
    denominator = jax.lax.complex(-half * cosine * both.real, sine - half * cosine * both.imag)
    resolvent = half * denominator.conj() / (denominator.real**2 + denominator.imag**2)
    pairs = jnp.concatenate([truncated * B, truncated * P, P.conj() * jnp.stack([B, P])])
    weights = jnp.concatenate([pairs, pairs.conj()], axis=-1)
    CB, CP, (PB, PP) = jnp.split(
        jnp.matmul(weights, resolvent, precision="highest"), np.array([1, 2]) * len(truncated)
    )
    back = np.exp(1j * half_angle).astype(resolvent.dtype)
    return back * (CB - cosine * CP * PB / (1 + cosine * PP))


def _copies(values: np.ndarray, d_model: int) -> jax.Array:
    return jnp.tile(jnp.asarray(values, jnp.float32), (d_model, *[1] * values.ndim))


def _twice_real(z: jax.Array) -> jax.Array:
    """Sum over all N states, from one of each conjugate pair."""
    return 2 * jnp.sum(z.real, axis=-1)
