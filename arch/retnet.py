"""RetNet: multi-scale retention (Sun et al. 2023, arXiv 2307.08621).

Letters: B batch, T time, D model width, H heads, K = D / H key width, V = 2D / H value width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import State
from arch.nn import options
from arch.nn.layers import LayerNorm, Linear
from arch.nn.rotary import rotate
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_linear_attention


@register("retnet")
class RetNet(Recurrent):
    """S_n = γ S_{n−1} + K_nᵀ V_n, Retention(X)_n = Q_n S_n (eq. 6), γ fixed for each head.

    Q_n = X_n W_Q e^{inθ} and K_m = X_m W_K e^{imθ} are rotated: with the decay this is xPos with a
    scalar γ (section 2.1). Head h has γ = 1 − 2^{−5−h}, and
    MSR(X) = (swish(X W_G) ⊙ GroupNorm_h(heads)) W_O (eq. 8).

    The values are twice as wide as the keys (section 3.1). The scores are scaled by K^{-½}. Their
    other normalisations (section 2.2) do not change the output of GroupNorm and are left out. Gain
    and bias of GroupNorm are shared by the heads.

    Args:
      num_heads: H.

    State: S [B, H, K, V] in float32, and the number n of tokens so far.
    """

    paper = "RetNet (Sun et al. 2023)"
    reference = "https://arxiv.org/abs/2307.08621"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs, num_heads: int = 4):
        options.divides("num_heads", num_heads, "d_model", d_model)
        options.even("the key width d_model / num_heads", d_model // num_heads)
        self.num_heads, self.key_width = num_heads, d_model // num_heads
        self.value_width = 2 * self.key_width
        self.query = Linear(d_model, d_model, rngs=rngs)
        self.key = Linear(d_model, d_model, rngs=rngs)
        self.value = Linear(d_model, 2 * d_model, rngs=rngs)
        self.norm = LayerNorm(self.value_width)
        self.gate = Linear(d_model, 2 * d_model, rngs=rngs)
        self.out = Linear(2 * d_model, d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> State:
        shape = (batch_size, self.num_heads, self.key_width, self.value_width)
        return {"S": jnp.zeros(shape), "n": jnp.zeros((), jnp.int32)}

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        q, k, v = (
            layer(x).reshape(*x.shape[:2], self.num_heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        # Scores depend on n − m alone, so positions need not restart in each document.
        q, k = rotate(q, memory["n"]), rotate(k, memory["n"])
        log_gamma = jnp.log1p(-(2.0 ** (-5 - jnp.arange(self.num_heads))))
        log_decay = forget(jnp.broadcast_to(log_gamma, q.shape[:3]), starts)
        heads, S = gated_linear_attention(q, k, v, log_decay, memory["S"])
        gate = jax.nn.silu(self.gate(x))
        y = gate * self.norm(heads).reshape(gate.shape)
        return {"S": S, "n": memory["n"] + x.shape[1]}, self.out(y)
