"""Attention tile by tile: running sums forward, the weights recomputed backward.

The weights never exist as a whole. Forward, a row's maximum m and its sum l run along over the
tiles (online softmax, arXiv 1805.02867); backward, P = exp(S − lse) is computed again from the
row's log-sum-exp, and dS = P ⊙ (dP − Σ_v do ⊙ o) (FlashAttention, arXiv 2205.14135, appendix B).
The log-sum-exp also puts together the parts of a mask that are computed apart: given that of the
whole row, the backward pass of one part needs nothing of the others.

Letters: B batch, T queries, S keys, H heads, G key-value heads, R = H / G, K and V widths,
N = B G. A tile has n of N, t of T and s of S.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import dispatch
from pallas_kernels.attention.masks import Mask

# Queries in a tile, and scores in it. On two CPU cores with 1 MiB of cache each, time and memory of
# forward and backward are least around 2^18 scores (T = 64 to 4096, K = 16 to 64); an accelerator
# wants more work at a time (not measured).
_BLOCK = 256
_SCORES_ON_CPU, _SCORES_ELSEWHERE = 2**18, 2**25

# Stands for −∞ and keeps what is masked free of NaN: exp(_MASKED − _LEAST) is an exact zero.
_MASKED, _LEAST = -1e30, -1e29


class Problem(NamedTuple):
    """Queries against keys under a rule, or part of such a problem.

    Attributes:
      q: [B, T, H, K], scaled.
      k: [B, S, G, K].
      v: [B, S, G, V].
      q_ids: [B, T] or None; a query sees only keys of its own id, and none of id 0.
      kv_ids: [B, S] or None.
      rule: which key a query may see.
      q_offset: position of the first query on the key axis.
      precision: of the products.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    q_ids: jax.Array | None
    kv_ids: jax.Array | None
    rule: Mask
    q_offset: int | jax.Array
    precision: jax.lax.Precision


def forward(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """(o [B, T, H, V], log-sum-exp of the scores [B, T, H]); of no key, zero and about −1e29."""
    grid = _Grid(problem)

    def add_tile(carry, tile):
        o, total, m = (grid.queries_of(x, tile) for x in carry)
        scores = grid.scores(tile)
        new_m = jnp.maximum(m, jnp.max(scores, axis=-1))
        weights = jnp.exp(scores - new_m[..., None])
        decay = jnp.exp(m - new_m)
        total = decay * total + jnp.sum(weights, axis=-1)
        o = decay[..., None] * o + grid.product(
            "nrts,nsv->nrtv", weights, grid.keys_of(grid.v, tile)
        )
        return tuple(
            grid.put_queries(x, new, tile) for x, new in zip(carry, (o, total, new_m), strict=True)
        ), None

    rows = grid.q.shape[:3]
    carry = (
        jnp.zeros((*rows, problem.v.shape[-1]), grid.q.dtype),
        jnp.zeros(rows, grid.q.dtype),
        jnp.full(rows, _LEAST, grid.q.dtype),
    )
    (o, total, m), _ = jax.lax.scan(add_tile, carry, grid.tiles)
    total = jnp.where(total == 0, 1, total)
    return grid.unfold_queries(o / total[..., None]), grid.unfold_queries(m + jnp.log(total))


def backward(
    problem: Problem, lse: jax.Array, delta: jax.Array, do: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k and v.

    Args:
      problem: as forward.
      lse: [B, T, H], the log-sum-exp of the whole row, of which the problem may be a part.
      delta: [B, T, H], Σ_v do ⊙ o of the whole row.
      do: [B, T, H, V].
    """
    grid = _Grid(problem)
    rows = tuple(grid.fold_queries(x) for x in (lse, delta, do))

    def add_tile(carry, tile):
        dq, dk, dv = carry
        lse, delta, do = (grid.queries_of(x, tile) for x in rows)
        q = grid.queries_of(grid.q, tile)
        k, v = (grid.keys_of(x, tile) for x in (grid.k, grid.v))
        weights = jnp.exp(grid.scores(tile) - lse[..., None])
        dweights = grid.product("nrtv,nsv->nrts", do, v)
        dscores = weights * (dweights - delta[..., None])
        new_dq = grid.queries_of(dq, tile) + grid.product("nrts,nsk->nrtk", dscores, k)
        new_dk = grid.keys_of(dk, tile) + grid.product("nrts,nrtk->nsk", dscores, q)
        new_dv = grid.keys_of(dv, tile) + grid.product("nrts,nrtv->nsv", weights, do)
        return (
            grid.put_queries(dq, new_dq, tile),
            grid.put_keys(dk, new_dk, tile),
            grid.put_keys(dv, new_dv, tile),
        ), None

    zeros = tuple(jnp.zeros_like(x) for x in (grid.q, grid.k, grid.v))
    (dq, dk, dv), _ = jax.lax.scan(add_tile, zeros, grid.tiles)
    return grid.unfold_queries(dq), grid.unfold_keys(dk), grid.unfold_keys(dv)


class _Grid:
    """The tiles of a problem that hold something, and its arrays folded, padded and cut for them.

    Folded, queries and what else has a row for each are [N, R, T, ...], keys [N, S, ...].
    """

    def __init__(self, problem: Problem):
        batch, self.num_queries, heads, _ = problem.q.shape
        self.num_keys, self.groups = problem.k.shape[1:3]
        self.batch, heads = batch * self.groups, heads // self.groups
        self.t_blocks, self.t = _split(self.num_queries, _BLOCK)
        self.s_blocks, self.s = _split(self.num_keys, max(_BLOCK, _BLOCK**2 // self.num_queries))
        on_cpu = dispatch.current_target().platform == "cpu"
        scores = _SCORES_ON_CPU if on_cpu else _SCORES_ELSEWHERE
        self.n_blocks, self.n = _split(self.batch, max(1, scores // (heads * self.t * self.s)))

        self.rule, self.q_offset = problem.rule, problem.q_offset
        self.precision = problem.precision
        self.q, self.k, self.v = (
            self.fold_queries(problem.q),
            self.fold_keys(problem.k),
            self.fold_keys(problem.v),
        )
        self.q_ids = self.kv_ids = None
        if problem.q_ids is not None:
            ids = (problem.q_ids, problem.kv_ids)
            q_ids, kv_ids = (jnp.repeat(x[..., None], self.groups, axis=2) for x in ids)
            self.q_ids, self.kv_ids = self.fold_queries(q_ids), self.fold_keys(kv_ids)
        self.tiles = self._tiles()

    def _tiles(self) -> jax.Array:
        """[tiles, 3]: where in N, T and S each begins."""
        pairs = []
        for i in range(0, self.num_queries, self.t):
            first, last = 0, self.num_keys
            if isinstance(self.q_offset, int):
                stop = min(i + self.t, self.num_queries)
                first, last = self.rule.reach(self.q_offset + i, self.q_offset + stop - 1)
            low = min(max(first, 0) // self.s, self.s_blocks - 1)
            high = min(max(-(-last // self.s), low + 1), self.s_blocks)
            pairs += [(i, j * self.s) for j in range(low, high)]
        tiles = [(b * self.n, i, j) for b in range(self.n_blocks) for i, j in pairs]
        return jnp.asarray(np.array(tiles, np.int32))

    def scores(self, tile: jax.Array) -> jax.Array:
        """[n, r, t, s], masked."""
        q, k = self.queries_of(self.q, tile), self.keys_of(self.k, tile)
        query = self.q_offset + tile[1] + jnp.arange(self.t)[:, None]
        key = tile[2] + jnp.arange(self.s)
        visible = self.rule.visible(query, key)
        if self.s_blocks * self.s > self.num_keys:
            visible &= key < self.num_keys
        if self.q_ids is not None:
            q_ids = self.queries_of(self.q_ids, tile)[..., None]  # [n, 1, t, 1]
            kv_ids = self.keys_of(self.kv_ids, tile)[:, None, None]  # [n, 1, 1, s]
            visible = visible & (q_ids == kv_ids) & (kv_ids != 0)
        return jnp.where(visible, self.product("nrtk,nsk->nrts", q, k), _MASKED)

    def product(self, equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
        """An einsum in the operator's precision."""
        return jnp.einsum(equation, x, y, precision=self.precision)

    def queries_of(self, x: jax.Array, tile: jax.Array) -> jax.Array:
        """[N, R, T, ...] -> [n, R, t, ...]."""
        x = jax.lax.dynamic_slice_in_dim(x, tile[0], self.n, 0)
        return jax.lax.dynamic_slice_in_dim(x, tile[1], self.t, 2)

    def keys_of(self, x: jax.Array, tile: jax.Array) -> jax.Array:
        """[N, S, ...] -> [n, s, ...]."""
        x = jax.lax.dynamic_slice_in_dim(x, tile[0], self.n, 0)
        return jax.lax.dynamic_slice_in_dim(x, tile[2], self.s, 1)

    def put_queries(self, x: jax.Array, new: jax.Array, tile: jax.Array) -> jax.Array:
        """x with `queries_of(x, tile)` replaced."""
        start = (tile[0], 0, tile[1], *(0,) * (x.ndim - 3))
        return jax.lax.dynamic_update_slice(x, new, start)

    def put_keys(self, x: jax.Array, new: jax.Array, tile: jax.Array) -> jax.Array:
        """x with `keys_of(x, tile)` replaced."""
        start = (tile[0], tile[2], *(0,) * (x.ndim - 2))
        return jax.lax.dynamic_update_slice(x, new, start)

    def fold_queries(self, x: jax.Array) -> jax.Array:
        """[B, T, H, ...] -> [N, R, T, ...], padded to whole tiles."""
        x = x.reshape(*x.shape[:2], self.groups, -1, *x.shape[3:])
        x = jnp.moveaxis(x, 1, 3)
        x = x.reshape(self.batch, *x.shape[2:])
        return _pad(x, {0: self.n_blocks * self.n, 2: self.t_blocks * self.t})

    def unfold_queries(self, x: jax.Array) -> jax.Array:
        """Undoes `fold_queries`."""
        x = x[: self.batch, :, : self.num_queries]
        x = jnp.moveaxis(x.reshape(-1, self.groups, *x.shape[1:]), 3, 1)
        return x.reshape(*x.shape[:2], -1, *x.shape[4:])

    def fold_keys(self, x: jax.Array) -> jax.Array:
        """[B, S, G, ...] -> [N, S, ...], padded to whole tiles."""
        x = jnp.moveaxis(x, 1, 2)
        x = x.reshape(self.batch, *x.shape[2:])
        return _pad(x, {0: self.n_blocks * self.n, 1: self.s_blocks * self.s})

    def unfold_keys(self, x: jax.Array) -> jax.Array:
        """Undoes `fold_keys`."""
        x = x[: self.batch, : self.num_keys]
        return jnp.moveaxis(x.reshape(-1, self.groups, *x.shape[1:]), 2, 1)


def _split(size: int, most: int) -> tuple[int, int]:
    """(blocks, length of each): blocks of nearly equal length that cover `size`."""
    blocks = -(-size // most)
    return blocks, -(-size // blocks)


def _pad(x: jax.Array, sizes: dict[int, int]) -> jax.Array:
    return jnp.pad(x, [(0, sizes.get(axis, size) - size) for axis, size in enumerate(x.shape)])
