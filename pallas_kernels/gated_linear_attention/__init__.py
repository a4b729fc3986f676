"""Linear attention with a decaying matrix state."""

import jax

from pallas_kernels import dispatch
from pallas_kernels.gated_linear_attention import jla, reference, xla

__all__ = ["gated_linear_attention"]

_OPERATOR = dispatch.Operator(
    "gated_linear_attention",
    {
        "xla": dispatch.Backend(xla.gated_linear_attention),
        "reference": dispatch.Backend(reference.gated_linear_attention),
        "pallas_tpu": dispatch.kernel("gated_linear_attention", "tpu"),
        "pallas_gpu": dispatch.kernel("gated_linear_attention", "gpu"),
        "jla": dispatch.Backend(
            jla.gated_linear_attention,
            jla.obstacle,
            on_request=True,
            platform="gpu",
            is_kernel=True,
        ),
    },
)


def gated_linear_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array | None = None,
    initial_state: jax.Array | None = None,
    *,
    scale: float | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """S_t = diag(exp g_t) S_{t−1} + k_tᵀ v_t, o_t = scale · q_t S_t.

    Gated linear attention (arXiv 2312.06635), eq. 3, with g = log α. Letters: B batch, T time,
    H heads, K key width, V value width.

    Args:
      q: [B, T, H, K].
      k: [B, T, H, K].
      v: [B, T, H, V].
      log_decay: g <= 0. None (no decay), [B, T, H] (one per head) or [B, T, H, K] (one per key
        channel). −inf forgets the past entirely: the first token of a document.
      initial_state: S_0 [B, H, K, V], or None for zeros.
      scale: None is K**-0.5.
      implementation: see `pallas_kernels`.

    Returns:
      (o [B, T, H, V] in the dtype of q, S_T [B, H, K, V] in float32).
    """
    per_head = log_decay is not None and len(log_decay.shape) == 3
    sizes = dispatch.check_shapes(
        "gated_linear_attention",
        q=(q, "BTHK"),
        k=(k, "BTHK"),
        v=(v, "BTHV"),
        log_decay=(log_decay, "BTH" if per_head else "BTHK"),
        initial_state=(initial_state, "BHKV"),
    )
    scale = sizes["K"] ** -0.5 if scale is None else scale
    return _OPERATOR.run(implementation, q, k, v, log_decay, initial_state, scale=scale)
