"""Splash attention, the block-sparse TPU kernel that comes with jax.

It skips the blocks of scores that a mask leaves empty and evaluates the mask's rule inside the
kernel. Where every block holds something, as under strided and fixed masks with a stride below 128,
it saves no time, only memory. Not measured on a TPU.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as kernel

from pallas_kernels import dispatch
from pallas_kernels.attention.masks import Full, Mask

_BLOCKS = (512, 256, 128)  # the largest that divides the length; 128 is the width of a register


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
    """See `pallas_kernels.attention`."""
    del kv_segment_ids, q_offset  # those of the queries, and 0: see `obstacle`
    length, heads = q.shape[1:3]
    padded = -(-length // _BLOCKS[-1]) * _BLOCKS[-1]
    block = next(b for b in _BLOCKS if padded % b == 0)
    rule = kernel.FullMask((padded, padded)) if mask == Full() else _Lazy(mask, padded)
    attend = kernel.make_splash_mha_single_device(
        kernel.MultiHeadMask([rule] * heads),
        # Blocks of queries, keys and keys at a time; forward, for dk and dv, and for dq.
        block_sizes=kernel.BlockSizes(*[block] * 8),
        interpret=dispatch.current_target().interpret,
    )

    ids = q_segment_ids
    if ids is None and mask == Full() and padded > length:
        ids = jnp.ones(q.shape[:2], jnp.int32)  # other rules hide the padding, which comes last
    segments = None
    if ids is not None:
        ids = _pad(ids, padded)
        segments = kernel.SegmentIds(q=ids, kv=ids)
    rows = (jnp.swapaxes(_pad(x, padded), 1, 2) for x in ((scale * q).astype(q.dtype), k, v))
    o = jnp.swapaxes(jax.vmap(attend)(*rows, segments), 1, 2)
    if ids is not None:
        o = jnp.where(ids[..., None, None] != 0, o, 0)  # to the kernel, padding sees padding
    return o[:, :length]


def obstacle(
    q: Any,
    k: Any,
    v: Any,
    *,
    q_segment_ids: Any = None,
    kv_segment_ids: Any = None,
    q_offset: Any = 0,
    **options: Any,
) -> str | None:
    """Why the kernel cannot run these arguments, or None."""
    del options
    if any(x.dtype != jnp.bfloat16 for x in (q, k, v)):
        return "its products are those of bfloat16, so that q, k and v must be"
    if q.shape[1] != k.shape[1] or not isinstance(q_offset, int) or q_offset != 0:
        return "it needs as many keys as queries and q_offset=0, so that every query sees a key"
    if q_segment_ids is not kv_segment_ids:
        return "it needs one array of segment ids for both, so that every query sees a key"
    return None


class _Lazy(kernel.Mask):
    """A rule over `length` queries and keys, in the kernel's terms."""

    def __init__(self, mask: Mask, length: int):
        self.mask = mask
        self.shape_ = (length, length)
        self.q_sequence = np.arange(length, dtype=np.int32)
        self.mask_function = mask.visible

    @property
    def shape(self) -> tuple[int, int]:
        return self.shape_

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (
            np.arange(n, dtype=np.int32)[i] for n, i in zip(self.shape, index, strict=True)
        )
        return self.mask.visible(rows[:, None], columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lazy) and (self.mask, self.shape) == (other.mask, other.shape)

    def __hash__(self) -> int:
        return hash((self.mask, self.shape))


def _pad(x: jax.Array, length: int) -> jax.Array:
    """Zeros after the end of time, axis 1."""
    return jnp.pad(x, [(0, 0), (0, length - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])
