"""Output heads: logits of the next token, for a sequence, or for a pair of sequences.

Letters: B batch, T time, D width, P positions, V vocabulary, C classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch.nn.layers import Linear


class ClassHead(nnx.Module):
    """Classification of a sequence: Linear(mean of x)."""

    def __init__(self, d_model: int, num_classes: int, *, rngs: nnx.Rngs):
        self.out = Linear(d_model, num_classes, rngs=rngs, use_bias=True)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x: [B, T, D]; mask: [B, T] bool, False at padding. Returns [B, 1, C] float32."""
        return self.out(_pooled(x, mask))[:, None]


class PairHead(nnx.Module):
    """Classification of two sequences encoded separately by the same model, the two towers of LRA's
    document retrieval (Tay et al. 2020, arXiv 2011.04006).

    With x and y the means of the two, Linear(ReLU(Linear(x, y, x ⊙ y, x − y))). InferSent (Conneau
    et al. 2017, arXiv 1705.02364, section 3.1) has |x − y|; the sign is kept here, because it
    distinguishes the first from the second.
    """

    def __init__(self, d_model: int, num_classes: int, *, rngs: nnx.Rngs):
        self.hidden = Linear(4 * d_model, d_model, rngs=rngs, use_bias=True)
        self.out = Linear(d_model, num_classes, rngs=rngs, use_bias=True)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x: [2B, T, D], a pair in two consecutive rows; mask: [2B, T] bool, False at padding.
        Returns [B, 1, C] float32.
        """
        means = _pooled(x, mask)
        first, second = means[0::2], means[1::2]
        features = jnp.concatenate([first, second, first * second, first - second], axis=-1)
        return self.out(jax.nn.relu(self.hidden(features)))[:, None]


HEADS = {"class": ClassHead, "pair": PairHead}


def _pooled(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over the tokens without padding, in float32; zero for a row of padding only.

    x: [B, T, D]; mask: [B, T] bool, or None without padding. Returns [B, D].
    """
    if mask is None:
        return jnp.mean(x, axis=1, dtype=jnp.float32)
    # `where` and not a product: not even a NaN at padding gets through.
    total = jnp.sum(jnp.where(mask[..., None], x, 0), axis=1, dtype=jnp.float32)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]


@jax.custom_vjp
def tied_logits(x: jax.Array, embedding: jax.Array) -> jax.Array:
    """Return x Eᵀ, summed in float32: sums in bfloat16 would be too coarse for the softmax.

    x: [B, P, D]; embedding E: [V, D]. Returns [B, P, V].

    The gradient of E is computed as (xᵀ g)ᵀ, with xᵀ g [D, V]. By default XLA transposes g [B·P, V]
    instead of x, which on CPU takes a third of a training step of MQAR at V = 8192.
    """
    return jnp.einsum(
        "bpd,vd->bpv", x, embedding.astype(x.dtype), preferred_element_type=jnp.float32
    )


def _tied_logits_fwd(x: jax.Array, embedding: jax.Array) -> tuple[jax.Array, Any]:
    return tied_logits(x, embedding), (x, embedding)


def _tied_logits_bwd(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, embedding = residuals
    g = g.astype(x.dtype)
    dx = jnp.einsum("bpv,vd->bpd", g, embedding.astype(x.dtype))
    transposed = jnp.einsum("bpd,bpv->dv", x, g, preferred_element_type=jnp.float32)
    return dx, jax.lax.optimization_barrier(transposed).T.astype(embedding.dtype)


tied_logits.defvjp(_tied_logits_fwd, _tied_logits_bwd)
