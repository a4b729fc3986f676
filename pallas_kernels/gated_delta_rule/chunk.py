"""One chunk of the gated delta rule, with its dependence on the state taken out.

Written with the values that a step really adds, u_t = β_t (v_t − e^{g_t} k_t S_{t−1}), the
recurrence S_t = e^{g_t} S_{t−1} + k_tᵀ u_t is linear attention. Over a chunk of C steps entered by
S, with Γ_ij = Π_{j<l≤i} e^{g_l} for j ≤ i (else 0) and P_i = Π_{l≤i} e^{g_l} (DeltaNet, arXiv
2406.06484, §3.2, and Gated DeltaNet, arXiv 2412.06464, §3.3):

    (I + A) U = X, X = Y − Z S    A = tril(diag(β) (Γ ⊙ K Kᵀ), −1), Y = diag(β) V, Z = diag(β P) K
    O = R S + M U                 R = diag(P) Q, M = Γ ⊙ Q Kᵀ
    S' = P_C S + Wᵀ U             W = diag(Γ_C) K

The gradient computes X and U again, and needs none of the inverse: dA = −dX Uᵀ, with

    dU = Mᵀ dO + W dS',  dX = (I + A)^{−ᵀ} dU,  dS = P_C dS' + Rᵀ dO − Zᵀ dX.

The inverse of I + A stays small however long the chunk: its entry i, j is
−β_i k_i Π_{j<l<i} (I − β_l k_lᵀ k_l) k_jᵀ times decays, and no factor expands while β |k|² ≤ 2. The
powers of A do grow: summing them would lose all digits.

All of it is matrix products under masks, which the compilers of kernels know. `prepare` is of one
chunk; the other functions take leading axes as well.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.matrix_state import LOG_ZERO, dot, indices


class ChunkFactors(NamedTuple):
    """The matrices of a chunk that do not depend on the state that enters it.

    Attributes:
      A: [C, C].
      M: [C, C].
      R: [C, K].
      W: [C, K].
      Y: [C, V].
      Z: [C, K].
      P: P_C [1, 1].
    """

    A: jax.Array
    M: jax.Array
    R: jax.Array
    W: jax.Array
    Y: jax.Array
    Z: jax.Array
    P: jax.Array


def prepare(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    precision: jax.lax.Precision,
) -> ChunkFactors:
    """The factors of one chunk.

    The exponents of Γ are sums of g over j < l ≤ i, added up for every i and j as a product with a
    mask: differences of one cumulative sum would lose weak decays that come after strong ones.

    Args:
      q: [C, K], scaled.
      k: [C, K].
      v: [C, V].
      beta: [C, 1].
      log_decay: [1, C], or None for zeros.
      precision: of the products.
    """
    i, j = indices(k.shape[0], k.shape[0])
    A, M = beta * dot(k, k, precision, transpose="b"), dot(q, k, precision, transpose="b")
    R, W, Z, P = q, k, beta * k, jnp.ones((1, 1), k.dtype)
    if log_decay is not None:
        g = jnp.maximum(log_decay, LOG_ZERO)
        until = jnp.where(j <= i, g, 0)  # g_l in column l ≤ i
        later = jnp.where(i > j, 1.0, 0.0).astype(g.dtype)  # 1 in row l > j
        decay = jnp.exp(dot(until, later))  # Γ for j ≤ i
        prefix = jnp.exp(jnp.sum(until, axis=1, keepdims=True))
        suffix = jnp.exp(jnp.sum(jnp.where(j > i, g, 0), axis=1, keepdims=True))
        A, M, R, W, Z = decay * A, decay * M, prefix * R, suffix * W, prefix * Z
        P = jnp.exp(jnp.sum(g, axis=1, keepdims=True))
    return ChunkFactors(jnp.where(i > j, A, 0), jnp.where(i >= j, M, 0), R, W, beta * v, Z, P)


def inverse(A: jax.Array) -> jax.Array:
    """(I + A)^{-1} of strictly lower triangular A [..., C, C], in matrix products.

    The inverses of the diagonal blocks of size s give those of size 2s: with E and F the inverses
    of two neighbours and B the block of A between them, the new block is −F B E. Done for all
    blocks at once under a mask, so that kernels need no slices: i and j are in neighbours of size
    s = 2^n if n is the highest bit in which they differ.
    """
    i, j = indices(*A.shape[-2:])
    inverses = jnp.where(i == j, 1.0, jnp.where((i ^ j) == 1, -A, 0)).astype(A.dtype)
    for n in range(1, (A.shape[-1] - 1).bit_length()):
        B = jnp.where((i ^ j) >> n == 1, A, 0)
        inverses = inverses - dot(inverses, dot(B, inverses))
    return inverses


def corrections(
    factors: ChunkFactors, inverse: jax.Array, S: jax.Array, precision: jax.lax.Precision
) -> jax.Array:
    """U [..., C, V]."""
    return dot(inverse, factors.Y - dot(factors.Z, S, precision), precision)


def leave(
    factors: ChunkFactors, S: jax.Array, U: jax.Array, precision: jax.lax.Precision
) -> jax.Array:
    """S' [..., K, V]."""
    return factors.P * S + dot(factors.W, U, precision, transpose="a")


def output(
    factors: ChunkFactors, S: jax.Array, U: jax.Array, precision: jax.lax.Precision
) -> jax.Array:
    """O [..., C, V]."""
    return dot(factors.R, S, precision) + dot(factors.M, U, precision)


def direct_gradients(
    factors: ChunkFactors, dO: jax.Array, precision: jax.lax.Precision
) -> tuple[jax.Array, jax.Array]:
    """Mᵀ dO [..., C, V] and Rᵀ dO [..., K, V]: dU and dS without the terms in dS'."""
    return dot(factors.M, dO, precision, transpose="a"), dot(
        factors.R, dO, precision, transpose="a"
    )


def enter(
    factors: ChunkFactors,
    inverse: jax.Array,
    direct: tuple[jax.Array, jax.Array],
    dS: jax.Array,
    precision: jax.lax.Precision,
) -> tuple[jax.Array, jax.Array]:
    """dX [..., C, V] and dS [..., K, V], of the direct gradients and dS'."""
    dU, read = direct
    dX = dot(inverse, dU + dot(factors.W, dS, precision), precision, transpose="a")
    return dX, factors.P * dS + read - dot(factors.Z, dX, precision, transpose="a")


def gradients(
    S: jax.Array,
    U: jax.Array,
    dO: jax.Array,
    dX: jax.Array,
    dS: jax.Array,
    precision: jax.lax.Precision,
) -> ChunkFactors:
    """Of the factors; dS is that of S'."""
    return ChunkFactors(
        A=-dot(dX, U, precision, transpose="b"),
        M=dot(dO, U, precision, transpose="b"),
        R=dot(dO, S, precision, transpose="b"),
        W=dot(U, dS, precision, transpose="b"),
        Y=dX,
        Z=-dot(dX, S, precision, transpose="b"),
        P=jnp.sum(jnp.sum(S * dS, axis=-1, keepdims=True), axis=-2, keepdims=True),
    )
