"""Long-term memory of Titans: a network trained while it reads a sequence (Behrouz et al. 2024,
arXiv 2501.00663, section 3).

Letters: B batch, T time, D model width, H heads, K = D / H width of a head, I and O widths of a
layer of the memory, N chunks, n tokens of a chunk.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arch.interface import State, Undecayed
from arch.nn import options
from arch.nn.layers import Linear, l2_normalize
from arch.nn.short_conv import ShortConv


class Tokens(NamedTuple):
    """Inputs of the memory at each token: q, k, v [B, T, H, K]; η, θ, α [B, T, H], float32."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    eta: jax.Array
    theta: jax.Array
    alpha: jax.Array


class _Chunk(NamedTuple):
    """A chunk of tokens [B, H, n, K] and the coefficients of its recurrences.

    Both are linear in the gradients ∇_s of the chunk: M_t = c_t M_0 + m_t S_0 − Σ_{s ≤ t} C_ts ∇_s
    and S_n = p S_0 − Σ_s P_s ∇_s. c, m, P: [B, H, n]; p [B, H]; C [B, H, n, n].
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    c: jax.Array
    m: jax.Array
    C: jax.Array
    p: jax.Array
    P: jax.Array


def read(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    """M(x) = SiLU(… SiLU(x W₁) …) W_L. weights: [..., I, O] each; x: [..., n, K]."""
    return _forward(x, lambda a, layer: _matmul(a, weights[layer]), len(weights))


def remember(memory: State, tokens: Tokens, chunk_size: int) -> tuple[State, jax.Array]:
    """Update the memory by the tokens; returns it and its outputs y [B, T, H, K].

    S_t = η_t S_{t−1} − θ_t ∇ℓ(M_{t'}; x_t), M_t = (1 − α_t) M_{t−1} + S_t, y_t = M_t(q_t)
    (eq. 13 to 15), with ℓ(M; x_t) = |M(k_t) − v_t|² (eq. 12) and M_{t'} the memory after the last
    whole chunk before t (eq. 17 and 18).

    Chunks are counted from the first token of the sequence, however it is divided into calls.

    Args:
      memory: as returned by `NeuralMemory.empty`.
      tokens: at least one.
      chunk_size: b; 1 is gradient descent token by token.
    """
    length, position = tokens.q.shape[1], memory["position"]
    # The tokens are placed on the grid of the chunks, after the earlier ones of the current chunk.
    # A single token stays within its chunk, so that one row is enough.
    rows, offset = (1, 0) if length == 1 else (chunk_size, position)
    chunks = 1 if length == 1 else -(-(length + chunk_size - 1) // chunk_size)

    def lay(x):
        grid = jnp.zeros((x.shape[0], chunks * rows, *x.shape[2:]), x.dtype)
        grid = jax.lax.dynamic_update_slice_in_dim(grid, x, offset, axis=1)
        return jnp.moveaxis(grid.reshape(x.shape[0], chunks, rows, *x.shape[2:]), 1, 0)

    present = lay(jnp.ones((1, length), bool))[:, 0]

    # For the gradient, keep the weights at every chunk and the products with them, but not the
    # transposed and scaled copies of the weights.
    @functools.partial(
        jax.checkpoint, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable
    )
    def step(memory, inputs):
        return remember_within(memory, *inputs, chunk_size)

    memory, y = jax.lax.scan(step, memory, (jax.tree.map(lay, tokens), present))
    y = jnp.moveaxis(y, 0, 1).reshape(y.shape[1], -1, *y.shape[3:])
    return memory, jax.lax.dynamic_slice_in_dim(y, offset, length, axis=1)


def remember_within(
    memory: State, tokens: Tokens, present: jax.Array, chunk_size: int
) -> tuple[State, jax.Array]:
    """Like `remember`, for rows within the current chunk; only those in `present` [T] are tokens.

    Outputs of the other rows are meaningless.
    """
    q, k, v, eta, theta, alpha = (jnp.moveaxis(x, 2, 1) for x in tokens)  # [B, H, n, ...]
    eta, theta = jnp.where(present, eta, 1.0), jnp.where(present, theta, 0.0)
    keep = jnp.where(present, 1 - alpha, 1.0)
    weights, surprise, y = _advance(memory, _chunk(q, k, v, eta, theta, keep, present))
    end = memory["position"] + jnp.sum(present, dtype=jnp.int32)
    new_memory = {
        "anchor": _choose(end == chunk_size, weights, memory["anchor"]),
        "weights": weights,
        "surprise": surprise,
        "position": end % chunk_size,
    }
    return new_memory, jnp.moveaxis(y, 1, 2)


class NeuralMemory(nnx.Module):
    """The memory and its input projections.

    q, k and v are SiLU(conv(x W)), with q and k divided by their norms (section 4.4). η, θ and α
    are σ(x W + b), one of each for every head.

    The paper does not say how M_0 and the biases are initialised. Here the last layer of M_0 is
    zero, so that an empty memory returns zero, and the others preserve norms (SiLU halves small
    inputs). η starts at ½, α at 1%, and θ such that b equal keys in one chunk do not overshoot.

    Args:
      d_model: D.
      num_heads: H, independent memories of K channels each; the paper has one.
      memory_depth: L_M, layers of each memory; 1 is a matrix.
      expansion: width of its hidden layers over K.
      conv_size: width of the short convolution on q, k and v.
      chunk_size: b; 1 takes every gradient at the memory of the previous token.
    """

    def __init__(
        self,
        d_model: int,
        *,
        rngs: nnx.Rngs,
        num_heads: int = 1,
        memory_depth: int = 2,
        expansion: int = 1,
        conv_size: int = 4,
        chunk_size: int = 16,
    ):
        options.divides("num_heads", num_heads, "d_model", d_model)
        for name, value in (
            ("memory_depth", memory_depth),
            ("expansion", expansion),
            ("conv_size", conv_size),
            ("chunk_size", chunk_size),
        ):
            options.at_least(name, value, 1)
        width = d_model // num_heads
        self.num_heads, self.chunk_size = num_heads, chunk_size
        self.qkv = Linear(d_model, 3 * d_model, rngs=rngs)
        self.conv = ShortConv(3 * d_model, conv_size, rngs=rngs)
        self.gates = Linear(d_model, 3 * num_heads, rngs=rngs)
        # Equal keys take steps of 2θ |hidden|² <= 2θ each, times 1 / (1 − η) by momentum.
        starts = [0.5, 1 / (2 * chunk_size + 1), 0.01]
        logits = [math.log(p / (1 - p)) for p in starts]
        self.gate_bias = Undecayed(jnp.repeat(jnp.array(logits), num_heads))
        widths = [width, *[expansion * width] * (memory_depth - 1), width]
        scales = [2 * o**-0.5 for o in widths[1:-1]] + [0.0]
        self.initial = nnx.List(
            nnx.Param(scale * jax.random.normal(rngs.params(), (num_heads, i, o)))
            for scale, (i, o) in zip(scales, itertools.pairwise(widths), strict=True)
        )

    def empty(self, batch_size: int) -> State:
        """Return M_0 as memory and as anchor (the memory at the start of the chunk), with S = 0."""
        weights = [jnp.broadcast_to(W[...], (batch_size, *W.shape)) for W in self.initial]
        return {
            "anchor": weights,
            "weights": weights,
            "surprise": [jnp.zeros_like(W) for W in weights],
            "position": jnp.zeros((), jnp.int32),
        }

    def initial_state(self, batch_size: int) -> State:
        """Return the empty memory and zeros for the convolution."""
        return {"memory": self.empty(batch_size), "conv": self.conv.initial_state(batch_size)}

    def extend(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """(state, x [B, T, D]) -> (state, y [B, T, H, K] in float32)."""
        tail, tokens = self.tokens(state["conv"], x)
        memory, y = remember(state["memory"], tokens, self.chunk_size)
        return {"memory": memory, "conv": tail}, y

    def tokens(self, tail: jax.Array, x: jax.Array) -> tuple[jax.Array, Tokens]:
        """(the convolution's last inputs, x [B, T, D]) -> (its last inputs, tokens)."""
        tail, qkv = self.conv.extend(tail, self.qkv(x))
        qkv = jax.nn.silu(qkv).reshape(*x.shape[:2], 3, self.num_heads, -1).astype(jnp.float32)
        q, k, v = (qkv[:, :, i] for i in range(3))
        # Float32: 1 − α may be too close to 1 for bfloat16.
        logits = self.gates(x.astype(jnp.float32)) + self.gate_bias[...]
        gates = jnp.split(jax.nn.sigmoid(logits), 3, axis=-1)
        return tail, Tokens(l2_normalize(q), l2_normalize(k), v, *gates)


def _chunk(q, k, v, eta, theta, keep, present):
    """Return the coefficients from eta, theta, keep = 1 − α [B, H, n] and present [n].

    A row without a token has keep = eta = 1, theta = 0, and adds no S to M.
    """
    eta_products, keep_products = _products(eta), _products(keep)
    p = eta_products[..., 0] * eta[..., :1]  # Π_{j ≤ t} η_j
    adds = keep_products * present
    return _Chunk(
        q,
        k,
        v,
        c=keep_products[..., 0] * keep[..., :1],
        m=_matmul(adds, p[..., None])[..., 0],
        C=_matmul(adds, eta_products) * theta[..., None, :],
        p=p[..., -1],
        P=eta_products[..., -1, :] * theta,
    )


def _advance(memory, chunk):
    """Return (weights, surprise, outputs y) after the chunk, with the gradients at the anchor.

    A layer with inputs a_s and output gradients δ_s has ∇_s = a_sᵀ δ_s, so that M_t need not be
    formed for each token: h M_t = c_t h M_0 + m_t h S_0 − Σ_{s ≤ t} C_ts (h · a_s) δ_s.
    """
    weights, surprise = memory["weights"], memory["surprise"]
    inputs, deltas = _gradients(memory["anchor"], chunk.k, chunk.v)

    def layer(h, i):
        scores = chunk.C * _matmul(h, jnp.swapaxes(inputs[i], -1, -2))
        old = chunk.c[..., None] * _matmul(h, weights[i])
        return old + chunk.m[..., None] * _matmul(h, surprise[i]) - _matmul(scores, deltas[i])

    y = _forward(chunk.q, layer, len(weights))

    def total(coefficients):  # Σ_s coefficient_s ∇_s
        return [
            _matmul(jnp.swapaxes(coefficients[..., None] * a, -1, -2), delta)
            for a, delta in zip(inputs, deltas, strict=True)
        ]

    c, m, p = (x[..., None, None] for x in (chunk.c[..., -1], chunk.m[..., -1], chunk.p))
    written, felt = total(chunk.C[..., -1, :]), total(chunk.P)
    new_weights = [c * W + m * S - w for W, S, w in zip(weights, surprise, written, strict=True)]
    return new_weights, [p * S - f for S, f in zip(surprise, felt, strict=True)], y


def _gradients(weights, k, v):
    """Return each layer's inputs a [..., n, I] and output gradients δ [..., n, O] of the loss
    Σ_t |M(k_t) − v_t|².

    δ is the gradient with respect to a shift of the layer's outputs.
    """

    def loss(shifts):
        inputs = []

        def layer(a, i):
            inputs.append(a)
            return _matmul(a, weights[i]) + shifts[i]

        return jnp.sum((_forward(k, layer, len(weights)) - v) ** 2), inputs

    shifts = [jnp.zeros((*k.shape[:-1], W.shape[-1])) for W in weights]
    deltas, inputs = jax.grad(loss, has_aux=True)(shifts)
    return inputs, deltas


def _forward(x, layer, depth):
    """Apply the memory's network, whose layers are a function (input, index) -> output."""
    for i in range(depth):
        x = layer(jax.nn.silu(x) if i else x, i)
    return x


def _products(x):
    """Π_{s < j ≤ t} x_j as the lower triangle of [..., t, s], for x in [0, 1].

    Each is a sum of its own logarithms: quotients of long products would lose precision.
    """
    t = np.arange(x.shape[-1])
    within = (t > t[:, None, None]) & (t <= t[:, None])  # [s, t, j]
    logs = jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
    sums = jnp.einsum("...j,stj->...ts", logs, within.astype(x.dtype), precision="highest")
    return jnp.where(t[:, None] >= t, jnp.exp(sums), 0.0)


def _choose(condition, new, old):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _matmul(a, b):
    # Full float32: rounding errors of the gradients would accumulate in the weights.
    return jnp.matmul(a, b, precision="highest")
