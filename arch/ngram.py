"""n-gram heads (Akyürek et al. 2024, "In-context language learning", arXiv 2401.12973).

Letters: B batch, T time, D model width, S positions that may be looked up, M longest sequence.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import Context, SequenceMixer, State
from arch.nn import options
from arch.nn.cache import append
from arch.nn.documents import document_starts, last_document, number_documents
from arch.nn.layers import Linear
from arch.registry import register

BLOCK = 128  # queries compared with all positions at a time: O(128 S) memory


def _past(a: jax.Array, delay: int) -> jax.Array:
    """Return a_{t − delay}, and −1 before the start. a: [B, S], >= 0."""
    return jnp.pad(a, ((0, 0), (delay, 0)), constant_values=-1)[:, : a.shape[1]]


def look_up(
    h: jax.Array,
    tokens: jax.Array,
    documents: jax.Array,
    orders: Sequence[int],
    start: jax.Array | int,
    new: int,
) -> list[jax.Array]:
    """Return A(n) h at positions start … start + new − 1, for each n.

    Args:
      h: [B, S, D].
      tokens: [B, S] int.
      documents: [B, S] int >= 0, document numbers that never decrease along a row; no match crosses
        a border.
      orders: the n.
      start: may be traced.
      new: number of positions.

    Returns:
      [B, new, D] in float32 for each n.
    """
    i = jnp.arange(h.shape[1])

    def at(a: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.take(a, t, axis=1, mode="clip")[:, :, None]

    @jax.checkpoint  # otherwise the backward pass would store the matches of all T² pairs
    def block(t: jax.Array) -> list[jax.Array]:
        found, match = {}, i < t[:, None]
        for n in range(1, max(orders) + 1):
            match = match & (at(_past(tokens, n - 1), t) == _past(tokens, n)[:, None])
            # Documents never decrease, so the tokens between belong to the same one.
            inside = match & (at(documents, t) == _past(documents, n)[:, None])
            if n in orders:
                # Sum over a 0/1 mask, then divide: exact weights in every dtype.
                total = jnp.einsum(
                    "bts,bsd->btd",
                    inside.astype(h.dtype),
                    h,
                    precision="highest",
                    preferred_element_type=jnp.float32,
                )
                found[n] = total / jnp.maximum(inside.sum(2, keepdims=True), 1)
        return [found[n] for n in orders]

    if new <= BLOCK:
        return block(start + jnp.arange(new))
    blocks = -(-new // BLOCK)
    rows = jax.lax.map(block, (start + jnp.arange(blocks * BLOCK)).reshape(blocks, BLOCK))
    return [jnp.moveaxis(y, 0, 1).reshape(h.shape[0], -1, h.shape[2])[:, :new] for y in rows]


@register("ngram")
class NgramHeads(SequenceMixer):
    """y = W₁ h + Σ_n W₀⁽ⁿ⁾ A(n) h, where A(n) attends uniformly to the tokens that followed earlier
    occurrences of the last n tokens: A(n)_ti ∝ 1[x_{t−k} = x_{i−1−k} for k = 0 … n − 1, and i < t].

    If the last n tokens occur for the first time, A(n) h = 0. In the paper each n is a separate
    layer, which is `orders=(n,)`; here the heads of one layer are summed and share W₁. It costs
    O(T²), like attention, in O(T) memory.

    It needs `Context.tokens` and only reads h at the positions found, so that it is useful together
    with another mixer: `mixer=["gla", "ngram"]`.

    Args:
      orders: the n.

    State: the past inputs, [B, M, D], with their token ids and documents, [B, M] each.
    """

    packs = True
    needs_tokens = True
    paper = "In-context language learning (Akyürek et al. 2024)"
    reference = "https://arxiv.org/abs/2401.12973"

    def __init__(self, d_model: int, *, rngs: nnx.Rngs, orders: Sequence[int] = (1, 2, 3)):
        if not isinstance(orders, Sequence) or isinstance(orders, str) or not orders:
            raise ValueError(f"orders is {orders!r}, expected a list of n, such as [1, 2, 3]")
        for n in orders:
            options.at_least("an entry of orders", n, 1)
        if len(set(orders)) < len(orders):
            raise ValueError(f"orders is {list(orders)}, expected each n once")
        self.orders = tuple(orders)
        self.found = nnx.List(Linear(d_model, d_model, rngs=rngs) for _ in orders)  # W₀⁽ⁿ⁾
        self.here = Linear(d_model, d_model, rngs=rngs)  # W₁

    def _combine(self, x: jax.Array, found: list[jax.Array]) -> jax.Array:
        heads = zip(self.found, found, strict=True)
        return self.here(x) + sum(head(y.astype(x.dtype)) for head, y in heads)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        tokens = self.required_tokens(context)
        documents = number_documents(document_starts(context), tokens.shape)
        found = look_up(x, tokens, documents, self.orders, 0, x.shape[1])
        return self._combine(x, found)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        return {
            "h": jnp.zeros((batch_size, max_length, self.here.kernel.shape[0])),
            "tokens": jnp.zeros((batch_size, max_length), jnp.int32),
            "documents": jnp.zeros((batch_size, max_length), jnp.int32),
            "length": jnp.zeros((), jnp.int32),
            "document": jnp.zeros(batch_size, jnp.int32),  # of the last token
            "last_id": jnp.zeros(batch_size, jnp.int32),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        tokens = self.required_tokens(context)
        starts = document_starts(context, state["last_id"])
        documents = number_documents(starts, tokens.shape, state["document"])
        length, new = state["length"], {"h": x, "tokens": tokens, "documents": documents}
        history = {name: append(state[name], length, rows) for name, rows in new.items()}
        h = history["h"].astype(x.dtype)
        found = look_up(h, history["tokens"], history["documents"], self.orders, length, x.shape[1])
        new_state = history | {
            "length": length + x.shape[1],
            "document": documents[:, -1],
            "last_id": last_document(context, state["last_id"]),
        }
        return new_state, self._combine(x, found)
