"""S5: simplified state space layers (Smith et al. 2022, arXiv 2208.04933).

Letters: B batch, T time, D model width, N state size of the layer; one member of each of the N/2
conjugate pairs is stored.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arch.interface import SSMParam, Undecayed
from arch.nn import options
from arch.nn.diagonal_mimo import diagonal_ssm
from arch.nn.hippo import normal_legs
from arch.nn.layers import SigmoidGate
from arch.nn.step_size import STEP_RANGE, log_uniform
from arch.recurrent import Recurrent
from arch.registry import register


@register("s5")
class S5(Recurrent):
    """One state-space model for all channels, then a weighted sigmoid gated unit.

    h' = Λ h + B u, y = 2 Re(C h) + D u with diagonal Λ and a step Δ_n for each state, discretised
    by zero-order hold: λ̄ = exp(Λ Δ), B̄ = Λ⁻¹ (λ̄ − 1) B (eq. 6); h_t = λ̄ ⊙ h_{t−1} + B̄ u_t.
    The block returns g ⊙ σ(g W + b) with g = GELU(y).

    At initialisation Λ and V are the eigenvalues and eigenvectors of a block-diagonal matrix of
    num_blocks copies of the normal part of HiPPO-LegS, with B = V* B′ and C = C′ V for real random
    B′ and C′ (appendix B.1). Here Λ = −exp(decay) + i frequency, so that training cannot
    make it unstable; the paper learns the real part itself.

    Args:
      d_state: N.
      num_blocks: copies of HiPPO-LegS, each of even size N / num_blocks.

    State: h [B, N/2] complex64, and the id of the last document.
    """

    paper = "S5 (Smith et al. 2022)"
    reference = "https://arxiv.org/abs/2208.04933"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs, d_state: int = 256, num_blocks: int = 8):
        options.at_least("d_state", d_state, 2)
        options.divides("num_blocks", num_blocks, "d_state", d_state)
        size = d_state // num_blocks
        options.even("d_state / num_blocks", size)
        eigenvalues, V = normal_legs(size)
        pairs = jnp.asarray(np.tile(eigenvalues.astype(np.complex64), num_blocks))
        V = V.astype(np.complex64)
        self.decay = SSMParam(jnp.log(-pairs.real))
        self.frequency = SSMParam(pairs.imag)
        self.log_step = SSMParam(log_uniform(rngs.params(), pairs.shape, *STEP_RANGE))
        # B′ and C′ have the variance of their fan-in; V mixes the states of a block.
        B = jax.random.normal(rngs.params(), (d_model, num_blocks, size)) / math.sqrt(d_model)
        self.B = SSMParam(_real_and_imaginary(B @ V.conj()).reshape(2, d_model, -1))
        C = jax.random.normal(rngs.params(), (d_model, num_blocks, size)) / math.sqrt(d_state)
        self.C = nnx.Param(_real_and_imaginary(C @ V).reshape(2, d_model, -1).swapaxes(1, 2))
        self.D = Undecayed(jax.random.normal(rngs.params(), (d_model,)))
        self.out = SigmoidGate(d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, *self.decay.shape), jnp.complex64)

    def run(
        self, memory: jax.Array, x: jax.Array, starts: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        eigenvalue = jax.lax.complex(-jnp.exp(self.decay[...]), self.frequency[...])
        exponent = eigenvalue * jnp.exp(self.log_step[...])
        # expm1: λ̄ − 1 is about 1e-3 where Δ is smallest.
        scale = jnp.expm1(exponent) / eigenvalue
        y, memory = diagonal_ssm(
            x, jnp.exp(exponent), scale, self.B[...], 2 * self.C[...], memory, starts
        )
        return memory, self.out(jax.nn.gelu(y + self.D[...].astype(x.dtype) * x))


def _real_and_imaginary(z: jax.Array) -> jax.Array:
    return jnp.stack([z.real, z.imag])
