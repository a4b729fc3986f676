"""Titans with memory as a context (Behrouz et al. 2024, arXiv 2501.00663, section 4.1).

Letters: B batch, T time, D model width, H heads, K = D / H width of a head, C tokens of a segment,
N_p persistent tokens, n new tokens of a segment.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State
from arch.nn import options
from arch.nn.layers import Linear, RMSNorm, l2_normalize
from arch.nn.neural_memory import NeuralMemory, read, remember_within
from arch.nn.persistent_tokens import PersistentTokens
from arch.nn.rotary import rotate
from arch.registry import register
from pallas_kernels.attention import attention, masks


@dataclasses.dataclass(frozen=True)
class _Segment(masks.Mask):
    """Keys [persistent | retrieved | segment]: all of the first, the others causally."""

    prefix: int
    segment: int

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return (key < self.prefix) | ((key - self.prefix) % self.segment <= query)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        del first, last
        return 0, self.prefix + 2 * self.segment


@register("titans_mac")
class TitansMAC(SequenceMixer):
    """Memory as a context: attention over a segment S of C tokens and its readings of the memory.

    h = M*_{before}(q), q = S W_Q: read from the memory as it was before the segment (eq. 21)
    y = S + Attn([p_1 … p_{N_p}] ‖ h ‖ S) (eq. 22 and 23)
    M is updated by y (eq. 24), o = y ⊗ M*(y) (eq. 25)

    The memory is that of `titans_lmm` with the segment as its chunk, so that h is read from the
    memory at which the gradients are taken. Token t sees h and S up to its own position, and
    M*(y_t) has been updated by y up to y_t: the paper's figure 3a has the causal mask, and
    token-by-token decoding requires the rest. S + … is the residual connection that the paper has
    in all blocks (section 4.4): without it a token would reach the memory only through attention.
    The q that reads h has SiLU and unit norm but no convolution. Positions are rotary, counted
    along the attention's input; y ⊗ m is as in `titans_mag`.

    Args:
      num_heads: H, of the memory and of the attention.
      segment: C.
      num_persistent: N_p.
      **memory: the other options of `NeuralMemory`, except chunk_size, which is C.

    State: that of the memory; the keys and values of h and S in the current segment,
    [B, 2 C, H, K] each; and its y with the conv_size − 1 before, [B, C + conv_size − 1, D].
    """

    paper = "Titans (Behrouz et al. 2024)"
    reference = "https://arxiv.org/abs/2501.00663"
    version = 2

    @options.with_those_of(NeuralMemory, without=["chunk_size"])
    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int = 1,
        segment: int = 16,
        num_persistent: int = 4,
        **memory: Any,
    ):
        options.at_least("segment", segment, 1)
        self.memory = NeuralMemory(
            d_model, rngs=rngs, num_heads=num_heads, chunk_size=segment, **memory
        )
        options.even("the head width d_model / num_heads", d_model // num_heads)
        self.num_heads, self.segment = num_heads, segment
        self.before = self.memory.conv.width - 1
        self.persistent = PersistentTokens(num_persistent, d_model, rngs=rngs)
        self.retrieve = Linear(d_model, d_model, rngs=rngs)
        self.query = Linear(d_model, d_model, rngs=rngs)
        self.key = Linear(d_model, d_model, rngs=rngs)
        self.value = Linear(d_model, d_model, rngs=rngs)
        self.attended = Linear(d_model, d_model, rngs=rngs)
        self.attention_norm = RMSNorm(d_model)
        self.memory_norm = RMSNorm(d_model)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        return self.extend(self.initial_state(x.shape[0], x.shape[1]), x, context)[1]

    def initial_state(self, batch_size: int, max_length: int) -> State:
        d_model = self.persistent.tokens.shape[1]
        width = d_model // self.num_heads
        empty = jnp.zeros((batch_size, 2 * self.segment, self.num_heads, width))
        return {
            "memory": self.memory.empty(batch_size),
            "keys": empty,
            "values": empty,
            "y": jnp.zeros((batch_size, self.before + self.segment, d_model)),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        C, length, position = self.segment, x.shape[1], state["memory"]["position"]
        # The tokens are placed on the grid of the segments, after the earlier ones of the current
        # segment; a single token is one row.
        alone = length == 1
        rows, offset = (1, 0) if alone else (C, position)
        segments = 1 if alone else -(-(length + C - 1) // C)
        grid = jnp.zeros((x.shape[0], segments * rows, x.shape[2]), x.dtype)
        grid = jax.lax.dynamic_update_slice_in_dim(grid, x, offset, axis=1)
        grid = jnp.moveaxis(grid.reshape(x.shape[0], segments, rows, -1), 1, 0)

        def step(state, inputs):
            grid, number = inputs
            start = jnp.where(number == 0, position, 0)
            stop = jnp.clip(position + length - number * C, 0, C)
            return self._step(state, grid, position if alone else 0, start, stop)

        state, y = jax.lax.scan(step, state, (grid, jnp.arange(segments)))
        y = jnp.moveaxis(y, 0, 1).reshape(x.shape[0], -1, x.shape[2])
        return state, jax.lax.dynamic_slice_in_dim(y, offset, length, axis=1)

    def _step(
        self,
        state: State,
        x: jax.Array,
        first: jax.Array | int,
        start: jax.Array,
        stop: jax.Array,
    ) -> tuple[State, jax.Array]:
        """Process x [B, n, D], the rows of a segment from `first` on; start … stop − 1 are new."""
        C, memory, dtype = self.segment, state["memory"], x.dtype
        place = jnp.arange(C)
        new = (place >= start) & (place < stop)

        def keep(old, rows):  # the new rows in their places, the others unchanged
            written = jax.lax.dynamic_update_slice_in_dim(old, rows.astype(old.dtype), first, 1)
            return jnp.where(new.reshape(C, *[1] * (old.ndim - 2)), written, old)

        q = l2_normalize(jax.nn.silu(self._heads(self.retrieve, x).astype(jnp.float32)))
        h = read(memory["anchor"], jnp.swapaxes(q, 1, 2))
        h = jnp.swapaxes(h, 1, 2).reshape(x.shape).astype(dtype)

        prompt = self.persistent(x.shape[0]).astype(dtype)
        N_p = prompt.shape[1]
        keys, values = [], []
        for i, source in enumerate((h, x)):
            half = slice(i * C, (i + 1) * C)
            k = rotate(self._heads(self.key, source), N_p + i * C + first)
            keys.append(keep(state["keys"][:, half], k))
            values.append(keep(state["values"][:, half], self._heads(self.value, source)))
        keys, values = jnp.concatenate(keys, axis=1), jnp.concatenate(values, axis=1)
        y = attention(
            rotate(self._heads(self.query, x), N_p + C + first),
            jnp.concatenate([rotate(self._heads(self.key, prompt)), keys.astype(dtype)], axis=1),
            jnp.concatenate([self._heads(self.value, prompt), values.astype(dtype)], axis=1),
            mask=_Segment(N_p, C),
            q_offset=first,
        )
        y = x + self.attended(y.reshape(x.shape))

        # The memory's convolution sees the rows before: initially zeros, which W maps to zeros.
        rows = jnp.concatenate(
            [state["y"][:, : self.before], keep(state["y"][:, self.before :], y)], axis=1
        )
        seen = jax.lax.dynamic_slice_in_dim(rows, first, self.before + x.shape[1], axis=1)
        tail = self.memory.conv.initial_state(x.shape[0])
        _, tokens = self.memory.tokens(tail, seen.astype(dtype))
        tokens = jax.tree.map(lambda t: t[:, self.before :], tokens)
        present = jax.lax.dynamic_slice_in_dim(new, first, x.shape[1])
        memory, m = remember_within(memory, tokens, present, C)

        m = self.memory_norm(m.reshape(x.shape).astype(dtype))
        o = self.out(self.attention_norm(y) * jax.nn.silu(m))
        rows = jnp.where(stop == C, jnp.roll(rows, -C, axis=1), rows)
        return {"memory": memory, "keys": keys, "values": values, "y": rows}, o

    def _heads(self, layer: Linear, x: jax.Array) -> jax.Array:
        return layer(x).reshape(*x.shape[:2], self.num_heads, -1)
