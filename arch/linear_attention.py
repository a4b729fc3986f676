"""Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236).

Letters: B batch, T time, D model width, H heads, K = D / H width of keys and values.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import State
from arch.nn import options
from arch.nn.layers import Linear
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_linear_attention

_EPSILON = 1e-6  # added to the normaliser, which may underflow


@register("linear_attention")
class LinearAttention(Recurrent):
    """Attention with the similarity φ(q)·φ(k), φ(x) = elu(x) + 1 (eq. 7), for each head.

    s_t = s_{t−1} + φ(k_t)ᵀ v_t, z_t = z_{t−1} + φ(k_t) (eq. 18 and 19),
    y_t = φ(q_t) s_t / φ(q_t)·z_t (eq. 20); W_O maps all heads.

    Args:
      num_heads: H.

    State: [s, z], [B, H, K, K + 1] in float32.
    """

    paper = "Transformers are RNNs (Katharopoulos et al. 2020)"
    reference = "https://arxiv.org/abs/2006.16236"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs, num_heads: int = 4):
        options.divides("num_heads", num_heads, "d_model", d_model)
        self.num_heads, self.width = num_heads, d_model // num_heads
        self.query = Linear(d_model, d_model, rngs=rngs)
        self.key = Linear(d_model, d_model, rngs=rngs)
        self.value = Linear(d_model, d_model, rngs=rngs)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> State:
        return {"s_z": jnp.zeros((batch_size, self.num_heads, self.width, self.width + 1))}

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        q, k, v = (
            layer(x).reshape(*x.shape[:2], self.num_heads, self.width)
            for layer in (self.query, self.key, self.value)
        )
        q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
        # z is the sum of φ(k) · 1: a channel of ones appended to v makes it a column of the state.
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        log_decay = None if starts is None else forget(jnp.zeros(k.shape[:3]), starts)
        o, s_z = gated_linear_attention(q, k, v, log_decay, memory["s_z"], scale=1.0)
        y = o[..., :-1] / (o[..., -1:] + _EPSILON)
        return {"s_z": s_z}, self.out(y.reshape(x.shape))
