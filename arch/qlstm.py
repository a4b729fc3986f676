"""The quasi-LSTM of the Languini Kitchen (Stanić et al. 2023, arXiv 2309.11197).

Letters: B batch, T time, D model width, which is also the width of c.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.nn.layers import Linear
from arch.recurrent import Recurrent
from arch.registry import register
from pallas_kernels import linear_scan


@register("qlstm")
class QLSTM(Recurrent):
    """An LSTM whose gates do not see h_{t−1}, so that c is a linear recurrence.

    z = tanh(x_t W_z + b_z); i, f, o = σ(x_t W + b), with separate parameters;
    c_t = f ⊙ c_{t−1} + i ⊙ z; y_t = (o ⊙ tanh(c_t)) W_y.

    Without recurrent weights, only W_y mixes channels. The bias of f starts at 1, as in the LSTM.

    State: c [B, D], and the id of the last document.
    """

    paper = "Languini Kitchen (Stanić et al. 2023)"
    reference = "https://arxiv.org/abs/2309.11197"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        self.into = Linear(d_model, 4 * d_model, rngs=rngs, use_bias=True)  # z, i, f, o
        self.into.bias[...] = self.into.bias[...].at[2 * d_model : 3 * d_model].set(1.0)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, self.out.kernel.shape[0]))

    def run(
        self, memory: jax.Array, x: jax.Array, starts: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        # Float32: in bfloat16 a forget gate above 0.998 would round to 1.
        z, i, f, o = jnp.split(self.into(x).astype(jnp.float32), 4, axis=-1)
        decay = jax.nn.sigmoid(f)
        if starts is not None:
            decay = jnp.where(starts[..., None], 0, decay)
        c, memory = linear_scan(decay, jax.nn.sigmoid(i) * jnp.tanh(z), memory)
        return memory, self.out((jax.nn.sigmoid(o) * jnp.tanh(c)).astype(x.dtype))
