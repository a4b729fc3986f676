"""The input-dependent diagonal state space of Mamba."""

import jax

from pallas_kernels import dispatch
from pallas_kernels.selective_scan import jla, reference, xla

__all__ = ["selective_scan"]

_OPERATOR = dispatch.Operator(
    "selective_scan",
    {
        "xla": dispatch.Backend(xla.selective_scan),
        "reference": dispatch.Backend(reference.selective_scan),
        "pallas_tpu": dispatch.kernel("selective_scan", "tpu"),
        "pallas_gpu": dispatch.kernel("selective_scan", "gpu"),
        "jla": dispatch.Backend(
            jla.selective_scan, jla.obstacle, on_request=True, platform="gpu", is_kernel=True
        ),
    },
)


def selective_scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None = None,
    h0: jax.Array | None = None,
    *,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t, y_t = C_t·h_t + D u_t.

    Mamba (arXiv 2312.00752), eq. 2a and 2b; A is discretised by zero-order hold (eq. 4), B by its
    first-order term Δ_t B_t. Letters: B batch, T time, D width, N state size per channel.

    Args:
      u: [B, T, D], the input.
      delta: [B, T, D], the step sizes Δ, positive.
      A: [D, N], with negative real entries.
      B: [B, T, N], the input's weights in the state.
      C: [B, T, N], the state's weights in the output.
      D: [D], the skip connection, or None.
      h0: [B, D, N], the state before the first step, or None for zeros.
      implementation: see `pallas_kernels`.

    Returns:
      (y [B, T, D] in the dtype of u, h_T [B, D, N] in float32).
    """
    dispatch.check_shapes(
        "selective_scan",
        u=(u, "BTD"),
        delta=(delta, "BTD"),
        A=(A, "DN"),
        B=(B, "BTN"),
        C=(C, "BTN"),
        D=(D, "D"),
        h0=(h0, "BDN"),
    )
    return _OPERATOR.run(implementation, u, delta, A, B, C, D, h0)
