"""Zoology's input-dependent sparse attention (Arora et al. 2023, arXiv 2312.04927).

Letters: B batch, T time, D model width, H heads, K head width, M longest sequence, J queries that
attend.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from arch.attention import Attention
from arch.interface import AuxiliaryLoss, Context, State
from arch.nn import options
from arch.nn.cache import append
from arch.nn.documents import document_starts, last_document, number_documents
from arch.nn.layers import Linear
from arch.registry import register

BLOCK = 128  # queries that attend at a time: O(128 M) memory


def occurred_before(tokens: jax.Array, documents: jax.Array) -> jax.Array:
    """Mark tokens that occurred earlier in their document, [B, T] bool, by sorting: O(T log T)."""

    def row(tokens: jax.Array, documents: jax.Array) -> jax.Array:
        order = jnp.lexsort((documents, tokens))  # stable: equal tokens stay in time's order
        tokens, documents = tokens[order], documents[order]
        repeats = (tokens[1:] == tokens[:-1]) & (documents[1:] == documents[:-1])
        return jnp.zeros(tokens.shape, bool).at[order[1:]].set(repeats)

    return jax.vmap(row)(tokens, documents)


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, at: jax.Array, documents: jax.Array
) -> jax.Array:
    """o_j = Σ_s softmax_s(q_j · k_s / √K) v_s over the s ≤ at_j of the document of at_j.

    Unlike in the operator `attention`, the positions of the queries need not be consecutive.

    Args:
      q: [B, J, H, K].
      k: [B, S, H, K].
      v: [B, S, H, K].
      at: [B, J], positions of the queries among the S.
      documents: [B, S] int, the document of each key.
    """
    s = jnp.arange(k.shape[1])

    @jax.checkpoint  # otherwise the backward pass would store the weights of all queries
    def block(q_and_at: tuple[jax.Array, jax.Array]) -> jax.Array:
        q, at = q_and_at
        own = jnp.take_along_axis(documents, at, axis=1)
        seen = (s <= at[..., None]) & (documents[:, None] == own[..., None])
        scores = jnp.einsum("bjhk,bshk->bhjs", q, k, preferred_element_type=jnp.float32)
        scores = jnp.where(seen[:, None], scores * q.shape[3] ** -0.5, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        return jnp.einsum("bhjs,bshk->bjhk", weights, v)

    batch, count = q.shape[:2]
    if count <= BLOCK:
        return block((q, at))
    blocks = -(-count // BLOCK)

    def split(a: jax.Array) -> jax.Array:
        padded = jnp.pad(a, ((0, 0), (0, blocks * BLOCK - count), *[(0, 0)] * (a.ndim - 2)))
        return jnp.moveaxis(padded.reshape(batch, blocks, BLOCK, *a.shape[2:]), 1, 0)

    o = jnp.moveaxis(jax.lax.map(block, (split(q), split(at))), 0, 1)
    return o.reshape(batch, -1, *q.shape[2:])[:, :count]


@register("selective_lookups")
class SelectiveLookups(Attention):
    """y_t = x_t + f_t Attention(q_t, k_≤t, v_≤t) W_O at selected positions t, y_t = x_t elsewhere:
    for a layer after `base_conv`, `mixer=["base_conv", "selective_lookups"]`. The mixer itself adds
    x, as in the authors' code.

    Programmatic selection looks up tokens that occurred before; f_t = 1. It needs `Context.tokens`.
    Learned selection scores each position, f_t = σ(w · x_t + b), and selects the first k positions
    with f_t > ½; only these are computed, O(k T). The factor f_t on the output gives the scores
    their gradient, and training adds the loss max(0, Σ_t f_t − k) / T, which keeps selections few.

    The paper selects the k highest scores of the whole sequence, which looks into the future. The
    threshold and the running count replace it here, because causality and decoding require an
    immediate choice. In training every position attends, weighted by its f_t, as in the authors'
    code: a position left out would give its score no gradient. Training therefore costs O(T²).
    Logistic noise on the scores (Maddison et al. 2016, arXiv 1611.00712) pushes f_t towards 0 or 1,
    so that the threshold at evaluation changes little.

    Args:
      selection: "learned" or "programmatic".
      budget: k, the maximum of positions selected per document; None is ⌈√max_length⌉ for learned
        selection, as in the authors' code, and no limit for programmatic selection.
      max_length: the longest sequence, for the default budget.
      penalty: weight of the auxiliary loss.
      num_heads: H; head width K = D / H.
      positions: "rotary" or "none".

    State: the past keys and values, [B, M, H, K] each, with their documents and, for programmatic
    selection, token ids.
    """

    paper = "Zoology (Arora et al. 2023)"
    reference = "https://arxiv.org/abs/2312.04927"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        selection: str = "learned",
        budget: int | None = None,
        max_length: int = 1024,
        penalty: float = 1.0,
        num_heads: int = 1,
        positions: str = "rotary",
    ):
        options.one_of("selection", selection, ("learned", "programmatic"))
        options.at_least("max_length", max_length, 1)
        if budget is not None:
            options.at_least("budget", budget, 1)
        if not penalty >= 0:
            raise ValueError(f"penalty is {penalty}, expected at least 0")
        super().__init__(d_model, rngs=rngs, num_heads=num_heads, positions=positions)
        learned = selection == "learned"
        self.budget = math.ceil(math.sqrt(max_length)) if learned and budget is None else budget
        self.penalty = penalty
        self.score = Linear(d_model, 1, rngs=rngs, use_bias=True) if learned else None

    @property
    def needs_tokens(self) -> bool:
        """True for programmatic selection only."""
        return self.score is None

    def _within_budget(
        self, wanted: jax.Array, starts: jax.Array | None, before: jax.Array | int
    ) -> tuple[jax.Array, jax.Array]:
        """Return (selected [B, T], positions wanted so far in the last document [B]).

        `before` is the second result of the previous call.
        """
        count = before + jnp.cumsum(wanted, axis=1, dtype=jnp.int32)
        if starts is not None:  # each document counts from its own start
            others = jnp.where(starts, count - wanted, 0)
            count = count - jax.lax.cummax(others, axis=1)
        return wanted if self.budget is None else wanted & (count <= self.budget), count[:, -1]

    def _look_up(
        self,
        x: jax.Array,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        selected: jax.Array,
        documents: jax.Array,
        start: jax.Array | int,
        slots: int,
        noise: jax.Array | float = 0.0,
    ) -> jax.Array:
        # The selected positions in order of time, followed by others, whose f is zero.
        t = jnp.argsort(~selected, axis=1, stable=True)[:, :slots]
        rows = jnp.arange(x.shape[0])[:, None]
        o = attend(q[rows, t], k.astype(x.dtype), v.astype(x.dtype), start + t, documents)
        f = selected.astype(jnp.float32)
        if self.score is not None:
            f = f * jax.nn.sigmoid(self._scores(x) + noise)
        o = o.reshape(*t.shape, -1) * f[rows, t][..., None].astype(x.dtype)
        return x + self.out(jnp.zeros_like(x).at[rows, t].set(o))

    def _scores(self, x: jax.Array) -> jax.Array:
        """Return w · x_t + b, [B, T], in float32: bfloat16 would round the selection."""
        return self.score(x.astype(jnp.float32))[..., 0]

    def _slots(self, length: int, starts: jax.Array | None) -> int:
        """Upper bound on the selected positions; each packed document has its own budget."""
        return length if self.budget is None or starts is not None else min(self.budget, length)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        starts = document_starts(context)
        documents = number_documents(starts, x.shape[:2])
        if self.score is None:
            wanted = occurred_before(self.required_tokens(context), documents)
        else:
            wanted = self._scores(x) > 0
        selected, _ = self._within_budget(wanted, starts, 0)
        slots, noise = self._slots(x.shape[1], starts), 0.0
        if self.score is not None and context is not None and context.training:
            excess = jax.nn.sigmoid(self._scores(x)).sum(1) - self.budget
            loss = jnp.mean(jnp.maximum(excess, 0)) / x.shape[1]
            self.auxiliary_loss = AuxiliaryLoss(self.penalty * loss)
            selected, slots = jnp.ones_like(selected), x.shape[1]
            if context.rng is not None:
                noise = jax.random.logistic(context.rng, selected.shape)
        return self._look_up(x, *self._project(x, 0), selected, documents, 0, slots, noise)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        def per_token(dtype: jnp.dtype, *shape: int) -> jax.Array:
            return jnp.zeros((batch_size, max_length, *shape), dtype)

        history = {
            "keys": per_token(jnp.float32, self.num_kv_heads, self.width),
            "values": per_token(jnp.float32, self.num_kv_heads, self.width),
            "documents": per_token(jnp.int32),
        }
        if self.score is None:
            history["tokens"] = per_token(jnp.int32)
        return {
            "history": history,
            "length": jnp.zeros((), jnp.int32),
            "document": jnp.zeros(batch_size, jnp.int32),  # of the last token
            "wanted": jnp.zeros(batch_size, jnp.int32),  # positions wanted so far in it
            "last_id": jnp.zeros(batch_size, jnp.int32),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        starts, length = document_starts(context, state["last_id"]), state["length"]
        documents = number_documents(starts, x.shape[:2], state["document"])
        q, k, v = self._project(x, length)
        new = {"keys": k, "values": v, "documents": documents}
        if self.score is None:
            new["tokens"] = self.required_tokens(context)
        history = {name: append(state["history"][name], length, new[name]) for name in new}
        if self.score is None:
            # Empty slots come later, and later tokens have no influence.
            repeats = occurred_before(history["tokens"], history["documents"])
            wanted = jax.lax.dynamic_slice_in_dim(repeats, length, x.shape[1], axis=1)
        else:
            wanted = self._scores(x) > 0
        selected, count = self._within_budget(wanted, starts, state["wanted"][:, None])
        y = self._look_up(
            x,
            q,
            history["keys"],
            history["values"],
            selected,
            history["documents"],
            length,
            self._slots(x.shape[1], starts),
        )
        new_state = {
            "history": history,
            "length": length + x.shape[1],
            "document": documents[:, -1],
            "wanted": count,
            "last_id": last_document(context, state["last_id"]),
        }
        return new_state, y
