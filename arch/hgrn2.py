"""HGRN2: gated linear recurrence with state expansion (Qin et al. 2024, arXiv 2404.07904).

Letters: B batch, T time, D model width, H = D / n heads, n expansion ratio: the width of a head.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import State, Undecayed
from arch.nn import options
from arch.nn.layers import Linear, RMSNorm
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_linear_attention


@register("hgrn2")
class HGRN2(Recurrent):
    """h_t = Diag(g_t) h_{t−1} + (1 − g_t) ⊗ i_t, y_t = o_t h_t for each head (section 3.2).

    Forget gate g_t = γ + (1 − γ) σ(x_t W_g), input i_t = x_t W_i, output gate o_t = SiLU(x_t W_o).
    The outputs are normalised over D and mapped by W_y.

    The lower bounds γ are learned for each channel. In the paper they rise from one layer to the
    next, from 0, as sums of a softmax over the layers. A mixer does not know its layer, so each
    learns γ = σ(b) independently, starting at ½, the mean over the paper's layers.

    Args:
      expand_ratio: n; None is 128, or D if D is less.

    State: h [B, H, n, n] in float32.
    """

    paper = "HGRN2 (Qin et al. 2024)"
    reference = "https://arxiv.org/abs/2404.07904"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs, expand_ratio: int | None = None):
        ratio = min(128, d_model) if expand_ratio is None else expand_ratio
        options.divides("expand_ratio", ratio, "d_model", d_model)
        self.expand_ratio = ratio
        self.forget_gate = Linear(d_model, d_model, rngs=rngs)
        self.input = Linear(d_model, d_model, rngs=rngs)
        self.output_gate = Linear(d_model, d_model, rngs=rngs)
        self.lower_bound = Undecayed(jnp.zeros(d_model))
        self.norm = RMSNorm(d_model)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> State:
        num_heads = self.lower_bound.shape[0] // self.expand_ratio
        return {"h": jnp.zeros((batch_size, num_heads, self.expand_ratio, self.expand_ratio))}

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        # Float32: g is often near 1, and the bfloat16 number below 1 is 0.996.
        logits, gamma = (
            self.forget_gate(x).astype(jnp.float32),
            jax.nn.sigmoid(self.lower_bound[...]),
        )
        log_g = jnp.log(gamma + (1 - gamma) * jax.nn.sigmoid(logits))
        key = (1 - gamma) * jax.nn.sigmoid(-logits)  # 1 − g, without cancellation
        o, k, i, log_g = (
            y.reshape(*x.shape[:2], -1, self.expand_ratio)
            for y in (jax.nn.silu(self.output_gate(x)), key.astype(x.dtype), self.input(x), log_g)
        )
        y, h = gated_linear_attention(o, k, i, forget(log_g, starts), memory["h"], scale=1.0)
        return {"h": h}, self.out(self.norm(y.reshape(x.shape)))
