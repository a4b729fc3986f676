"""The diagonal linear recurrence of state spaces and gated recurrent networks."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.linear_scan import reference, xla

__all__ = ["linear_scan"]

_OPERATOR = dispatch.Operator(
    "linear_scan",
    {
        "xla": dispatch.Backend(xla.linear_scan),
        "reference": dispatch.Backend(reference.linear_scan),
        "pallas_tpu": dispatch.kernel("linear_scan", "tpu"),
        "pallas_gpu": dispatch.kernel("linear_scan", "gpu"),
    },
)


def linear_scan(
    a: jax.Array,
    x: jax.Array,
    h0: jax.Array | None = None,
    *,
    reverse: bool = False,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """h_t = a_t ⊙ h_{t−1} + x_t.

    The recurrence of Martin and Cundy (arXiv 1709.04057), with |a_t| ≤ 1; S4D, S5, the LRU, the
    RG-LRU and minGRU are of this form. With `reverse` it runs from the end: h_t = a_t ⊙ h_{t+1} +
    x_t. Each array may be real or complex; h0 may be complex only where a or x is. Letters: B
    batch, T time, D width.

    Args:
      a: [B, T, D], the decay; an exact zero forgets everything before.
      x: [B, T, D], the input.
      h0: [B, D], the state before the first step (with `reverse`, after the last), or None for
        zeros.
      reverse: from the end to the start.
      implementation: see `pallas_kernels`.

    Returns:
      (h [B, T, D] in the common dtype of a and x, h_last [B, D] in float32 or complex64: h_T, or
      h_1 with `reverse`).

    Raises:
      ValueError: shapes that do not fit, or a complex h0 with real a and x.
    """
    dispatch.check_shapes("linear_scan", a=(a, "BTD"), x=(x, "BTD"), h0=(h0, "BD"))
    dtype = dispatch.arithmetic_dtype(a, x, h0)
    if h0 is None:
        h0 = jnp.zeros(x.shape[::2], dtype)
    elif jnp.iscomplexobj(h0) and not (jnp.iscomplexobj(a) or jnp.iscomplexobj(x)):
        raise ValueError("linear_scan: h0 is complex, a and x are real: make x complex")
    return _OPERATOR.run(implementation, a, x, h0.astype(dtype), reverse=reverse)
