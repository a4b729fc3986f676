"""The selective scan by jla's kernels for Hopper GPUs."""

import jax
import jax.numpy as jnp

from pallas_kernels import hopper

_STATES = (4, 8, 16, 32)  # state sizes that the kernels take
_CHANNELS = 128  # of one program: D must be a multiple
_STEPS = 32  # of one tile: T must be a multiple


def obstacle(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    h0: jax.Array | None,
) -> str | None:
    """Why jla cannot run this call, or None if it can."""
    del B, C, D, h0
    return hopper.obstacle() or _refused(u, delta, A)


def _refused(u: jax.Array, delta: jax.Array, A: jax.Array) -> str | None:
    for name, x in (("u", u), ("delta", delta)):
        if x.dtype not in (jnp.bfloat16, jnp.float32):
            return f"it takes bfloat16 or float32, and {name} is {x.dtype}"
    if A.shape[1] > max(_STATES):
        return f"it takes a state of at most {max(_STATES)} per channel, and N = {A.shape[1]}"
    return None


def selective_scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    h0: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.selective_scan`.

    Zeros pad all sizes: a step of Δ = 0 keeps the state, and what is padded to it stays zero.
    """
    import jla.ops

    (batch, length, width), size = u.shape, A.shape[1]
    T, W = length + -length % _STEPS, width + -width % _CHANNELS
    N = min(n for n in _STATES if n >= size)
    dtype = jnp.promote_types(u.dtype, delta.dtype)  # the kernels want one for both
    y, h_last = jla.ops.linear_attention(
        "mamba1",
        hopper.padded(C, (batch, T, N)),
        hopper.padded(B, (batch, T, N)),
        hopper.padded(u.astype(dtype), (batch, T, W)),
        impl=hopper.KERNELS,
        dt=hopper.padded(delta.astype(dtype), (batch, T, W)),
        a=hopper.padded(A, (W, N)),
        d=None if D is None else hopper.padded(D, (W,)),
        initial_state=None if h0 is None else hopper.padded(h0, (batch, W, N)),
        output_final_state=True,
    )
    return y[:, :length, :width].astype(u.dtype), h_last[:, :width, :size]
