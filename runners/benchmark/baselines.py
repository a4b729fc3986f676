"""What a JAX user would write today in place of an operator.

Each takes the operator's arrays by name, and its options, and returns the same. Plain `lax.scan`
is missing here: it is every recurrence's "reference" implementation. `lax.associative_scan` runs
over materialised states, [B, T, D, N] or [B, T, H, K, V].
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Alternative = Callable[..., Any]


def _combine(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]) -> Any:
    """Composition of h ↦ a_l h + x_l, then h ↦ a_r h + x_r."""
    (a_l, x_l), (a_r, x_r) = left, right
    return a_l * a_r, a_r * x_l + x_r


def _in_float32(function: Alternative) -> Alternative:
    """Computes as the operators do: bfloat16 in and out, float32 between."""

    def call(**arrays: jax.Array) -> Any:
        wide = {n: a.astype(jnp.promote_types(a.dtype, jnp.float32)) for n, a in arrays.items()}
        result = function(**wide)
        dtype = min((a.dtype for a in arrays.values()), key=lambda dtype: dtype.itemsize)
        if isinstance(result, tuple):
            return (result[0].astype(dtype), *result[1:])
        return result.astype(dtype)

    return call


def _linear_scan(a: jax.Array, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = x.at[:, 0].add(a[:, 0] * h0)
    _, h = jax.lax.associative_scan(_combine, (a, x), axis=1)
    return h, h[:, -1]


def _selective_scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    decay = jnp.exp(delta[..., None] * A)  # [B, T, D, N]
    x = (delta * u)[..., None] * B[:, :, None, :]
    x = x.at[:, 0].add(decay[:, 0] * h0)
    _, h = jax.lax.associative_scan(_combine, (decay, x), axis=1)
    return jnp.einsum("btdn,btn->btd", h, C) + D * u, h[:, -1]


def _gated_linear_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array,
    initial_state: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    decay = jnp.broadcast_to(jnp.exp(log_decay)[..., None], (*k.shape, v.shape[-1]))
    x = k[..., :, None] * v[..., None, :]  # [B, T, H, K, V]
    x = x.at[:, 0].add(decay[:, 0] * initial_state)
    _, states = jax.lax.associative_scan(_combine, (decay, x), axis=1)
    return jnp.einsum("bthk,bthkv->bthv", q, states) * q.shape[-1] ** -0.5, states[:, -1]


def _long_convolution(u: jax.Array, kernel: jax.Array) -> jax.Array:
    length = u.shape[1]
    spectrum = jnp.fft.rfft(u, 2 * length, axis=1)
    spectrum = spectrum * jnp.fft.rfft(kernel, 2 * length).T
    return jnp.fft.irfft(spectrum, 2 * length, axis=1)[:, :length]


def _attention(q: jax.Array, k: jax.Array, v: jax.Array, *, mask: Any) -> jax.Array:
    positions = jnp.arange(q.shape[1])
    visible = mask.visible(positions[:, None], positions)
    return jax.nn.dot_product_attention(q, k, v, mask=visible[None, None])


ALTERNATIVES: Mapping[str, Mapping[str, Alternative]] = {
    "linear_scan": {"lax.associative_scan": _in_float32(_linear_scan)},
    "selective_scan": {"lax.associative_scan": _in_float32(_selective_scan)},
    "gated_linear_attention": {"lax.associative_scan": _in_float32(_gated_linear_attention)},
    "gated_delta_rule": {},
    "long_convolution": {"jnp.fft": _in_float32(_long_convolution)},
    "attention": {"dot_product_attention": _attention},
}
