"""One chunk of gated linear attention, with its dependence on the state taken out.

Inside this operator the state is transposed, S [V, K], so that decays of key channels are rows, as
those of the steps are: kernels then need no transposition. Over a chunk of C steps entered by S_0,
with Γ_ij = Π_{j<l≤i} exp g_l (gated linear attention, arXiv 2312.06635, §4):

    O = A V + R S_0ᵀ            A_ij = Σ_K q_i Γ_ij k_j for j ≤ i, else 0;  R_i = q_i Γ_i0
    S_C = Γ_C0 S_0 + Vᵀ W       W_j = k_j Γ_Cj

Everything is a matrix product or acts on single numbers, under masks of indices: the same functions
serve XLA and the kernels. Letters: C steps, K key width, V value width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.gated_linear_attention.decay import Decay
from pallas_kernels.matrix_state import dot


class _ChunkFactors(NamedTuple):
    """The matrices of a chunk that do not depend on the state that enters it.

    Attributes:
      scores: A [C, C].
      reading: R [C, K].
      writing: W [C, K].
      total: Γ_C0 [1, K], or [1, 1] where all channels decay alike.
    """

    scores: jax.Array
    reading: jax.Array
    writing: jax.Array
    total: jax.Array


def prepare(q: jax.Array, k: jax.Array, decay: Decay, scores: jax.Array) -> _ChunkFactors:
    """The factors of q and k [C, K], which have these scores."""
    return _ChunkFactors(scores, q * decay.prefix, k * decay.suffix, decay.total)


def output(
    factors: _ChunkFactors, v: jax.Array, S: jax.Array, precision: jax.lax.Precision
) -> jax.Array:
    """O [C, V] where S enters."""
    return dot(factors.scores, v, precision) + dot(factors.reading, S, precision, transpose="b")


def update(factors: _ChunkFactors, v: jax.Array, precision: jax.lax.Precision) -> jax.Array:
    """Vᵀ W [V, K], which the chunk adds to the state."""
    return dot(v, factors.writing, precision, transpose="a")


def update_gradient(
    factors: _ChunkFactors, do: jax.Array, precision: jax.lax.Precision
) -> jax.Array:
    """dOᵀ R [V, K], which the chunk adds to the gradient of the state: dS_0 = Γ_C0 dS_C + dOᵀ R."""
    return dot(do, factors.reading, precision, transpose="a")


def gradients(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    decay: Decay,
    factors: _ChunkFactors,
    S: jax.Array,
    do: jax.Array,
    dS: jax.Array,
    precision: jax.lax.Precision,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """dq, dk, dv and dg, where S enters and the gradient of the state that leaves is dS."""
    dscores = dot(do, v, precision, transpose="b")  # of its upper triangle nothing is used
    dq = decay.prefix * dot(do, S, precision)
    dk = decay.suffix * dot(v, dS, precision)
    dv = dot(factors.scores, do, precision, transpose="a") + dot(
        factors.writing, dS, precision, transpose="b"
    )
    # The gradient of an exponent is that of its exponential times the exponential.
    exponents = (q * dq, k * dk, decay.total * jnp.sum(S * dS, axis=0, keepdims=True))
    dq_scores, dk_scores, dg = decay.gradient(q, k, factors.scores, dscores, exponents, precision)
    return dq + dq_scores, dk + dk_scores, dv, dg
