"""The gated delta rule by jla's kernels for Hopper GPUs."""

import jax

from pallas_kernels import hopper

_HEADS = (*hopper.HEADS, (128, 256), (256, 128), (256, 256), (256, 512))  # pairs (K, V)


def obstacle(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    initial_state: jax.Array | None,
    *,
    scale: float,
) -> str | None:
    """Why jla cannot run this call, or None if it can."""
    del beta, log_decay, initial_state, scale
    return hopper.obstacle() or hopper.refused(q, k, v, _HEADS)


def gated_delta_rule(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    initial_state: jax.Array | None,
    *,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.gated_delta_rule`.

    The kernels invert I + β K Kᵀ of a chunk without its decays and multiply the inverse by them
    afterwards: keys so long that the rule without decay diverges overflow, however strong it is.
    """
    gates = {} if log_decay is None else {"g": hopper.finite(log_decay)}
    return hopper.linear_attention(
        "deltanet" if log_decay is None else "gated_deltanet",
        _HEADS,
        q,
        k,
        v,
        beta=beta,
        initial_state=initial_state,
        scale=scale,
        **gates,
    )
