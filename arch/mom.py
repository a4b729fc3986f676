"""MoM: linear sequence modeling with a mixture of memories (Du et al. 2025, arXiv 2502.13685).

Letters: B batch, T time, D model width, M memories, H heads, K = V = D / H key and value width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch.interface import AuxiliaryLoss, Context, State
from arch.nn import options
from arch.nn.decay import RANK, TEMPERATURE, ScalarDecay
from arch.nn.layers import Linear, RMSNorm, l2_normalize
from arch.nn.short_conv import short_convs
from arch.recurrent import Recurrent, forget
from arch.registry import register
from pallas_kernels import gated_delta_rule, gated_linear_attention


class _LinearMemory(nnx.Module):
    """M_t = M_{t−1} + k_tᵀ v_t, o_t = q_t M_t / √K for each head, with its own maps of k and v."""

    def __init__(self, d_model: int, num_heads: int, *, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.key = Linear(d_model, d_model, rngs=rngs)
        self.value = Linear(d_model, d_model, rngs=rngs)

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.num_heads, -1)

    def _log_decay(self, x: jax.Array) -> jax.Array:
        return jnp.zeros((*x.shape[:2], self.num_heads))

    def _update(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        x: jax.Array,
        routed: jax.Array,
        log_decay: jax.Array,
        M: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        k = jnp.where(routed[..., None, None], k, 0)
        return gated_linear_attention(q, k, v, log_decay, M)

    def __call__(
        self,
        M: jax.Array,
        x: jax.Array,
        qkv: list[jax.Array],
        routed: jax.Array,
        starts: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Read with every token; only the routed tokens write and decay the memory.

        Args:
          M: [B, H, K, V].
          x: [B, T, D], the input of the gates.
          qkv: q and the inputs of the maps of k and v, [B, T, D] each.
          routed: [B, T] bool.
          starts: [B, T] bool, the first tokens of documents, or None.

        Returns:
          (o [B, T, H, V], M).
        """
        q, k, v = map(self._heads, (qkv[0], self.key(qkv[1]), self.value(qkv[2])))
        log_decay = self._log_decay(x)
        own = routed.reshape(*routed.shape, *[1] * (log_decay.ndim - 2))
        log_decay = forget(jnp.where(own, log_decay, 0), starts)
        return self._update(q, k, v, x, routed, log_decay, M)


class _GLAMemory(_LinearMemory):
    """M_t = Diag(α_t) M_{t−1} + k_tᵀ v_t, α_t = σ(x_t W₁ W₂ + b)^{1/16} as in GLA."""

    def __init__(self, d_model: int, num_heads: int, *, rngs: nnx.Rngs):
        super().__init__(d_model, num_heads, rngs=rngs)
        self.decay_down = Linear(d_model, RANK, rngs=rngs)
        self.decay_up = Linear(RANK, d_model, rngs=rngs, use_bias=True)

    def _log_decay(self, x: jax.Array) -> jax.Array:
        # As in GLA: log α = log σ(x W₁ W₂ + b) / τ, in float32.
        gate = self.decay_up(self.decay_down(x)).astype(jnp.float32)
        return self._heads(jax.nn.log_sigmoid(gate) / TEMPERATURE)


class _GatedDeltaMemory(_LinearMemory):
    """M_t = α_t (I − β_t k_tᵀ k_t) M_{t−1} + β_t k_tᵀ v_t, o_t = q_t M_t as in Gated DeltaNet."""

    def __init__(self, d_model: int, num_heads: int, *, rngs: nnx.Rngs):
        super().__init__(d_model, num_heads, rngs=rngs)
        self.beta = Linear(d_model, num_heads, rngs=rngs)
        self.decay = ScalarDecay(d_model, num_heads, rngs=rngs)

    def _log_decay(self, x: jax.Array) -> jax.Array:
        return self.decay(x)[1]

    def _update(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        x: jax.Array,
        routed: jax.Array,
        log_decay: jax.Array,
        M: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        q, k, v = map(jax.nn.silu, (q, k, v))
        beta = jax.nn.sigmoid(self.beta(x).astype(jnp.float32))
        beta = jnp.where(routed[..., None], beta, 0)
        return gated_delta_rule(l2_normalize(q), l2_normalize(k), v, beta, log_decay, M, scale=1.0)


_RULES = {"linear": _LinearMemory, "gla": _GLAMemory, "gated_delta": _GatedDeltaMemory}


@register("mom")
class MoM(Recurrent):
    """A router sends each token to a few of M memories, whose outputs are mixed (section 3).

    scores_t = softmax(x_t W_r) (in float32); the `top_k` largest, divided by their sum, are the
    weights w_t^m of the token's memories; the other memories do not change, without write or decay.
    Each memory has its own k_t^m, v_t^m and gates, and all share the query:
    o_t = q_t (Σ_m w_t^m M_t^m + M_t^s), where every token is routed to the shared memory M^s.
    The output of each head is normalised and gated by SiLU(W_G x_t); W_O maps all heads.

    The auxiliary loss (Switch Transformer, arXiv 2101.03961, eq. 4) balances the load:
    M Σ_m f_m P_m, with f_m the share of the tokens routed to memory m and P_m its mean score.

    All memories run over all tokens, and an unrouted step is the identity. This takes (M + 1) /
    (top_k + 1) times the arithmetic needed. The authors avoid it by sorting the tokens by memory,
    but then a token's place in a chunk of the operator depends on later tokens, and so does its
    output, by rounding.

    Args:
      num_memories: M, not counting the shared one.
      top_k: memories per token.
      rule: the update of a memory, "linear", "gla" or "gated_delta".
      shared_memory: add M^s.
      num_heads: H.
      conv_size: width of the short convolutions of x before the maps of q, k and v; None is
        without.
      balance: weight of the auxiliary loss.

    State: M [B, M + 1, H, K, V] in float32 ([B, M, …] without a shared memory), and the last inputs
    if there are convolutions.
    """

    paper = "MoM (Du et al. 2025)"
    reference = "https://arxiv.org/abs/2502.13685"

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_memories: int = 8,
        top_k: int = 2,
        rule: str = "gated_delta",
        shared_memory: bool = True,
        num_heads: int = 4,
        conv_size: int | None = 4,
        balance: float = 0.01,
    ):
        options.at_least("num_memories", num_memories, 1)
        options.at_least("top_k", top_k, 1)
        if top_k > num_memories:
            raise ValueError(f"top_k is {top_k}, expected at most num_memories = {num_memories}")
        options.one_of("rule", rule, tuple(_RULES))
        options.divides("num_heads", num_heads, "d_model", d_model)
        if balance < 0:
            raise ValueError(f"balance is {balance}, expected a number of at least 0")
        self.num_memories, self.top_k, self.shared_memory = num_memories, top_k, shared_memory
        self.num_heads, self.balance = num_heads, balance
        self.router = Linear(d_model, num_memories, rngs=rngs)
        self.query = Linear(d_model, d_model, rngs=rngs)
        # Stacked along a leading axis, with the shared one last.
        self.memories = jax.vmap(lambda key: _RULES[rule](d_model, num_heads, rngs=nnx.Rngs(key)))(
            jax.random.split(rngs.params(), num_memories + shared_memory)
        )
        self.convs = short_convs([d_model] * 3, conv_size, rngs=rngs)
        self.norm = RMSNorm(d_model // num_heads)
        self.gate = Linear(d_model, d_model, rngs=rngs)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def route(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return (scores, weights, mask of the routed tokens), each [B, T, M]."""
        scores = jax.nn.softmax(self.router(x.astype(jnp.float32)))
        best, chosen = jax.lax.top_k(scores, self.top_k)
        one_hot = jax.nn.one_hot(chosen, self.num_memories)  # [B, T, top_k, M]
        weights = jnp.einsum("btk,btkm->btm", best / best.sum(-1, keepdims=True), one_hot)
        return scores, weights, one_hot.any(2)

    def zeros(self, batch_size: int) -> State:
        width, memories = self.norm.scale.shape[0], self.num_memories + self.shared_memory
        return {
            "M": jnp.zeros((batch_size, memories, self.num_heads, width, width)),
            # The three convolutions have the same inputs.
            "conv": [conv.initial_state(batch_size) for conv in self.convs[:1]],
        }

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        if context is not None and context.training:
            scores, _, routed = self.route(x)
            loads = self.num_memories * routed.mean((0, 1)) * scores.mean((0, 1))
            self.auxiliary_loss = AuxiliaryLoss(self.balance * loads.sum())
        return super().__call__(x, context)

    def run(self, memory: State, x: jax.Array, starts: jax.Array | None) -> tuple[State, jax.Array]:
        _, weights, routed = self.route(x)
        if self.shared_memory:
            last = ((0, 0), (0, 0), (0, 1))
            weights = jnp.pad(weights, last, constant_values=1)
            routed = jnp.pad(routed, last, constant_values=True)
        inputs, tail = [x, x, x], memory["conv"]
        if len(self.convs):
            pairs = [conv.extend(tail[0], x, starts) for conv in self.convs]
            tails, inputs = zip(*pairs, strict=True)
            tail = list(tails[:1])
        qkv = [self.query(inputs[0]), *inputs[1:]]

        def step(
            part: _LinearMemory, M: jax.Array, routed: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            return part(M, x, qkv, routed, starts)

        o, M = jax.vmap(step, in_axes=(0, 1, 2), out_axes=(0, 1))(
            self.memories, memory["M"], routed
        )
        o = jnp.einsum("btm,mbthv->bthv", weights.astype(x.dtype), o)
        o = self.norm(o).reshape(x.shape) * jax.nn.silu(self.gate(x))
        return {"M": M, "conv": tail}, self.out(o)
