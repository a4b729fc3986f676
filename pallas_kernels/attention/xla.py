"""Softmax attention on every platform: the parts of the mask, each tile by tile."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.attention import tiles
from pallas_kernels.attention.masks import Mask
from pallas_kernels.attention.parts import MaskPart, parts


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: Mask,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    q_offset: int | jax.Array,
    scale: float,
) -> jax.Array:
    """See `pallas_kernels.attention`. The backward pass computes the weights again."""
    dtype = dispatch.arithmetic_dtype(q, k, v)
    static = _Static(
        mask,
        q_offset if isinstance(q_offset, int) else None,
        dispatch.matmul_precision(q, k, v),
    )
    arrays = (scale * q.astype(dtype), k.astype(dtype), v.astype(dtype))
    o = _attend(static, *arrays, q_segment_ids, kv_segment_ids, q_offset)
    return o.astype(q.dtype)


class _Static(NamedTuple):
    """Values that are known when tracing; q_offset is None if it is not."""

    mask: Mask
    q_offset: int | None
    precision: jax.lax.Precision


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static, q, k, v, q_ids, kv_ids, q_offset):
    return _forward(static, q, k, v, q_ids, kv_ids, q_offset)[0]


def _forward(static, *arrays):
    cut = _parts(static, *arrays)
    outputs, sums = zip(
        *(
            [_restore(part, arrays[0], x) for x in tiles.forward(_problem(static, part, *arrays))]
            for part in cut
        ),
        strict=True,
    )
    # Each part's softmax weighed by its share in the sum over all keys.
    lse = functools.reduce(jnp.logaddexp, sums)
    o = sum(jnp.exp(part - lse)[..., None] * o for part, o in zip(sums, outputs, strict=True))
    return o, (arrays, o, lse)


def _backward(static, residuals, do):
    arrays, o, lse = residuals
    q, k, v = arrays[:3]
    delta = jnp.sum(do * o, axis=-1)
    totals = [jnp.zeros_like(x) for x in (q, k, v)]
    for part in _parts(static, *arrays):
        rows = (part.queries(x) for x in (lse, delta, do))
        dq, dk, dv = tiles.backward(_problem(static, part, *arrays), *rows)
        gradients = (
            _transpose(part.queries, q, dq),
            _transpose(part.keys, k, dk),
            _transpose(part.keys, v, dv),
        )
        totals = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
    return *totals, None, None, None


_attend.defvjp(_forward, _backward)


def _parts(static, q, k, v, q_ids, kv_ids, q_offset) -> tuple[MaskPart, ...]:
    del v, q_ids, kv_ids
    known = q_offset if static.q_offset is None else static.q_offset
    return parts(static.mask, q.shape[1], k.shape[1], known)


def _problem(static, part, q, k, v, q_ids, kv_ids, q_offset) -> tiles.Problem:
    del q_offset
    if q_ids is None and part.sees_gaps:
        q_ids, kv_ids = (jnp.ones(x.shape[:2], jnp.int32) for x in (q, k))
    if q_ids is not None:
        q_ids, kv_ids = part.queries(q_ids), part.keys(kv_ids)
    return tiles.Problem(
        part.queries(q),
        part.keys(k),
        part.keys(v),
        q_ids,
        kv_ids,
        part.rule,
        part.q_offset,
        static.precision,
    )


def _restore(part: MaskPart, q: jax.Array, x: jax.Array) -> jax.Array:
    """Results of `tiles` for regrouped queries, back in their order."""
    return _transpose(part.queries, jax.ShapeDtypeStruct((*q.shape[:2], *x.shape[2:]), x.dtype), x)


def _transpose(regroup, like, x: jax.Array) -> jax.Array:
    """A linear regrouping's transpose: for queries, which have one place each, its inverse."""
    return jax.linear_transpose(regroup, jax.ShapeDtypeStruct(like.shape, like.dtype))(x)[0]
