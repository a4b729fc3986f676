"""Cuts sparse masks into parts whose queries and keys, regrouped, form small dense problems.

Strided and fixed attention cost O(T √T) only if what a query may see lies side by side. The last
few positions do in blocks of time; every ℓ-th position does once time is laid out as [T / ℓ, ℓ] and
each column is a sequence of its own; summary positions do once they are picked out, and so does a
prefix.
The parts of one mask share no key, and their results are joined by their log-sum-exp.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pallas_kernels.attention.masks import (
    BlockLocal,
    Causal,
    Column,
    Fixed,
    Mask,
    PrefixWindow,
    Strided,
    Summary,
    Window,
)

_LEAST_BLOCK = 64  # queries in a block: products of smaller matrices are slow


@dataclasses.dataclass(frozen=True)
class MaskPart:
    """A regrouped piece of an attention problem.

    Attributes:
      rule: which key a query may see, by their places after regrouping.
      q_offset: place of the first query among the keys, after regrouping.
      queries: [B, T, ...] -> [B', T', ...], linear; each query has one place, others are zero.
      keys: [B, S, ...] -> [B', S', ...], linear; places that hold no key are zero.
      sees_gaps: the rule alone does not hide the places that hold no key.
    """

    rule: Mask
    q_offset: int | jax.Array
    queries: Callable[[jax.Array], jax.Array] = lambda x: x
    keys: Callable[[jax.Array], jax.Array] = lambda x: x
    sees_gaps: bool = False


def parts(
    mask: Mask, num_queries: int, num_keys: int, q_offset: int | jax.Array
) -> tuple[MaskPart, ...]:
    """The mask as parts without a common key; itself where regrouping does not pay.

    Args:
      mask: of the whole problem.
      num_queries: T.
      num_keys: S.
      q_offset: position of the first query; how to regroup must be known when tracing, so that an
        array leaves the mask whole.
    """
    whole = (MaskPart(mask, q_offset),)
    block = _block(mask)
    if block is None or not isinstance(q_offset, int) or num_queries < 2 * block:
        return whole
    positions = (num_queries, num_keys, q_offset)
    match mask:
        case Window(size):
            return (_blocks(mask, block, size - 1, *positions),)
        case PrefixWindow(prefix, size):
            local = _blocks(Window(size), block, size - 1, *positions)
            return _without(prefix, local), _prefix(prefix, *positions)
        case BlockLocal():
            return (_blocks(mask, block, 0, *positions),)
        case Column(stride):
            return (_columns(Causal(), stride, *positions),)
        case Strided(stride):
            local = _blocks(Window(stride), block, stride - 1, *positions)
            return local, _columns(_Before(), stride, *positions)
        case Fixed(stride):
            local = _blocks(BlockLocal(stride), block, 0, *positions)
        case Summary(stride):
            local = _blocks(_OwnBlock(mask), block, 0, *positions)
    return local, _summaries(_Earlier(mask), *positions)


def _block(mask: Mask) -> int | None:
    """Queries in a block of the local part; None for a mask that has no parts."""
    match mask:
        case Window(size) | PrefixWindow(_, size) | Strided(size) | Column(size):
            return max(size, _LEAST_BLOCK)
        case BlockLocal(size) | Fixed(size) | Summary(size):
            return size * -(-_LEAST_BLOCK // size)
    return None


def _blocks(
    rule: Mask, block: int, before: int, num_queries: int, num_keys: int, q_offset: int
) -> MaskPart:
    """Blocks of queries, each against its own positions and the last `before` <= block earlier."""
    first, last = q_offset // block, -(-(q_offset + num_queries) // block)

    def queries(x):
        x = _between(x, q_offset, first * block, last * block)
        return x.reshape(-1, block, *x.shape[2:])

    def keys(x):
        x = _between(x, 0, (first - 1) * block, last * block)
        x = x.reshape(x.shape[0], -1, block, *x.shape[2:])
        x = jnp.concatenate([x[:, :-1, block - before :], x[:, 1:]], axis=2)
        return x.reshape(-1, *x.shape[2:])

    sees_gaps = before > 0 or q_offset + num_queries > num_keys
    return MaskPart(rule, before, queries, keys, sees_gaps)


def _columns(rule: Mask, stride: int, num_queries: int, num_keys: int, q_offset: int) -> MaskPart:
    """The positions of equal remainder by `stride` as a sequence of their own."""
    first, last = q_offset // stride, -(-(q_offset + num_queries) // stride)

    def columns(x):
        x = x.reshape(x.shape[0], -1, stride, *x.shape[2:])
        return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], *x.shape[3:])

    return MaskPart(
        rule,
        first,
        lambda x: columns(_between(x, q_offset, first * stride, last * stride)),
        lambda x: columns(_between(x, 0, 0, -(-num_keys // stride) * stride)),
        sees_gaps=q_offset + num_queries > num_keys,
    )


def _summaries(rule: "_Earlier", num_queries: int, num_keys: int, q_offset: int) -> MaskPart:
    """All queries against the last positions of every block."""
    stride, summary = rule.mask.stride, rule.mask.summary

    def keys(x):
        x = _between(x, 0, 0, -(-num_keys // stride) * stride)
        x = x.reshape(x.shape[0], -1, stride, *x.shape[2:])[:, :, stride - summary :]
        return x.reshape(x.shape[0], -1, *x.shape[3:])

    sees_gaps = q_offset + num_queries > num_keys
    return MaskPart(rule, q_offset, keys=keys, sees_gaps=sees_gaps)


def _prefix(prefix: int, num_queries: int, num_keys: int, q_offset: int) -> MaskPart:
    """All queries against the first positions."""
    del num_queries, num_keys
    return MaskPart(Causal(), q_offset, keys=lambda x: x[:, :prefix])


def _without(prefix: int, part: MaskPart) -> MaskPart:
    """The part, its first `prefix` keys taken away."""

    def keys(x):
        return part.keys(_between(x[:, prefix:], prefix, 0, x.shape[1]))

    return dataclasses.replace(part, keys=keys, sees_gaps=True)


def _between(x: jax.Array, position: int, start: int, stop: int) -> jax.Array:
    """Positions start … stop − 1 of x, which begins at `position`; zeros where it has none."""
    start, stop = start - position, stop - position
    inside = x[:, max(start, 0) : max(stop, 0)]
    before = min(max(-start, 0), stop - start)
    after = stop - start - before - inside.shape[1]
    return jnp.pad(inside, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])


@dataclasses.dataclass(frozen=True)
class _Before(Mask):
    """A query sees what came before it, without itself."""

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return key < query

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return 0, last


@dataclasses.dataclass(frozen=True)
class _OwnBlock(Mask):
    """A query sees what the mask shows of its own block."""

    mask: Summary

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        same_block = key >= query - query % self.mask.stride
        return same_block & self.mask.visible(query, key)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return BlockLocal(self.mask.stride).reach(first, last)


@dataclasses.dataclass(frozen=True)
class _Earlier(Mask):
    """The summaries of earlier blocks, where nothing but summaries is among the keys."""

    mask: Fixed | Summary

    def visible(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return key < query // self.mask.stride * self.mask.summary

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return 0, last // self.mask.stride * self.mask.summary
