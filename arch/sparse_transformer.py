"""Sparse Transformer: two factorised attention patterns (Child et al. 2019, arXiv 1904.10509).

Letters: B batch, T time, D model width, H heads, K head width, M longest sequence.
"""

import math
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from arch.attention import Attention
from arch.nn import options
from arch.registry import register
from pallas_kernels.attention import masks


class _Factorized(Attention):
    """Common part of both patterns: ℓ, the use of heads, and the initialisation.

    Args:
      num_heads: H; head width K = D / H.
      stride: ℓ; None is √M.
      heads: "merged", every head sees A^(1) ∪ A^(2), or "split", half of the heads see A^(1) and
        half A^(2) (section 5.1, which has a third variant with one of the two for each layer).
      positions: "rotary" or "none".
      max_length: M.
      num_layers: W_O is scaled by 1/√(2 num_layers).
    """

    paper: ClassVar[str] = "Sparse Transformer (Child et al. 2019)"
    reference: ClassVar[str] = "https://arxiv.org/abs/1904.10509"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int = 1,
        stride: int | None = None,
        heads: str = "merged",
        positions: str = "rotary",
        max_length: int = 1024,
        num_layers: int = 1,
    ):
        for name, value in (("max_length", max_length), ("num_layers", num_layers)):
            options.at_least(name, value, 1)
        options.one_of("heads", heads, ("merged", "split"))
        super().__init__(d_model, rngs=rngs, num_heads=num_heads, positions=positions)
        if heads == "split":
            options.even("num_heads, of which each pattern has one half,", num_heads)
        self.stride = round(math.sqrt(max_length)) if stride is None else stride
        options.at_least("stride", self.stride, 1)
        self.heads = heads
        # Keeps the variance of the residual stream bounded, to which every layer adds twice
        # (section 5.2). The other scaled weight, W₂, belongs to the backbone's channel mixer.
        self.out.kernel = nnx.Param(self.out.kernel[...] / jnp.sqrt(2 * num_layers))


@register("sparse_strided")
class SparseStrided(_Factorized):
    """Attention to A_t^(1) = {t − ℓ, …, t} and A_t^(2) = {s ≤ t : (t − s) mod ℓ = 0} (section 4.3).

    The paper embeds a token's row and column; here positions are rotary, as in `attention`.

    State: all keys and values, [B, M, H, K] each, because later tokens attend to every key.
    """

    @property
    def _rules(self) -> tuple[masks.Mask, ...]:
        if self.heads == "merged":  # t − ℓ is in A^(2)
            return (masks.Strided(self.stride),)
        return masks.Window(self.stride + 1), masks.Column(self.stride)


@register("sparse_fixed")
class SparseFixed(_Factorized):
    """Attention to A_t^(1) = {s ≤ t : ⌊s/ℓ⌋ = ⌊t/ℓ⌋}, one's own block, and A_t^(2) = {s ≤ t :
    s mod ℓ ≥ ℓ − c}, the summary cells of every block (section 4.3).

    Blocks are counted from the start of the row, so that packed documents are refused. With "split"
    heads a token also sees itself in addition to A^(2), which is empty for the first tokens.

    Args:
      summary: c; None is 8, the smallest value in the paper, or ℓ / 4 if ℓ is less than 32. It must
        not grow with T, or else the T / ℓ summaries make the cost O(T²).
      **both: options of `_Factorized`.

    State: all keys and values, [B, M, H, K] each.
    """

    packs = False

    @options.with_those_of(_Factorized)
    def __init__(self, d_model: int, *, rngs: nnx.Rngs, summary: int | None = None, **both: Any):
        super().__init__(d_model, rngs=rngs, **both)
        self.summary = min(8, max(1, self.stride // 4)) if summary is None else summary
        options.at_least("summary", self.summary, 1)
        if self.summary > self.stride:
            raise ValueError(
                f"summary is {self.summary}, expected at most the stride {self.stride}"
            )

    @property
    def _rules(self) -> tuple[masks.Mask, ...]:
        if self.heads == "merged":
            return (masks.Fixed(self.stride, self.summary),)
        return masks.BlockLocal(self.stride), masks.Summary(self.stride, self.summary)
