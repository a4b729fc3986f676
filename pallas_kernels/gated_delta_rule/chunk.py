"""One chunk of the gated delta rule, with its dependence on the state taken out.

Written with the values that the state really takes up, u_t = β_t (v_t − e^{g_t} k_t S_{t−1}), the
recurrence S_t = e^{g_t} S_{t−1} + k_tᵀ u_t is linear attention. Over a chunk of C steps entered by
S_0, with Γ_ij = Π_{j<l≤i} e^{g_l} for j ≤ i (else 0) and P_i = Π_{l≤i} e^{g_l} (DeltaNet, arXiv
2406.06484, §3.2, and Gated DeltaNet, arXiv 2412.06464, §3.3):

    (I + A) U = Y − Z S_0    A = tril(diag(β) (Γ ⊙ K Kᵀ), −1), Y = diag(β) V, Z = diag(β P) K
    O = diag(P) Q S_0 + (Γ ⊙ Q Kᵀ) U
    S_C = P_C S_0 + (diag(Γ_C) K)ᵀ U

The inverse of I + A stays small however long the chunk: its entry i, j is
−β_i k_i Π_{j<l<i} (I − β_l k_lᵀ k_l) k_jᵀ (times decays), and those factors do not expand. The
powers of A do grow, so that a sum of them would lose all digits.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# exp of it is 0 in float64, too; sums of a few hundred of it are finite, as those of −inf are, but
# 0 times it is 0.
_LOG_ZERO = -1e4


class Parts(NamedTuple):
    """What a chunk computes before it knows the state S_0 that enters it.

    Attributes:
      A: [C, C], strictly lower triangular.
      Y: [C, V].
      Z: [C, K].
      queries: diag(P) Q [C, K].
      scores: Γ ⊙ Q Kᵀ [C, C].
      keys: diag(Γ_C) K [C, K].
      total: P_C [1, 1].
    """

    A: jax.Array
    Y: jax.Array
    Z: jax.Array
    queries: jax.Array
    scores: jax.Array
    keys: jax.Array
    total: jax.Array


def _dot(precision: jax.lax.Precision, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=precision)


def _rows_and_columns(size: int) -> tuple[jax.Array, jax.Array]:
    """The indices i and j of every entry of a square matrix."""
    row = jax.lax.broadcasted_iota(jnp.int32, (size, size), 0)
    return row, jax.lax.broadcasted_iota(jnp.int32, (size, size), 1)


def prepare(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    precision: jax.lax.Precision,
) -> Parts:
    """The parts of one chunk.

    The exponents of Γ are sums of g over j < l ≤ i, added up for each i and j as a product with a
    mask: differences of one cumulative sum would lose weak decays that come after strong ones.

    Args:
      q: [C, K], with the scale.
      k: [C, K].
      v: [C, V].
      beta: [C, 1].
      log_decay: [1, C], or None for zeros.
      precision: of the products.
    """
    i, j = _rows_and_columns(k.shape[0])
    keys_keys, queries_keys = _dot(precision, k, k.T), _dot(precision, q, k.T)
    if log_decay is None:
        return Parts(
            A=jnp.where(i > j, beta * keys_keys, 0),
            Y=beta * v,
            Z=beta * k,
            queries=q,
            scores=jnp.where(i >= j, queries_keys, 0),
            keys=k,
            total=jnp.ones((1, 1), k.dtype),
        )
    g = jnp.maximum(log_decay, _LOG_ZERO)
    until = jnp.where(j <= i, g, 0)  # g_l at i, l for l ≤ i
    after = (i > j).astype(g.dtype)  # 1 at l, j for l > j
    decay = jnp.exp(jnp.matmul(until, after, precision=jax.lax.Precision.HIGHEST))  # Γ for j ≤ i
    prefix = jnp.exp(jnp.sum(until, axis=1, keepdims=True))  # P
    suffix = jnp.exp(jnp.sum(jnp.where(j > i, g, 0), axis=1, keepdims=True))  # Γ_C as a column
    return Parts(
        A=jnp.where(i > j, beta * decay * keys_keys, 0),
        Y=beta * v,
        Z=beta * prefix * k,
        queries=prefix * q,
        scores=jnp.where(i >= j, decay * queries_keys, 0),
        keys=suffix * k,
        total=jnp.exp(jnp.sum(g, axis=1, keepdims=True)),
    )


def inverse(A: jax.Array) -> jax.Array:
    """(I + A)^{-1} of a strictly lower triangular A [C, C], C a power of two, in matrix products.

    The inverses of the diagonal blocks of size s give those of size 2s: with L and R the inverses
    of two neighbours and B the block of A below the first, the new block is −R B L. Done for all
    blocks at once under masks, so that a kernel needs no slices.
    """
    i, j = _rows_and_columns(A.shape[0])
    dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    inverses, size = jnp.where(i == j, 1.0, 0.0).astype(A.dtype), 1
    while size < A.shape[0]:
        between = (i // (2 * size) == j // (2 * size)) & (i // size > j // size)
        B = jnp.where(between, A, 0)
        inverses = inverses - (B if size == 1 else dot(inverses, dot(B, inverses)))
        size *= 2
    return inverses


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve(precision: jax.lax.Precision, A: jax.Array, X: jax.Array) -> jax.Array:
    """(I + A)^{-1} X."""
    return _solve_forward(precision, A, X)[0]


def _solve_forward(precision, A, X):
    T = inverse(A)
    U = _dot(precision, T, X)
    return U, (T, U)


def _solve_backward(precision, residuals, dU):
    """From (I + A) U = X: dX = (I + A)^{-T} dU, dA = −dX Uᵀ."""
    T, U = residuals
    dX = _dot(precision, T.T, dU)
    return -_dot(precision, dX, U.T), dX


_solve.defvjp(_solve_forward, _solve_backward)


def run(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array,
    state: jax.Array,
    precision: jax.lax.Precision,
) -> tuple[jax.Array, jax.Array]:
    """A chunk from the state that enters it [K, V]: (o [C, V], the state that leaves it)."""
    dot = functools.partial(_dot, precision)
    parts = prepare(q, k, v, beta, log_decay, precision)
    U = _solve(precision, parts.A, parts.Y - dot(parts.Z, state))
    o = dot(parts.queries, state) + dot(parts.scores, U)
    return o, parts.total * state + dot(parts.keys.T, U)
