"""Titans (Behrouz et al. 2024, arXiv 2501.00663): the neural memory alone, as a gate of attention,
and as a layer before attention.

Letters: B batch, T time, D model width, H heads, K = D / H width of a head, N_p persistent tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.attention import SlidingWindow
from arch.interface import Context, SequenceMixer, State
from arch.nn import options
from arch.nn.layers import Linear, RMSNorm
from arch.nn.neural_memory import NeuralMemory
from arch.nn.persistent_tokens import PersistentTokens
from arch.nn.rotary import rotate
from arch.registry import register
from pallas_kernels import PrefixWindow, attention


@register("titans_lmm")
class TitansLMM(SequenceMixer):
    """The long-term memory as a sequence model (sections 3 and 4.3).

    S_t = η_t S_{t−1} − θ_t ∇ℓ(M_{t'}; x_t), ℓ(M; x_t) = |M(k_t) − v_t|² (eq. 12 and 14)
    M_t = (1 − α_t) M_{t−1} + S_t (eq. 13)
    y_t = M_t(q_t) (eq. 15)

    M is an MLP, t' = t − 1 rounded down to whole chunks (section 3.2): the gradients of a chunk are
    taken at the memory before it. y is normalised, gated by SiLU(x W_G) and mapped by W_O
    (section 4.4). M_t and not M_{t−1} is read, as in the paper's equations 6 and 7.

    Args:
      **memory: options of `NeuralMemory`.

    State: M at the start of the chunk, M and S, all [B, H, I, O] for each layer in float32; the
    number of tokens in the chunk so far; the last inputs of the convolution.
    """

    paper = "Titans (Behrouz et al. 2024)"
    reference = "https://arxiv.org/abs/2501.00663"

    @options.with_those_of(NeuralMemory)
    def __init__(self, d_model: int, *, rngs: nnx.Rngs, **memory: Any):
        self.memory = NeuralMemory(d_model, rngs=rngs, **memory)
        self.norm = RMSNorm(d_model // self.memory.num_heads)
        self.gate = Linear(d_model, d_model, rngs=rngs)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        return self.extend(self.initial_state(x.shape[0], x.shape[1]), x, context)[1]

    def initial_state(self, batch_size: int, max_length: int) -> State:
        return self.memory.initial_state(batch_size)

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        state, y = self.memory.extend(state, x)
        y = self.norm(y).reshape(x.shape).astype(x.dtype)
        return state, self.out(y * jax.nn.silu(self.gate(x)))


@register("titans_mag")
class TitansMAG(SequenceMixer):
    """Memory as a gate: sliding-window attention and the memory side by side (section 4.2).

    x̃ = [p_1 … p_{N_p}] ‖ x (eq. 26)
    y = SW-Attn*(x̃) (eq. 27), where the persistent tokens are in every window
    o = y ⊗ M(x̃) (eq. 28)

    y ⊗ m is RMSNorm(y) ⊙ SiLU(RMSNorm(m)) mapped by W_O: the paper normalises both with learned
    weights and does not specify the nonlinearity. Positions, which it does not mention, are rotary,
    counted along x̃.

    Args:
      num_heads: H, of the memory and of the attention.
      window: of the attention, including the query's own token.
      num_persistent: N_p.
      **memory: the other options of `NeuralMemory`.

    State: that of the memory after the persistent tokens, and the last window − 1 keys and values,
    [B, window − 1, H, K] each.
    """

    paper = "Titans (Behrouz et al. 2024)"
    reference = "https://arxiv.org/abs/2501.00663"

    @options.with_those_of(NeuralMemory)
    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int = 1,
        window: int = 64,
        num_persistent: int = 4,
        **memory: Any,
    ):
        options.at_least("window", window, 1)
        self.memory = NeuralMemory(d_model, rngs=rngs, num_heads=num_heads, **memory)
        options.even("the head width d_model / num_heads", d_model // num_heads)
        self.num_heads, self.window = num_heads, window
        self.persistent = PersistentTokens(num_persistent, d_model, rngs=rngs)
        self.query = Linear(d_model, d_model, rngs=rngs)
        self.key = Linear(d_model, d_model, rngs=rngs)
        self.value = Linear(d_model, d_model, rngs=rngs)
        self.attention_norm = RMSNorm(d_model)
        self.memory_norm = RMSNorm(d_model)
        self.out = Linear(d_model, d_model, rngs=rngs)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        return self.extend(self.initial_state(x.shape[0], x.shape[1]), x, context)[1]

    def initial_state(self, batch_size: int, max_length: int) -> State:
        prompt = self.persistent(batch_size)
        width = prompt.shape[-1] // self.num_heads
        empty = jnp.zeros((batch_size, self.window - 1, self.num_heads, width))
        return {
            "memory": self.memory.extend(self.memory.initial_state(batch_size), prompt)[0],
            "keys": empty,
            "values": empty,
            "length": jnp.zeros((), jnp.int32),
        }

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        memory, m = self.memory.extend(state["memory"], x)
        cache, y = self._attend(state, x)
        m = self.memory_norm(m.reshape(x.shape).astype(x.dtype))
        y = self.out(self.attention_norm(y) * jax.nn.silu(m))
        return {"memory": memory, **cache}, y

    def _attend(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """Attend to the keys in order: persistent tokens, the cached window, the new tokens."""
        prompt = self.persistent(x.shape[0]).astype(x.dtype)
        number, slots, length = prompt.shape[1], self.window - 1, state["length"]
        q, k, v, first_k, first_v = (
            layer(y).reshape(*y.shape[:2], self.num_heads, -1)
            for layer, y in (
                (self.query, x),
                (self.key, x),
                (self.value, x),
                (self.key, prompt),
                (self.value, prompt),
            )
        )
        q, k, first_k = rotate(q, number + length), rotate(k, number + length), rotate(first_k)
        keys, values = (
            jnp.concatenate([state[name], new.astype(jnp.float32)], axis=1)
            for name, new in (("keys", k), ("values", v))
        )
        # Empty slots have the id 0, which no query sees.
        place = jnp.arange(number + slots + x.shape[1])
        filled = (place < number) | (place >= number + slots - length)
        o = attention(
            q,
            jnp.concatenate([first_k, keys.astype(x.dtype)], axis=1),
            jnp.concatenate([first_v, values.astype(x.dtype)], axis=1),
            mask=PrefixWindow(number, self.window),
            q_segment_ids=jnp.ones(x.shape[:2], jnp.int32),
            kv_segment_ids=jnp.broadcast_to(filled, (x.shape[0], place.size)).astype(jnp.int32),
            q_offset=number + slots,
        )
        new = x.shape[1]
        cache = {"keys": keys[:, new:], "values": values[:, new:], "length": length + new}
        return cache, o.reshape(x.shape)


@register("titans_mal")
class TitansMAL(SequenceMixer):
    """Memory as a layer: the memory, then sliding-window attention on its output (section 4.3).

    x̃ = [p_1 … p_{N_p}] ‖ x (eq. 29)
    y = M(x̃) (eq. 30)
    o = SW-Attn(y) (eq. 31)

    M is the whole layer `titans_lmm`. Between the two layers there are a norm and the residual
    connection that the paper has in all blocks (section 4.4): y = RMSNorm(x̃ + M(x̃)).

    Args:
      num_heads: H, of the memory and of the attention.
      window: of the attention, including the query's own token.
      num_persistent: N_p.
      **memory: the other options of `NeuralMemory`.

    State: the states of `titans_lmm` and `sliding_window` after the persistent tokens.
    """

    paper = "Titans (Behrouz et al. 2024)"
    reference = "https://arxiv.org/abs/2501.00663"

    @options.with_those_of(NeuralMemory)
    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int = 1,
        window: int = 64,
        num_persistent: int = 4,
        **memory: Any,
    ):
        self.memory = TitansLMM(d_model, rngs=rngs, num_heads=num_heads, **memory)
        self.persistent = PersistentTokens(num_persistent, d_model, rngs=rngs)
        self.norm = RMSNorm(d_model)
        self.attention = SlidingWindow(d_model, rngs=rngs, window=window, num_heads=num_heads)

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        return self.extend(self.initial_state(x.shape[0], x.shape[1]), x, context)[1]

    def initial_state(self, batch_size: int, max_length: int) -> State:
        prompt = self.persistent(batch_size)
        total = max_length + prompt.shape[1]
        state = {
            "memory": self.memory.initial_state(batch_size, total),
            "attention": self.attention.initial_state(batch_size, total),
        }
        return self.extend(state, prompt)[0]

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        self.refuse_packed(context)
        memory, y = self.memory.extend(state["memory"], x)
        attention, o = self.attention.extend(state["attention"], self.norm(x + y))
        return {"memory": memory, "attention": attention}, o
