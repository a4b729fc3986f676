"""DeltaNet: linear transformers with the delta rule (Yang et al. 2024, arXiv 2406.06484).

Letters: B batch, T time, D model width, H heads, K key width, V value width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import State
from arch.nn import options
from arch.nn.layers import Linear, RMSNorm, l2_normalize
from arch.nn.short_conv import convolve_each, short_convs
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_delta_rule


class DeltaRuleMixer(Recurrent):
    """Common part of DeltaNet and Gated DeltaNet: q, k, v, β, the delta rule and the output map.

    A subclass may define `_log_decay` and `_gate`.

    State: S [B, H, K, V] in float32, and the last inputs of the convolutions, if any.
    """

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int,
        key_width: int,
        value_width: int,
        conv_size: int | None,
    ):
        self.num_heads, self.key_width, self.value_width = num_heads, key_width, value_width
        d_key, d_value = num_heads * key_width, num_heads * value_width
        self.query = Linear(d_model, d_key, rngs=rngs)
        self.key = Linear(d_model, d_key, rngs=rngs)
        self.value = Linear(d_model, d_value, rngs=rngs)
        self.beta = Linear(d_model, num_heads, rngs=rngs)
        self.norm = RMSNorm(value_width)
        self.out = Linear(d_value, d_model, rngs=rngs)
        self.convs = short_convs((d_key, d_key, d_value), conv_size, rngs=rngs)

    def _log_decay(self, x: jax.Array) -> jax.Array | None:
        """Return log α [B, T, H], or None without decay."""
        return None

    def _gate(self, o: jax.Array, x: jax.Array) -> jax.Array:
        """Gate the normalised heads o [B, T, H · V] before W_O."""
        return o

    def zeros(self, batch_size: int) -> State:
        return {
            "S": jnp.zeros((batch_size, self.num_heads, self.key_width, self.value_width)),
            "convs": [conv.initial_state(batch_size) for conv in self.convs],
        }

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        qkv = [self.query(x), self.key(x), self.value(x)]
        tails, qkv = convolve_each(self.convs, memory["convs"], qkv, starts)
        q, k, v = (jax.nn.silu(y).reshape(*x.shape[:2], self.num_heads, -1) for y in qkv)
        beta = jax.nn.sigmoid(self.beta(x).astype(jnp.float32))
        log_decay = self._log_decay(x)
        if starts is not None:
            log_decay = forget(jnp.zeros_like(beta) if log_decay is None else log_decay, starts)
        o, S = gated_delta_rule(
            l2_normalize(q), l2_normalize(k), v, beta, log_decay, memory["S"], scale=1.0
        )
        o = self.norm(o).reshape(*x.shape[:2], -1)
        return {"S": S, "convs": tails}, self.out(self._gate(o, x))


@register("deltanet")
class DeltaNet(DeltaRuleMixer):
    """S_t = S_{t−1} (I − β_t k_t k_tᵀ) + β_t v_t k_tᵀ, o_t = S_t q_t for each head (section 2.2).

    q_t and k_t are SiLU(conv(W x)) divided by their norms, v_t is SiLU(conv(W_V x)), and
    β_t = σ(W_β x_t) (section 3.3). The output of each head is normalised; W_O maps all heads.

    Args:
      num_heads: H; K = V = D / H.
      conv_size: width of the short convolutions on q, k and v; None is without.
    """

    paper = "DeltaNet (Yang et al. 2024)"
    reference = "https://arxiv.org/abs/2406.06484"

    def __init__(
        self, d_model: int, *, rngs: nnx.Rngs, num_heads: int = 4, conv_size: int | None = 4
    ):
        options.divides("num_heads", num_heads, "d_model", d_model)
        width = d_model // num_heads
        super().__init__(
            d_model,
            rngs=rngs,
            num_heads=num_heads,
            key_width=width,
            value_width=width,
            conv_size=conv_size,
        )
