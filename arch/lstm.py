"""The classical gated recurrent networks: LSTM and GRU.

Letters: B batch, T time, D model width, which is also the width of h.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.nn.layers import Linear
from arch.recurrent import Recurrent
from arch.registry import register


class _Gated(Recurrent):
    """A network whose gates see x_t and h_{t−1}, and which is therefore sequential in time.

    All projections of x are one product before the loop over time, which only computes what depends
    on h_{t−1}. The loop runs in float32 for every dtype of x.
    """

    def step(self, memory: dict[str, jax.Array], projected: jax.Array) -> dict[str, jax.Array]:
        """Map (state [B, D] each, x_t W + b) to the next state, whose "h" is the output."""
        raise TypeError(f"{type(self).__name__} must define step(memory, projected)")

    def run(
        self, memory: dict[str, jax.Array], x: jax.Array, starts: jax.Array | None
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        def token(memory, inputs):
            projected, start = inputs
            if start is not None:
                memory = jax.tree.map(lambda v: jnp.where(start[:, None], 0, v), memory)
            memory = self.step(memory, projected)
            return memory, memory["h"]

        projected = self.into(x).astype(jnp.float32)
        by_time = jax.tree.map(lambda v: jnp.swapaxes(v, 0, 1), (projected, starts))
        memory, h = jax.lax.scan(token, memory, by_time)
        return memory, jnp.swapaxes(h, 0, 1).astype(x.dtype)


@register("lstm")
class LSTM(_Gated):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000).

    z = tanh(x_t W_z + h_{t−1} R_z + b_z); i, f, o = σ(x_t W + h_{t−1} R + b), with separate
    parameters; c_t = f ⊙ c_{t−1} + i ⊙ z; y_t = h_t = o ⊙ tanh(c_t).

    These are the equations of the reference (section 2) without peepholes. The bias of f starts at
    1, so that the memory persists at the start of training (Gers et al. 2000).

    State: c and h [B, D], and the id of the last document.
    """

    paper = "LSTM: a search space odyssey (Greff et al. 2015)"
    reference = "https://arxiv.org/abs/1503.04069"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        self.into = Linear(d_model, 4 * d_model, rngs=rngs, use_bias=True)  # z, i, f, o
        self.into.bias[...] = self.into.bias[...].at[2 * d_model : 3 * d_model].set(1.0)
        self.recurrent = Linear(d_model, 4 * d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> dict[str, jax.Array]:
        zeros = jnp.zeros((batch_size, self.recurrent.kernel.shape[0]))
        return {"c": zeros, "h": zeros}

    def step(self, memory: dict[str, jax.Array], projected: jax.Array) -> dict[str, jax.Array]:
        z, i, f, o = jnp.split(projected + self.recurrent(memory["h"]), 4, axis=-1)
        c = jax.nn.sigmoid(f) * memory["c"] + jax.nn.sigmoid(i) * jnp.tanh(z)
        return {"c": c, "h": jax.nn.sigmoid(o) * jnp.tanh(c)}


@register("gru")
class GRU(_Gated):
    """The gated recurrent unit (Cho et al. 2014, section 2.3).

    r, z = σ(x_t W + h_{t−1} U + b), with separate parameters;
    h̃ = tanh(x_t W_h + (r ⊙ h_{t−1}) U_h + b_h); y_t = h_t = z ⊙ h_{t−1} + (1 − z) ⊙ h̃.

    Here r acts before U_h, as in the paper; cuDNN's variant takes r ⊙ (h_{t−1} U_h).

    State: h [B, D], and the id of the last document.
    """

    paper = "RNN encoder–decoder (Cho et al. 2014)"
    reference = "https://arxiv.org/abs/1406.1078"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        self.into = Linear(d_model, 3 * d_model, rngs=rngs, use_bias=True)  # r, z, h̃
        self.gates = Linear(d_model, 2 * d_model, rngs=rngs)
        self.candidate = Linear(d_model, d_model, rngs=rngs)

    def zeros(self, batch_size: int) -> dict[str, jax.Array]:
        return {"h": jnp.zeros((batch_size, self.candidate.kernel.shape[0]))}

    def step(self, memory: dict[str, jax.Array], projected: jax.Array) -> dict[str, jax.Array]:
        h, width = memory["h"], memory["h"].shape[-1]
        gates, candidate = jnp.split(projected, [2 * width], axis=-1)
        r, z = jnp.split(jax.nn.sigmoid(gates + self.gates(h)), 2, axis=-1)
        return {"h": z * h + (1 - z) * jnp.tanh(candidate + self.candidate(r * h))}
