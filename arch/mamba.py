"""Mamba: selective state spaces (Gu & Dao 2023, arXiv 2312.00752).

Letters: B batch, T time, D model width, E = expand · D inner width, N state size per channel, R
rank of Δ.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State, Undecayed
from arch.nn import options
from arch.nn.documents import document_starts
from arch.nn.layers import Linear
from arch.nn.short_conv import ShortConv
from arch.nn.step_size import softplus_bias
from arch.registry import register
from pallas_kernels import selective_scan

# Step size at the first token of a document: exp(Δ A) is exactly 0 for every |A| above 1e-16. As a
# power of two it rounds nothing.
_FORGET = 2.0**64


@register("mamba")
class Mamba(SequenceMixer):
    """The Mamba block (fig. 3), which needs no separate channel mixer.

    u, z = x W; u = SiLU(conv(u)); Δ, B, C depend on u (algorithm 2);
    h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t, y_t = C_t · h_t + D u_t; out = (y ⊙ SiLU(z)) W_out.

    A and the bias of Δ have no weight decay, but the same learning rate as the rest, as in the
    paper.

    Args:
      d_state: N.
      expand: E / D.
      conv_size: width of the depthwise causal convolution.
      dt_rank: R; None is ⌈D / 16⌉.

    Packed documents are kept apart by `__call__`. `extend` refuses segment ids: the state holds
    none.

    State: the last conv_size − 1 inputs of the convolution, and h [B, E, N].
    """

    packs = True
    channel_mixing = True
    paper = "Mamba (Gu & Dao 2023)"
    reference = "https://arxiv.org/abs/2312.00752"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        d_state: int = 16,
        expand: int = 2,
        conv_size: int = 4,
        dt_rank: int | None = None,
    ):
        rank = -(-d_model // 16) if dt_rank is None else dt_rank
        for name, value in (
            ("d_state", d_state),
            ("expand", expand),
            ("conv_size", conv_size),
            ("dt_rank", rank),
        ):
            options.at_least(name, value, 1)
        inner = expand * d_model
        self.splits = (rank, rank + d_state)
        self.into = Linear(d_model, 2 * inner, rngs=rngs)
        self.conv = ShortConv(inner, conv_size, rngs=rngs)
        self.selection = Linear(
            inner, rank + 2 * d_state, rngs=rngs
        )  # the low-rank factor of Δ, B, C
        self.step = Linear(rank, inner, rngs=rngs)
        self.step_bias = Undecayed(softplus_bias(rngs.params(), inner))
        self.A_log = Undecayed(
            jnp.broadcast_to(jnp.log(jnp.arange(1.0, d_state + 1)), (inner, d_state))
        )
        self.D = Undecayed(jnp.ones(inner))
        self.out = Linear(inner, d_model, rngs=rngs)

    def _run(
        self, state: State, x: jax.Array, starts: jax.Array | None = None
    ) -> tuple[State, jax.Array]:
        u, z = jnp.split(self.into(x), 2, axis=-1)
        tail, u = self.conv.extend(state["conv"], u, starts)
        u = jax.nn.silu(u)
        step, B, C = jnp.split(self.selection(u), self.splits, axis=-1)
        # Float32: bfloat16 would lose a step of 1e-3 added to a bias of −7.
        delta = jax.nn.softplus(self.step(step.astype(jnp.float32)) + self.step_bias[...])
        A, D = -jnp.exp(self.A_log[...]), self.D[...]
        if starts is None:
            y, h = selective_scan(u, delta, A, B, C, D, h0=state["ssm"])
        else:
            y, h = _scan_documents(u, delta, A, B, C, D, state["ssm"], starts)
        return {"conv": tail, "ssm": h}, self.out(y * jax.nn.silu(z))

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        state = self.initial_state(x.shape[0], x.shape[1])
        return self._run(state, x, document_starts(context))[1]

    def initial_state(self, batch_size: int, max_length: int) -> State:
        return {
            "conv": self.conv.initial_state(batch_size),
            "ssm": jnp.zeros((batch_size, *self.A_log.shape)),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context, in_parts=True)
        return self._run(state, x)


def _scan_documents(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
    starts: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`selective_scan` that clears the state at `starts` [B, T], the first tokens of documents.

    There the operator gets the step size Δ' = _FORGET and the input v = Δ u / Δ', which writes the
    same Δ' v = Δ u. A decay of exactly 0 lets neither values nor gradients pass, and both stay
    finite: the exponent Δ' A is, and the gradient of Δ' is dropped. D v is made up to D u.
    """
    first = starts[..., None]
    v = jnp.where(first, delta * u / _FORGET, u.astype(jnp.float32))
    y, h = selective_scan(v, jnp.where(first, _FORGET, delta), A, B, C, D, h0=h0)
    return (y + jnp.where(first, D * (u - v), 0)).astype(u.dtype), h
