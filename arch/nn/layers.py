"""Small layers shared by the architectures; float32 parameters are cast to the input's dtype."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Undecayed

INIT_SCALE = 0.02  # standard deviation of embeddings, as in GPT-2 and Zoology


class Linear(nnx.Module):
    """y = x W (+ b). x: [..., d_in].

    Weights are normal with standard deviation (3 d_in)^-½, the variance of PyTorch's default, with
    which most of the published architectures were trained. It keeps the size of activations the
    same at every width, where a constant starves narrow models.
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
    """Zeroes entries with probability `rate`; the others over 1 − rate, which keeps the mean.

    Srivastava et al. 2014. Each entry is drawn by itself.
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


class ShortConv(nnx.Module):
    """Depthwise causal convolution: y_t = Σ_j w_j ⊙ x_{t−j} + b, j = 0 … width − 1.

    Before the sequence there are zeros. Its state is the last inputs, [B, width − 1, D].
    """

    def __init__(self, d: int, width: int, *, rngs: nnx.Rngs):
        bound = width**-0.5  # the fan-in of a depthwise filter is its width
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (width, d), minval=-bound, maxval=bound)
        )
        self.bias = Undecayed(jnp.zeros(d))
        self.width = width

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.extend(self.initial_state(x.shape[0], x.dtype), x)[1]

    def initial_state(self, batch_size: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jnp.zeros((batch_size, self.width - 1, self.bias.shape[0]), dtype)

    def extend(self, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        length = x.shape[1]
        padded = jnp.concatenate([state.astype(x.dtype), x], axis=1)
        kernel = self.kernel[...].astype(x.dtype)
        # A sum of shifted products: XLA fuses it into one pass, while its grouped convolutions are
        # slow on CPU.
        y = sum(kernel[j] * padded[:, self.width - 1 - j :][:, :length] for j in range(self.width))
        return padded[:, length:].astype(state.dtype), y + self.bias[...].astype(x.dtype)
