"""Data-dependent decays of linear recurrences.

Letters: B batch, T time, D model width, H heads.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Undecayed
from arch.nn.layers import Linear
from arch.nn.step_size import softplus_bias

RANK, TEMPERATURE = 16, 16.0  # of the decay of GLA and of MoM's GLA memories, by default
_RATE_RANGE = (1.0, 16.0)  # −A is uniform in it


class ScalarDecay(nnx.Module):
    """Δ_t = softplus(x_t W + b) and log a_t = Δ_t A with A = −exp(A_log), a number for each head.

    The decay of Mamba-2 (Dao & Gu 2024, arXiv 2405.21060).

    x: [B, T, D]; returns (Δ, log a), each [B, T, H] in float32.
    """

    def __init__(self, d_model: int, num_heads: int, *, rngs: nnx.Rngs):
        self.step = Linear(d_model, num_heads, rngs=rngs)
        self.step_bias = Undecayed(softplus_bias(rngs.params(), num_heads))
        low, high = _RATE_RANGE
        rate = jax.random.uniform(rngs.params(), (num_heads,), minval=low, maxval=high)
        self.A_log = Undecayed(jnp.log(rate))

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Float32: bfloat16 would lose a step of 1e-3 added to a bias of −7.
        delta = jax.nn.softplus(self.step(x.astype(jnp.float32)) + self.step_bias[...])
        return delta, -delta * jnp.exp(self.A_log[...])
