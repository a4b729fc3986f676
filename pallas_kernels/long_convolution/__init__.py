"""Convolution along time with a filter as long as the sequence."""

import jax

from pallas_kernels import dispatch
from pallas_kernels.long_convolution import reference, xla
from pallas_kernels.long_convolution.xla import fast_length

__all__ = ["fast_length", "long_convolution"]

_OPERATOR = dispatch.Operator(
    "long_convolution",
    {
        "xla": dispatch.Backend(xla.long_convolution),
        "reference": dispatch.Backend(reference.long_convolution),
    },
)


def long_convolution(
    u: jax.Array, kernel: jax.Array, *, causal: bool = True, implementation: str | None = None
) -> jax.Array:
    """y_t = Σ_{j ≤ t} kernel_j ⊙ u_{t−j}, or the circular convolution of length L >= T.

    Letters: B batch, T time, D width, L taps.

    Args:
      u: [B, T, D].
      kernel: [D, L], or [B, D, L] for a kernel that depends on the input. If causal, L may be
        anything: missing taps are zero, and only the first T matter.
      causal: False wraps around, y_t = Σ_j kernel_j ⊙ u_{(t−j) mod L}, and needs L >= T; from T on
        u is zero. With L = T that is a circle; with L >= 2T − 1 it is a convolution that sees both
        ways, in which tap L − j meets u_{t+j}.
      implementation: see `pallas_kernels`.

    Returns:
      [B, T, D] in the dtype of u.
    """
    letters = "DL" if len(kernel.shape) == 2 else "BDL"
    sizes = dispatch.check_shapes("long_convolution", u=(u, "BTD"), kernel=(kernel, letters))
    if not causal and sizes["L"] < sizes["T"]:
        raise ValueError(
            f"long_convolution: a circular convolution of length T={sizes['T']} needs a kernel "
            f"with at least as many taps, not L={sizes['L']}; pad the kernel"
        )
    if causal:
        kernel = kernel[..., : sizes["T"]]
    return _OPERATOR.run(implementation, u, kernel, causal=causal)
