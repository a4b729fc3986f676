"""Mamba-2: structured state space duality (Dao & Gu 2024, arXiv 2405.21060).

Letters: B batch, T time, D model width, E = expand · D inner width, H heads, P = E / H head width,
N state size.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import State, Undecayed
from arch.nn import options
from arch.nn.decay import ScalarDecay
from arch.nn.layers import Linear, RMSNorm
from arch.nn.short_conv import ShortConv
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_linear_attention


@register("mamba2")
class Mamba2(Recurrent):
    """The Mamba-2 block (fig. 6, right), which needs no separate channel mixer.

    z, xBC, Δ = u W; x, B, C = SiLU(conv(xBC)); for each head, with a scalar A and with B and C
    shared by all heads (multi-input, section 7.2),
    h_t = exp(Δ_t A) h_{t−1} + Δ_t B_tᵀ x_t, y_t = C_t h_t + D x_t (eq. 2, section 2.4);
    out = RMSNorm(y ⊙ SiLU(z)) W_out (section 7.1).

    A, D and the bias of Δ have no weight decay.

    Args:
      d_state: N.
      head_width: P; None is 64, or E if E is less.
      expand: E / D.
      conv_size: width of the depthwise causal convolution.

    State: the last conv_size − 1 inputs of the convolution, and h [B, H, N, P] in float32.
    """

    channel_mixing = True
    paper = "Mamba-2 (Dao & Gu 2024)"
    reference = "https://arxiv.org/abs/2405.21060"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        d_state: int = 128,
        head_width: int | None = None,
        expand: int = 2,
        conv_size: int = 4,
    ):
        for name, value in (("d_state", d_state), ("expand", expand), ("conv_size", conv_size)):
            options.at_least(name, value, 1)
        inner = expand * d_model
        head_width = min(64, inner) if head_width is None else head_width
        options.divides("head_width", head_width, "the inner width expand · d_model =", inner)
        self.d_state, self.num_heads = d_state, inner // head_width
        self.gate = Linear(d_model, inner, rngs=rngs)
        self.into = Linear(d_model, inner + 2 * d_state, rngs=rngs)  # x, B, C
        self.conv = ShortConv(inner + 2 * d_state, conv_size, rngs=rngs)
        self.decay = ScalarDecay(d_model, self.num_heads, rngs=rngs)
        self.D = Undecayed(jnp.ones(self.num_heads))
        self.norm = RMSNorm(inner)
        self.out = Linear(inner, d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> State:
        head_width = self.norm.scale.shape[0] // self.num_heads
        return {
            "conv": self.conv.initial_state(batch_size),
            "h": jnp.zeros((batch_size, self.num_heads, self.d_state, head_width)),
        }

    def run(self, memory: State, u: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        z = self.gate(u)
        tail, xBC = self.conv.extend(memory["conv"], self.into(u), starts)
        x, B, C = jnp.split(jax.nn.silu(xBC), (z.shape[-1], z.shape[-1] + self.d_state), axis=-1)
        x = x.reshape(*x.shape[:2], self.num_heads, -1)
        B, C = (jnp.repeat(y[:, :, None], self.num_heads, axis=2) for y in (B, C))
        delta, log_decay = self.decay(u)
        v = (delta[..., None] * x).astype(x.dtype)
        log_decay = forget(log_decay, starts)
        y, h = gated_linear_attention(C, B, v, log_decay, memory["h"], scale=1.0)
        y = y + self.D[...].astype(x.dtype)[:, None] * x
        y = self.norm(y.reshape(z.shape) * jax.nn.silu(z))
        return {"conv": tail, "h": h}, self.out(y)
