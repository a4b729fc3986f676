"""LRU: the linear recurrent unit (Orvieto et al. 2023, arXiv 2303.06349).

Letters: B batch, T time, D model width, N complex states.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import SSMParam, Undecayed
from arch.nn import options
from arch.nn.diagonal_mimo import diagonal_ssm
from arch.nn.layers import GLU, SigmoidGate
from arch.recurrent import Recurrent
from arch.registry import register


@register("lru")
class LRU(Recurrent):
    """One diagonal linear recurrence for all channels, then GELU and a gated linear unit.

    h_t = λ ⊙ h_{t−1} + γ ⊙ (B u_t), y_t = Re(C h_t) + D u_t, with λ = exp(−exp ν + i exp θ) inside
    the unit circle for every ν (section 3.3). γ is a parameter, initialised to √(1 − |λ|²), so that
    for white noise every h_n has the variance of (B u)_n (eq. 7).

    The initial λ are uniform on the ring r_min ≤ |λ| ≤ r_max with a phase uniform in
    [0, max_phase] (lemma 3.2): large r_min and small max_phase help to remember over thousands of
    steps.

    Args:
      d_state: N.
      r_min: inner radius of the ring.
      r_max: outer radius of the ring.
      max_phase: the largest angle, in radians.
      output: "glu", W g ⊙ σ(V g) of g = GELU(y), or "gate", g ⊙ σ(V g) as in S5.

    State: h [B, N] complex64, and the id of the last document.
    """

    paper = "LRU (Orvieto et al. 2023)"
    reference = "https://arxiv.org/abs/2303.06349"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        d_state: int = 256,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        output: str = "glu",
    ):
        options.at_least("d_state", d_state, 1)
        if not 0 <= r_min < r_max <= 1:
            raise ValueError(f"r_min, r_max are {r_min}, {r_max}, expected 0 <= r_min < r_max <= 1")
        if max_phase <= 0:
            raise ValueError(f"max_phase is {max_phase}, expected a positive angle in radians")
        options.one_of("output", output, ("glu", "gate"))
        # Uniform in area: |λ|² is uniform. The ends are left out: |λ| = 0 or 1 and a phase of 0
        # have no logarithm.
        u1, u2 = jax.random.uniform(rngs.params(), (2, d_state), minval=1e-6, maxval=1 - 1e-6)
        squared = u1 * (r_max**2 - r_min**2) + r_min**2
        self.nu = SSMParam(jnp.log(-0.5 * jnp.log(squared)))
        self.theta = SSMParam(jnp.log(max_phase * u2))
        self.gamma_log = SSMParam(0.5 * jnp.log1p(-squared))
        # Glorot: the variance is split between real and imaginary part.
        B = jax.random.normal(rngs.params(), (2, d_model, d_state)) / math.sqrt(2 * d_model)
        self.B = SSMParam(B)
        self.C = nnx.Param(
            jax.random.normal(rngs.params(), (2, d_state, d_model)) / math.sqrt(d_state)
        )
        self.D = Undecayed(jax.random.normal(rngs.params(), (d_model,)))
        if output == "glu":
            self.out = GLU(d_model, d_model, rngs=rngs)
        else:
            self.out = SigmoidGate(d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, *self.nu.shape), jnp.complex64)

    def run(
        self, memory: jax.Array, x: jax.Array, starts: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        decay = jnp.exp(jax.lax.complex(-jnp.exp(self.nu[...]), jnp.exp(self.theta[...])))
        gamma = jnp.exp(self.gamma_log[...])
        y, memory = diagonal_ssm(x, decay, gamma, self.B[...], self.C[...], memory, starts)
        return memory, self.out(jax.nn.gelu(y + self.D[...].astype(x.dtype) * x))
