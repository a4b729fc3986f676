"""H3: a shift and a diagonal state-space model with multiplicative gates (Fu et al. 2022, arXiv
2212.14052).

Letters: B batch, T time, D model width, H heads, K = D / H head width, N state size.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State, Undecayed
from arch.nn import options
from arch.nn.diagonal_siso import DiagonalSSM
from arch.nn.layers import Linear
from arch.registry import register
from pallas_kernels import long_convolution


class _ShiftSSM(nnx.Module):
    """h' = A h + B u, y = C h + D u with A the shift and B = e₁: h is the last N inputs.

    So y_t = Σ_{j < N} C_j u_{t−j} + D u_t. The state is the last N − 1 inputs, [B, N − 1, D].
    """

    def __init__(self, d_model: int, d_state: int, *, rngs: nnx.Rngs):
        bound = d_state**-0.5
        self.C = nnx.Param(
            jax.random.uniform(rngs.params(), (d_model, d_state), minval=-bound, maxval=bound)
        )
        self.D = Undecayed(jax.random.normal(rngs.params(), (d_model,)))

    def __call__(self, u: jax.Array) -> jax.Array:
        return long_convolution(u, self.C[...]) + self.D[...] * u

    def initial_state(self, batch_size: int) -> jax.Array:
        d_model, d_state = self.C.shape
        return jnp.zeros((batch_size, d_state - 1, d_model))

    def extend(self, state: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        padded = jnp.concatenate([state, u], axis=1)
        return padded[:, u.shape[1] :], self(padded)[:, state.shape[1] :]


@register("h3")
class H3(SequenceMixer):
    """y = (q ⊙ SSM_diag(SSM_shift(k) ⊙ v)) W_O with q, k, v = x W_Q, x W_K, x W_V (section 3.1).

    In heads of width K the products are outer products (algorithm 1): SSM_diag runs over each entry
    of SSM_shift(k)ᵀ v, K × K, with the parameters of its head, and q multiplies from the left. The
    projections have biases, as in the authors' code. All between the projections is in float32.

    Args:
      num_heads: H; None is D, elementwise products, as in the authors' code.
      d_state: N of both state-space models, even.
      init: A of the diagonal one, as in `s4d`.
      discretization: of the diagonal one, as in `s4d`.

    State: the last inputs of the shift [B, N − 1, D], and h [B, K², H, N/2] complex64.
    """

    uses_fft = True
    paper = "H3 (Fu et al. 2022)"
    reference = "https://arxiv.org/abs/2212.14052"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int | None = None,
        d_state: int = 64,
        init: str = "lin",
        discretization: str = "bilinear",
    ):
        num_heads = d_model if num_heads is None else num_heads
        options.divides("num_heads", num_heads, "d_model", d_model)
        self.num_heads, self.width = num_heads, d_model // num_heads
        self.diagonal = DiagonalSSM(
            num_heads, rngs=rngs, d_state=d_state, init=init, discretization=discretization
        )
        self.shift = _ShiftSSM(d_model, d_state, rngs=rngs)
        self.query = Linear(d_model, d_model, rngs=rngs, use_bias=True)
        self.key = Linear(d_model, d_model, rngs=rngs, use_bias=True)
        self.value = Linear(d_model, d_model, rngs=rngs, use_bias=True)
        self.out = Linear(d_model, d_model, rngs=rngs, use_bias=True)

    def _products(self, k: jax.Array, x: jax.Array) -> jax.Array:
        """Return kᵀ v of each head, its K² entries as part of the batch: [B K², T, H]."""
        v = self.value(x).astype(jnp.float32)
        k, v = (y.reshape(*x.shape[:2], self.num_heads, self.width) for y in (k, v))
        kv = jnp.einsum("bthi,bthj->bijth", k, v)
        return kv.reshape(-1, x.shape[1], self.num_heads)

    def _output(self, kv: jax.Array, x: jax.Array) -> jax.Array:
        q = self.query(x).astype(jnp.float32).reshape(*x.shape[:2], self.num_heads, self.width)
        kv = kv.reshape(x.shape[0], self.width, self.width, *kv.shape[1:])
        o = jnp.einsum("bthi,bijth->bthj", q, kv, precision="highest")
        return self.out(o.reshape(x.shape).astype(x.dtype))

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        k = self.shift(self.key(x).astype(jnp.float32))
        return self._output(self.diagonal(self._products(k, x)), x)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        h = self.diagonal.initial_state(batch_size * self.width**2)
        return {
            "shift": self.shift.initial_state(batch_size),
            "h": h.reshape(batch_size, -1, *h.shape[1:]),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        tail, k = self.shift.extend(state["shift"], self.key(x).astype(jnp.float32))
        h = state["h"].reshape(-1, *state["h"].shape[2:])
        h, kv = self.diagonal.extend(h, self._products(k, x))
        return {"shift": tail, "h": h.reshape(state["h"].shape)}, self._output(kv, x)
