"""Softmax attention (Vaswani et al. 2017, arXiv 1706.03762): causal, windowed or bidirectional.

Letters: B batch, T time, D model width, H query heads, G key-value heads, K head width, M slots.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State
from arch.nn import options
from arch.nn.cache import append
from arch.nn.documents import document_starts, last_document
from arch.nn.layers import Linear
from arch.nn.rotary import rotate
from arch.registry import register
from pallas_kernels.attention import attention, masks


@register("attention")
class Attention(SequenceMixer):
    """o_t = Σ_{s ≤ t} softmax_s(q_t · k_s / √K) v_s for each head; y = concat(heads) W_O.

    Args:
      num_heads: H; head width K = D / H.
      num_kv_heads: G, each shared by H / G query heads (arXiv 2305.13245); None is H.
      positions: "rotary" (arXiv 2104.09864) or "none" (the backbone may add learned ones).
      window: attend to the last `window` tokens only, including the query's own; None is all.
      causal: hide the future. Otherwise the sum is over all s of the same document, as in the
        paper's encoder, without window or state.

    State: the past keys and values, [B, G, M, K] each, with M = max_length, or window − 1 if that
    is less. One token's products then need no transposed copy of them.
    """

    packs = True
    paper = "Attention Is All You Need (Vaswani et al. 2017)"
    reference = "https://arxiv.org/abs/1706.03762"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int = 1,
        num_kv_heads: int | None = None,
        positions: str = "rotary",
        window: int | None = None,
        causal: bool = True,
    ):
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        options.divides("num_heads", num_heads, "d_model", d_model)
        options.divides("num_kv_heads", num_kv_heads, "num_heads", num_heads)
        options.one_of("positions", positions, ("rotary", "none"))
        if window is not None:
            options.at_least("window", window, 1)
            if not causal:
                raise ValueError(
                    f"window is {window}, expected None with causal=False: windows hide the future"
                )
        self.width = d_model // num_heads
        if positions == "rotary" and self.width % 2:
            raise ValueError(
                f"the head width d_model / num_heads is {self.width}, expected an even number for "
                "rotary positions: choose another num_heads or positions='none'"
            )
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.positions, self.window, self._causal = positions, window, causal
        self.query = Linear(d_model, d_model, rngs=rngs)
        self.key = Linear(d_model, num_kv_heads * self.width, rngs=rngs)
        self.value = Linear(d_model, num_kv_heads * self.width, rngs=rngs)
        self.out = Linear(d_model, d_model, rngs=rngs)

    @property
    def causal(self) -> bool:
        """The option `causal`."""
        return self._causal

    @property
    def _rules(self) -> tuple[masks.Mask, ...]:
        if not self.causal:
            return (masks.Full(),)
        return (masks.Causal() if self.window is None else masks.Window(self.window),)

    def _project(
        self, x: jax.Array, start: jax.Array | int
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        q, k, v = (
            y.reshape(*x.shape[:2], -1, self.width)
            for y in (self.query(x), self.key(x), self.value(x))
        )
        return (rotate(q, start), rotate(k, start), v) if self.positions == "rotary" else (q, k, v)

    def _starts(
        self, x: jax.Array, context: Context | None, state: State | None = None
    ) -> jax.Array | None:
        """Mark the first tokens of documents, [B, T] bool; None if there is one only."""
        return document_starts(context, None if state is None else state["last_id"])

    def _attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        rules: Sequence[masks.Mask],
        **where: Any,
    ) -> jax.Array:
        """Attend, with the heads split evenly over the rules, and apply W_O."""
        groups = zip(*(jnp.split(y, len(rules), axis=2) for y in (q, k, v)), rules, strict=True)
        o = jnp.concatenate([attention(*qkv, mask=rule, **where) for *qkv, rule in groups], axis=2)
        return self.out(o.reshape(*o.shape[:2], -1))

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        self.refuse_packed(context)
        q, k, v = self._project(x, 0)
        starts = self._starts(x, context)
        documents = None if starts is None else 1 + jnp.cumsum(starts, axis=1)
        return self._attend(q, k, v, self._rules, q_segment_ids=documents, kv_segment_ids=documents)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        self.require_causal()
        slots = max_length if self.window is None else min(max_length, self.window - 1)
        empty = jnp.zeros((batch_size, self.num_kv_heads, slots, self.width))
        return {
            "keys": empty,
            "values": empty,
            "length": jnp.zeros((), jnp.int32),
            "last_id": jnp.zeros(batch_size, jnp.int32),
            # Tokens so far of the last document, which the next token may continue.
            "visible": jnp.zeros(batch_size, jnp.int32),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.require_causal()
        self.refuse_packed(context)
        length, slots, new = state["length"], state["keys"].shape[2], x.shape[1]
        q, k, v = self._project(x, length)

        # The document of each new token, counted from 1, the last one in the cache; 0 is masked.
        starts = self._starts(x, context, state)
        if starts is None:
            documents = jnp.ones(x.shape[:2], jnp.int32)
        else:
            documents = 1 + jnp.cumsum(starts, axis=1, dtype=jnp.int32)

        # The cache of a window shifts to make room; one of max_length is filled from the front.
        moves = self.window is not None and slots == self.window - 1
        offset = slots if moves else length

        def cached(old: jax.Array, rows: jax.Array, axis: int) -> jax.Array:
            return jnp.concatenate([old, rows], axis) if moves else append(old, length, rows, axis)

        keys = cached(state["keys"], jnp.swapaxes(k, 1, 2), 2)
        values = cached(state["values"], jnp.swapaxes(v, 1, 2), 2)
        slot, first = jnp.arange(slots), offset - state["visible"][:, None]
        old_documents = ((slot >= first) & (slot < offset)).astype(jnp.int32)
        y = self._attend(
            q,
            jnp.swapaxes(keys, 1, 2).astype(x.dtype),
            jnp.swapaxes(values, 1, 2).astype(x.dtype),
            self._rules,
            q_segment_ids=documents,
            kv_segment_ids=cached(old_documents, documents, 1),
            q_offset=offset,
        )
        in_last = jnp.sum(documents == documents[:, -1:], axis=1)
        visible = in_last + jnp.where(documents[:, -1] == 1, state["visible"], 0)
        new_state = {
            "keys": keys[:, :, new:] if moves else keys,
            "values": values[:, :, new:] if moves else values,
            "length": length + new,
            "last_id": last_document(context, state["last_id"]),
            "visible": visible.astype(jnp.int32),
        }
        return new_state, y


@register("sliding_window")
class SlidingWindow(Attention):
    """`attention` in a window, o_t = Σ_{t−w < s ≤ t} softmax_s(q_t · k_s / √K) v_s (section 3.1).

    The paper centres the window on t; in this causal model it ends at t.

    Args:
      window: w.
      **attention: the other options of `attention`.

    State: the last w − 1 keys and values, [B, G, w − 1, K] each.
    """

    paper = "Longformer (Beltagy et al. 2020)"
    reference = "https://arxiv.org/abs/2004.05150"

    @options.with_those_of(Attention, without=["causal"])
    def __init__(self, d_model: int, *, rngs: nnx.Rngs, window: int = 64, **attention: Any):
        options.at_least("window", window, 1)
        super().__init__(d_model, rngs=rngs, window=window, **attention)
