"""Small layers shared by the architectures; float32 parameters are cast to the input's dtype."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Undecayed

INIT_SCALE = 0.02  # standard deviation of embeddings, as in GPT-2 and Zoology


class Linear(nnx.Module):
    """y = x W (+ b). x: [..., d_in].

    Weights are normal with standard deviation (3 d_in)^-½, the variance of PyTorch's default, which
    most published architectures were trained with. It keeps the scale of activations the same at
    every width, while a constant would make those of narrow models too small.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        rngs: nnx.Rngs,
        use_bias: bool = False,
    ):
        scale = (3 * d_in) ** -0.5
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (d_in, d_out)))
        self.bias = Undecayed(jnp.zeros(d_out)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x @ self.kernel[...].astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class GLU(Linear):
    """(x W + b) ⊙ σ(x V + c), the gated linear unit (Dauphin et al. 2016, arXiv 1612.08083)."""

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        super().__init__(d_in, 2 * d_out, rngs=rngs, use_bias=True)  # W and V side by side

    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(super().__call__(x), 2, axis=-1)
        return value * jax.nn.sigmoid(gate)


class SigmoidGate(Linear):
    """x ⊙ σ(x W + b), the weighted sigmoid gated unit (Tanaka 2018, arXiv 1810.01829)."""

    def __init__(self, d: int, *, rngs: nnx.Rngs):
        super().__init__(d, d, rngs=rngs, use_bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * jax.nn.sigmoid(super().__call__(x))


def dropout(x: jax.Array, rate: float, rng: jax.Array) -> jax.Array:
    """Zero entries with probability `rate`, divide the others by 1 − rate (Srivastava et al. 2014).

    Each entry is drawn independently.
    """
    keep = jax.random.bernoulli(rng, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


class RMSNorm(nnx.Module):
    """x / rms(x) ⊙ g over the last axis, in float32 (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, *, epsilon: float = 1e-5):
        self.scale = Undecayed(jnp.ones(width))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.epsilon)
        return (y * self.scale[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x − mean) / sd ⊙ g + b over the last axis, in float32 (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, width: int, *, epsilon: float = 1e-5):
        self.scale = Undecayed(jnp.ones(width))
        self.bias = Undecayed(jnp.zeros(width))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, -1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.epsilon)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


def l2_normalize(x: jax.Array) -> jax.Array:
    """x / |x| over the last axis, computed in float32."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.sum(y * y, -1, keepdims=True) + 1e-6)  # x may be zero
    return y.astype(x.dtype)
