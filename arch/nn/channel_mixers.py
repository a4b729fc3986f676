"""Channel mixers: the feed-forward layers of a block."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.nn.layers import Linear


class _MLP(nnx.Module):
    """GELU(x W₁) W₂ with hidden width 4 D (Vaswani et al. 2017, eq. 2; GELU as in GPT-2)."""

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        self.up = Linear(d_model, 4 * d_model, rngs=rngs, use_bias=True)
        self.down = Linear(4 * d_model, d_model, rngs=rngs, use_bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(x)))


class _SwiGLU(nnx.Module):
    """(Swish(x W) ⊙ x V) W₂ (Shazeer 2020, arXiv 2002.05202).

    The hidden width is 11/4 D: the paper's 8/3 D, rounded up as in the published models of 340M and
    1.3B parameters (2,816 at D = 1,024 and 5,632 at 2,048).
    """

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        hidden = -(-11 * d_model // 4)
        self.up = Linear(d_model, 2 * hidden, rngs=rngs)
        self.down = Linear(hidden, d_model, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = jnp.split(self.up(x), 2, axis=-1)
        return self.down(jax.nn.swish(gate) * value)


CHANNEL_MIXERS = {"mlp": _MLP, "swiglu": _SwiGLU}
