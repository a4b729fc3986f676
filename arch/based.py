"""Based: linear attention by a Taylor series of the exponential (Arora et al. 2024, arXiv
2402.18668).

Letters: B batch, T time, D model width, H heads, K width of queries and keys, V = D / H value
width, F = (K + 1)(K + 2) / 2 features.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arch.interface import State
from arch.nn import options
from arch.nn.layers import Linear
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_linear_attention


def taylor_features(x: jax.Array) -> jax.Array:
    """Return φ(x) with φ(q) · φ(k) = 1 + s + s² / 2, s = q · k / √K: exp(s) to second order
    (section 4).

    s² is the sum of all x_i x_j y_i y_j. Since x_i x_j = x_j x_i, the pairs i < j are stored once,
    with weight √2, which takes F features instead of 1 + K + K².

    Args:
      x: [..., K].

    Returns:
      [..., F].
    """
    width = x.shape[-1]
    x = x * width**-0.25
    i, j = np.triu_indices(width)
    weight = jnp.asarray(np.where(i == j, math.sqrt(0.5), 1.0), x.dtype)
    return jnp.concatenate([jnp.ones_like(x[..., :1]), x, weight * x[..., i] * x[..., j]], axis=-1)


@register("based")
class Based(Recurrent):
    """o_t = φ(q_t) Σ_{s ≤ t} φ(k_s)ᵀ v_s / φ(q_t) Σ_{s ≤ t} φ(k_s)ᵀ for each head (eq. 2), with φ
    the second-order Taylor map; y = concat(heads) W_O.

    This is the linear-attention layer. It has no positions and is imprecise about nearby tokens:
    the models of the paper alternate it with `sliding_window` and short convolutions (section 4.2),
    the pattern `mixer=["base_conv", "based", "base_conv", "sliding_window", "base_conv"]`.

    Args:
      num_heads: H.
      feature_width: K; 8 to 24 in the paper.

    State: Σ φ(k)ᵀ [v, 1], [B, H, F, V + 1] in float32.
    """

    paper = "Based (Arora et al. 2024)"
    reference = "https://arxiv.org/abs/2402.18668"

    def __init__(
        self, d_model: int, *, rngs: nnx.Rngs, num_heads: int = 1, feature_width: int = 16
    ):
        options.divides("num_heads", num_heads, "d_model", d_model)
        options.at_least("feature_width", feature_width, 1)
        self.num_heads, self.feature_width = num_heads, feature_width
        self.value_width = d_model // num_heads
        self.query = Linear(d_model, num_heads * feature_width, rngs=rngs)
        self.key = Linear(d_model, num_heads * feature_width, rngs=rngs)
        self.value = Linear(d_model, d_model, rngs=rngs)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> State:
        features = (self.feature_width + 1) * (self.feature_width + 2) // 2
        return {"S": jnp.zeros((batch_size, self.num_heads, features, self.value_width + 1))}

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        # Float32: rounding errors of the features enter the numerator and the normaliser.
        q, k, v = (
            layer(x).reshape(*x.shape[:2], self.num_heads, -1).astype(jnp.float32)
            for layer in (self.query, self.key, self.value)
        )
        # A channel of ones appended to v sums the normaliser, whose terms are all at least ½:
        # 1 + s + s²/2 = ((1 + s)² + 1) / 2.
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        log_decay = None if starts is None else forget(jnp.zeros(k.shape[:3]), starts)
        o, S = gated_linear_attention(
            taylor_features(q), taylor_features(k), v, log_decay, memory["S"], scale=1.0
        )
        o = o[..., :-1] / o[..., -1:]
        return {"S": S}, self.out(o.reshape(x.shape).astype(x.dtype))
