"""The decays Γ_ij = Π_{j<l≤i} exp g_l of a chunk, and the scores A_ij = Σ_K q_i Γ_ij k_j, j ≤ i.

Gated linear attention (arXiv 2312.06635, §4) has quotients Γ_i0 / Γ_j0, which lose weak decays
after strong ones; differences of prefix sums lose them as well. Here every exponent is the sum of g
over its own interval: a product of g with a matrix of zeros and ones.

One decay per head: Γ is one matrix, A = Γ ⊙ Q Kᵀ.

One decay per key channel: for h = 1, 2, 4, ... the chunk falls into blocks of 2h steps, of two
halves each. A query i in the right half meets a key j in the left half by Γ_ij = Γ_im Γ_mj, where m
is the last step of the left half. With X_i = q_i Γ_im on the right and X_j = k_j Γ_mj on the left,
all blocks of one h are one masked product X Xᵀ. Every pair j < i belongs to one h.

Each class makes the decays of a chunk from g, and has
  scores(q, k, precision): A;
  gradient(q, k, A, dA, exponents, precision): dq and dk of the scores, and dg of everything, where
    `exponents` are the gradients of the exponents of prefix [C, K], suffix [C, K], total [1, K].
Letters: C steps, K key width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.matrix_state import LOG_ZERO, as_row, dot, indices


class _PerChannel(NamedTuple):
    """Of g [C, K].

    Attributes:
      between: for each h, Γ_im in the right halves and Γ_mj in the left ones [C, K].
      prefix: Γ_i0 [C, K].
      suffix: Γ_Cj [C, K].
      total: Γ_C0 [1, K].
    """

    between: tuple[jax.Array, ...]
    prefix: jax.Array
    suffix: jax.Array
    total: jax.Array

    @classmethod
    def of(cls, g: jax.Array) -> "_PerChannel":
        g = jnp.maximum(g, LOG_ZERO)
        total = jnp.exp(jnp.sum(g, axis=0, keepdims=True))
        *between, prefix, suffix = (jnp.exp(dot(m, g)) for m in _intervals(g))
        return cls(tuple(between), prefix, suffix, total)

    def scores(self, q, k, precision):
        i, j = indices(q.shape[0], q.shape[0])
        A = jnp.where(i == j, jnp.sum(q * k, axis=1, keepdims=True), 0)
        for n, decay in enumerate(self.between):
            X = jnp.where(_right(q, n), q, k) * decay
            A = jnp.where(_pairs(i, j, n) & (i > j), dot(X, X, precision, transpose="b"), A)
        return A

    def gradient(self, q, k, A, dA, exponents, precision):
        del A
        i, j = indices(*dA.shape)
        diagonal = jnp.sum(jnp.where(i == j, dA, 0), axis=1, keepdims=True)
        dq, dk = diagonal * k, diagonal * q
        # X meets itself: with dA mirrored, one product has the gradients of both halves.
        mirrored = jnp.where(i >= j, dA, dA.T)
        dprefix, dsuffix, dg = exponents
        *intervals, before, after = _intervals(q)
        for n, (decay, interval) in enumerate(zip(self.between, intervals, strict=True)):
            right = _right(q, n)
            x = jnp.where(right, q, k)
            dx = decay * dot(jnp.where(_pairs(i, j, n), mirrored, 0), x * decay, precision)
            dq, dk = dq + jnp.where(right, dx, 0), dk + jnp.where(right, 0, dx)
            dg = dg + dot(interval, x * dx, transpose="a")
        return dq, dk, dg + dot(before, dprefix, transpose="a") + dot(after, dsuffix, transpose="a")


def _right(like: jax.Array, n: int) -> jax.Array:
    """True in the rows of [C, K] that are steps in right halves of h = 2^n."""
    i, _ = indices(*like.shape)
    return (i >> n) & 1 == 1


def _pairs(i: jax.Array, j: jax.Array, n: int) -> jax.Array:
    """True where steps i and j are in different halves of the same block."""
    return (i >> (n + 1) == j >> (n + 1)) & (i >> n != j >> n)


def _intervals(like: jax.Array) -> list[jax.Array]:
    """For each h, 1 where the exponent of step i has g_m in its sum [C, C]; for prefix, suffix."""
    size = like.shape[0]
    i, m = indices(size, size)
    until, after = m <= i, m > i
    masks = [
        (i >> n == m >> n) & (((i >> n) & 1 == 1) ^ after)  # until in right halves, after in left
        for n in range((size - 1).bit_length())
    ]
    return [jnp.where(mask, 1.0, 0.0).astype(like.dtype) for mask in (*masks, until, after)]


class _PerHead(NamedTuple):
    """Of g [C, 1].

    Attributes:
      between: Γ [C, C], with ones above the diagonal.
      prefix: Γ_i0 [C, 1].
      suffix: Γ_Cj [C, 1].
      total: Γ_C0 [1, 1].
    """

    between: jax.Array
    prefix: jax.Array
    suffix: jax.Array
    total: jax.Array

    @classmethod
    def of(cls, g: jax.Array) -> "_PerHead":
        g = jnp.maximum(g, LOG_ZERO)
        i, m = indices(g.shape[0], g.shape[0])
        g_m = as_row(g)
        until = jnp.where(m <= i, g_m, 0)
        # As the second factor it has the index of g in its rows.
        after = jnp.where(i > m, 1.0, 0.0).astype(g.dtype)
        between = dot(until, after)
        prefix = jnp.sum(until, axis=1, keepdims=True)
        suffix = jnp.sum(jnp.where(m > i, g_m, 0), axis=1, keepdims=True)
        total = jnp.sum(g, axis=0, keepdims=True)
        return cls(*map(jnp.exp, (between, prefix, suffix, total)))

    def scores(self, q, k, precision):
        return _lower(dot(q, k, precision, transpose="b") * self.between)

    def gradient(self, q, k, A, dA, exponents, precision):
        dprefix, dsuffix, dtotal = (jnp.sum(x, axis=1, keepdims=True) for x in exponents)
        m, j = indices(*A.shape)
        # Σ_i of the exponents of Γ_ij whose interval ends at i ≥ m; it has g_m if j < m.
        ending = dot(jnp.where(m >= j, 1.0, 0.0).astype(A.dtype), dA * A, transpose="a")
        dg_m = jnp.where(j < m, ending + as_row(dsuffix), as_row(dprefix))
        dA = _lower(dA) * self.between
        dg = jnp.sum(dg_m, axis=1, keepdims=True) + dtotal
        return dot(dA, k, precision), dot(dA, q, precision, transpose="a"), dg


def _lower(matrix: jax.Array) -> jax.Array:
    """The lower triangle and the diagonal."""
    i, j = indices(*matrix.shape)
    return jnp.where(i >= j, matrix, 0)


class _Undecayed(NamedTuple):
    """Without decay, Γ_ij = 1."""

    total: jax.Array
    prefix = suffix = 1.0

    @classmethod
    def of(cls) -> "_Undecayed":
        return cls(jnp.ones((1, 1), jnp.float32))

    def scores(self, q, k, precision):
        return _lower(dot(q, k, precision, transpose="b"))

    def gradient(self, q, k, A, dA, exponents, precision):
        del A, exponents
        dA = _lower(dA)
        return dot(dA, k, precision), dot(dA, q, precision, transpose="a"), None


Decay = _PerChannel | _PerHead | _Undecayed


def decay(g: jax.Array | None) -> Decay:
    """Of the log-decays of a chunk: [C, K], [C, 1] or None."""
    if g is None:
        return _Undecayed.of()
    return _PerHead.of(g) if g.shape[1] == 1 else _PerChannel.of(g)
