"""Softmax attention under a mask that is described by a rule."""

import jax

from pallas_kernels import dispatch
from pallas_kernels.attention import cudnn, masks, reference, xla
from pallas_kernels.attention.masks import (
    BlockLocal,
    Causal,
    Column,
    Fixed,
    Full,
    Mask,
    PrefixWindow,
    Strided,
    Summary,
    Window,
)

__all__ = [
    "BlockLocal",
    "Causal",
    "Column",
    "Fixed",
    "Full",
    "Mask",
    "PrefixWindow",
    "Strided",
    "Summary",
    "Window",
    "attention",
]

_OPERATOR = dispatch.Operator(
    "attention",
    {
        "xla": dispatch.Backend(xla.attention),
        "reference": dispatch.Backend(reference.attention),
        "cudnn": dispatch.Backend(
            cudnn.attention, cudnn.obstacle, on_request=True, platform="gpu", is_kernel=True
        ),
        "splash": dispatch.Backend(
            dispatch.imported("pallas_kernels.attention.splash", "attention"),
            dispatch.imported("pallas_kernels.attention.splash", "obstacle"),
            on_request=True,
            platform="tpu",
            is_kernel=True,
        ),
    },
)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: Mask = masks.Causal(),  # noqa: B008  (frozen)
    q_segment_ids: jax.Array | None = None,
    kv_segment_ids: jax.Array | None = None,
    q_offset: int | jax.Array = 0,
    scale: float | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """o_t = Σ_s softmax_s(scale · q_t·k_s) v_s over the keys s that the mask lets query t see.

    Vaswani et al. 2017 (arXiv 1706.03762), eq. 1. Letters: B batch, T queries, S keys, H heads,
    G key-value heads (each serves H/G consecutive heads), K key width, V value width.

    Args:
      q: [B, T, H, K].
      k: [B, S, G, K]; H is a multiple of G.
      v: [B, S, G, V].
      mask: the rule, one of `pallas_kernels.attention.masks`; a `Mask` of one's own will do.
        `Window`, `PrefixWindow`, `BlockLocal`, and with a stride near √T `Strided`, `Fixed` and
        their parts `Column` and `Summary`, cost O(T) and O(T √T) in time and O(T) in memory, where
        q_offset is an int.
      q_segment_ids: [B, T] int; with `kv_segment_ids`, a query sees only keys of its own id, and
        id 0 (padding) sees and is seen by none.
      kv_segment_ids: [B, S] int.
      q_offset: position of the first query on the key axis, may be traced. In a KV cache of S slots
        it is the number of tokens seen before; the causal rules then hide the slots that are not
        yet filled.
      scale: None is K**-0.5.
      implementation: "reference", "xla", "cudnn" (NVIDIA GPUs, bfloat16 or float16; causal, full
        and windowed) or "splash" (TPUs, bfloat16); the last two run only if they are named.

    Returns:
      [B, T, H, V] in the dtype of q; zero where a query sees no key.
    """
    sizes = dispatch.check_shapes(
        "attention",
        q=(q, "BTHK"),
        k=(k, "BSGK"),
        v=(v, "BSGV"),
        q_segment_ids=(q_segment_ids, "BT"),
        kv_segment_ids=(kv_segment_ids, "BS"),
    )
    if sizes["H"] % sizes["G"]:
        raise ValueError(
            f"attention: {sizes['H']} heads cannot share {sizes['G']} key-value heads; "
            "the first must be a multiple of the second"
        )
    if (q_segment_ids is None) != (kv_segment_ids is None):
        raise ValueError("attention: give both of q_segment_ids and kv_segment_ids, or none")
    if not isinstance(mask, Mask):
        raise ValueError(
            f"attention: mask {mask!r} is no rule; use Causal(), Full(), Window(size) or another "
            "subclass of Mask"
        )
    return _OPERATOR.run(
        implementation,
        q,
        k,
        v,
        mask=mask,
        q_segment_ids=q_segment_ids,
        kv_segment_ids=kv_segment_ids,
        q_offset=q_offset,
        scale=sizes["K"] ** -0.5 if scale is None else scale,
    )
