"""Linear attention whose state corrects what it recalls, instead of adding to it."""

import jax

from pallas_kernels import dispatch
from pallas_kernels.gated_delta_rule import jla, reference, xla

__all__ = ["gated_delta_rule"]

_OPERATOR = dispatch.Operator(
    "gated_delta_rule",
    {
        "xla": dispatch.Backend(xla.gated_delta_rule),
        "reference": dispatch.Backend(reference.gated_delta_rule),
        "pallas_tpu": dispatch.kernel("gated_delta_rule", "tpu"),
        "pallas_gpu": dispatch.kernel("gated_delta_rule", "gpu"),
        "jla": dispatch.Backend(
            jla.gated_delta_rule, jla.obstacle, on_request=True, platform="gpu", is_kernel=True
        ),
    },
)


def gated_delta_rule(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None = None,
    initial_state: jax.Array | None = None,
    *,
    scale: float | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """S_t = e^{g_t} (I − β_t k_tᵀ k_t) S_{t−1} + β_t k_tᵀ v_t, o_t = scale · q_t S_t.

    Gated DeltaNet (arXiv 2412.06464), eq. 10, and without a decay DeltaNet (arXiv 2406.06484),
    §2.2, both with vectors as rows. Letters: B batch, T time, H heads, K key width, V value width.

    Keys are taken as they come. The state can only stay bounded while β_t |k_t|² <= 2: beyond, a
    step multiplies what the state holds along k_t by less than −1.

    Args:
      q: [B, T, H, K].
      k: [B, T, H, K].
      v: [B, T, H, V].
      beta: [B, T, H], how much of the correction v_t − e^{g_t} k_t S_{t−1} to write.
      log_decay: g [B, T, H] <= 0, or None for no decay. −inf forgets the past entirely: the first
        token of a document.
      initial_state: S_0 [B, H, K, V], or None for zeros.
      scale: None is K**-0.5.
      implementation: see `pallas_kernels`.

    Returns:
      (o [B, T, H, V] in the dtype of q, S_T [B, H, K, V] in float32).
    """
    sizes = dispatch.check_shapes(
        "gated_delta_rule",
        q=(q, "BTHK"),
        k=(k, "BTHK"),
        v=(v, "BTHV"),
        beta=(beta, "BTH"),
        log_decay=(log_decay, "BTH"),
        initial_state=(initial_state, "BHKV"),
    )
    scale = sizes["K"] ** -0.5 if scale is None else scale
    return _OPERATOR.run(implementation, q, k, v, beta, log_decay, initial_state, scale=scale)
