"""Bidirectional long convolutions, over rows that may end in padding.

Letters: B batch, T time, D width.
"""

import jax
import jax.numpy as jnp

from arch.interface import Context
from arch.nn.documents import one_document
from pallas_kernels.long_convolution import fast_length, long_convolution


def two_sided_convolution(u: jax.Array, kernels: jax.Array) -> jax.Array:
    """y_t = Σ_{j ≥ 0} K_j ⊙ u_{t−j} + Σ_{j ≥ 0} K′_j ⊙ u_{t+j}, as one convolution.

    The convolution is circular, of 2T − 1 taps or more, with K′_j at −j: it costs as much as a
    causal convolution by FFT. Both sums include the present, as in S5 (arXiv 2208.04933) and in the
    sum of a causal mixer and one that runs backwards; in the authors' code for S4, K′_j multiplies
    u_{t+1+j}.

    Args:
      u: [B, T, D].
      kernels: K and K′, [2, D, T].

    Returns:
      [B, T, D].
    """
    ahead, behind = kernels
    taps = 2 * u.shape[1] - 1
    nothing = fast_length(taps) - taps
    around = jnp.concatenate(
        [
            ahead[:, :1] + behind[:, :1],
            ahead[:, 1:],
            jnp.zeros((len(ahead), nothing)),  # distances of T and more
            behind[:, :0:-1],
        ],
        axis=1,
    )
    return long_convolution(u, around, causal=False)


def without_padding(x: jax.Array, context: Context | None) -> jax.Array:
    """Return x with zeros where segment ids are 0, so that a convolution sees nothing there.

    A row that is not one document followed by padding becomes NaN.

    x: [B, T, D].
    """
    if context is None or context.segment_ids is None:
        return x
    ids = context.segment_ids
    x = jnp.where((ids != 0)[..., None], x, 0)
    return jnp.where(one_document(ids)[:, None, None], x, jnp.nan)
