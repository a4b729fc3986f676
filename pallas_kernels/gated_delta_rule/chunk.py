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

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# exp of it is 0 even in float64. A sum with −inf would do the same, but not 0 times it.
_LOG_ZERO = -1e4


class Parts(NamedTuple):
    """What a chunk computes before it knows the state that enters it.

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


def _dot(
    a: jax.Array, b: jax.Array, precision: jax.lax.Precision, transposed: str = ""
) -> jax.Array:
    """a b, with the operand that is named "a" or "b" transposed."""
    left = "...ki" if transposed == "a" else "...ik"
    right = "...jk" if transposed == "b" else "...kj"
    return jnp.einsum(f"{left},{right}->...ij", a, b, precision=precision)


def indices(size: int) -> tuple[jax.Array, jax.Array]:
    """The row i and the column j of every entry of a square matrix."""
    return tuple(jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))


def prepare(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    precision: jax.lax.Precision,
) -> Parts:
    """The parts of one chunk.

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
    i, j = indices(k.shape[0])
    A, M = beta * _dot(k, k, precision, "b"), _dot(q, k, precision, "b")
    R, W, Z, P = q, k, beta * k, jnp.ones((1, 1), k.dtype)
    if log_decay is not None:
        g = jnp.maximum(log_decay, _LOG_ZERO)
        until = jnp.where(j <= i, g, 0)  # g_l in column l ≤ i
        later = jnp.where(i > j, 1.0, 0.0).astype(g.dtype)  # 1 in row l > j
        decay = jnp.exp(_dot(until, later, jax.lax.Precision.HIGHEST))  # Γ for j ≤ i
        prefix = jnp.exp(jnp.sum(until, axis=1, keepdims=True))
        suffix = jnp.exp(jnp.sum(jnp.where(j > i, g, 0), axis=1, keepdims=True))
        A, M, R, W, Z = decay * A, decay * M, prefix * R, suffix * W, prefix * Z
        P = jnp.exp(jnp.sum(g, axis=1, keepdims=True))
    return Parts(jnp.where(i > j, A, 0), jnp.where(i >= j, M, 0), R, W, beta * v, Z, P)


def inverse(A: jax.Array) -> jax.Array:
    """(I + A)^{-1} of strictly lower triangular A [..., C, C], in matrix products.

    The inverses of the diagonal blocks of size s give those of size 2s: with E and F the inverses
    of two neighbours and B the block of A between them, the new block is −F B E. Done for all
    blocks at once under a mask, so that kernels need no slices: i and j are in neighbours of size
    s = 2^n if n is the highest bit in which they differ.
    """
    i, j = indices(A.shape[-1])
    dot = functools.partial(_dot, precision=jax.lax.Precision.HIGHEST)
    inverses = jnp.where(i == j, 1.0, jnp.where((i ^ j) == 1, -A, 0)).astype(A.dtype)
    for n in range(1, (A.shape[-1] - 1).bit_length()):
        B = jnp.where((i ^ j) >> n == 1, A, 0)
        inverses = inverses - dot(inverses, dot(B, inverses))
    return inverses


def corrections(
    parts: Parts, inverse: jax.Array, S: jax.Array, precision: jax.lax.Precision
) -> jax.Array:
    """U [..., C, V]."""
    return _dot(inverse, parts.Y - _dot(parts.Z, S, precision), precision)


def leave(parts: Parts, S: jax.Array, U: jax.Array, precision: jax.lax.Precision) -> jax.Array:
    """S' [..., K, V]."""
    return parts.P * S + _dot(parts.W, U, precision, "a")


def output(parts: Parts, S: jax.Array, U: jax.Array, precision: jax.lax.Precision) -> jax.Array:
    """O [..., C, V]."""
    return _dot(parts.R, S, precision) + _dot(parts.M, U, precision)


def direct_gradients(
    parts: Parts, dO: jax.Array, precision: jax.lax.Precision
) -> tuple[jax.Array, jax.Array]:
    """Mᵀ dO [..., C, V] and Rᵀ dO [..., K, V]: what dU and dS are without dS'."""
    return _dot(parts.M, dO, precision, "a"), _dot(parts.R, dO, precision, "a")


def enter(
    parts: Parts,
    inverse: jax.Array,
    direct: tuple[jax.Array, jax.Array],
    dS: jax.Array,
    precision: jax.lax.Precision,
) -> tuple[jax.Array, jax.Array]:
    """dX [..., C, V] and dS [..., K, V], of the direct gradients and dS'."""
    dU, read = direct
    dX = _dot(inverse, dU + _dot(parts.W, dS, precision), precision, "a")
    return dX, parts.P * dS + read - _dot(parts.Z, dX, precision, "a")


def gradients(
    S: jax.Array,
    U: jax.Array,
    dO: jax.Array,
    dX: jax.Array,
    dS: jax.Array,
    precision: jax.lax.Precision,
) -> Parts:
    """Of the parts; dS is that of S'."""
    return Parts(
        A=-_dot(dX, U, precision, "b"),
        M=_dot(dO, U, precision, "b"),
        R=_dot(dO, S, precision, "b"),
        W=_dot(U, dS, precision, "b"),
        Y=dX,
        Z=-_dot(dX, S, precision, "b"),
        P=jnp.sum(jnp.sum(S * dS, axis=-1, keepdims=True), axis=-2, keepdims=True),
    )
