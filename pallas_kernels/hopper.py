"""`jla`, a library of kernels for NVIDIA's Hopper GPUs, as the operators use it.

`jla` (PyPI jax-linear-attention, Apache-2.0) is optional and imported when one of its kernels is
asked for. Its kernels take heads of a few widths; zeros behind a head change nothing, because a
key channel of zeros is neither written nor read, and a value channel of zeros stays zero.
"""

import importlib.util
import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

KERNELS = "mosaic_gpu"  # jla's name for them: without a name it falls back to plain JAX unasked
JAX_VERSION = "0.11.2"  # jla 0.1.0 asks for exactly this one
HEADS = ((64, 64), (64, 128), (128, 64), (128, 128))  # (K, V) that all of its kernels take

# The kernels form decays as exp(G_i − G_j) from running sums G of log-decays, where −∞ − −∞ would
# be NaN. exp(−128) is exactly 0 in float32, whose least number is exp(−103.3); the other 25 are
# room for the rounding of G. jla resets at a document's first token by the same number.
_RESET = -128.0


def obstacle() -> str | None:
    """Why jla's kernels cannot run here, or None if they can."""
    device = jax.devices()[0]
    if getattr(device, "compute_capability", None) != "9.0":
        return f"it needs a Hopper GPU (compute capability 9.0), and this is {device.device_kind}"
    if importlib.util.find_spec("jla") is None:
        return "jla is not installed: pip install 'seqbench[hopper]' (Python 3.12 or newer)"
    if jax.__version__ != JAX_VERSION:
        return f"jla needs jax {JAX_VERSION} exactly, and this is jax {jax.__version__}"
    return None


def refused(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: Iterable[tuple[int, int]]
) -> str | None:
    """Why jla's kernels cannot take these heads, or None if they can.

    Args:
      q: [B, T, H, K].
      k: [B, T, H, K].
      v: [B, T, H, V].
      heads: the pairs (K, V) that the kernel takes.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dtype != jnp.bfloat16:
            return f"it takes bfloat16, and {name} is {x.dtype}"
    if _least(heads, q.shape[-1], v.shape[-1]) is None:
        return f"no kernel takes heads with K = {q.shape[-1]} and V = {v.shape[-1]}"
    return None


def linear_attention(
    kind: str,
    heads: Iterable[tuple[int, int]],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    initial_state: jax.Array | None,
    scale: float,
    **gates: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """jla's operator of that kind, on heads widened to the next width it takes.

    Args:
      kind: jla's name of the recurrence.
      heads: the pairs (K, V) that the kernel takes.
      q: [B, T, H, K].
      k: [B, T, H, K].
      v: [B, T, H, V].
      initial_state: [B, H, K, V] or None.
      scale: of the output.
      **gates: [B, T, H] or [B, T, H, K], by jla's names.
    """
    import jla.ops

    (batch, length, count, K), V = q.shape, v.shape[-1]
    wide_K, wide_V = _least(heads, K, V)
    keys, values = (batch, length, count, wide_K), (batch, length, count, wide_V)
    if initial_state is not None:
        initial_state = padded(initial_state, (batch, count, wide_K, wide_V))
    o, state = jla.ops.linear_attention(
        kind,
        padded(q, keys),
        padded(k, keys),
        padded(v, values),
        impl=KERNELS,
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
        **{name: padded(gate, keys) if gate.ndim == 4 else gate for name, gate in gates.items()},
    )
    return o[..., :V], state[..., :K, :V]


def finite(log_decay: jax.Array) -> jax.Array:
    """The log-decay without −∞: every decay that is 0 in float32 stays 0."""
    return jnp.maximum(log_decay.astype(jnp.float32), _RESET)


def padded(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Zeros behind every axis, up to `shape`."""
    return jnp.pad(x, [(0, new - old) for old, new in zip(x.shape, shape, strict=True)])


def _least(heads: Iterable[tuple[int, int]], K: int, V: int) -> tuple[int, int] | None:
    """The smallest pair that holds a head of widths K and V."""
    wide_enough = (pair for pair in heads if pair[0] >= K and pair[1] >= V)
    return min(wide_enough, key=math.prod, default=None)
