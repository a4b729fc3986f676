"""cuDNN's fused attention for NVIDIA GPUs, through `jax.nn.dot_product_attention`.

Its backward pass adds up with atomics, so that gradients differ in the last bits from run to run.
Not measured on a GPU.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.attention.masks import Causal, Full, Mask, Window

_LARGEST_WIDTH = 128  # of a head, on every GPU that cuDNN attends on


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mask: Mask, scale: float, **without: Any
) -> jax.Array:
    """See `pallas_kernels.attention`."""
    del without  # segment ids and offset: see `obstacle`
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=scale,
        is_causal=mask != Full(),
        # How far one sees to the left, besides oneself, and to the right.
        local_window_size=(mask.size - 1, 0) if isinstance(mask, Window) else None,
        implementation="cudnn",
    )


def obstacle(
    q: Any,
    k: Any,
    v: Any,
    *,
    mask: Mask = Causal(),  # noqa: B008  (frozen)
    q_segment_ids: Any = None,
    q_offset: Any = 0,
    **options: Any,
) -> str | None:
    """Why cuDNN cannot run these arguments, or None."""
    del options
    if q.dtype not in (jnp.bfloat16, jnp.float16) or not q.dtype == k.dtype == v.dtype:
        return (
            f"q, k and v must all be bfloat16 or all float16, not {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if not isinstance(mask, Full | Causal | Window):
        return f"it knows the masks Causal, Full and Window, not {mask}"
    if q_segment_ids is not None:
        return "it takes no segment ids"
    if q.shape[1] != k.shape[1] or not isinstance(q_offset, int) or q_offset != 0:
        return "it needs as many keys as queries and q_offset=0"
    width, value_width = q.shape[-1], v.shape[-1]
    if width != value_width or width % 8 or width > _LARGEST_WIDTH:
        return (
            f"keys and values must have one width, a multiple of 8 up to {_LARGEST_WIDTH}, "
            f"not {width} and {value_width}"
        )
    return None
