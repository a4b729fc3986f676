"""Gated DeltaNet: Mamba-2 with the delta rule (Yang et al. 2024, arXiv 2412.06464).

Letters: B batch, T time, D model width, H heads, K = ¾ D / H key width, V = 2K value width.
"""

import jax
from flax import nnx

from arch.deltanet import DeltaRuleMixer
from arch.nn import options
from arch.nn.decay import ScalarDecay
from arch.nn.layers import Linear
from arch.registry import register


@register("gated_deltanet")
class GatedDeltaNet(DeltaRuleMixer):
    """S_t = S_{t−1} α_t (I − β_t k_t k_tᵀ) + β_t v_t k_tᵀ, o_t = S_t q_t for each head (eq. 10).

    q, k, v and β are those of DeltaNet, and α_t = exp(−e^{A} softplus(W_α x_t + b)) is the decay of
    Mamba-2. The output of each head is normalised and gated by SiLU(W_G x_t); W_O maps all heads
    (section 3.4). The widths give 6 D² parameters, as in the paper's models.

    Args:
      num_heads: H.
      conv_size: width of the short convolutions on q, k and v; None is without.
    """

    paper = "Gated DeltaNet (Yang et al. 2024)"
    reference = "https://arxiv.org/abs/2412.06464"

    def __init__(
        self, d_model: int, *, rngs: nnx.Rngs, num_heads: int = 4, conv_size: int | None = 4
    ):
        if d_model % 4:
            raise ValueError(f"d_model is {d_model}, expected a multiple of 4: keys take 3/4 of it")
        options.divides("num_heads", num_heads, "the key width 3/4 d_model =", 3 * d_model // 4)
        width = 3 * d_model // 4 // num_heads
        super().__init__(
            d_model,
            rngs=rngs,
            num_heads=num_heads,
            key_width=width,
            value_width=2 * width,
            conv_size=conv_size,
        )
        self.decay = ScalarDecay(d_model, num_heads, rngs=rngs)
        self.gate = Linear(d_model, 2 * width * num_heads, rngs=rngs)

    def _log_decay(self, x: jax.Array) -> jax.Array:
        return self.decay(x)[1]

    def _gate(self, o: jax.Array, x: jax.Array) -> jax.Array:
        return o * jax.nn.silu(self.gate(x))
