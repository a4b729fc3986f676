"""Block-local attention (Liu et al. 2018, arXiv 1801.10198, section 4.2.4).

Letters: B batch, T time, D model width, H query heads, G key-value heads, K head width.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.attention import Attention
from arch.interface import Context, State
from arch.nn import options
from arch.nn.documents import document_starts
from arch.registry import register
from pallas_kernels.attention import masks


@register("block_local")
class BlockLocal(Attention):
    """Attention within blocks of b tokens: o_t = Σ_s softmax_s(q_t · k_s / √K) v_s over the s ≤ t
    with ⌊s / b⌋ = ⌊t / b⌋.

    Blocks are counted from the start of each document. Another layer, such as `base_conv` or
    `attention`, must carry information from block to block.

    Args:
      block: b; the paper has 256.
      **attention: options of `attention`, except `window`, which is b, and `causal`.

    State: the keys and values of the current block, at most b − 1 of each, [B, b − 1, G, K].
    """

    paper = "Generating Wikipedia (Liu et al. 2018)"
    reference = "https://arxiv.org/abs/1801.10198"

    @options.with_those_of(Attention, without=["window", "causal"])
    def __init__(self, d_model: int, *, rngs: nnx.Rngs, block: int = 64, **attention: Any):
        options.at_least("block", block, 1)
        # With documents or a state, blocks may start anywhere in the row. Then every block counts
        # as a document under a window of b, and the cache is that of the window.
        super().__init__(d_model, rngs=rngs, window=block, **attention)
        self.block = block

    def _starts(
        self, x: jax.Array, context: Context | None, state: State | None = None
    ) -> jax.Array:
        t = jnp.arange(x.shape[1])
        # The start of each token's document, up to a multiple of b.
        began = jnp.zeros((x.shape[0], 1), jnp.int32)
        if state is not None:
            began = began - state["visible"][:, None]
        starts = super()._starts(x, context, state)
        if starts is not None:
            began = jnp.maximum(began, jax.lax.cummax(jnp.where(starts, t, -self.block), axis=1))
        return (t - began) % self.block == 0

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        if document_starts(context) is not None:
            return super().__call__(x, context)
        return self._attend(*self._project(x, 0), [masks.BlockLocal(self.block)])
