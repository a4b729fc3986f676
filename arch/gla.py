"""GLA: gated linear attention (Yang et al. 2023, arXiv 2312.06635).

Letters: B batch, T time, D model width, H heads, K = D / 2H key width, V = D / H value width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import State
from arch.nn import options
from arch.nn.decay import RANK, TEMPERATURE
from arch.nn.layers import Linear, RMSNorm
from arch.nn.short_conv import convolve_each, short_convs
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_linear_attention


@register("gla")
class GLA(Recurrent):
    """S_t = Diag(α_t) S_{t−1} + k_tᵀ v_t, o_t = q_t S_t / √K for each head (eq. 3).

    The decay is data dependent, α_t = σ(x_t W₁ W₂ + b)^{1/τ} (section 4.4).
    The output of each head is normalised and gated by Swish(x W_r + b_r); W_O maps all heads. The
    paper has LayerNorm; here it is RMSNorm, as in the authors' own models.

    Args:
      num_heads: H.
      gate_rank: width between W₁ and W₂.
      temperature: τ; larger forgets more slowly.
      conv_size: width of a short convolution, followed by SiLU, on q, k and v; None is without, as
        in the paper.

    State: S [B, H, K, V] in float32, and the last inputs of the convolutions, if any.
    """

    paper = "GLA (Yang et al. 2023)"
    reference = "https://arxiv.org/abs/2312.06635"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int = 4,
        gate_rank: int = RANK,
        temperature: float = TEMPERATURE,
        conv_size: int | None = None,
    ):
        options.even("d_model", d_model)
        options.divides("num_heads", num_heads, "the key width d_model / 2 =", d_model // 2)
        options.at_least("gate_rank", gate_rank, 1)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}, expected a positive number")
        d_key = d_model // 2
        self.num_heads, self.temperature = num_heads, temperature
        self.key_width, self.value_width = d_key // num_heads, d_model // num_heads
        self.query = Linear(d_model, d_key, rngs=rngs)
        self.key = Linear(d_model, d_key, rngs=rngs)
        self.value = Linear(d_model, d_model, rngs=rngs)
        self.decay_down = Linear(d_model, gate_rank, rngs=rngs)
        self.decay_up = Linear(gate_rank, d_key, rngs=rngs, use_bias=True)
        self.norm = RMSNorm(self.value_width)
        self.gate = Linear(d_model, d_model, rngs=rngs, use_bias=True)
        self.out = Linear(d_model, d_model, rngs=rngs)
        self.convs = short_convs((d_key, d_key, d_model), conv_size, rngs=rngs)

    def zeros(self, batch_size: int) -> State:
        return {
            "S": jnp.zeros((batch_size, self.num_heads, self.key_width, self.value_width)),
            "convs": [conv.initial_state(batch_size) for conv in self.convs],
        }

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        qkv = [self.query(x), self.key(x), self.value(x)]
        tails, qkv = convolve_each(self.convs, memory["convs"], qkv, starts)
        if len(self.convs):
            qkv = [jax.nn.silu(y) for y in qkv]
        q, k, v = (y.reshape(*x.shape[:2], self.num_heads, -1) for y in qkv)
        # log α = log σ(x W₁ W₂ + b) / τ, in float32: it is about −0.04, and sums of thousands of
        # them must be precise.
        gate = self.decay_up(self.decay_down(x)).astype(jnp.float32)
        log_decay = jax.nn.log_sigmoid(gate) / self.temperature
        log_decay = forget(log_decay.reshape(k.shape), starts)
        o, S = gated_linear_attention(q, k, v, log_decay, memory["S"])
        y = self.norm(o).reshape(x.shape) * jax.nn.silu(self.gate(x))
        return {"S": S, "convs": tails}, self.out(y)
